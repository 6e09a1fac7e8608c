"""95% bootstrap intervals over test videos (percentile method); whole groups of videos are resampled.

Videos of one group (one person, one place, one recording) are no independent witnesses. Where each video is
a group of its own this is the ordinary bootstrap.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats

SLOW_RESAMPLES = 200  # of a statistic that is no mean


def of_mean(values: np.ndarray, groups: Sequence, resamples: int, seed: int) -> tuple[float, float]:
    """Interval of the mean of one value a video.

    Where all videos have the same value, resampling sees no spread; then the exact binomial interval, of
    independent videos, says how often another one might turn up.
    """
    if np.ptp(values) == 0:
        margin = 1 - scipy.stats.binomtest(len(values), len(values)).proportion_ci().low
        return float(values[0] - margin), float(min(values[0] + margin, 1))
    return of_ratio(values, np.ones(len(values)), groups, resamples, seed)


def of_ratio(above: np.ndarray, below: np.ndarray, groups: Sequence, resamples: int, seed: int) -> tuple[float, float]:
    """Interval of the ratio of two sums of one value a video each, such as what two policies cost."""
    _, group = np.unique(groups, return_inverse=True)
    sums = tuple(np.bincount(group, values) for values in (above, below))
    return _bootstrap(sums, lambda a, b, axis=-1: a.sum(axis) / b.sum(axis), resamples, seed, paired=True)


def of_statistic(
    statistic: Callable[[np.ndarray], float], groups: Sequence, resamples: int, seed: int
) -> tuple[float, float]:
    """Interval of a ``statistic`` of positions of videos; resampled at most ``SLOW_RESAMPLES`` times."""
    names, group = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(group == index) for index in range(len(names))]
    return _bootstrap(
        (np.arange(len(members)),),
        lambda drawn: statistic(np.concatenate([members[index] for index in drawn])),
        min(resamples, SLOW_RESAMPLES),
        seed,
        vectorized=False,
    )


def _bootstrap(
    samples: tuple[np.ndarray, ...], statistic: Callable, resamples: int, seed: int, **settings: bool
) -> tuple[float, float]:
    if len(samples[0]) == 1:  # one group alone tells nothing of others
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    result = scipy.stats.bootstrap(samples, statistic, n_resamples=resamples, method="percentile", rng=rng, **settings)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
