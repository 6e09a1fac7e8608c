"""Guarantees for unseen videos from the number of harmed ones: exact binomial tests of a sequence of policies.

Fixed-sequence testing (Angelopoulos et al., Learn then Test, arXiv 2110.01052): the policies form a path, from
conservative to aggressive, that was fixed without the videos they are tested on, and each is tested at the full level
until one fails. The probability that the last policy that passes harms more than the limit is at most
``1 - confidence``, however many policies the path has, if videos are drawn independently of each other. Clips of one
group are not.

Limits (``max_harm``) are in points, that is percent, of all videos.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import beta, binom

DRAWS = 10_000  #: number of sets of videos drawn in a simulation


def p_values(harmful: np.ndarray, videos: np.ndarray | int, max_harm: float) -> np.ndarray:
    """Return the probability that at most ``harmful`` of ``videos`` are harmed, if ``max_harm`` points of all are."""
    return binom.cdf(harmful, videos, max_harm / 100)


def upper_bound(harmful: np.ndarray, videos: np.ndarray | int, confidence: float) -> np.ndarray:
    """Return the exact one-sided upper bound (Clopper and Pearson) of the share of all videos that are harmed.

    It is at most the limit exactly if the test of that limit passes.
    """
    unharmed = np.subtract(videos, harmful)
    return np.where(unharmed > 0, beta.ppf(confidence, np.add(harmful, 1), np.maximum(unharmed, 1)), 1.0)


def count_passing(p: np.ndarray, confidence: float) -> np.ndarray:
    """Return the number of policies that pass before the first failure; ``p [..., P]`` are the p-values of the path."""
    return np.logical_and.accumulate(np.asarray(p) <= 1 - confidence, axis=-1).sum(-1)


def allowed_harmed(videos: int, max_harm: float, confidence: float) -> int:
    """Return the largest number of harmed ``videos`` with which the limit passes; -1 if it cannot pass."""
    return int(count_passing(p_values(np.arange(videos + 1), videos, max_harm), confidence)) - 1


def needed_videos(max_harm: float, confidence: float) -> int:
    """Return the smallest number of videos with which a policy can pass, which it does if none is harmed."""
    return int(np.ceil(np.log1p(-confidence) / np.log1p(-max_harm / 100)))


def plan(videos: Sequence[int], max_harm: float, confidence: float) -> pd.DataFrame:
    """Return the guarantees that are possible with each number of test ``videos``, one row each.

    ``smallest_certifiable_harm`` is the smallest limit that can pass, in points, which it does if no video is harmed;
    ``allowed_harmed`` is the largest number of harmed videos with which ``max_harm`` passes, -1 if it cannot pass.
    """
    counts = np.asarray(videos)
    return pd.DataFrame(
        {
            "videos": counts,
            "smallest_certifiable_harm": 100 * upper_bound(np.zeros_like(counts), counts, confidence),
            "allowed_harmed": [allowed_harmed(count, max_harm, confidence) for count in videos],
        }
    )


def simulate(
    harm: np.ndarray,
    share: np.ndarray,
    groups: Sequence[int] | Sequence[str],
    videos: int,
    limits: Sequence[float],
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Draw many sets of test videos from a known population, and measure how often the guarantee is violated.

    ``harm [P, N]`` are booleans, true if a policy of the path harms a video of the population; ``share [P]`` is the
    cost of a policy as a share of the full network's. Sets of about ``videos`` videos are drawn with replacement, by
    whole ``groups``. If each video is a group of its own, the draws are independent and the guarantee must hold.

    Returns one row per limit: ``max_harm``; ``violation_rate``, the share of sets whose policy harms more of the
    population than the limit; ``never_exit_rate``, the share of sets with which no policy passes; ``harm``, the mean
    share of the population that is harmed; and ``share_of_full``, the mean cost of the chosen policies.
    """
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    harmed = np.zeros((len(size), len(harm)), int)
    np.add.at(harmed, group, harm.T)
    kinds, frequency = np.unique(np.column_stack([harmed, size]), axis=0, return_counts=True)  # of groups, only a few
    count = max(round(videos / size.mean()), 1)
    drawn = np.random.default_rng(seed).multinomial(count, frequency / len(size), DRAWS) @ kinds
    harmful = drawn[:, :-1]
    sizes, size_drawn = np.unique(drawn[:, -1], return_inverse=True)
    true_harm, cost = np.append(0.0, harm.mean(1)), np.append(1.0, share)
    rows = []
    for max_harm in limits:
        allowed = np.array([allowed_harmed(each, max_harm, confidence) for each in sizes.tolist()])[size_drawn, None]
        chosen = np.logical_and.accumulate(harmful <= allowed, axis=-1).sum(-1)
        rows.append(
            {
                "max_harm": max_harm,
                "violation_rate": (true_harm[chosen] > max_harm / 100).mean(),
                "never_exit_rate": (chosen == 0).mean(),
                "harm": true_harm[chosen].mean(),
                "share_of_full": cost[chosen].mean(),
            }
        )
    return pd.DataFrame(rows)
