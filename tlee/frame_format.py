"""File format of the frame store: one Arrow IPC file per split, one row per video.

A row has the manifest columns of the video, the indices of its sampled frames and their JPEG bytes: time steps in
temporal order, the frames of a time step together. The schema's metadata has the ``classes``, one per line, and
``clip_frames``, the number of frames per time step.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from tlee.errors import UserError

_SCHEMA = pa.schema(
    {
        "video": pa.string(),
        "labels": pa.list_(pa.int32()),
        "group": pa.string(),
        "indices": pa.list_(pa.int32()),
        "frames": pa.list_(pa.binary()),
    }
)


class VideoRow(NamedTuple):
    """Row of a store: a video and its ``frames`` (JPEG), the ones at ``indices`` of its file."""

    video: str
    labels: list[int]
    group: str
    indices: list[int]
    frames: list[bytes]


@dataclass(frozen=True)
class StoredSplit:
    """Columns and metadata of one file; ``frames`` is memory-mapped, a list of JPEGs per video."""

    videos: list[str]
    labels: list[list[int]]
    groups: list[str]
    frames: pa.ChunkedArray
    classes: list[str]
    clip_frames: int


@contextmanager
def open_writer(path: Path, classes: Sequence[str], clip_frames: int) -> Iterator[Callable[[VideoRow], None]]:
    """Create a file and yield the function that appends a row to it."""
    metadata = {"classes": "\n".join(classes), "clip_frames": str(clip_frames)}
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA.with_metadata(metadata)) as file,
    ):
        yield lambda row: file.write_batch(pa.RecordBatch.from_pylist([row._asdict()], _SCHEMA))


def read_split(path: str | Path) -> StoredSplit:
    """Open a file without reading its frames. Raises ``UserError`` if it is missing or damaged."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        metadata = table.schema.metadata
        return StoredSplit(
            videos=table["video"].to_pylist(),
            labels=table["labels"].to_pylist(),
            groups=table["group"].to_pylist(),
            frames=table["frames"],
            classes=metadata[b"classes"].decode().split("\n"),
            clip_frames=int(metadata[b"clip_frames"]),
        )
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
        raise UserError(f"{path} is missing or damaged: run `dvc repro extract`") from None
