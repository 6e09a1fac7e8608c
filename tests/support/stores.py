"""Frame stores that tests make, as the store's own module describes them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from support.small import T

from tlee.extraction import to_jpeg

SCHEMA = pa.schema(
    {"video": pa.string(), "labels": pa.list_(pa.int32()), "group": pa.string(), "frames": pa.list_(pa.binary())}
)

Draw = Callable[[int, int], Image.Image]  #: row of a video and position of a frame to the frame


def write_store(
    path: Path, labels: Sequence[int | list[int]], frames: int, draw: Draw, classes: str, clip_frames: int = 1
) -> Path:
    """``frames`` pictures of a video in all, whose classes are ``labels``: one, or a list of several."""
    rows = [
        {
            "video": f"{row}.mp4",
            "labels": label if isinstance(label, list) else [label],
            "group": f"g{row}",
            "frames": [to_jpeg(draw(row, index), short_side=72, quality=95) for index in range(frames)],
        }
        for row, label in enumerate(labels)
    ]
    schema = SCHEMA.with_metadata({"classes": classes, "clip_frames": str(clip_frames)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        file.write_table(pa.Table.from_pylist(rows, schema))
    return path


def grey(level: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    return Image.new("RGB", size, (level,) * 3)


def noisy(channel: int, seed: int, side: int = 24) -> Image.Image:
    """A picture that is bright in one of its three channels: three classes that are soon learnt."""
    picture = np.random.default_rng(seed).integers(0, 120, (side, side, 3))
    picture[:, :, channel] += 100
    return Image.fromarray(picture.astype(np.uint8))


def write_small_stores(labels: list, clip_frames: int = 1) -> None:
    """Frames of every split, below ``results`` of the working folder, in which a row's class is its colour."""
    for seed, split in enumerate(("train", "val", "test")):
        write_store(
            Path("results") / "frames" / f"{split}.arrow",
            labels,
            T * clip_frames,
            lambda row, t, seed=seed: noisy(row % 3, seed=1000 * seed + 10 * row + t),
            "red\ngreen\nblue",
            clip_frames,
        )
