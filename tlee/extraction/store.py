"""The frame store: one Arrow IPC file a split.

One row a video: its manifest columns and the JPEG bytes of its frames, those of a time step together, the
time steps in temporal order. The schema's metadata names the ``classes``, a line each, and says in
``clip_frames`` how many frames a time step has.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import joblib
import pandas as pd
import PIL
import pyarrow as pa
from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from tlee.datasets import Dataset
from tlee.errors import UserError
from tlee.extraction.decoding import decode, to_jpeg
from tlee.extraction.journal import Journal, Record, fingerprint
from tlee.extraction.sampling import Sampling
from tlee.params import ExtractParams
from tlee.paths import FAILED_VIDEOS, RUNS, SPLITS

_SCHEMA = pa.schema(
    {
        "video": pa.string(),
        "labels": pa.list_(pa.int32()),
        "group": pa.string(),
        "indices": pa.list_(pa.int32()),
        "frames": pa.list_(pa.binary()),
    }
)


@dataclass(frozen=True)
class Extraction:
    """What became of the videos: the manifest of those in the store, and the failed with reasons."""

    stored: pd.DataFrame
    failed: pd.DataFrame

    def metrics(self) -> dict[str, float]:
        """Videos stored in each split, and the share of all videos that they are."""
        total = len(self.stored) + len(self.failed)
        counts = self.stored["split"].value_counts()
        return {split: int(counts.get(split, 0)) for split in SPLITS} | {"share_read": len(self.stored) / total}


def extract(dataset: Dataset, params: ExtractParams, folder: Path) -> Extraction:
    """Write ``folder/{train,val,test}.arrow`` and, in ``results/failed_videos.csv``, what could not be read.

    Every video that is done is noted in a file below ``runs/``. If extraction stops, the next one with the
    same videos and parameters goes on from there and ends with the same bytes; a file that has changed
    meanwhile is read anew. At the end the notes are removed.

    A few failures are listed and skipped. Raises ``UserError`` where more than
    ``params.max_failed_share`` of the videos fail, or a split is left empty.
    """
    with Journal(_journal_file(dataset, params)) as journal:
        _read_videos(dataset, params, journal)
        extraction = _write_store(dataset, params, journal, folder)
    _check(extraction, dataset, params.max_failed_share)
    journal.path.unlink()
    return extraction


def _journal_file(dataset: Dataset, params: ExtractParams) -> Path:
    """Named by all that decides what is read: videos, parameters, code and codecs."""
    settings = params.model_dump(exclude={"max_failed_share", "jobs"}) | {
        "videos": str(dataset.videos.resolve()),
        "versions": [av.__version__, av.library_versions, PIL.__version__],
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(dataset.manifest[["video", "start", "end"]].to_csv(index=False).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return RUNS / f"extract-{digest.hexdigest()[:16]}.arrow"


def _read_videos(dataset: Dataset, params: ExtractParams, journal: Journal) -> None:
    """Bring the journal up to date, with all cores; results are kept as they come."""
    rows = list(dataset.manifest.itertuples())
    to_do = [
        row for row, video in enumerate(rows) if journal.sources.get(row) != fingerprint(dataset.videos / video.video)
    ]
    jobs = (
        joblib.delayed(_read_video)(row, dataset.videos / rows[row].video, rows[row].start, rows[row].end, params)
        for row in to_do
    )
    progress = tqdm(
        desc="extract",
        total=len(rows),
        initial=len(rows) - len(to_do),
        file=sys.stdout,
        mininterval=5,
        unit="video",
    )
    results: Iterator[Record] = joblib.Parallel(n_jobs=params.jobs, return_as="generator_unordered")(jobs)
    workers_may_finish = False
    try:
        with progress, closing(results):
            for record in results:
                journal.append(record)
                progress.update()
        workers_may_finish = True
    finally:  # joblib's processes would outlive the work
        get_reusable_executor().shutdown(kill_workers=not workers_may_finish)


def _read_video(row: int, path: Path, start: float, end: float, params: ExtractParams) -> Record:
    source = fingerprint(path)
    try:
        indices, jpegs = decode(
            path,
            Sampling.of(params),
            start,
            end,
            lambda image: to_jpeg(image, params.short_side, params.jpeg_quality),
        )
    except ValueError as error:
        return Record(row, source, str(error), [], [])
    return Record(row, source, "", indices, jpegs)


def _write_store(dataset: Dataset, params: ExtractParams, journal: Journal, folder: Path) -> Extraction:
    metadata = {"classes": "\n".join(dataset.classes), "clip_frames": str(params.clip_frames)}
    folder.mkdir(parents=True, exist_ok=True)
    stored, failed = [], []
    for split in SPLITS:
        with (
            pa.OSFile(str(folder / f"{split}.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, _SCHEMA.with_metadata(metadata)) as file,
        ):
            for row, video in enumerate(dataset.manifest.itertuples()):
                if video.split != split:
                    continue
                record = journal.read(row)
                if record.reason:
                    failed.append((video.video, split, record.reason))
                    continue
                values = {"video": video.video, "labels": video.labels, "group": video.group}
                values |= {"indices": record.indices, "frames": record.frames}
                file.write_batch(pa.RecordBatch.from_pylist([values], _SCHEMA))
                stored.append(row)
    return Extraction(dataset.manifest.iloc[stored], pd.DataFrame(failed, columns=["video", "split", "reason"]))


def _check(extraction: Extraction, dataset: Dataset, max_failed_share: float) -> None:
    failed, total = extraction.failed, len(dataset.manifest)
    FAILED_VIDEOS.parent.mkdir(parents=True, exist_ok=True)
    failed.to_csv(FAILED_VIDEOS, index=False)
    if len(failed) > max_failed_share * total:
        first = failed.iloc[0]
        raise UserError(
            f"{len(failed)} of {total} videos cannot be read, more than extract.max_failed_share allows; "
            f"the first is {dataset.videos / first.video}: {first.reason}. {FAILED_VIDEOS} lists them: restore "
            "them or raise the limit"
        )
    empty = [split for split in SPLITS if split not in set(extraction.stored["split"])]
    if empty:
        raise UserError(f"no readable video is left in: {', '.join(empty)}. Check the list files of the data set")
