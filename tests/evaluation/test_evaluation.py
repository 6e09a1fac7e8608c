"""Numbers of the comparison, on cases small enough to check by hand."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import pandas as pd
import pytest
import torch
from support.labels import sparse
from support.small import T, identity_readout, small_params

from tlee.costs import Costs
from tlee.evaluation.baselines import LEVELS
from tlee.evaluation.candidates import candidates, family_names, fixed_thresholds
from tlee.evaluation.comparison import measure, policy_row
from tlee.evaluation.evaluate import Evaluation, cross_validate, evaluate, pick, simplest
from tlee.evaluation.oracle import oracle, oracle_curve
from tlee.evaluation.replay import Split
from tlee.evaluation.search import NEAR, Search
from tlee.evaluation.value_iteration import PRICES, ValueIteration
from tlee.features import FeatureTable
from tlee.levels import NEVER
from tlee.methods import NAMES
from tlee.metrics import mean_average_precision
from tlee.params import METHOD_SETTINGS, Params
from tlee.policies.files import read_policy
from tlee.policies.inference import Outcomes, follow
from tlee.policies.thresholds import Thresholds
from tlee.readout import Readout
from tlee.records import load_json

pytestmark = pytest.mark.slow

COSTS = Costs(segments=(10, 20), heads=(1, 0), reuse=0, classifier=5, gate=7)
THRESHOLDS = {"evaluate.rule": "thresholds"}
THREE_POINTS = {"evaluate.max_loss": 3.0}  #: less is not certain of 60 videos


@pytest.fixture
def readout() -> Readout:
    return identity_readout()


def split(features: torch.Tensor, labels: list, readout: Readout, costs: Costs = COSTS, metric: str = "top1") -> Split:
    names = [f"video {row}" for row in range(len(features))]
    shown = [label if isinstance(label, list) else [label] for label in labels]
    truth = torch.stack([torch.eye(2, dtype=torch.bool)[each].any(0) for each in shown])
    return Split(FeatureTable(features, sparse(truth), names, names, ["first", "second"]), readout, costs, metric)


# --- the oracle --------------------------------------------------------------------------------------

FIRST, SECOND = (1.0, 0.0), (0.0, 1.0)
VIDEOS = torch.tensor(
    [
        [[FIRST, FIRST], [FIRST, FIRST]],  # correct at once
        [[SECOND, FIRST], [SECOND, SECOND]],  # the first frame is correct at full depth only
        [[SECOND, SECOND], [(3.0, 0.0), (3.0, 0.0)]],  # the second frame is needed, a shallow one will do
        [[SECOND, SECOND], [SECOND, SECOND]],  # never correct
    ]
)


def test_the_oracle_takes_the_cheapest_correct_exit(readout):
    outcomes = oracle(split(VIDEOS, [0, 0, 0, 0], readout))
    assert outcomes.exit_depths.tolist() == [[0, -1], [1, -1], [0, 0], [1, 1]]
    assert outcomes.macs.tolist() == [10 + 1 + 5, 10 + 20 + 5, 2 * (10 + 1) + 5, 2 * (10 + 20) + 5]
    assert outcomes.predictions.tolist() == [0, 0, 0, 1]


def test_any_of_several_labels_is_correct_for_the_oracle(readout):
    outcomes = oracle(split(VIDEOS, [[0, 1], [0], [0], [0, 1]], readout))
    assert outcomes.exit_depths.tolist() == [[0, -1], [1, -1], [0, 0], [0, -1]]


@pytest.mark.parametrize("accumulate", ["exit", "visited", "published"])
@pytest.mark.parametrize("steps", ["shared", "per_step"])
def test_the_oracle_has_the_cost_and_logits_of_its_exits(accumulate, steps):
    """Its exits, taken as given paths, end in the same place at the same cost."""
    readout = identity_readout(accumulate=accumulate, readout=steps, reuse="mean")
    labels, test = noisy(60, seed=0, skill=0.5)
    data = split(test, labels, readout, replace(COSTS, reuse=3))
    outcomes = oracle(data)
    again = follow(data.source, readout, outcomes.exit_depths, data.costs)
    assert torch.equal(outcomes.macs, again.macs)
    torch.testing.assert_close(outcomes.logits, again.logits)
    assert len(outcomes.macs.unique()) > 3


def test_the_oracle_gives_up_the_most_expensive_videos_first(readout):
    data = split(VIDEOS, [0, 0, 0, 0], readout)
    curve = oracle_curve(data, data.judge(oracle(data)))
    cheapest = 10 + 1 + 5
    assert curve["score"].tolist() == [0.25, 0.5, 0.75]  # the first video costs no more than to give it up
    kept = [4 * cheapest, 3 * cheapest + 27, 2 * cheapest + 27 + 35]
    assert curve["gmacs"].tolist() == pytest.approx([total / 4 / 1e9 for total in kept])


# --- rows of the table -------------------------------------------------------------------------------


def outcomes(predictions: list[int]) -> Outcomes:
    count = len(predictions)
    macs = torch.full((count,), 2 * 10**9)
    return Outcomes(logits=torch.eye(2)[predictions], exit_depths=torch.zeros(count, 3, dtype=torch.long), macs=macs)


def row_of(predictions: list[int], full: list[int], labels: list, **settings: Any) -> dict:
    data = split(torch.zeros(len(labels), 3, 2, 2), labels, identity_readout(), **settings)
    measured, full_measured = (measure(data, outcomes(each), resamples=100, seed=0) for each in (predictions, full))
    return policy_row("tlee", data, measured, full_measured, resamples=100, seed=0)


def test_a_row_of_the_table_by_hand():
    row = row_of([0, 1, 1, 1], [0, 0, 0, 1], labels=[0, 0, 1, 1])
    assert row["score"] == 0.75
    assert row["top5"] == 1.0
    assert row["gmacs"] == 2.0
    assert row["frames"] == 3.0
    assert row["difference"] == 0.0
    assert row["difference_low"] < 0 < row["difference_high"]
    assert 0 <= row["low"] < 0.75 < row["high"] <= 1
    # Class 0: video 0 alone on top (1), then the others together (2 of 4); class 1: 2 of 3, then 2 of 4.
    assert row["map"] == pytest.approx(((1 + 1 / 2) / 2 + 2 / 3) / 2)


def test_a_row_of_mean_average_precision_by_hand():
    labels = [[0], [0, 1], [1], [1]] * 5
    row = row_of([0, 1, 1, 1] * 5, [0, 0, 0, 1] * 5, labels, metric="map")
    probabilities = outcomes([0, 1, 1, 1] * 5).logits.softmax(1)
    truth = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 1]]).bool().repeat(5, 1)
    assert row["score"] == row["map"] == pytest.approx(mean_average_precision(probabilities, sparse(truth)))
    assert row["low"] < row["score"] < row["high"]
    assert row["difference_low"] < row["difference"] < row["difference_high"]


def test_a_number_in_the_parameters_fixes_a_threshold():
    overrides = {"evaluate.layer_threshold": 0.8, "evaluate.stop_threshold": 1, "evaluate.gate_threshold": "auto"}
    assert fixed_thresholds(small_params(overrides).evaluate) == {"layer": 0.8, "stop": 1.0}


# --- the whole comparison ----------------------------------------------------------------------------


def noisy(videos: int, seed: int, skill: float = 3.0) -> tuple[list[int], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (videos,), generator=generator)
    truth = skill * torch.eye(2)[labels][:, None, None]
    return labels.tolist(), truth + torch.randn(videos, T, 2, 2, generator=generator)


def splits(params: Params, metric: str = "top1") -> tuple[Split, Split]:
    torch.manual_seed(0)
    readout = Readout(2, 2, params)
    readout.classifiers.load_state_dict(identity_readout(readout=params.model.readout).classifiers.state_dict())
    depths = params.model.num_branches + 1
    # Large enough that the arithmetic of a policy is small.
    costs = Costs((10_000,) * depths, (1000,) * (depths - 1) + (0,), 0, 5000, 7000 if readout.gates else 0)
    val, test = (noisy(60, seed) for seed in (0, 1))
    val, test = (split(x[:, :, -depths:], y, readout.eval(), costs, metric) for y, x in (val, test))
    return val, test


@cache
def found(params: Params, metric: str = "top1") -> Evaluation:
    """What several tests look at."""
    return evaluate(*splits(params, metric), params)


def test_the_comparison_has_every_policy_and_repeats_exactly():
    params = small_params(THREE_POINTS, num_branches=1)
    first, second = found(params), evaluate(*splits(params), params)
    assert list(first.table["method"]) == [*family_names(params, first.test), "oracle"]
    assert set(first.table["method"]) == set(NAMES)
    assert first.table.equals(second.table)
    assert first.curves.equals(second.curves)
    rows = first.table.set_index("method")
    assert rows.at["full", "share_of_full"] == 1
    assert rows.at["oracle", "score"] == rows["score"].max()
    assert first.exit_shares().shape == (T, 2)
    assert first.exit_shares()[0].sum() == pytest.approx(1)
    pairs, names = first.confusions(), dict(enumerate(first.classes))
    named = zip(pairs["truth"].map(names), pairs["prediction"].map(names), strict=True)
    assert (
        dict(zip(named, pairs["videos"], strict=True))
        == first.trace("tlee").groupby(["truth", "prediction"]).size().to_dict()
    )
    assert first.policies["tlee"] in own_policies(params)


def own_policies(params: Params) -> set:
    """TLEE's own policies by the values of its choices, or by one confidence threshold."""
    val, _ = splits(params)
    return {simplest(each.policy) for each in candidates("tlee", Search(val), params)}


