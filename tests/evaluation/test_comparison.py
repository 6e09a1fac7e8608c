"""Comparison of two policies, and the area under a curve, by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from support.labels import sparse
from support.small import COSTS, identity_readout

from tlee.evaluation.comparison import BUDGETS, area_under, chance_level, paired
from tlee.evaluation.replay import Split
from tlee.evaluation.results import Results
from tlee.features import FeatureTable
from tlee.policies.inference import Outcomes


def split(videos: int) -> Split:
    names = [f"video {row}" for row in range(videos)]
    truth = torch.eye(2, dtype=torch.bool)[[0] * videos]
    table = FeatureTable(torch.zeros(videos, 3, 2, 2), sparse(truth), names, names, ["a", "b"])
    return Split(table, identity_readout(), COSTS, "top1")


def results(correct: list[int], macs: float) -> Results:
    predictions = [1 - each for each in correct]
    macs_of_all = torch.full((len(correct),), int(macs))
    exits = torch.zeros(len(correct), 3)
    outcomes = Outcomes(logits=torch.eye(2)[predictions], exit_depths=exits, macs=macs_of_all)
    return split(len(correct)).judge(outcomes)


def test_a_paired_comparison_by_hand():
    """Of ten videos it alone gets five, the other alone one, at half of the cost: p = 2 (1 + 6) / 2^6."""
    mine, other = results([1] * 8 + [0] * 2, 1e9), results([1] * 3 + [0] * 6 + [1], 2e9)
    (row,) = paired("tlee", range(10), {"tlee": mine, "layer": other}, 500, 0).to_dict("records")
    assert (row["method"], row["against"], row["won"], row["lost"]) == ("tlee", "layer", 5, 1)
    assert row["p_value"] == pytest.approx(2 * (1 + 6) / 2**6)
    assert row["points"] == pytest.approx(40)
    assert row["points_low"] < 40 < row["points_high"]
    assert (row["cost_ratio"], row["cost_ratio_low"], row["cost_ratio_high"]) == (0.5, 0.5, 0.5)


def test_policies_that_agree_differ_only_in_cost():
    (row,) = paired("a", range(4), {"a": results([1] * 4, 1e9), "b": results([1] * 4, 4e9)}, 50, 0).to_dict("records")
    assert (row["won"], row["lost"], row["p_value"]) == (0, 0, 1)
    assert (row["points"], row["points_low"], row["points_high"]) == (0, 0, 0)
    assert row["cost_ratio"] == 0.25


def curve(*points: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(points, columns=["val_gmacs", "score"])


def test_the_area_under_a_curve_by_hand():
    """Nothing can be afforded on the first half of the scale, then one point, and the full network at its end."""
    middle = np.sqrt(0.02)
    assert area_under(curve((middle, 0.8)), 1.0, chance=0.2) == pytest.approx(0.5)
    last = 1 / BUDGETS
    assert area_under(curve((middle, 0.8), (1.0, 1.0)), 1.0, chance=0.2) == pytest.approx(0.5 + last * 0.2)
    assert area_under(curve((0.001, 0.9)), 1.0, chance=0.2) == pytest.approx(0.9)
    assert area_under(curve((0.01, 0.9)), 10.0, chance=0.0) == pytest.approx(0.9)  # a share of the full cost


def test_a_better_curve_has_more_area():
    slow, fast = curve((0.5, 0.7), (1.0, 1.0)), curve((0.1, 0.7), (0.2, 1.0))
    assert area_under(fast, 1.0, 0.5) > area_under(slow, 1.0, 0.5)


def test_chance_level_is_the_most_frequent_class():
    assert chance_level(sparse(torch.eye(2, dtype=torch.bool)[[0, 0, 1]])) == pytest.approx(2 / 3)
