"""The exit loop: what it decides, what it costs, what it skips."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tlee.costs import Costs, count_costs
from tlee.model import TLEE, Readout
from tlee.params import load_params
from tlee.policies import ALWAYS, NEVER, LiveFeatures, RandomExits, StoredFeatures, Thresholds, run

ROOT = Path(__file__).parents[1]
MODEL = load_params(ROOT / "params.yaml").model
COSTS = Costs(segments=(10, 20, 30), heads=(1, 2, 0), reuse=0, classifier=5, gate=7)
OFF = (NEVER,) * 3


class GrowthGate(nn.Module):
    """Stops (score above one half) where the feature has grown by more than 3."""

    def forward(self, current: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        return current.sum(1) - past.sum(1) - 3


@pytest.fixture
def readout() -> Readout:
    """Two features, two classes, logits equal to the features."""
    readout = Readout(2, 2, MODEL)
    readout.classifier.weight.data = torch.eye(2)
    readout.classifier.bias.data = torch.zeros(2)
    readout.gate = GrowthGate()
    return readout


def video(*frames: list[tuple[float, float]]) -> StoredFeatures:
    """One video from its frames, each a list of exit features from shallow to deep."""
    return StoredFeatures(torch.tensor([frames], dtype=torch.float32))


# --- one path by hand --------------------------------------------------------------------------------


def test_a_path_by_hand(readout):
    source = video(
        [(1, 0), (9, 9), (2, 0)],
        [(0, 3), (2, 4), (9, 0)],
        [(9, 0), (9, 0), (9, 0)],
    )
    policy = Thresholds(leave=(0.9, NEVER), first=(NEVER, NEVER, 0.99), gate=(NEVER, 0.5, NEVER), sure=OFF)
    outcomes = run(source, readout, policy, COSTS)
    # Frame 1: depth 0 is 0.73 sure, below 0.9; depth 1 can decide nothing and its head is not run; depth 2
    # is 0.88 sure, below 0.99. Frame 2: depth 0 (z = 2, 3) is 0.73 sure; at depth 1 z = (2, 4) has grown
    # by 4, the gate stops the video. Frame 3 is never looked at.
    first = (10 + 1 + 5) + 20 + (30 + 0 + 5)
    second = (10 + 1 + 5) + (20 + 2 + 7 + 5)
    assert outcomes.exits.tolist() == [[2, 1, -1]]
    assert outcomes.logits.tolist() == [[2, 4]]
    assert outcomes.predictions.tolist() == [1]
    assert outcomes.frames.tolist() == [2]
    assert outcomes.macs.tolist() == [first + second]


def test_confidence_stops_a_later_frame_only_where_it_may(readout):
    source = video([(1, 0)] * 3, [(1, 0), (1, 5), (1, 5)], [(9, 0)] * 3)
    policy = replace(Thresholds.never(3), sure=(NEVER, 0.9, NEVER))
    assert run(source, readout, policy, COSTS).exits.tolist() == [[2, 1, -1]]


def test_the_first_frame_just_takes_its_feature(readout):
    policy = replace(Thresholds.never(3), first=(ALWAYS, NEVER, NEVER))
    outcomes = run(video([(-3, -1)] + [(9, 9)] * 2, [(9, 9)] * 3), readout, policy, COSTS)
    assert outcomes.logits.tolist() == [[-3, -1]]
    assert outcomes.macs.tolist() == [10 + 1 + 5]


def test_at_the_last_frame_the_video_stops_at_its_layer_exit(readout):
    policy = replace(Thresholds.never(3), leave=(NEVER, 0.9))
    outcomes = run(video([(1, 0)] * 3, [(1, 0), (9, 0), (1, 0)]), readout, policy, COSTS)
    assert outcomes.exits.tolist() == [[2, 1]]


def test_always_leaving_needs_no_classifier_until_the_end(readout):
    policy = replace(Thresholds.never(3), leave=(NEVER, ALWAYS))
    outcomes = run(video(*[[(1, 0)] * 3] * 4), readout, policy, COSTS)
    assert outcomes.macs.tolist() == [4 * (10 + 20 + 2) + 5]


# --- properties on random videos -----------------------------------------------------------------------


def random_features(videos: int = 40, frames: int = 5, depths: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(videos, frames, depths, 2, generator=generator)


def random_policies(count: int = 30) -> list[Thresholds]:
    generator = np.random.default_rng(0)
    levels = [ALWAYS, 0.6, 0.8, 0.9, NEVER, NEVER]
    sizes = {"leave": 2, "first": 3, "gate": 3, "sure": 3}
    return [
        Thresholds(**{name: tuple(generator.choice(levels, size).tolist()) for name, size in sizes.items()})
        for _ in range(count)
    ]


def walk(features: torch.Tensor, readout: Readout, policy: Thresholds) -> tuple[list[int], int]:
    """The paper's loop, one video at a time, with nothing shared with the kit's."""
    frames, depths = features.shape[:2]
    z, path = None, []

    def confidence(feature: torch.Tensor) -> float:
        return readout.classifier(feature).softmax(0).max().item()

    for t in range(frames):
        for b in range(depths):
            z_tb = features[t, b] if z is None else torch.maximum(z, features[t, b])
            if t < frames - 1:
                threshold = policy.first[b] if t == 0 else policy.sure[b]
                stop = confidence(z_tb) > threshold
                if t > 0:
                    stop = stop or torch.sigmoid(readout.gate(z_tb[None], z[None])).item() > policy.gate[b]
                if stop:
                    return [*path, b], readout.classifier(z_tb).argmax().item()
            if b == depths - 1 or confidence(z_tb) > policy.leave[b]:
                break
        z = z_tb
        path.append(b)
    return path, readout.classifier(z).argmax().item()


@torch.inference_mode()
def test_the_loop_does_what_the_paper_says(readout):
    features = random_features()
    for policy in random_policies():
        outcomes = run(StoredFeatures(features), readout, policy, COSTS)
        for row, clip in enumerate(features):
            path, label = walk(clip, readout, policy)
            assert outcomes.exits[row, : len(path)].tolist() == path
            assert outcomes.exits[row, len(path) :].eq(-1).all()
            assert outcomes.predictions[row] == label


@torch.inference_mode()
def test_thresholds_of_one_are_the_full_network(readout):
    features = random_features()
    outcomes = run(StoredFeatures(features), readout, Thresholds.never(3), COSTS)
    assert torch.equal(outcomes.logits, readout.classifier(features[:, :, -1].amax(1)))
    assert outcomes.exits.eq(2).all()
    assert outcomes.macs.eq(COSTS.full_network(5)).all()


def test_no_policy_runs_more_of_the_backbone_than_the_full_network(readout):
    backbone = replace(COSTS, heads=(0, 0, 0), classifier=0, gate=0)
    for policy in random_policies():
        outcomes = run(StoredFeatures(random_features()), readout, policy, backbone)
        assert outcomes.macs.le(backbone.full_network(5)).all()


def test_a_video_costs_the_same_alone_and_among_others(readout):
    features = random_features()
    for policy in random_policies(10):
        together = run(StoredFeatures(features), readout, policy, COSTS)
        alone = [run(StoredFeatures(clip[None]), readout, policy, COSTS) for clip in features]
        assert together.macs.tolist() == [each.macs.item() for each in alone]


def test_random_exits_stop_as_often_as_they_should(readout):
    policy = RandomExits(stop_chance=0.3, leave_chance=0.0, generator=torch.Generator().manual_seed(0))
    outcomes = run(StoredFeatures(random_features(4000, depths=1)), readout, policy, Costs((1,), (0,), 0, 0, 0))
    assert (outcomes.frames == 1).double().mean().item() == pytest.approx(0.3, abs=0.03)


def test_thresholds_that_cannot_be_reached_do_not_matter(readout):
    policy = Thresholds(leave=(0.9, ALWAYS), first=(0.9, 0.9, 0.5), gate=(0.5,) * 3, sure=(0.9,) * 3)
    pruned = policy.reachable()
    assert pruned == Thresholds((0.9, ALWAYS), (0.9, 0.9, NEVER), (0.5, 0.5, NEVER), (0.9, 0.9, NEVER))
    source = StoredFeatures(random_features())
    assert run(source, readout, policy, COSTS).macs.equal(run(source, readout, pruned, COSTS).macs)


# --- the real network --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> TLEE:
    torch.manual_seed(0)
    model = TLEE(MODEL, classes=4)
    model.train().full_features(torch.randn(8, 2, 3, 64, 64))  # gives batch norm something to go by
    return model.eval()


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return torch.randn(6, 4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_step_by_step_runs_a_segment_only_where_it_is_needed(model, clips):
    policy = replace(Thresholds.never(4), leave=(NEVER, ALWAYS, NEVER), gate=(NEVER, NEVER, NEVER, NEVER))
    source = LiveFeatures(model, clips[0])
    run(source, model.readout, policy, count_costs(model))
    assert source.segment_runs == [4, 4, 0, 0]
    assert source.head_runs == [0, 4, 0, 0]

    source = LiveFeatures(model, clips[0])
    run(source, model.readout, replace(policy, first=(NEVER, ALWAYS, NEVER, NEVER)), count_costs(model))
    assert source.segment_runs == [1, 1, 0, 0]


@torch.inference_mode()
def test_step_by_step_and_replay_agree(model, clips):
    costs = count_costs(model)
    features = model.exit_features(clips)
    confidence = model.readout.classifier(features.cummax(1).values).softmax(-1).amax(-1)
    middle = confidence.median().item() + 1e-4
    for policy in (
        Thresholds.never(4),
        Thresholds((middle,) * 3, (NEVER,) * 4, (NEVER,) * 4, (NEVER,) * 4),
        Thresholds((middle, NEVER, middle), (NEVER, NEVER, NEVER, middle), (0.5,) * 4, (NEVER,) * 4),
    ):
        stored = run(StoredFeatures(features), model.readout, policy, costs)
        for row, clip in enumerate(clips):
            live = LiveFeatures(model, clip)
            outcomes = run(live, model.readout, policy, costs)
            assert torch.equal(outcomes.exits[0], stored.exits[row])
            assert torch.equal(outcomes.macs[0], stored.macs[row])
            assert torch.allclose(outcomes.logits[0], stored.logits[row], atol=1e-4)
            depths = [depth for depth in outcomes.exits[0].tolist() if depth >= 0]
            assert live.segment_runs == [sum(depth >= b for depth in depths) for b in range(4)]
