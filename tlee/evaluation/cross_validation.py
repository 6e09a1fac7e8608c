"""Cross-validation over groups: outcomes of policies on videos that they were not made from."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from tlee.evaluation.replay import Split
from tlee.policies.given import GivenExits
from tlee.policies.inference import Outcomes
from tlee.policies.policy import Policy
from tlee.subsets import folds


def out_of_fold(
    split: Split, make: Callable[[Split], Sequence[Policy | GivenExits]], count: int, seed: int
) -> list[Outcomes]:
    """Run, on each of ``count`` folds of the groups of ``split``, the policies that ``make`` makes from all others.

    ``make`` always returns the same number of policies; one ``Outcomes`` is returned for each, of all videos.
    Raises ``ValueError`` for a single group.
    """
    rows, parts = [], []
    for inside, outside in folds(split.table.groups, count, seed):
        rows.append(outside)
        parts.append(list(split.take(outside).sweep(make(split.take(inside)))))
    order = np.argsort(np.concatenate(rows))
    return [_joined(outcomes, order) for outcomes in zip(*parts, strict=True)]


def _joined(parts: Sequence[Outcomes], order: np.ndarray) -> Outcomes:
    columns = ("logits", "exit_depths", "macs")
    return Outcomes(*(torch.cat([getattr(part, name) for part in parts])[order] for name in columns))
