"""Parts of shards, written by the workers of an extraction to a folder below ``runs/``.

A part is a file in the format of a shard (``tlee.frame_format``) with some of its videos, and a report beside it: a row
for each video that was read, with the fingerprint of its file, and the place of its frames or why there are none. A
part counts only with its report, which is written last.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pyarrow as pa

from tlee.errors import UserError
from tlee.frame_format import ABOUT, PLACE, Place, open_shard
from tlee.sealed_batches import map_file, read_sealed_batch, save_sealed_batch

_REPORT = pa.schema({"row": pa.int32(), "source": pa.string(), "reason": pa.string(), **ABOUT, **PLACE})


class Record(NamedTuple):
    """Result of reading one video."""

    row: int  #: position in the shard
    source: str  #: ``fingerprint`` of the file or folder
    reason: str  #: reason of the failure; empty if there was none
    batch: pa.RecordBatch  #: ``VideoRow`` as it is stored; without frames after a failure


class Part:
    """A part on disk. Raises ``OSError`` or ``ValueError`` if its report is missing or damaged, or its file missing."""

    def __init__(self, path: Path):
        self.path = path
        self.report = read_sealed_batch(_report_file(path))
        self.size = path.stat().st_size

    @property
    def rows(self) -> list[int]:
        """Positions of its videos in the shard."""
        return self.report["row"].to_pylist()

    def sources(self) -> Iterator[tuple[int, str]]:
        """Yield the position in the shard and the fingerprint of each video."""
        return zip(self.rows, self.report["source"].to_pylist(), strict=True)

    def read(self, position: int) -> Record:
        """Return the record in a row of the report. Raises ``UserError`` if its frames are damaged."""
        about = self.report.slice(position, 1).to_pylist()[0]
        row, source, reason = (about.pop(name) for name in ("row", "source", "reason"))
        place = Place(*(about.pop(name) for name in PLACE))
        if reason:
            return Record(row, source, reason, pa.RecordBatch.from_pylist([about], pa.schema(ABOUT)))
        try:
            return Record(row, source, reason, place.read(map_file(self.path)))
        except (OSError, ValueError):
            raise UserError(
                f"{self.path} is missing or damaged: run `dvc repro extract`, which reads its damaged videos again"
            ) from None

    def is_whole(self, position: int) -> bool:
        """Return whether the record in a row of the report can be read."""
        try:
            self.read(position)
        except UserError:
            return False
        return True

    def remove(self) -> None:
        """Remove both files, the report first."""
        _report_file(self.path).unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def write_part(folder: Path, shard: str, records: Iterable[Record], classes: Sequence[str], clip_frames: int) -> Path:
    """Write a new part of ``shard`` and return its path.

    Its name is new, so that two workers never write to the same file.
    """
    path, entries = folder / f"{shard}.{uuid4().hex[:12]}.arrow", []
    try:
        with open_shard(path, classes, clip_frames) as write:
            for row, source, reason, batch in records:
                place = Place(0, 0, 0) if reason else write(batch)
                about: dict[str, Any] = batch.select(list(ABOUT)).to_pylist()[0]
                entries.append({"row": row, "source": source, "reason": reason} | about | place._asdict())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    save_sealed_batch(_report_file(path), pa.RecordBatch.from_pylist(entries, _REPORT))
    return path


def find_parts(folder: Path) -> dict[str, list[Part]]:
    """Return the parts of each shard in ``folder``; what is damaged or was never finished is removed."""
    found: dict[str, list[Part]] = {}
    kept = set()
    for path in sorted(folder.glob("*.arrow")):
        with suppress(OSError, ValueError):
            found.setdefault(path.name.split(".")[0], []).append(Part(path))
            kept |= {path, _report_file(path)}
    for path in folder.iterdir():
        if path not in kept:
            path.unlink()
    return found


def _report_file(path: Path) -> Path:
    return path.with_suffix(".report")
