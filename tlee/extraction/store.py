"""Extraction of a data set to the frame store (``tlee.frame_format``), resumable after an interruption."""

import hashlib
import json
import os
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import joblib
import pandas as pd
import PIL
from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from tlee.datasets import Dataset
from tlee.errors import UserError
from tlee.extraction.decoding import decode, to_jpeg
from tlee.extraction.journal import Journal, Record, fingerprint
from tlee.extraction.sampling import Sampling
from tlee.extraction.workers import end_with
from tlee.frame_format import VideoRow, open_writer
from tlee.params import ExtractParams
from tlee.paths import FAILED_VIDEOS, RUNS, SPLITS
from tlee.records import save_metrics
from tlee.resumption import finish, reopen


@dataclass(frozen=True)
class Extraction:
    """Result of an extraction: the manifest of the stored videos, and the failed videos with reasons."""

    stored: pd.DataFrame
    failed: pd.DataFrame

    def metrics(self) -> dict[str, float]:
        """Return the number of stored videos of each split, and their share of all videos."""
        total = len(self.stored) + len(self.failed)
        counts = self.stored["split"].value_counts()
        return {split: int(counts.get(split, 0)) for split in SPLITS} | {"share_read": len(self.stored) / total}

    def write(self) -> None:
        """Write metrics."""
        save_metrics("extract", self.metrics())


def extract(dataset: Dataset, params: ExtractParams, folder: Path) -> Extraction:
    """Write ``folder/{train,val,test}.arrow`` and list the unreadable videos in ``results/failed_videos.csv``.

    Every video that has been read is recorded in a journal below ``runs/``. After an interruption, the next extraction
    of the same videos with the same parameters resumes from the journal and writes the same bytes; a file that has
    changed since is read again. The journal is kept until DVC has recorded the stage.

    A few failures are listed and skipped. Raises ``UserError`` if more than ``params.max_failed_share`` of the videos
    fail, or a split is left empty.
    """
    with Journal(reopen(_journal_file(dataset, params))) as journal:
        _read_videos(dataset, params, journal)
        extraction = _write_store(dataset, params, journal, folder)
    _check(extraction, dataset, params.max_failed_share)
    finish(journal.path)
    return extraction


def _journal_file(dataset: Dataset, params: ExtractParams) -> Path:
    """Return the path of the journal: a hash of all that decides the frames (videos, parameters, code, codecs)."""
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
    """Read the videos that the journal lacks, in parallel; each result is recorded as it arrives."""
    rows = list(dataset.manifest.itertuples())
    pending = [
        row for row, video in enumerate(rows) if journal.sources.get(row) != fingerprint(dataset.videos / video.video)
    ]
    tasks = (
        joblib.delayed(_read_video)(row, dataset.videos / rows[row].video, rows[row].start, rows[row].end, params)
        for row in pending
    )
    progress = tqdm(
        desc="extract",
        total=len(rows),
        initial=len(rows) - len(pending),
        file=sys.stdout,
        mininterval=5,
        unit="video",
    )
    parallel = joblib.Parallel(
        params.jobs, return_as="generator_unordered", initializer=end_with, initargs=[os.getpid()]
    )
    results: Generator[Record, None, None] = parallel(tasks)
    workers_may_finish = False
    try:
        with progress, closing(results):
            for record in results:
                journal.append(record)
                progress.update()
        workers_may_finish = True
    finally:  # joblib keeps its worker processes otherwise
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
    folder.mkdir(parents=True, exist_ok=True)
    stored, failed = [], []
    for split in SPLITS:
        with open_writer(folder / f"{split}.arrow", dataset.classes, params.clip_frames) as write:
            for row, video in enumerate(dataset.manifest.itertuples()):
                if video.split != split:
                    continue
                record = journal.read(row)
                if record.reason:
                    failed.append((video.video, split, record.reason))
                    continue
                write(VideoRow(video.video, video.labels, video.group, record.indices, record.frames))
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
