"""Classes of many videos, of which each has few."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch


@dataclass(frozen=True)
class SparseLabels:
    """Classes of ``N`` videos, one or more each, as compressed sparse rows.

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

    def dense(self, rows: Sequence[int] | torch.Tensor | None = None) -> torch.Tensor:
        """Return the classes of the videos ``rows`` (of all if None) as booleans ``[n, num_classes]``."""
        chosen = torch.arange(len(self)) if rows is None else torch.as_tensor(rows, dtype=torch.int64)
        starts, counts = self.offsets[chosen], self.offsets[chosen + 1] - self.offsets[chosen]
        lines = torch.arange(len(chosen)).repeat_interleave(counts)
        within = torch.arange(len(lines)) - (counts.cumsum(0) - counts)[lines]
        truth = torch.zeros(len(chosen), self.num_classes, dtype=torch.bool)
        truth[lines, self.classes[starts[lines] + within].long()] = True
        return truth
