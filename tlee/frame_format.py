"""File format of the frame store: one Arrow IPC file per split, one record batch per video, and an index beside it.

A row has the manifest columns of the video, the indices of its sampled frames and their JPEG bytes: time steps in
temporal order, the frames of a time step together. The schema's metadata has the ``classes``, one per line, and
``clip_frames``, the number of frames per time step.

Arrow trusts the offsets in a file. So the index, ``<split>.json``, repeats the small columns and the metadata, and has
the place and the checksum of each batch. A batch is checked before Arrow reads it; nothing else of the file is read.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from tlee.checksums import crc32, read_sealed, save_sealed
from tlee.errors import UserError

_REMEDY = "run `dvc repro extract`"

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


class StoredSplit:
    """Columns and metadata of one file, whose frames are memory-mapped.

    Raises ``UserError`` if the file or its index is missing or damaged; damaged frames are detected when they are read.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            index = read_sealed(_index_file(self.path))
            self.videos: list[str] = index["videos"]
            self.labels: list[list[int]] = index["labels"]
            self.groups: list[str] = index["groups"]
            self.classes: list[str] = index["classes"]
            self.clip_frames: int = index["clip_frames"]
            self.num_frames: int = index["num_frames"]
            self._batches: list[tuple[int, int, int]] = index["batches"]
            self._content = pa.memory_map(str(path)).read_buffer()
        except (OSError, KeyError, ValueError):
            raise self._damaged() from None
        if self._content.size != index["size"]:
            raise self._damaged()

    def frames(self, row: int) -> pa.ListScalar:
        """Return the JPEGs of a video. Raises ``UserError`` if they are damaged."""
        offset, size, checksum = self._batches[row]
        batch = self._content.slice(offset, size)
        if crc32(batch) != checksum:
            raise self._damaged()
        return pa.ipc.read_record_batch(batch, _SCHEMA)["frames"][0]

    def _damaged(self) -> UserError:
        return UserError(f"{self.path} or its index {_index_file(self.path).name} is missing or damaged: {_REMEDY}")


@contextmanager
def open_writer(path: Path, classes: Sequence[str], clip_frames: int) -> Iterator[Callable[[VideoRow], None]]:
    """Create a file and yield the function that appends a row to it; the index is written at the end."""
    metadata = {"classes": "\n".join(classes), "clip_frames": str(clip_frames)}
    rows: list[tuple[str, list[int], str]] = []
    batches: list[tuple[int, int, int]] = []
    num_frames = 0
    _index_file(path).unlink(missing_ok=True)
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA.with_metadata(metadata)) as file,
    ):

        def write(row: VideoRow) -> None:
            nonlocal num_frames
            batch = pa.RecordBatch.from_pylist([row._asdict()], _SCHEMA)
            file.write_batch(batch)
            content = batch.serialize()  # as it is in the file
            batches.append((sink.tell() - content.size, content.size, crc32(content)))
            rows.append(row[:3])
            num_frames = num_frames or len(row.frames)

        yield write
    index: dict[str, Any] = {
        "classes": list(classes),
        "clip_frames": clip_frames,
        "num_frames": num_frames,
        "size": path.stat().st_size,
        **{name: [row[column] for row in rows] for column, name in enumerate(("videos", "labels", "groups"))},
        "batches": batches,
    }
    save_sealed(_index_file(path), index, indent=None)


def _index_file(path: Path) -> Path:
    return path.with_suffix(".json")
