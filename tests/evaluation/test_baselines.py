"""The policies of the literature: each stops by its own rule, by hand."""

import math

import numpy as np
import pytest
import torch
from support.labels import sparse
from support.small import COSTS, identity_readout, observe, random_features, video

from tlee.evaluation.baselines import (
    CHANCES,
    FAMILIES,
    _threshold,
    budgeted,
    ensemble,
    fixed_depth,
    fixed_frames,
)
from tlee.evaluation.evaluate import Split
from tlee.features import FeatureTable
from tlee.levels import ALWAYS, NEVER
from tlee.policies.given import FixedExits
from tlee.policies.inference import follow, run, run_any
from tlee.policies.sources import StoredFeatures
from tlee.policies.stops import StopAbove, certainty
from tlee.policies.thresholds import Thresholds

VIDEO = video(  # confidences 0.73, 0.5, 0.88; then 0.95, 0.98, 0.5; then 0.99 three times
    [(1, 0), (1, 1), (0, 2)],
    [(3, 0), (4, 0), (2, 2)],
    [(5, 0), (5, 0), (5, 0)],
)
NONE = {"reuse": "none"}  # so that each exit has the logits in the table


def exits(policy: StopAbove, source: StoredFeatures = VIDEO) -> list[int]:
    return run(source, identity_readout(**NONE), policy, COSTS).exit_depths[0].tolist()


def above(score: str, threshold: float, shallowest: int = 0, weights: tuple[float, ...] = ()) -> StopAbove:
    return StopAbove.between(score, threshold, 3, shallowest, 2, weights)


def test_confidence_stops_the_video_at_the_first_confident_exit():
    assert exits(above("confidence", 0.7)) == [0, -1, -1]
    assert exits(above("confidence", 0.85)) == [2, -1, -1]
    assert exits(above("confidence", 0.9)) == [2, 0, -1]
    assert exits(above("confidence", 0.9, shallowest=1)) == [2, 1, -1]
    assert exits(above("confidence", 0.985)) == [2, 2, 0]  # at the last frame too
    assert exits(above("confidence", NEVER)) == [2, 2, 2]
    assert exits(above("confidence", ALWAYS)) == [0, -1, -1]


def test_certainty_is_one_minus_the_entropy():
    readout = identity_readout()
    seen = observe(readout, torch.tensor([[0.0, 0.0], [100.0, 0.0], [math.log(3), 0.0]]))
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert certainty(seen).tolist() == pytest.approx([0, 1, 1 - entropy], abs=1e-6)
    readout.multi_label = True
    seen = observe(readout, torch.tensor([[0.0, 0.0], [math.log(3), 0.0]]))
    assert certainty(seen).tolist() == pytest.approx([0, (1 - entropy) / 2], abs=1e-6)
    assert exits(above("certainty", 0.5)) == [2, 0, -1]  # of 0.88 and 0.95: 0.47 and 0.73


def test_patience_waits_until_frames_agree():
    """At the deepest exit the classes are 1, 0 (of a tie), 0, 0."""
    source = video(*[[(0, 0), (0, 0), deepest] for deepest in ((0, 2), (2, 2), (5, 0), (5, 0))])

    def wait(streak: int) -> list[int]:
        return exits(StopAbove.between("agreement", (streak - 0.5) / 4, 4, 2, 2), source)

    assert wait(1) == [2, -1, -1, -1]
    assert wait(2) == [2, 2, 2, -1]
    assert wait(3) == [2, 2, 2, 2]


def test_an_ensemble_multiplies_and_answers_with_the_product():
    weights = (1.0, 0.5, 2.0)
    policy = above("ensemble", 0.97, weights=weights)
    outcomes = run(VIDEO, identity_readout(**NONE), policy, COSTS)
    # Log-odds of class 0 after each exit: 1, 1 + 0.5 * 0, 1 - 2 * 2 = -3; then -3 + 3 = 0, 2, 2; then 2 + 5 = 7.
    assert outcomes.exit_depths[0].tolist() == [2, 2, 0]
    odds = outcomes.logits[0, 0] - outcomes.logits[0, 1]
    assert odds.item() == pytest.approx(1 + 0 - 4 + 3 + 2 + 0 + 5)
    assert exits(above("ensemble", 0.9, weights=weights)) == [2, -1, -1]  # sigmoid(3) = 0.95


def test_fixed_exits_do_not_depend_on_the_video():
    readout, costs = identity_readout(), COSTS
    outcomes = follow(VIDEO, readout, FixedExits(frames=2, depth=1).exit_depths(1, 3, 3), costs)
    assert outcomes.exit_depths.tolist() == [[1, 1, -1]]
    assert outcomes.macs.tolist() == [2 * (10 + 20 + 2) + 5]


# --- families on a split -------------------------------------------------------------------------------


