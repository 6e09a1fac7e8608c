"""Journal of an unfinished extraction: one file with a record per video that has been read."""

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

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

    The file is a sequence of Arrow record batches. If an interrupted process left the last one incomplete, it is
    truncated when the file is opened again.
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
        self._offsets[record.row], self.sources[record.row] = self._file.tell(), record.source
        self._file.write(pa.RecordBatch.from_pylist([vars(record)], _SCHEMA).serialize())
        self._file.flush()

    def read(self, row: int) -> Record:
        """Return the record of ``row``."""
        with pa.OSFile(str(self.path)) as file:
            file.seek(self._offsets[row])
            return Record(**_read_batch(file).to_pylist()[0])

    def _find_records(self) -> int:
        """Index the complete records and return their total size in bytes."""
        end = 0
        if not self.path.stat().st_size:
            return end
        with pa.memory_map(str(self.path)) as file:  # frames are not read
            while True:
                try:
                    batch = _read_batch(file)
                except (EOFError, OSError, pa.ArrowInvalid):
                    return end
                row = batch["row"][0].as_py()
                self._offsets[row], self.sources[row] = end, batch["source"][0].as_py()
                end = file.tell()


def _read_batch(file: pa.NativeFile) -> pa.RecordBatch:
    return pa.ipc.read_record_batch(pa.ipc.read_message(file), _SCHEMA)


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
