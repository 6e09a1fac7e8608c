"""Some of many videos."""

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.model_selection import GroupKFold, GroupShuffleSplit


def spread(videos: int, at_most: int) -> list[int]:
    """Rows of ``at_most`` videos at equal distances, or all if there are fewer."""
    return np.unique(np.linspace(0, videos - 1, at_most).astype(int)).tolist()


def halves(groups: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two halves that have no group in common. Raises ``ValueError`` if there is one group only."""
    splitter = GroupShuffleSplit(n_splits=1, test_size=0.5, random_state=seed)
    return next(splitter.split(np.zeros(len(groups)), groups=groups))


def one_per_group(groups: Sequence[str], seed: int) -> np.ndarray:
    """Rows of one video of each group, drawn by lot."""
    order = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(np.asarray(groups)[order], return_index=True)
    return np.sort(order[first])


def folds(groups: Sequence[str], count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows inside and outside of ``count`` parts that have no group in common, or of as many as there are groups.

    Yields the rows of all other parts, then those of the part. Raises ``ValueError`` if there is one group only.
    """
    splitter = GroupKFold(min(count, len(set(groups))), shuffle=True, random_state=seed)
    yield from splitter.split(np.zeros(len(groups)), groups=groups)