def split(videos: int = 200) -> Split:
    """Videos whose class stands out more at later frames and depths."""
    labels = torch.arange(videos) % 2
    strength = torch.linspace(0.2, 2, 4)[:, None] * torch.linspace(0.5, 1.5, 3)
    features = random_features(videos) + torch.eye(2)[labels][:, None, None] * strength[None, :, :, None]
    truth = torch.eye(2, dtype=torch.bool)[labels]
    names = [str(row) for row in range(videos)]
    return Split(FeatureTable(features, sparse(truth), names, names, ["a", "b"]), identity_readout(), COSTS, "top1")


def in_one_list(paths: list) -> list:
    return [policy for path in paths for policy in path]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_runs_and_some_of_it_costs_no_more_than_the_full_network(name):
    val = split(60)
    policies = in_one_list(FAMILIES[name](val, 0))
    assert len(policies) > 1
    full = val.run(Thresholds.never(3)).gmacs.mean()
    costs = [val.run(policy).gmacs.mean() for policy in policies]
    assert min(costs) < full
    again = [run_any(val.source, val.readout, policy, val.costs).macs for policy in in_one_list(FAMILIES[name](val, 0))]
    assert all(torch.equal(val.run(policy).macs, macs) for policy, macs in zip(policies, again, strict=True))


@pytest.mark.parametrize("name", sorted({*FAMILIES} - {"ensemble"}))
def test_along_a_path_policies_become_cheaper_or_costlier_but_not_both(name):
    """Except that a threshold of 1, the first of a path, needs no heads."""
    val = split(60)
    for path in FAMILIES[name](val, 0):
        assert len(set(path)) == len(path) > 1
        gmacs = [val.run(policy).gmacs.mean().item() for policy in path[1:]]
        assert gmacs in (sorted(gmacs), sorted(gmacs, reverse=True))


def test_fixed_families_are_all_frame_counts_and_all_depths():
    val = split(4)
    assert fixed_frames(val, 0) == [[FixedExits(count, 2) for count in (1, 2, 3, 4)]]
    assert fixed_depth(val, 0) == [[FixedExits(4, depth) for depth in (0, 1, 2)]]
    assert [policy.chance for policy in in_one_list(FAMILIES["random"](val, 7))] == list(CHANCES)


def shares(exits: torch.Tensor) -> np.ndarray:
    """Of the videos that stop at each exit, over frames and then depths."""
    last = (exits >= 0).sum(1) - 1
    place = last * 3 + exits.gather(1, last[:, None])[:, 0]
    return np.bincount(place, minlength=12) / len(exits)


def test_a_budgeted_policy_reaches_its_target_distribution():
    val = split()
    (path,) = budgeted(val, 0)
    outcomes = [val.run(policy) for policy in path]
    assert any(
        np.allclose(shares(each.exit_depths), 1 / 12, atol=1 / 200) for each in outcomes
    )  # the even mix, to a video
    costs = [each.gmacs.mean().item() for each in outcomes]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize(
    ("take", "above"), [(0, NEVER), (1, 0.85), (2, 0.6), (3, 0.6), (4, ALWAYS), (5, ALWAYS), (9, ALWAYS)]
)
def test_a_threshold_is_midway_between_different_scores(take, above):
    """Of 0.9, 0.8 and three of 0.4 that differ by rounding alone."""
    scores = np.array([0.4, 0.9, 0.4 + 1e-7, 0.8, 0.4 - 1e-7])
    assert _threshold(scores, take) == pytest.approx(above)


def test_the_weights_of_an_ensemble_favour_correct_exits():
    """Only the deepest exits of these videos are informative."""
    val = split()
    labels = val.table.labels
    val.table.features[:, :, 0] = random_features(200)[:, :, 0]
    val.table.features[:, :, 2] = torch.eye(2)[labels][:, None] + 0.3 * random_features(200)[:, :, 2]
    first, *others = ensemble(val, 0)
    weights = first[0].weights
    assert weights[2] > 2 * weights[0]
    assert {policy.weights[0] for policy in in_one_list(others)} == {0.0}  # those that do not look there


def test_policies_observe_calibrated_confidence():
    policy, readout = above("confidence", 0.9), identity_readout(**NONE)
    assert run(VIDEO, readout, policy, COSTS).exit_depths[0].tolist() == [2, 0, -1]
    assert run(VIDEO, readout, policy, COSTS, temperatures=(0.1, 1.0, 1.0)).exit_depths[0].tolist() == [0, -1, -1]


def test_several_labels_are_multiplied_separately():
    readout = identity_readout(**NONE)
    readout.multi_label = True
    outcomes = run(VIDEO, readout, above("ensemble", 0.98, weights=(1.0,) * 3), COSTS)
    assert outcomes.exit_depths[0].tolist() == [2, 0, -1]  # logits of class 0: 1, 2, 2, 5
