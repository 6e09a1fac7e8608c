"""Frame stores written by tests, in the format of the kit."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from support.small import T

from tlee.extraction import to_jpeg
from tlee.frame_format import ABOUT, PLACE, VideoRow, open_shard, shard_file, write_index

Draw = Callable[[int, int], Image.Image]  #: image of a frame, by row of the video and position of the frame


def write_rows(folder: Path, rows: Sequence[VideoRow], classes: list[str], clip_frames: int = 1, size: int = 2) -> Path:
    """Write a split in shards of ``size`` videos."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for number, start in enumerate(range(0, len(rows), size)):
        with open_shard(shard_file(folder, number), classes, clip_frames) as write:
            batches = [row.to_batch() for row in rows[start : start + size]]
            places = [write(batch)._asdict() for batch in batches]
        about = [batch.select(list(ABOUT)).to_pylist()[0] for batch in batches]
        entries = [video | place for video, place in zip(about, places, strict=True)]
        shards.append(pa.RecordBatch.from_pylist(entries, pa.schema(ABOUT | PLACE)))
    write_index(folder, classes, clip_frames, shards)
    return folder


def write_store(
    folder: Path, labels: Sequence[int | list[int]], frames: int, draw: Draw, classes: str, clip_frames: int = 1
) -> Path:
    """Write ``frames`` images per video, one video per element of ``labels``: its class, or the list of its classes."""
    rows = [
        VideoRow(
            f"{row}.mp4",
            label if isinstance(label, list) else [label],
            f"g{row}",
            list(range(frames)),
            [to_jpeg(draw(row, index), short_side=72, quality=95) for index in range(frames)],
        )
        for row, label in enumerate(labels)
    ]
    return write_rows(folder, rows, classes.split("\n"), clip_frames)


def grey(level: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    return Image.new("RGB", size, (level,) * 3)


def noisy(channel: int, seed: int, side: int = 24) -> Image.Image:
    """Return noise that is bright in one of its three channels: three classes that are learned quickly."""
    noise = np.random.default_rng(seed).integers(0, 120, (side, side, 3))
    noise[:, :, channel] += 100
    return Image.fromarray(noise.astype(np.uint8))


def write_small_stores(labels: list, clip_frames: int = 1) -> None:
    """Write frames of every split below ``results`` of the working folder; the class of a row is its colour."""
    for seed, split in enumerate(("train", "val", "test")):
        write_store(
            Path("results") / "frames" / split,
            labels,
            T * clip_frames,
            lambda row, t, seed=seed: noisy(row % 3, seed=1000 * seed + 10 * row + t),
            "red\ngreen\nblue",
            clip_frames,
        )
