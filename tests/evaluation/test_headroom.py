"""Headroom: oracles by hand, and the order of the cases on planted splits."""

from dataclasses import replace
from functools import cache

import pandas as pd
import pytest
import torch
from support.slow import slow_but
from support.small import identity_readout, small_params
from support.splits import noisy, planted

from tlee.costs import GIGA, Costs
from tlee.evaluation.answers import answer_auroc
from tlee.evaluation.evaluate import evaluate
from tlee.evaluation.headroom import CASES, Headroom, measure_headroom
from tlee.evaluation.oracle import oracle, oracle_curve
from tlee.params import METHOD_SETTINGS, Params
from tlee.readout import Readout

A, B = (1.0, 0.0), (0.0, 1.0)
HAND_COSTS = Costs(segments=(10, 20), heads=(1, 0), reuse=0, classifier=5, gate=7)
VIDEOS = torch.tensor(
    [
        [[A, A], [A, A]],  # correct throughout
        [[A, B], [A, A]],  # correct at once by luck: the deeper exit is wrong
        [[B, B], [A, A]],  # wrong, then correct at both depths
        [[A, A], [A, B]],  # wrong in the end
    ]
)


@pytest.mark.parametrize(
    ("stays_correct", "exit_depths"),
    [(False, [[0, -1], [0, -1], [0, 0], [0, -1]]), (True, [[0, -1], [0, 0], [0, 0], [1, 1]])],
)
def test_an_exit_that_stays_correct_is_followed_by_no_wrong_one(stays_correct, exit_depths):
    data = planted(VIDEOS, torch.zeros(4, dtype=torch.long), identity_readout(reuse="none"), HAND_COSTS)
    outcomes = oracle(data, stays_correct)
    assert outcomes.exit_depths.tolist() == exit_depths
    costs = {(0, -1): 10 + 1 + 5, (0, 0): 2 * (10 + 1) + 5, (1, 1): 2 * (10 + 20) + 5}
    assert outcomes.macs.tolist() == [costs[tuple(path)] for path in exit_depths]
    assert data.judge(outcomes).correct.tolist() == [True, True, True, not stays_correct]


@pytest.mark.parametrize("reuse", ["none", "max", "mean"])
def test_to_stay_correct_is_never_cheaper_than_to_be_correct(reuse):
    data = noisy((0.3, 0.8), identity_readout(reuse=reuse))
    stable, lucky = oracle(data, stays_correct=True), oracle(data)
    assert (stable.macs >= lucky.macs).all()
    assert (stable.macs > lucky.macs).any()
    assert (data.judge(stable).correct <= data.judge(lucky).correct).all()


def test_a_video_that_is_given_up_may_be_correct_by_luck():
    """The last two of four are: the oracle would run one to its second frame, and knows that the other fails."""
    data = planted(VIDEOS, torch.zeros(4, dtype=torch.long), identity_readout(reuse="none"), HAND_COSTS)
    curve = oracle_curve(data, data.judge(oracle(data, stays_correct=True)))
    assert curve["score"].tolist() == [0.75, 0.75, 1.0]
    assert (curve["gmacs"] * 4 * GIGA).tolist() == pytest.approx([4 * 16, 3 * 16 + 27, 2 * 16 + 2 * 27])


# --- the cases -------------------------------------------------------------------------------------------


def settings(rule: str = "optimal_stopping") -> Params:
    overrides = {"evaluate.max_loss": 2.0, "evaluate.rule": rule, "evaluate.folds": 3}
    return small_params(overrides, num_branches=1, gate="confidence")


@cache
def measured(rule: str) -> Headroom:
    readout, skill, params = identity_readout(num_branches=1, gate="confidence"), (0.5, 4.0), settings(rule)
    return measure_headroom(evaluate(noisy(skill, readout), noisy(skill, readout, seed=1), params), params)


