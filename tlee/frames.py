"""Stored frames and the order in which they are visited."""

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image

from tlee.frame_format import StoredSplit
from tlee.labels import SparseLabels


def visiting_order(num_frames: int, order: str) -> list[int]:
    """Return the positions in time of ``num_frames`` frames in the order in which they are visited.

    ``sequential`` is temporal order. ``coarse_to_fine`` is middle, first, last, then repeatedly the middle of the
    widest remaining gap. For 10 frames it is the list printed in both papers (FrameExit, section 4.1; TLEE's settings),
    whose ties follow no single rule.
    """
    if order == "sequential":
        return list(range(num_frames))
    if num_frames == 10:
        return [5, 0, 9, 2, 7, 4, 6, 3, 8, 1]
    visited = list(dict.fromkeys([num_frames // 2, 0, num_frames - 1]))
    while len(visited) < num_frames:
        known = sorted(visited)
        left, right = max(pairwise(known), key=lambda gap: gap[1] - gap[0])
        visited.append((left + right) // 2)
    return visited


class FrameStore:
    """One split of the extracted frames in ``folder``, memory-mapped.

    Raises ``UserError`` if a file is missing or damaged; damaged frames are detected when they are read.

    ``labels [N]`` is the first class of each video. ``all_labels`` are all of its classes, see ``truth``.
    """

    def __init__(self, folder: str | Path):
        self._stored = stored = StoredSplit(folder)
        self.videos, self.groups = stored.videos, stored.groups
        self.classes, self.clip_frames = stored.classes, stored.clip_frames
        self.all_labels = SparseLabels.of(stored.labels, len(stored.classes))
        self.labels = self.all_labels.first

    def __reduce__(self) -> tuple:
        """Let another process map the file again."""
        return FrameStore, (self._stored.path.absolute(),)

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def num_steps(self) -> int:
        """Number of time steps per video, ``T``."""
        return self._stored.num_frames // self.clip_frames

    def truth(self, rows: Sequence[int] | torch.Tensor | None = None) -> torch.Tensor:
        """Return all classes of the videos ``rows`` (of all videos if None), booleans ``[n, C]``."""
        return self.all_labels.dense(rows)

    def targets(self, rows: Sequence[int] | torch.Tensor, multi_label: bool) -> torch.Tensor:
        """Return the training targets of ``rows``: class indices ``[n]``, or zeros and ones ``[n, C]``.

        See ``Readout.loss``.
        """
        return self.truth(rows).float() if multi_label else self.labels[rows]

    def clip(self, row: int, steps: list[int]) -> list[Image.Image]:
        """Decode all frames of the given time steps (``0..T-1`` in time) of a video, ``clip_frames`` per step."""
        jpegs, length = self._stored.frames(row), self.clip_frames
        positions = [step * length + offset for step in steps for offset in range(length)]
        return [Image.open(io.BytesIO(jpegs[position].as_py())).convert("RGB") for position in positions]

    def pictures(self, row: int, steps: list[int]) -> list[Image.Image]:
        """Decode the middle frame of each of the given time steps, for display."""
        return self.clip(row, steps)[self.clip_frames // 2 :: self.clip_frames]

    def one_of_each_class(self, at_most: int) -> list[tuple[str, list[Image.Image]]]:
        """Return the class and the frames, in temporal order, of the first video of each of ``at_most`` classes."""
        labels = self.labels.tolist()
        present = [label for label in range(len(self.classes)) if label in labels]
        return [
            (self.classes[label], self.pictures(labels.index(label), list(range(self.num_steps))))
            for label in present[:at_most]
        ]
