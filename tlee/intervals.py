"""95% bootstrap intervals over videos (percentile method)."""

from collections.abc import Callable

import numpy as np
import scipy.stats

SLOW_RESAMPLES = 200  # of a statistic that is no mean


def of_mean(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """Interval of the mean of one value a video.

    Where all videos have the same value, resampling sees no spread; then the exact binomial interval says how
    often another one might turn up.
    """
    if np.ptp(values) == 0:
        margin = 1 - scipy.stats.binomtest(len(values), len(values)).proportion_ci().low
        return float(values[0] - margin), float(min(values[0] + margin, 1))
    return _bootstrap(values, np.mean, resamples, seed)


def of_grouped_mean(values: np.ndarray, groups: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """Interval of the mean of one value a video, where whole groups of videos are resampled.

    Videos of one group (one person, one place, one recording) are no independent witnesses.
    """
    _, group = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    return _bootstrap(
        np.arange(len(sums)), lambda rows: sums[rows].sum() / counts[rows].sum(), resamples, seed, vectorized=False
    )


def of_statistic(
    statistic: Callable[[np.ndarray], float], videos: int, resamples: int, seed: int
) -> tuple[float, float]:
    """Interval of a ``statistic`` of positions of videos; resampled at most ``SLOW_RESAMPLES`` times."""
    return _bootstrap(np.arange(videos), statistic, min(resamples, SLOW_RESAMPLES), seed, vectorized=False)


def _bootstrap(
    values: np.ndarray, statistic: Callable, resamples: int, seed: int, **settings: bool
) -> tuple[float, float]:
    result = scipy.stats.bootstrap(
        (values,), statistic, n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed), **settings
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