@pytest.mark.parametrize("rule", ["optimal_stopping", pytest.param("thresholds", marks=pytest.mark.slow)])
def test_no_case_is_worse_than_the_method(rule):
    found = measured(rule)
    assert list(found.table["case"]) == list(CASES) == list(found.curves["case"].unique())
    area, share = (found.table.set_index("case")[column] for column in ("area", "share_of_full"))
    assert area["method"] <= area["choice"] <= 1
    assert share["method"] >= share["choice"]
    assert area["exits"] > area["method"] + 0.02  # shallow exits are little better than chance
    assert area["gates"] > area["method"]
    assert area["luck"] >= area["gates"]
    assert share["luck"] <= share["gates"] < 1


def test_shallow_exits_that_are_perfect_leave_no_headroom_there():
    """All depths have the same features."""
    readout = identity_readout(num_branches=1, gate="confidence")
    val, test = (noisy((3.0, 3.0), readout, seed=seed) for seed in (0, 1))
    for split in (val, test):
        split.table.features[:, :, 0] = split.table.features[:, :, 1]
    table = measure_headroom(evaluate(val, test, settings()), settings()).table.set_index("case")
    assert table.at["exits", "area"] == table.at["method", "area"]
    assert table.at["exits", "share_of_full"] == table.at["method", "share_of_full"]


def test_the_share_is_that_of_the_cheapest_point_within_the_limit():
    found = measured("optimal_stopping")
    for case, share in found.table.set_index("case")["share_of_full"].items():
        curve = found.curves[found.curves["case"] == case]
        assert share == curve.loc[curve["score"] > found.full_score - 0.02 - 1e-6, "share_of_full"].min()
    assert found.table["share_of_full"].notna().all()


def test_the_share_is_missing_if_no_point_is_within_the_limit():
    """All frames are left at a depth that shows nothing."""
    params = small_params({"evaluate.rule": "thresholds", "evaluate.layer_threshold": 0.0}, num_branches=1)
    readout = identity_readout(num_branches=1)
    found = measure_headroom(evaluate(noisy((0.0, 4.0), readout), noisy((0.0, 4.0), readout, seed=1), params), params)
    table = found.table.set_index("case")
    curve = found.curves[found.curves["case"] == "method"]
    assert curve["score"].max() < found.full_score
    assert pd.isna(table.at["method", "share_of_full"])
    assert table.at["luck", "share_of_full"] < 1


@pytest.mark.parametrize("method", slow_but(("tlee", "full"), METHOD_SETTINGS))
def test_every_method_has_headroom_and_scores_of_answers(method):
    branches = METHOD_SETTINGS[method].get("num_branches", 1)
    params = small_params(method=method, num_branches=branches)
    torch.manual_seed(0)
    readout = Readout(2, 2, params).eval()
    readout.classifiers.load_state_dict(identity_readout(readout=params.model.readout).classifiers.state_dict())
    costs = Costs((10_000,) * (branches + 1), (1000,) * branches + (0,), 0, 500, 700 if readout.gates else 0)
    skill = (1.0, 3.0)[-branches - 1 :]
    val, test = (noisy(skill, readout, seed=seed) for seed in (0, 1))
    val, test = (replace(split, costs=costs) for split in (val, test))
    table = measure_headroom(evaluate(val, test, params), params).table.set_index("case")
    assert table.at["luck", "area"] >= table.at["gates", "area"] >= table.at["method", "area"]
    assert table.at["method", "share_of_full"] <= 1 + 1e-9
    assert list(answer_auroc(val, test, 0)["exits"]) == [*(f"depth {depth}" for depth in range(branches + 1)), "all"]


def test_both_tables_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = measured("optimal_stopping")
    found.write()
    folder = tmp_path / "results" / "plots" / "evaluate"
    assert list(pd.read_csv(folder / "headroom.csv")["case"]) == list(CASES)
    assert len(pd.read_csv(folder / "headroom_curves.csv")) == len(found.curves)
