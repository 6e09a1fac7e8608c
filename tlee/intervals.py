"""95% bootstrap intervals over test videos (percentile method); whole groups of videos are resampled.

Videos of one group (one person, one place, one recording) are not independent samples. If every video is a group of
its own, this is the ordinary bootstrap.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats

#: Most resamples of a statistic other than a mean, which is slow to compute.
SLOW_RESAMPLES = 200

AT_ONCE = 2**23  #: number of draws of a bootstrap that are in memory at once

NO_INTERVAL = math.nan, math.nan


def of_mean(values: np.ndarray, groups: Sequence, resamples: int, seed: int) -> tuple[float, float]:
    """Interval of the mean of one value per video.

    If all videos have the same value, resampling has no variance. The exact binomial interval of independent videos
    then bounds how often another value can occur.
    """
    if np.ptp(values) == 0:
        margin = 1 - scipy.stats.binomtest(len(values), len(values)).proportion_ci().low
        return float(values[0] - margin), float(min(values[0] + margin, 1))
    return of_ratio(values, np.ones(len(values)), groups, resamples, seed)


def of_ratio(
    numerator: np.ndarray, denominator: np.ndarray, groups: Sequence, resamples: int, seed: int
) -> tuple[float, float]:
    """Interval of the ratio of two sums of one value per video, such as the costs of two policies."""
    _, group = np.unique(groups, return_inverse=True)
    sums = tuple(np.bincount(group, values) for values in (numerator, denominator))
    return _bootstrap(sums, lambda a, b, axis=-1: a.sum(axis) / b.sum(axis), resamples, seed, paired=True)


def draws(groups: Sequence, resamples: int, seed: int) -> np.ndarray:
    """Return how often each video is drawn in each of at most ``SLOW_RESAMPLES`` resamples, ``int32 [N, R]``."""
    names, group = np.unique(groups, return_inverse=True)
    shape = min(resamples, SLOW_RESAMPLES), len(names)
    drawn = np.random.default_rng(seed).integers(0, len(names), shape)
    counts = np.stack([np.bincount(each, minlength=len(names)) for each in drawn], axis=1)
    return counts.astype(np.int32)[group]


def of_statistic(values: np.ndarray, groups: Sequence) -> tuple[float, float]:
    """Interval of a statistic from its ``values [R]`` on resamples, see ``draws``."""
    if len(set(groups)) == 1:
        return NO_INTERVAL
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _bootstrap(
    samples: tuple[np.ndarray, ...], statistic: Callable, resamples: int, seed: int, **settings: bool
) -> tuple[float, float]:
    groups = len(samples[0])
    if groups == 1:  # no variance between groups can be estimated
        return NO_INTERVAL
    result = scipy.stats.bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        batch=max(1, AT_ONCE // groups),
        method="percentile",
        rng=np.random.default_rng(seed),
        **settings,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