def test_the_parameters_of_a_policy_are_its_price_or_its_thresholds():
    evaluation = found(small_params(num_branches=1))
    val, _ = splits(small_params(num_branches=1))
    (by_value,), by_level = ValueIteration(val, 0).policies([0.1]), Thresholds.one_confidence(0.8, 1, 2)
    tables = [replace(evaluation, policies={"tlee": each}).policy_parameters() for each in (by_value, by_level)]
    assert tables[0].to_dict() == {"price": {"full network": 0.1}}
    assert tables[1].loc["stop"].tolist() == tables[1].loc["first"].tolist() == [NEVER, 0.8]


def test_with_the_rule_of_thresholds_they_are_the_policy_of_tlee():
    params = small_params(THRESHOLDS, num_branches=1)
    evaluation = found(params)
    assert list(evaluation.table["method"]) == [*family_names(params, evaluation.test), "oracle"]
    assert set(evaluation.table["method"]) == set(NAMES) - {"tlee_thresholds"}
    assert isinstance(evaluation.policies["tlee"], Thresholds)
    assert list(evaluation.policy_parameters().index) == ["layer", "first", "gate", "stop"]
    assert evaluation.policy_parameters().shape == (4, 2)


def test_the_rule_decides_only_which_policy_is_called_tlee():
    """Either way the thresholds found are the same, and all other rows are."""
    by_value, by_thresholds = (
        found(small_params(rule, num_branches=1)) for rule in (THREE_POINTS, THREE_POINTS | THRESHOLDS)
    )
    assert by_value.policies["tlee"] in own_policies(small_params(THREE_POINTS, num_branches=1))
    assert by_value.policies["tlee"] != by_thresholds.policies["tlee"]
    others = {"tlee_thresholds": by_thresholds.policies["tlee"], "tlee": by_value.policies["tlee"]}
    assert by_value.policies == by_thresholds.policies | others


