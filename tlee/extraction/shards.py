"""Shards of a split while they are extracted: which of their videos have been read, and where to."""

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tlee.datasets.manifest import Video
from tlee.extraction.fingerprints import fingerprint
from tlee.extraction.parts import Part, Record, write_part

#: Frames of a shard, about 70 MB at 28 kB each: 256 videos of ten frames.
SHARD_FRAMES = 2560


class Shard:
    """Consecutive videos of one split: ``rows`` of the manifest, in its order.

    ``missing`` are the positions of those that no part has yet.
    """

    def __init__(self, split: str, number: int, rows: np.ndarray):
        self.split, self.number, self.rows = split, number, rows
        self.missing = list(range(len(rows)))
        self._parts: list[Part] = []
        self._found: dict[int, tuple[Part, int]] = {}  # part of each video, and the row of its report

    @property
    def name(self) -> str:
        """Name of the shard among those of all splits."""
        return f"{self.split}-{self.number:05}"

    @property
    def part(self) -> Part:
        """The only part, with all videos, once they have been joined."""
        (part,) = self._parts
        return part

    def videos(self, manifest: pd.DataFrame, positions: Sequence[int]) -> list[tuple[int, Video]]:
        """Return the videos at ``positions``, each with its position."""
        chosen = manifest.iloc[self.rows[list(positions)]][list(Video._fields)]
        return list(zip(positions, map(Video._make, chosen.itertuples(index=False, name=None)), strict=True))

    def resume(self, parts: list[Part], manifest: pd.DataFrame, folder: Path) -> None:
        """Keep what earlier ``parts`` have of the videos in ``folder`` that have not changed since."""
        self._parts += parts
        paths = [folder / video for video in manifest["video"].iloc[self.rows]]
        for part in parts:
            for line, (position, source) in enumerate(part.sources()):
                if source == fingerprint(paths[position]) and part.is_whole(line):
                    self._found[position] = part, line
        self.missing = [position for position in self.missing if position not in self._found]

    def add(self, part: Part) -> None:
        """Add a part with videos that were missing."""
        self._parts.append(part)
        self._found |= {position: (part, line) for line, position in enumerate(part.rows)}
        self.missing = [position for position in self.missing if position not in self._found]

    def join(self, folder: Path, classes: Sequence[str], clip_frames: int) -> None:
        """Join the parts of a shard without missing videos into one, unless there is only one with all of them."""
        whole, *others = {id(part): part for part, _ in self._found.values()}.values()
        if others or whole.rows != list(range(len(self.rows))):
            whole = Part(write_part(folder, self.name, self._take(), classes, clip_frames))
        for part in self._parts:
            if part is not whole:
                part.remove()
        self._parts = [whole]

    def _take(self) -> Iterator[Record]:
        """Yield the records in order; a part is removed with the last of its records, so that disk is used once."""
        last = {id(part): position for position, (part, _) in sorted(self._found.items())}
        for position, (part, line) in sorted(self._found.items()):
            yield part.read(line)
            if last[id(part)] == position:
                part.remove()

    def stored(self) -> pa.RecordBatch:
        """Return the report of the videos that could be read."""
        return self.part.report.filter(self._is_stored())

    def stored_rows(self) -> np.ndarray:
        """Return their rows of the manifest."""
        return self.rows[self._is_stored().to_numpy(zero_copy_only=False)]

    def failed(self) -> pd.DataFrame:
        """Return the other videos: columns ``video`` and ``reason``."""
        return self.part.report.filter(pc.invert(self._is_stored())).select(["video", "reason"]).to_pandas()

    def _is_stored(self) -> pa.BooleanArray:
        return pc.equal(self.part.report["reason"], "")

    def store(self, path: Path) -> None:
        """Store the shard as ``path``: another name of the same file, so that a run that is not recorded has it still.

        It is moved if the file systems know no such links, or are two.
        """
        try:
            path.hardlink_to(self.part.path)
        except OSError:
            shutil.move(self.part.path, path)


def make_shards(manifest: pd.DataFrame, split: str, frames: int) -> list[Shard]:
    """Divide a split with ``frames`` frames per video into shards, however many workers there are."""
    rows, size = np.flatnonzero(manifest["split"] == split), max(1, SHARD_FRAMES // frames)
    return [Shard(split, number, rows[start : start + size]) for number, start in enumerate(range(0, len(rows), size))]


def divide(positions: list[int], size: int) -> list[list[int]]:
    """Divide ``positions`` into runs of about equal length, at most ``size``."""
    return [each.tolist() for each in np.array_split(positions, math.ceil(len(positions) / size)) if len(each)]
