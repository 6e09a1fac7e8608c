"""95% bootstrap intervals over test videos (percentile method); whole groups of videos are resampled.

Videos of one group (one person, one place, one recording) are not independent samples. If every video is a group of
its own, this is the ordinary bootstrap.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats

#: Most resamples of a statistic other than a mean, which is slow to compute.
SLOW_RESAMPLES = 200


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


def of_statistic(
    statistic: Callable[[np.ndarray], float], groups: Sequence, resamples: int, seed: int
) -> tuple[float, float]:
    """Interval of a ``statistic`` of rows of videos; resampled at most ``SLOW_RESAMPLES`` times."""
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
    if len(samples[0]) == 1:  # no variance between groups can be estimated
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    result = scipy.stats.bootstrap(samples, statistic, n_resamples=resamples, method="percentile", rng=rng, **settings)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
