"""Journal of an unfinished extraction: one file with a record per video that has been read."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa

from tlee.checksums import crc32
from tlee.errors import UserError
from tlee.extraction.decoding import locate

_SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "source": pa.string(),
        "reason": pa.string(),
        "indices": pa.list_(pa.int32()),
        "frames": pa.list_(pa.binary()),
    }
)

_SIZES = struct.Struct("<QI")  # size and checksum of a record
_CHECKSUM = struct.Struct("<I")  # of these two


@dataclass(frozen=True)
class Record:
    """Result of reading one video."""

    row: int  #: row of the manifest
    source: str  #: ``fingerprint`` of the file or folder
    reason: str  #: reason of the failure; empty if there was none
    indices: list[int]
    frames: list[bytes]  #: JPEG


class Journal:
    """Records on disk, in the order in which they were appended, accessed by row. A context manager.

    A record is an Arrow record batch after its size and checksum, which have a checksum of their own. When the file is
    opened, damaged records are skipped with a warning, so that their videos are read again, and the file is truncated
    where the rest cannot be read, such as after an interruption.
    """

    def __init__(self, path: Path):
        self.path = path
        self.sources: dict[int, str] = {}  #: fingerprints of the recorded rows
        self._offsets: dict[int, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, self._find_records())
        self._file = path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def append(self, record: Record) -> None:
        """Append a record; it replaces an earlier one of the same row."""
        batch = pa.RecordBatch.from_pylist([vars(record)], _SCHEMA).serialize()
        self._offsets[record.row], self.sources[record.row] = self._file.tell(), record.source
        sizes = _SIZES.pack(batch.size, crc32(batch))
        self._file.write(sizes + _CHECKSUM.pack(crc32(sizes)))
        self._file.write(batch)
        self._file.flush()

    def read(self, row: int) -> Record:
        """Return the record of ``row``. Raises ``UserError`` if it has been damaged since the file was opened."""
        with self.path.open("rb") as file:
            file.seek(self._offsets[row])
            content = _read_content(file)
        if not content:
            raise UserError(f"{self.path} is damaged: run `dvc repro extract`, which reads the damaged videos again")
        return Record(**_batch(content).to_pylist()[0])

    def _find_records(self) -> int:
        """Index the undamaged records and return the size in bytes up to the last of them."""
        end = damaged = 0
        with self.path.open("rb") as file:
            while (content := _read_content(file)) is not None:
                start, end = end, file.tell()
                if not content:
                    damaged += 1
                    continue
                batch = _batch(content)  # frames are not copied
                row = batch["row"][0].as_py()
                self._offsets[row], self.sources[row] = start, batch["source"][0].as_py()
        if damaged:
            print(f"warning: {self.path} has {damaged} damaged records: their videos are read again", flush=True)
        return end


def _read_content(file: BinaryIO) -> bytes | None:
    """Read the next record, which is empty if it is damaged; None if there is none, or its end is unknown."""
    sizes, checksum = file.read(_SIZES.size), file.read(_CHECKSUM.size)
    if len(checksum) < _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != crc32(sizes):
        return None
    size, expected = _SIZES.unpack(sizes)
    content = file.read(size)
    if len(content) < size:
        return None
    return content if crc32(content) == expected else b""


def _batch(content: bytes) -> pa.RecordBatch:
    return pa.ipc.read_record_batch(pa.py_buffer(content), _SCHEMA)


def fingerprint(path: Path) -> str:
    """Return a text that changes when the file or folder at ``path`` (see ``locate``) does; empty if there is none."""
    try:
        found = locate(path)
        files = sorted(found.iterdir()) if found.is_dir() else [found]
        states = [file.stat() for file in files]
    except (ValueError, OSError):
        return ""
    size, changed = sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)
    return f"{found.name} {len(states)} {size} {changed}"
