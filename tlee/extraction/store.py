"""Extraction of a data set to the frame store (``tlee.frame_format``), resumable after an interruption."""

import hashlib
import json
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pandas as pd
import PIL
from tqdm import tqdm

from tlee.datasets import Dataset
from tlee.datasets.manifest import Video
from tlee.errors import UserError
from tlee.extraction.decoding import decode, to_jpeg
from tlee.extraction.fingerprints import fingerprint
from tlee.extraction.parts import Part, Record, find_parts, write_part
from tlee.extraction.sampling import Sampling
from tlee.extraction.shards import Shard, divide, make_shards
from tlee.extraction.space import Space
from tlee.extraction.workers import open_workers
from tlee.frame_format import VideoRow, shard_file, write_index
from tlee.params import ExtractParams
from tlee.paths import FAILED_VIDEOS, RUNS, SPLITS
from tlee.records import save_metrics
from tlee.resumption import finish, reopen

_TASKS_PER_WORKER = 8  # at least; a task is at most a shard


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


def extract(dataset: Dataset, params: ExtractParams, folder: Path, jobs: int | str = 1) -> Extraction:
    """Write ``folder/{train,val,test}`` and list the unreadable videos in ``results/failed_videos.csv``.

    The videos are read by ``jobs`` workers (see ``open_workers``), which write whole shards, or parts of them if there
    are few, below ``runs/``. After an interruption, the next extraction of the same videos with the same parameters
    reads only those that no part has, or whose files have changed since, and stores the same bytes. In the end, shards
    are linked to ``folder``, so that they are on disk once; ``runs/`` has them until DVC has recorded the stage.

    A few failures are listed and skipped. Raises ``UserError`` if more than ``params.max_failed_share`` of the videos
    fail, a split is left empty, or the disk is too small.
    """
    scratch = reopen(_scratch_folder(dataset, params).absolute())
    scratch.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    frames = params.frames * params.clip_frames
    shards = [shard for split in SPLITS for shard in make_shards(dataset.manifest, split, frames)]
    _read_videos(dataset, params, shards, scratch, jobs)
    extraction = _collect(dataset, shards)
    _check(extraction, dataset, params.max_failed_share)
    _write_store(dataset, params, shards, folder)
    finish(scratch)
    return extraction


def _scratch_folder(dataset: Dataset, params: ExtractParams) -> Path:
    """Return the folder of the parts: a hash of all that decides the store (videos, parameters, code, codecs)."""
    settings = params.model_dump(exclude={"max_failed_share"}) | {
        "videos": str(dataset.videos.resolve()),
        "classes": dataset.classes,
        "versions": [av.__version__, av.library_versions, PIL.__version__],
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(dataset.manifest[list(Video._fields)].to_csv(index=False).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return RUNS / f"extract-{digest.hexdigest()[:16]}"


def _read_videos(dataset: Dataset, params: ExtractParams, shards: list[Shard], scratch: Path, jobs: int | str) -> None:
    """Read the videos that no part has, in parallel; a shard is joined when the last of its parts has arrived."""
    by_name, earlier = {shard.name: shard for shard in shards}, find_parts(scratch)
    for shard in shards:
        shard.resume(earlier.get(shard.name, []), dataset.manifest, dataset.videos)
        if not shard.missing:
            shard.join(scratch, dataset.classes, params.clip_frames)
    pending = sum(len(shard.missing) for shard in shards)
    total, folder = len(dataset.manifest), dataset.videos.absolute()  # workers may have another working folder
    if not pending:
        return
    with (
        open_workers(jobs) as workers,
        tqdm(desc="extract", total=total, initial=total - pending, file=sys.stdout, mininterval=5, unit="video") as bar,
    ):
        size, space = math.ceil(pending / (_TASKS_PER_WORKER * workers.count)), Space(scratch, pending)
        tasks = (
            (shard.name, shard.videos(dataset.manifest, positions), folder, dataset.classes, params, scratch)
            for shard in shards
            if shard.missing
            for positions in divide(shard.missing, size)
        )
        for name, path in workers.run(_read_part, tasks):
            part, shard = Part(path), by_name[name]
            shard.add(part)
            bar.update(len(part.rows))
            space.check(part.size, len(part.rows))
            if not shard.missing:
                shard.join(scratch, dataset.classes, params.clip_frames)


def _read_part(
    shard: str, videos: list[tuple[int, Video]], folder: Path, classes: list[str], params: ExtractParams, scratch: Path
) -> tuple[str, Path]:
    """Read some videos of a shard in a worker; return its name and the part with them."""
    records = (_read_video(position, video, folder / video.video, params) for position, video in videos)
    return shard, write_part(scratch, shard, records, classes, params.clip_frames)


def _read_video(position: int, video: Video, path: Path, params: ExtractParams) -> Record:
    source, reason = fingerprint(path), ""
    indices: list[int] = []
    jpegs: list[bytes] = []
    try:
        indices, jpegs = decode(
            path,
            Sampling.of(params),
            video.start,
            video.end,
            lambda image: to_jpeg(image, params.short_side, params.jpeg_quality),
        )
    except ValueError as error:
        reason = str(error)
    row = VideoRow(video.video, list(video.labels), video.group, indices, jpegs)
    return Record(position, source, reason, row.to_batch())


def _collect(dataset: Dataset, shards: list[Shard]) -> Extraction:
    stored = [shard.stored_rows() for shard in shards]
    failed = [shard.failed().assign(split=shard.split) for shard in shards]
    columns = ["video", "split", "reason"]
    return Extraction(
        dataset.manifest.iloc[np.concatenate(stored)],
        pd.concat(failed, ignore_index=True).reindex(columns=columns),
    )


def _write_store(dataset: Dataset, params: ExtractParams, shards: list[Shard], folder: Path) -> None:
    for split in SPLITS:
        target, own = folder / split, [shard for shard in shards if shard.split == split]
        target.mkdir(parents=True)
        for shard in own:
            shard.store(shard_file(target, shard.number))
        write_index(target, dataset.classes, params.clip_frames, [shard.stored() for shard in own])


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
