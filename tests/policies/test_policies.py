"""Policies: which exits they use, and random exits, which are drawn beforehand."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from support.small import COSTS, identity_readout, observe, random_features

from tlee.levels import ALWAYS, NEVER
from tlee.policies.given import RandomExits
from tlee.policies.inference import run
from tlee.policies.sources import StoredFeatures
from tlee.policies.stops import StopAbove
from tlee.policies.thresholds import Thresholds

# --- thresholds --------------------------------------------------------------------------------------


def test_the_full_network_uses_the_deepest_exit_only():
    never = Thresholds.never(3)
    assert never == Thresholds(layer=(NEVER,) * 2, first=(NEVER,) * 3, gate=(NEVER,) * 3, stop=(NEVER,) * 3)
    assert [never.uses_exit(t, b, frames=4) for t in (0, 2, 3) for b in range(3)] == [False, False, True] * 3


def test_an_exit_is_used_where_a_decision_can_be_made():
    off = (NEVER,) * 2
    cases = {
        "leave": (Thresholds((0.9,), off, off, off), [True] * 4),
        "first": (Thresholds((NEVER,), (0.9, NEVER), off, off), [True, False, False, False]),
        "gate": (Thresholds((NEVER,), off, (0.5, NEVER), off), [False, True, True, False]),
        "stop": (Thresholds((NEVER,), off, off, (0.9, NEVER)), [False, True, True, False]),
    }
    for name, (policy, used) in cases.items():
        assert [policy.uses_exit(t, 0, frames=4) for t in range(4)] == used, name


def test_thresholds_that_cannot_be_reached_do_not_matter():
    policy = Thresholds(layer=(0.9, ALWAYS), first=(0.9, 0.9, 0.5), gate=(0.5,) * 3, stop=(0.9,) * 3)
    pruned = policy.reachable()
    assert pruned == Thresholds((0.9, ALWAYS), (0.9, 0.9, NEVER), (0.5, 0.5, NEVER), (0.9, 0.9, NEVER))
    source, readout = StoredFeatures(random_features()), identity_readout()
    assert run(source, readout, policy, COSTS).macs.equal(run(source, readout, pruned, COSTS).macs)


@pytest.mark.parametrize("accumulate", ["exit", "visited", "published"])
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_one_confidence_threshold_decides_as_the_policy_of_the_literature(accumulate, frames):
    """At the last frame too, where a video that no exit has stopped is answered at the first exit that could leave."""
    readout = identity_readout(accumulate=accumulate, reuse="mean")
    source, costs = StoredFeatures(2 * random_features(200)[:, :frames]), replace(COSTS, reuse=100)
    depths = set()
    for shallowest, level in product(range(3), (ALWAYS, 0.4, 0.6, 0.8, 0.99, NEVER)):
        ours = run(source, readout, Thresholds.one_confidence(level, shallowest, 3), costs)
        theirs = run(source, readout, StopAbove.between("confidence", level, frames, shallowest, 2), costs)
        assert torch.equal(ours.exit_depths, theirs.exit_depths), (shallowest, level)
        assert torch.equal(ours.logits, theirs.logits), (shallowest, level)
        assert torch.equal(ours.macs, theirs.macs), (shallowest, level)
        depths |= {(t, b) for t in range(frames) for b in ours.exit_depths[:, t].unique().tolist()}
    assert {(t, 2) for t in range(frames)} | {(0, 0), (0, 1)} <= depths


def test_one_confidence_threshold_by_hand():
    assert Thresholds.one_confidence(0.8, 1, 3) == Thresholds(
        layer=(NEVER, 0.8), first=(NEVER, 0.8, 0.8), gate=(NEVER,) * 3, stop=(NEVER, 0.8, 0.8)
    )
    for shallowest in range(3):
        assert Thresholds.one_confidence(NEVER, shallowest, 3) == Thresholds.never(3)


def test_scores_that_are_not_requested_cost_nothing():
    readout = identity_readout()
    seen = observe(readout, torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2), t=1)
    assert (seen.classified, seen.macs(COSTS)) == (False, 0)
    assert seen.confidence.item() == pytest.approx(0.8808, abs=1e-4)  # 1 / (1 + exp(-2))
    assert (seen.classified, seen.macs(COSTS)) == (True, COSTS.classifier)
    assert 0 < seen.gate_score.item() < 1
    assert seen.macs(COSTS) == COSTS.classifier + COSTS.gate


def test_confidence_with_several_labels_is_the_largest_probability():
    seen = observe(identity_readout(), torch.tensor([[2.0, 0.0]]))
    seen.readout.multi_label = True
    assert seen.confidence.item() == pytest.approx(0.8808, abs=1e-4)  # sigmoid(2)
    seen = observe(seen.readout, torch.tensor([[-3.0, -4.0]]))
    assert seen.confidence.item() == pytest.approx(0.0474, abs=1e-4)


# --- random exits ----------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_paths():
    first, second = (RandomExits(0.3, seed=5).exit_depths(50, 4, 3) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, RandomExits(0.3, seed=6).exit_depths(50, 4, 3))


def test_with_chance_zero_all_frames_run_to_the_end():
    assert RandomExits(0.0, seed=0).exit_depths(5, 4, 3).eq(2).all()


def test_with_chance_one_the_video_stops_at_the_first_exit():
    assert RandomExits(1.0, seed=0).exit_depths(5, 4, 3).tolist() == [[0, -1, -1, -1]] * 5


def test_exit_depths_are_given_for_each_frame_until_the_video_stops():
    paths = RandomExits(0.3, seed=0).exit_depths(500, 4, 3)
    processed = paths >= 0
    assert processed[:, 0].all()
    assert (processed[:, 1:] <= processed[:, :-1]).all()  # no frame after one that was not processed
    assert paths.max() == 2
    assert {sum(row) for row in processed.tolist()} == {1, 2, 3, 4}


@pytest.mark.parametrize("chance", [0.1, 0.5])
def test_frames_and_videos_end_with_the_given_probability(chance):
    """At each exit two coins are thrown: one stops the video (and leaves the frame), one leaves the frame."""
    paths = RandomExits(chance, seed=0).exit_depths(100_000, 2, 3)
    first = paths[:, 0]
    leaves_here = 1 - (1 - chance) ** 2
    assert (first == 0).double().mean().item() == pytest.approx(leaves_here, abs=0.01)
    assert (first == 1).double().mean().item() == pytest.approx((1 - leaves_here) * leaves_here, abs=0.01)
    stopped = paths[:, 1] < 0
    at_0 = first == 0
    assert stopped[at_0].double().mean().item() == pytest.approx(chance / leaves_here, abs=0.02)
    assert stopped[first == 2].double().mean().item() == pytest.approx(chance, abs=0.02)
