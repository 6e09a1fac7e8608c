"""File format of the frame store: a folder per split, of Arrow IPC files of bounded size and an index.

A file, ``00000.arrow``, is a shard: videos that are consecutive in the manifest, one record batch each. A row has the
manifest columns of the video, the indices of its sampled frames and their JPEG bytes: time steps in temporal order, the
frames of a time step together. The schema's metadata has the ``classes``, one per line, and ``clip_frames``, the number
of frames per time step.

Arrow trusts the offsets in a file. So the index, ``index.arrow`` (``tlee.sealed_batches``), repeats the small columns
and the metadata, and has the place and the checksum of each batch. A batch is checked before Arrow reads it; nothing
else of a shard is read. The index is memory-mapped: a store is opened without an object for each of its videos.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa

from tlee.checksums import crc32
from tlee.errors import UserError
from tlee.sealed_batches import map_file, read_sealed_batch, save_sealed_batch

_REMEDY = "run `dvc repro extract`"

#: Columns of a video besides its frames, and those of its place: in a shard, and which one.
ABOUT = {"video": pa.string(), "labels": pa.list_(pa.int32()), "group": pa.string(), "indices": pa.list_(pa.int32())}
PLACE = {"offset": pa.int64(), "size": pa.int64(), "crc32": pa.uint32()}

_SHARD = pa.schema({**ABOUT, "frames": pa.list_(pa.binary())})
_INDEX = pa.schema({**ABOUT, "shard": pa.int32(), **PLACE})


class VideoRow(NamedTuple):
    """Row of a store: a video and its ``frames`` (JPEG), the ones at ``indices`` of its file."""

    video: str
    labels: list[int]
    group: str
    indices: list[int]
    frames: list[bytes]

    def to_batch(self) -> pa.RecordBatch:
        """Return the row as it is stored."""
        return pa.RecordBatch.from_pylist([self._asdict()], _SHARD)


class Place(NamedTuple):
    """Position, size and checksum of the batch of a video in its shard, in bytes."""

    offset: int
    size: int
    crc32: int

    def read(self, content: pa.Buffer) -> pa.RecordBatch:
        """Return the batch at this place of a shard. Raises ``ValueError`` if it is damaged."""
        if self.offset + self.size > content.size:
            raise ValueError("the file ends before")
        batch = content.slice(self.offset, self.size)
        if crc32(batch) != self.crc32:
            raise ValueError("the checksum differs")
        return pa.ipc.read_record_batch(batch, _SHARD)


class Names(Sequence[str]):
    """Texts of an Arrow array, made when they are asked for."""

    def __init__(self, array: pa.StringArray):
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> list[str]: ...
    def __getitem__(self, key: int | slice) -> str | list[str]:
        return self._array[key].to_pylist() if isinstance(key, slice) else self._array[key].as_py()

    def __iter__(self) -> Iterator[str]:
        return iter(self._array.to_pylist())


def shard_file(folder: Path, number: int) -> Path:
    """Return the path of a shard of the split in ``folder``."""
    return folder / f"{number:05}.arrow"


class StoredSplit:
    """Columns and metadata of one split, whose frames are memory-mapped.

    Raises ``UserError`` if the index is missing or damaged, or a shard is missing or has another size; damaged frames
    are detected when they are read.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder)
        index_file = self.path / "index.arrow"
        try:
            self._index = index = read_sealed_batch(index_file)
            about = {key.decode(): text.decode() for key, text in (index.schema.metadata or {}).items()}
            sizes = [int(size) for size in about["shard_sizes"].split()]
            self.classes: list[str] = about["classes"].split("\n")
            self.clip_frames, self.num_frames = int(about["clip_frames"]), int(about["num_frames"])
            self.labels: pa.ListArray = index["labels"]
            self._places = [index[name].to_numpy() for name in ("shard", *PLACE)]
            self.videos, self.groups = Names(index["video"]), Names(index["group"])
        except (OSError, KeyError, ValueError):
            raise self._damaged(index_file) from None
        for number, size in enumerate(sizes):
            path = shard_file(self.path, number)
            if not path.is_file() or path.stat().st_size != size:
                raise self._damaged(path)
        self._shards: dict[int, pa.Buffer] = {}

    def __reduce__(self) -> tuple:
        return StoredSplit, (self.path.absolute(),)  # another process maps the files again

    def indices(self, row: int) -> list[int]:
        """Return the indices of the stored frames in the file of a video."""
        return self._index["indices"][row].as_py()

    def frames(self, row: int) -> pa.ListScalar:
        """Return the JPEGs of a video. Raises ``UserError`` if they are damaged."""
        shard, *place = (int(column[row]) for column in self._places)
        path = shard_file(self.path, shard)
        try:
            if shard not in self._shards:
                self._shards[shard] = map_file(path)
            return Place(*place).read(self._shards[shard])["frames"][0]
        except (OSError, ValueError):
            raise self._damaged(path) from None

    def _damaged(self, path: Path) -> UserError:
        return UserError(f"{path} is missing or damaged: {_REMEDY}")


@contextmanager
def open_shard(path: Path, classes: Sequence[str], clip_frames: int) -> Iterator[Callable[[pa.RecordBatch], Place]]:
    """Create a shard and yield the function that appends the batch of a video to it and returns its place."""
    metadata = {"classes": "\n".join(classes), "clip_frames": str(clip_frames)}
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SHARD.with_metadata(metadata)) as file:

        def write(batch: pa.RecordBatch) -> Place:
            file.write_batch(batch)
            content = batch.serialize()  # as it is in the file
            return Place(sink.tell() - content.size, content.size, crc32(content))

        yield write


def write_index(folder: Path, classes: Sequence[str], clip_frames: int, shards: Sequence[pa.RecordBatch]) -> None:
    """Write the index of the split in ``folder``, from a batch for each shard with the columns ``ABOUT`` and ``PLACE``.

    There is one video at least, and the shards are in place already.
    """
    tables = [
        pa.table([batch[name] for name in _INDEX.names if name != "shard"], [*ABOUT, *PLACE]).add_column(
            len(ABOUT), "shard", pa.array(np.full(len(batch), number, np.int32))
        )
        for number, batch in enumerate(shards)
    ]
    table = pa.concat_tables(tables).combine_chunks()
    metadata: dict[str, Any] = {
        "classes": "\n".join(classes),
        "clip_frames": clip_frames,
        "num_frames": len(table["indices"][0]),
        "shard_sizes": " ".join(str(shard_file(folder, number).stat().st_size) for number in range(len(shards))),
    }
    schema = _INDEX.with_metadata({key: str(value) for key, value in metadata.items()})
    (batch,) = table.to_batches()
    save_sealed_batch(folder / "index.arrow", pa.RecordBatch.from_arrays(batch.columns, schema=schema))
