"""Rows of the tables that compare policies: intervals, paired differences, one number for a curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from tlee import intervals
from tlee.average_precision import average_precisions
from tlee.evaluation.replay import Split
from tlee.evaluation.results import Results
from tlee.labels import SparseLabels
from tlee.metrics import mean_average_precision
from tlee.policies.inference import Outcomes

CHEAPEST_BUDGET, BUDGETS = 0.02, 50  # of the full network's cost, up to all of it; how many


@dataclass(frozen=True)
class Measured:
    """Results of a policy, and what the intervals of its metric are computed from."""

    results: Results
    mean_ap: float  #: mean average precision
    resampled: np.ndarray  #: the same on bootstrap resamples, ``[R]``, if it is the metric; else ``[0]``


def measure(split: Split, outcomes: Outcomes, resamples: int, seed: int) -> Measured:
    """Compare ``outcomes`` with the truth; their logits are not needed afterwards."""
    probabilities, labels = split.readout.probabilities(outcomes.logits), split.table.all_labels
    resampled = np.empty(0)
    if split.metric == "map":
        draws = intervals.draws(split.table.groups, resamples, seed)
        resampled = np.nanmean(average_precisions(probabilities, labels, draws), axis=0)
    return Measured(split.judge(outcomes), mean_average_precision(probabilities, labels), resampled)


def policy_row(method: str, split: Split, measured: Measured, full: Measured, resamples: int, seed: int) -> dict:
    """Row of one policy with 95% intervals of its score and of its gain over the full network (paired by video)."""
    results, groups = measured.results, split.table.groups
    point = split.point(method, results)
    if split.metric == "top1":
        correct, full_correct = (each.correct.double().numpy() for each in (results, full.results))
        low, high = intervals.of_mean(correct, groups, resamples, seed)
        difference_low, difference_high = intervals.of_mean(correct - full_correct, groups, resamples, seed)
    else:
        low, high = intervals.of_statistic(measured.resampled, groups)
        difference_low, difference_high = intervals.of_statistic(measured.resampled - full.resampled, groups)
    return {
        "method": method,
        "score": point["score"],
        "low": low,
        "high": high,
        "top5": results.in_top5.double().mean().item(),
        "map": measured.mean_ap,
        "gmacs": point["gmacs"],
        "share_of_full": point["gmacs"] / full.results.gmacs.mean().item(),
        "frames": point["frames"],
        "difference": point["score"] - split.score(full.results),
        "difference_low": difference_low,
        "difference_high": difference_high,
    }


def paired(
    method: str, groups: Sequence[str], results: Mapping[str, Results], resamples: int, seed: int
) -> pd.DataFrame:
    """Compare ``method`` with each other policy on the same videos, one row each.

    ``won`` and ``lost`` count the videos that only it, and only the other, classifies correctly; ``p_value`` is that
    of the exact two-sided McNemar test. ``points`` is the difference in top-1, ``cost_ratio`` the cost of ``method``
    as a share of the other's, each with the 95% interval ``_low`` to ``_high`` over ``groups`` of videos.
    """
    correct, rows = {name: each.correct for name, each in results.items()}, []
    for name, other in results.items():
        if name == method:
            continue
        won, lost = (
            (a & ~b).sum().item() for a, b in ((correct[method], correct[name]), (correct[name], correct[method]))
        )
        difference = 100 * (correct[method].double() - correct[name].double()).numpy()
        costs = results[method].gmacs.numpy(), other.gmacs.numpy()
        points = (0.0, 0.0) if won + lost == 0 else intervals.of_mean(difference, groups, resamples, seed)
        ratio = intervals.of_ratio(*costs, groups, resamples, seed)
        rows.append(
            {
                "method": method,
                "against": name,
                "won": won,
                "lost": lost,
                "p_value": binomtest(won, won + lost).pvalue if won + lost else 1.0,
                "points": difference.mean(),
                "points_low": points[0],
                "points_high": points[1],
                "cost_ratio": costs[0].sum() / costs[1].sum(),
                "cost_ratio_low": ratio[0],
                "cost_ratio_high": ratio[1],
            }
        )
    return pd.DataFrame(rows)


def area_under(curve: pd.DataFrame, full_gmacs: float, chance: float) -> float:
    """Mean score of a curve over budgets, see ``at_budgets``.

    ``curve`` has ``val_gmacs`` and ``score`` of the points on a frontier of ``val``. The difference of two such areas
    is the mean gain at equal cost.
    """
    return float(at_budgets(curve["val_gmacs"].to_numpy(), curve["score"].to_numpy(), full_gmacs, chance).mean())


def at_budgets(gmacs: np.ndarray, scores: np.ndarray, full_gmacs: float, chance: float) -> np.ndarray:
    """Scores at budgets from 2% to 100% of the full network, on a log scale: ``[BUDGETS]`` or ``[BUDGETS, N]``.

    At each budget the most expensive of ``P`` points counts that fits it by its cost on ``val``, ``gmacs [P]``;
    where none fits, ``chance``. ``scores`` are ``[P]``, or ``[P, N]`` for each of ``N`` videos.
    """
    order = np.argsort(gmacs, kind="stable")
    budgets = full_gmacs * np.geomspace(CHEAPEST_BUDGET, 1, BUDGETS) * (1 + 1e-9)
    position = np.searchsorted(gmacs[order], budgets, side="right")
    guess = np.full_like(scores[:1], chance, dtype=float)
    return np.concatenate([guess, scores[order]])[position]


def chance_level(labels: SparseLabels) -> float:
    """Score of always guessing the most frequent class."""
    return labels.classes.bincount().max().item() / len(labels)
