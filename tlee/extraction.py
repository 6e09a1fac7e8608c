"""Videos to the frame store: one Arrow IPC file a split.

One row a video: its manifest columns and the JPEG bytes of its ``T`` frames in temporal order.
"""

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
from joblib.externals.loky import get_reusable_executor
from PIL import Image
from tqdm import tqdm

from tlee.datasets import Dataset
from tlee.errors import UserError
from tlee.params import ExtractParams
from tlee.paths import FAILED_VIDEOS, SPLITS

_SCHEMA = pa.schema(
    {
        "video": pa.string(),
        "labels": pa.list_(pa.int32()),
        "group": pa.string(),
        "indices": pa.list_(pa.int32()),
        "frames": pa.list_(pa.binary()),
    }
)


def sample_indices(length: int, frames: int) -> list[int]:
    """Indices of ``frames`` uniformly spaced frames of a video with ``length`` frames.

    ``clip(linspace(0, L, T), 0, L - 1)``, as both papers sample.
    """
    return np.clip(np.linspace(0, length, frames), 0, length - 1).astype(int).tolist()


def decode(path: Path, frames: int) -> tuple[list[int], list[Image.Image]]:
    """Decode ``frames`` uniformly sampled frames: their indices and RGB images.

    Raises ``ValueError`` with the reason where the file is missing, unreadable or has no picture.
    """
    if not path.is_file():
        raise ValueError("the file does not exist")
    try:
        length = _count_packets(path)
        indices = sample_indices(length, frames)
        pictures, decoded = _pick(path, indices)
        if decoded < length:  # the end of the file is damaged, or packets are not frames
            indices = sample_indices(decoded, frames)
            pictures, _ = _pick(path, indices)
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"it cannot be decoded ({error.strerror or error})") from None
    return indices, pictures


def _count_packets(path: Path) -> int:
    with av.open(str(path), metadata_errors="ignore") as container:
        if not container.streams.video:
            raise ValueError("it holds no video stream")
        return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))


def _pick(path: Path, indices: list[int]) -> tuple[list[Image.Image], int]:
    """Decode the video: the pictures at ``indices``, and how many frames could be decoded."""
    wanted, found, decoded = set(indices), {}, 0
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"  # threads over frames would lose those around a damaged one
        for decoded, frame in enumerate(_frames(container, stream), start=1):
            if decoded - 1 in wanted:
                found[decoded - 1] = frame.to_image()
    if not decoded:
        raise ValueError("it holds no frame that can be decoded")
    return [found[index] for index in indices if index in found], decoded


def _frames(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """All frames but those of damaged packets."""
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            continue


def to_jpeg(image: Image.Image, short_side: int, quality: int) -> bytes:
    """Resize so that the short side has ``short_side`` pixels, keeping the shape, and compress."""
    scale = short_side / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


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

    A few failures are listed and skipped. Raises ``UserError`` where more than
    ``params.max_failed_share`` of the videos fail, or a split is left empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored, failed = [], []
    for split in SPLITS:
        rows = dataset.manifest[dataset.manifest["split"] == split]
        jobs = (joblib.delayed(_extract_video)(dataset.videos / video, params) for video in rows["video"])
        results = joblib.Parallel(n_jobs=params.jobs, return_as="generator")(jobs)
        progress = tqdm(
            zip(rows.itertuples(), results, strict=True), split, len(rows), file=sys.stdout, mininterval=5, unit="video"
        )
        with (
            pa.OSFile(str(folder / f"{split}.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, _schema(dataset)) as file,
        ):
            for row, (indices, jpegs, reason) in progress:
                if reason:
                    failed.append((row.video, split, reason))
                    continue
                values = {"video": row.video, "labels": row.labels, "group": row.group}
                file.write_batch(pa.RecordBatch.from_pylist([values | {"indices": indices, "frames": jpegs}], _SCHEMA))
                stored.append(row.Index)
    get_reusable_executor().shutdown()  # joblib's; its processes would outlive the work
    extraction = Extraction(dataset.manifest.loc[stored], pd.DataFrame(failed, columns=["video", "split", "reason"]))
    _check(extraction, dataset, params.max_failed_share)
    return extraction


def _extract_video(path: Path, params: ExtractParams) -> tuple[list[int], list[bytes], str]:
    try:
        indices, pictures = decode(path, params.frames)
    except ValueError as error:
        return [], [], str(error)
    return indices, [to_jpeg(picture, params.short_side, params.jpeg_quality) for picture in pictures], ""


def _schema(dataset: Dataset) -> pa.Schema:
    return _SCHEMA.with_metadata({"classes": "\n".join(dataset.classes)})


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
