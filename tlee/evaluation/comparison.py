"""Rows of the tables that compare policies: intervals, paired differences, one number for a curve."""

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest

from tlee import intervals
from tlee.evaluation.replay import Split
from tlee.metrics import METRICS, mean_average_precision, top5
from tlee.policies.inference import Outcomes

CHEAPEST_BUDGET, BUDGETS = 0.02, 50  # of the full network's cost, up to all of it; how many


def policy_row(method: str, split: Split, outcomes: Outcomes, full: Outcomes, resamples: int, seed: int) -> dict:
    """Row of one policy with 95% intervals of its score and of its gain over the full network (paired by video)."""
    table, groups = split.table, split.table.groups
    probabilities, baseline = (split.readout.probabilities(each.logits) for each in (outcomes, full))
    point = split.point(method, outcomes)
    if split.metric == "top1":
        correct, full_correct = (split.correct(each).double().numpy() for each in (outcomes, full))
        low, high = intervals.of_mean(correct, groups, resamples, seed)
        difference_low, difference_high = intervals.of_mean(correct - full_correct, groups, resamples, seed)
    else:
        metric = METRICS[split.metric]

        def gain(rows: np.ndarray) -> float:
            return metric(probabilities[rows], table.truth[rows]) - metric(baseline[rows], table.truth[rows])

        low, high = intervals.of_statistic(
            lambda rows: metric(probabilities[rows], table.truth[rows]), groups, resamples, seed
        )
        difference_low, difference_high = intervals.of_statistic(gain, groups, resamples, seed)
    return {
        "method": method,
        "score": point["score"],
        "low": low,
        "high": high,
        "top5": top5(probabilities, table.truth),
        "map": mean_average_precision(probabilities, table.truth),
        "gmacs": point["gmacs"],
        "share_of_full": point["gmacs"] / full.gmacs.mean().item(),
        "frames": point["frames"],
        "difference": point["score"] - split.score(full),
        "difference_low": difference_low,
        "difference_high": difference_high,
    }


def paired(method: str, split: Split, outcomes: dict[str, Outcomes], resamples: int, seed: int) -> pd.DataFrame:
    """Compare ``method`` with each other policy on the same videos, one row each.

    ``won`` and ``lost`` count the videos that only it, and only the other, classifies correctly; ``p_value`` is that
    of the exact two-sided McNemar test. ``points`` is the difference in top-1, ``cost_ratio`` the cost of ``method``
    as a share of the other's, each with the 95% interval ``_low`` to ``_high``.
    """
    groups, correct = split.table.groups, {name: split.correct(each) for name, each in outcomes.items()}
    rows = []
    for name, other in outcomes.items():
        if name == method:
            continue
        won, lost = (
            (a & ~b).sum().item() for a, b in ((correct[method], correct[name]), (correct[name], correct[method]))
        )
        difference = 100 * (correct[method].double() - correct[name].double()).numpy()
        costs = outcomes[method].gmacs.numpy(), other.gmacs.numpy()
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


def chance_level(truth: torch.Tensor) -> float:
    """Score of always guessing the most frequent class of ``truth [N, C]``."""
    return truth.double().mean(0).max().item()
