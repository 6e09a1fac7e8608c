"""Classes of many videos, of which each has few."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch


@dataclass(frozen=True)
class SparseLabels:
    """Classes of ``N`` videos, one or more each and none twice, as compressed sparse rows.

    Those of video ``n`` are ``classes[offsets[n] : offsets[n + 1]]``; ``offsets`` is ``int64 [N + 1]``.
    """

    offsets: torch.Tensor
    classes: torch.Tensor
    num_classes: int

    @classmethod
    def of(cls, labels: pa.ListArray, num_classes: int) -> "SparseLabels":
        """Return the labels of an Arrow array of lists."""
        offsets, classes = labels.offsets.to_numpy(), labels.values.to_numpy()
        return cls(torch.tensor(offsets.astype(np.int64)), torch.tensor(classes), num_classes)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def first(self) -> torch.Tensor:
        """First class of each video, ``int64 [N]``."""
        return self.classes[self.offsets[:-1]].long()

    @property
    def counts(self) -> torch.Tensor:
        """Number of classes of each video, ``int64 [N]``."""
        return self.offsets.diff()

    def take(self, rows: Sequence[int] | torch.Tensor | np.ndarray) -> "SparseLabels":
        """Select the videos ``rows``, by position."""
        counts, places = self._places(torch.as_tensor(rows, dtype=torch.int64))
        return SparseLabels(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), self.classes[places], self.num_classes)

    def repeat(self, copies: int) -> "SparseLabels":
        """Repeat all videos, one copy after the other."""
        starts = torch.arange(copies)[:, None] * len(self.classes) + self.offsets[:-1]
        ends = torch.tensor([copies * len(self.classes)])
        return SparseLabels(torch.cat([starts.flatten(), ends]), self.classes.repeat(copies), self.num_classes)

    def videos_of_classes(self) -> list[np.ndarray]:
        """Return the videos of each class, ``num_classes`` arrays of positions."""
        lines = torch.arange(len(self)).repeat_interleave(self.counts)
        ends = self.classes.bincount(minlength=self.num_classes).cumsum(0)
        return np.split(lines[self.classes.argsort(stable=True)].numpy(), ends[:-1].numpy())

    def dense(self, rows: Sequence[int] | torch.Tensor | None = None) -> torch.Tensor:
        """Return the classes of the videos ``rows`` (of all if None) as booleans ``[n, num_classes]``."""
        chosen = torch.arange(len(self)) if rows is None else torch.as_tensor(rows, dtype=torch.int64)
        counts, places = self._places(chosen)
        truth = torch.zeros(len(chosen), self.num_classes, dtype=torch.bool)
        truth[torch.arange(len(chosen)).repeat_interleave(counts), self.classes[places].long()] = True
        return truth

    def _places(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the number of classes of each of ``rows``, and the places of all these in ``classes``."""
        starts, counts = self.offsets[rows], self.counts[rows]
        before = counts.cumsum(0) - counts  # classes of earlier rows
        return counts, torch.arange(int(counts.sum())) + (starts - before).repeat_interleave(counts)
