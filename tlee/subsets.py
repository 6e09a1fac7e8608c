"""Subsets of videos: evenly spaced, one per group, or disjoint in their groups."""

from collections.abc import Iterator, Sequence

import numpy as np


def spread(num_videos: int, at_most: int) -> list[int]:
    """Return rows of ``at_most`` evenly spaced videos, or all rows if there are fewer."""
    return np.unique(np.linspace(0, num_videos - 1, at_most).astype(int)).tolist()


def halves(groups: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of two halves without a common group. Raises ``ValueError`` for a single group."""
    from sklearn.model_selection import GroupShuffleSplit  # slow to import

    splitter = GroupShuffleSplit(n_splits=1, test_size=0.5, random_state=seed)
    return next(splitter.split(np.zeros(len(groups)), groups=groups))


def one_per_group(groups: Sequence[str], seed: int) -> np.ndarray:
    """Return the rows of one video per group, chosen at random."""
    order = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(np.asarray(groups)[order], return_index=True)
    return np.sort(order[first])


def folds(groups: Sequence[str], count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for each of ``count`` cross-validation folds, the rows of all other folds and those of the fold.

    Folds have no group in common and are at most as many as the groups. Raises ``ValueError`` for a single group.
    """
    from sklearn.model_selection import GroupKFold  # slow to import

    splitter = GroupKFold(min(count, len(set(groups))), shuffle=True, random_state=seed)
    yield from splitter.split(np.zeros(len(groups)), groups=groups)
