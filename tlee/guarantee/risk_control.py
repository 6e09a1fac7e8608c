"""Promises about unseen videos from a count of harmed ones: exact binomial tests, one policy after the other.

Fixed-sequence testing (Angelopoulos et al., Learn then Test, arXiv 2110.01052): policies stand on a path that was
settled without the videos they are tested on, from careful to thrifty, and each is tested at full strength until one
fails. The last that passes harms more than the limit with a probability of at most ``1 - confidence``, however many
policies the path has, if videos are drawn independently of each other. Clips of one group are not.

Limits (``max_harm``) are in points, that is percent, of all videos.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import beta, binom

DRAWS = 10_000  #: sets of videos in a simulation


def p_values(harmful: np.ndarray, videos: np.ndarray | int, max_harm: float) -> np.ndarray:
    """Of as few as ``harmful`` among so many ``videos``, if a policy harmed ``max_harm`` points of all there are."""
    return binom.cdf(harmful, videos, max_harm / 100)


def upper_bound(harmful: np.ndarray, videos: np.ndarray | int, confidence: float) -> np.ndarray:
    """Of the share of all videos that are harmed, exact and one-sided (Clopper and Pearson).

    It is at most the limit exactly where the test of that limit passes.
    """
    left = np.subtract(videos, harmful)
    return np.where(left > 0, beta.ppf(confidence, np.add(harmful, 1), np.maximum(left, 1)), 1.0)


def passing(p: np.ndarray, confidence: float) -> np.ndarray:
    """How many policies of the path pass before the first that fails; ``p`` is ``[..., P]``, their p-values."""
    return np.logical_and.accumulate(np.asarray(p) <= 1 - confidence, axis=-1).sum(-1)


def needed_videos(max_harm: float, confidence: float) -> int:
    """How many videos a promise takes at the least: so many of which none is harmed."""
    return int(np.ceil(np.log1p(-confidence) / np.log1p(-max_harm / 100)))


def plan(videos: Sequence[int], max_harm: float, confidence: float) -> pd.DataFrame:
    """What can be promised with that many ``videos`` to test on, one row each.

    ``promise``: the smallest limit that can pass, in points, which it does if no video is harmed; ``may_harm``: how
    many videos may be harmed for ``max_harm`` to pass, -1 where it cannot.
    """
    counts = np.asarray(videos)
    return pd.DataFrame(
        {
            "videos": counts,
            "promise": 100 * upper_bound(np.zeros_like(counts), counts, confidence),
            "may_harm": [passing(p_values(np.arange(count + 1), count, max_harm), confidence) - 1 for count in counts],
        }
    )


def simulate(
    harm: np.ndarray,
    share: np.ndarray,
    groups: Sequence,
    videos: int,
    max_losses: Sequence[float],
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Draw many sets of test videos from a known population, and count how often the promise is broken.

    ``harm`` are booleans ``[P, N]``: which of the ``N`` videos of the population each policy of the path harms;
    ``share [P]`` is what a policy costs, of the full network's cost. Sets are drawn with replacement, by whole
    ``groups`` as long as they are about as large as ``videos``. Where each video is a group of its own the draws
    are independent, and the promise must hold.

    One row a limit: ``max_harm``; ``violation_rate``, share of the sets whose policy harms more of the population than
    that; ``never_rate``, share of those with which no exit is allowed; ``harm``, mean share of the population harmed;
    and mean ``share_of_full``, what the policies found cost.
    """
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    harmed = np.zeros((len(size), len(harm)), int)
    np.add.at(harmed, group, harm.T)
    alike, times = np.unique(np.column_stack([harmed, size]), axis=0, return_counts=True)  # few, however many groups
    count = max(round(videos / size.mean()), 1)
    drawn = np.random.default_rng(seed).multinomial(count, times / len(size), DRAWS) @ alike
    harmful, drawn_videos = drawn[:, :-1], drawn[:, -1:]
    true_harm, cost = np.append(0.0, harm.mean(1)), np.append(1.0, share)
    rows = []
    for max_harm in max_losses:
        chosen = passing(p_values(harmful, drawn_videos, max_harm), confidence)
        rows.append(
            {
                "max_harm": max_harm,
                "violation_rate": (true_harm[chosen] > max_harm / 100).mean(),
                "never_rate": (chosen == 0).mean(),
                "harm": true_harm[chosen].mean(),
                "share_of_full": cost[chosen].mean(),
            }
        )
    return pd.DataFrame(rows)