@pytest.mark.parametrize("method", METHOD_SETTINGS)
def test_every_method_is_compared_with_the_full_network(method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exits = METHOD_SETTINGS[method].get("num_branches", 1)
    params = small_params(method=method, num_branches=exits)
    evaluation = found(params)
    policies = [*family_names(params, evaluation.test), "oracle"]
    assert ("tlee_thresholds" in policies) == (method == "tlee")  # the rule is for TLEE alone
    assert list(evaluation.table["method"]) == policies
    assert set(policies) <= set(NAMES)
    assert set(evaluation.curves["method"]) == set(policies)
    known = evaluation.table.set_index("method")
    assert known.drop("oracle")[["val_score", "val_gmacs"]].notna().all(axis=None)
    assert list(evaluation.paired["against"]) == [name for name in policies if name != method]

    trace = evaluation.trace(evaluation.method)
    assert trace["correct"].mean() == pytest.approx(known.at[method, "score"])
    assert trace["gmacs"].mean() == pytest.approx(known.at[method, "gmacs"])
    assert trace["frames"].tolist() == [len(path.split()) for path in trace["exit_depths"]]
    assert evaluation.policy_parameters().notna().any(axis=None)
    assert evaluation.decisions().loc["first", "reached"].max() == 60

    evaluation.write(agreement=pd.Series({"full": 1.0, method: 0.5}))
    written = load_json(tmp_path / "results" / "metrics" / "evaluate.json", "evaluate")
    assert set(written) == {*policies, "step_by_step_agreement"}
    assert written["step_by_step_agreement"] == 0.5  # the least
    assert {name: read_policy(name) for name in evaluation.policies} == evaluation.policies


def test_readouts_per_step_and_visited_exits_are_evaluated_too():
    rules = ({"accumulate": "visited", "reuse": "mean"}, {"accumulate": "published"})
    for settings in (*rules, {"readout": "per_step"}, {"gate": "confidence"}):
        params = small_params(THREE_POINTS, num_branches=1, **settings)
        evaluation = found(params)
        assert evaluation.policies["tlee"] in own_policies(params)
        assert evaluation.table.set_index("method").at["tlee", "share_of_full"] < 1
        assert ("tlee_gate" in evaluation.policies) == (settings.get("gate") != "confidence")


def test_the_metric_of_the_parameters_is_compared():
    table = found(small_params({"evaluate.bootstrap": 50}, num_branches=1), metric="map").table.set_index("method")
    assert table["score"].equals(table["map"].rename("score"))
    assert (table["low"] <= table["score"]).all() and (table["score"] <= table["high"]).all()


def within_budget(gmacs: float, rule: str) -> pd.DataFrame:
    overrides = {"evaluate.max_gmacs": gmacs, "evaluate.bootstrap": 50, "evaluate.rule": rule}
    return found(small_params(overrides, num_branches=1)).table.set_index("method")


@pytest.mark.parametrize("rule", ["optimal_stopping", "thresholds"])
def test_a_budget_is_kept(rule):
    rows = within_budget(40e-6, rule)
    assert rows.at["full", "val_gmacs"] > 40e-6  # it has no choice
    assert rows.at["fixed_frames", "val_gmacs"] == pytest.approx(25e-6)  # one frame
    assert (rows.loc[["tlee", "temporal", "confidence"], "val_gmacs"] < 40e-6).all()


def test_a_larger_budget_is_used():
    assert 40e-6 < within_budget(80e-6, "thresholds").at["tlee", "val_gmacs"] < 80e-6  # more cost, more accuracy


def test_a_policy_is_reported_with_the_estimate_that_it_was_chosen_by():
    """For TLEE's own it is the score that it keeps along its path; for others, that on the videos of the search."""
    params = small_params(THREE_POINTS, num_branches=1)
    val, _ = splits(params)
    search, evaluation = Search(val), found(params)
    rows = evaluation.table.set_index("method")
    for name in ("tlee", "tlee_gate"):
        chosen = pick(candidates(name, search, params), search, params.evaluate)
        assert rows.at[name, "val_score"] == search.score(chosen)
        assert rows.at[name, "val_gmacs"] == chosen.gmacs
        measured = val.score(val.result(evaluation.policies[name]))
        expected = search.score(search.full) - chosen.added if name == "tlee" else measured
        assert rows.at[name, "val_score"] == pytest.approx(expected)


@pytest.fixture
def gain(monkeypatch):
    """Sets the interval of the gain of values over one threshold."""
    return lambda low: monkeypatch.setattr("tlee.intervals.of_mean", lambda *arguments: (low, 1.0))


def test_values_are_judged_on_videos_that_they_were_not_fitted_on(gain):
    """Unless there are no folds, or a single group."""
    gain(0.01)
    params = small_params(num_branches=1)
    val, _ = splits(params)

    def judged(split: Split, settings: Params) -> list[bool]:
        """True for each policy that has the cost of its own decisions on ``split``."""
        tried = candidates("tlee", Search(split), settings)[1:]
        assert [each.policy for each in tried] == policies  # fitted on all videos either way
        own = [split.result(each.policy).gmacs.mean().item() for each in tried]
        return [each.gmacs == pytest.approx(cost, rel=1e-9) for each, cost in zip(tried, own, strict=True)]

    policies = [each.policy for each in candidates("tlee", Search(val), params)[1:]]
    one_group = replace(val, table=replace(val.table, groups=["g"] * 60))
    assert all(judged(one_group, params))
    assert all(judged(val, small_params({"evaluate.folds": 0}, num_branches=1)))
    assert sum(not is_own for is_own in judged(val, params)) >= len(PRICES) / 2


@pytest.mark.parametrize("low", [0.01, 0.0, -0.01, math.nan])
def test_the_policies_of_tlee(gain, low):
    """Of all prices if the gain is above zero, else of all confidence thresholds; and the full network."""
    gain(low)
    params = small_params(num_branches=1)
    val, _ = splits(params)
    full, *policies = [each.policy for each in candidates("tlee", Search(val), params)]
    assert full == Thresholds.never(2)
    if low > 0:
        assert [policy.price for policy in policies] == list(PRICES)
    else:
        assert policies == [Thresholds.one_confidence(level, depth, 2) for depth in (0, 1) for level in LEVELS]


@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("max_loss", [3.0, 6.0, 12.0])
@pytest.mark.parametrize("accumulate", ["exit", "visited"])
def test_tlee_costs_no_more_than_any_single_threshold_within_the_same_limit(gain, accumulate, max_loss, confidence):
    """Where values are no better, and but for the 5% within which fewer exits are chosen."""
    gain(0.0)
    limits = {"evaluate.max_loss": max_loss, "evaluate.confidence": confidence}
    params = small_params(limits, num_branches=1, accumulate=accumulate)
    val, _ = splits(params)
    search = Search(val)
    tried = candidates("tlee", search, params)
    chosen = pick(tried, search, params.evaluate)
    assert chosen.gmacs < search.full.gmacs
    for start in (1, 1 + len(LEVELS)):  # as in `test_the_policies_of_tlee`
        path = tried[start : start + len(LEVELS)]
        assert chosen.gmacs <= NEAR * pick(path, search, params.evaluate).gmacs


def test_the_decisions_by_hand():
    """Four videos of four frames: two leave the first frame at depth 0, one of these stops; one uses all frames."""
    evaluation = found(small_params(num_branches=1))
    paths = torch.tensor([[0, -1, -1, -1], [0, 1, 1, 0], [1, 0, -1, -1], [1, 1, -1, -1]])
    results = {"tlee": replace(evaluation.results["tlee"], exit_depths=paths)}
    table = replace(evaluation, results=results).decisions()
    assert table.reset_index().values.tolist() == [
        ["first", 0, 4, 0.25, 0.25, 0.5],
        ["first", 1, 2, 0.0, 1.0, 0.0],
        ["later", 0, 4, 0.25, 0.0, 0.75],
        ["later", 1, 3, pytest.approx(1 / 3), pytest.approx(2 / 3), 0.0],
        ["last", 0, 1, 1.0, 0.0, 0.0],
    ]


@pytest.mark.parametrize("rule", [{}, THRESHOLDS])
def test_cross_validation_runs_each_video_on_a_policy_that_has_not_seen_it(rule):
    """The folds choose other policies than all of val does, so costs differ.

    The 40 videos of a fold are too few for any confidence in three points.
    """
    likely = {"evaluate.folds": 3, "evaluate.confidence": 0.5}
    params = small_params(likely | THREE_POINTS | rule, num_branches=1)
    val, _ = splits(params)
    unseen = cross_validate(val, params)
    assert unseen.correct.shape == (60,)
    assert unseen.macs.gt(0).all()
    assert torch.equal(unseen.macs, cross_validate(val, params).macs)
    seen = val.result(found(params).policies["tlee"])
    assert unseen.gmacs.mean() < val.result(found(params).policies["full"]).gmacs.mean()
    assert not torch.equal(unseen.macs, seen.macs)
