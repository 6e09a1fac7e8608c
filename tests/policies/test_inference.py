"""The exit loop on stored features: what it decides, what it costs, what it skips."""

from dataclasses import replace
from itertools import cycle, product
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from support.small import COSTS, T, identity_readout, random_features, small_params, video
from torch import nn

from tlee.levels import ALWAYS, NEVER
from tlee.modules import GATES, REUSES
from tlee.policies import inference
from tlee.policies.evidence import NUM_EVIDENCE
from tlee.policies.given import RandomExits
from tlee.policies.inference import Outcomes, follow, run, run_together
from tlee.policies.optimal_stopping import NO_CHOICE, OptimalStopping
from tlee.policies.policy import Policy
from tlee.policies.reference import run_one_video
from tlee.policies.sources import StoredFeatures
from tlee.policies.stops import StopAbove
from tlee.policies.thresholds import Thresholds
from tlee.readout import Readout

OFF = (NEVER,) * 3
WITH_REUSE = replace(COSTS, reuse=100)


class GrowthGate(nn.Module):
    """Stops (score above one half) where the feature has grown by more than 3."""

    def forward(self, current: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        return current.sum(1) - past.sum(1) - 3


@pytest.fixture
def readout() -> Readout:
    """Two features, two classes, logits equal to the features."""
    readout = identity_readout()
    readout.gates = nn.ModuleList([GrowthGate()])
    return readout


# --- one path by hand --------------------------------------------------------------------------------


def test_a_path_by_hand(readout):
    source = video(
        [(1, 0), (9, 9), (2, 0)],
        [(0, 3), (2, 4), (9, 0)],
        [(9, 0), (9, 0), (9, 0)],
    )
    policy = Thresholds(layer=(0.9, NEVER), first=(NEVER, NEVER, 0.99), gate=(NEVER, 0.5, NEVER), stop=OFF)
    outcomes = run(source, readout, policy, COSTS)
    # Frame 1: depth 0 is 0.73 confident, below 0.9; depth 1 can decide nothing and its head is not run; depth 2
    # is 0.88 confident, below 0.99. Frame 2: depth 0 (z = 2, 3) is 0.73 confident; at depth 1 z = (2, 4) has grown
    # by 4, the gate stops the video. Frame 3 is never processed.
    first = (10 + 1 + 5) + 20 + (30 + 0 + 5)
    second = (10 + 1 + 5) + (20 + 2 + 7 + 5)
    assert outcomes.exit_depths.tolist() == [[2, 1, -1]]
    assert outcomes.logits.tolist() == [[2, 4]]
    assert outcomes.predictions.tolist() == [1]
    assert outcomes.frames.tolist() == [2]
    assert outcomes.macs.tolist() == [first + second]
    # Reuse runs where features are accumulated: twice at frame 2, nowhere at frame 1.
    assert run(source, readout, policy, WITH_REUSE).macs.tolist() == [first + second + 2 * 100]


def test_a_path_by_hand_that_accumulates_visited_exits(readout):
    readout.accumulates_visited = True
    source = video(
        [(1, 0), (9, 9), (0, 1)],
        [(0, 3), (2, 4), (9, 0)],
        [(9, 0), (9, 0), (9, 0)],
    )
    policy = Thresholds(layer=(0.9, NEVER), first=(NEVER, NEVER, 0.99), gate=(NEVER, 0.5, NEVER), stop=OFF)
    outcomes = run(source, readout, policy, WITH_REUSE)
    # Frame 1: z = (1, 0), is not evaluated at depth 1, then max((1, 0), (0, 1)) = (1, 1): 0.5 confident. Frame 2:
    # depth 0: (1, 3), 0.88 confident; depth 1: (2, 4), which the gate compares with (1, 1): grown by 4.
    first = (10 + 1 + 5) + 20 + (30 + 0 + 100 + 5)
    second = (10 + 1 + 100 + 5) + (20 + 2 + 100 + 7 + 5)
    assert outcomes.exit_depths.tolist() == [[2, 1, -1]]
    assert outcomes.logits.tolist() == [[2, 4]]
    assert outcomes.macs.tolist() == [first + second]


@pytest.mark.parametrize(
    ("accumulate", "logits"),
    [
        ("exit", (3, 4)),  # of the exits taken: ((1, 0) + (5, 8)) / 2
        ("visited", (3, 3)),  # of all four: ((-3, 0) + (1, 0) + (9, 4) + (5, 8)) / 4
    ],
)
def test_a_mean_counts_its_features(accumulate, logits):
    readout = identity_readout(reuse="mean", accumulate=accumulate)
    source = video([(-3, 0), (1, 0)], [(9, 4), (5, 8)])
    policy = Thresholds(layer=(0.999999,), first=(NEVER,) * 2, gate=(NEVER,) * 2, stop=(NEVER,) * 2)
    costs = replace(COSTS, segments=(10, 20), heads=(1, 0))
    outcomes = run(source, readout, policy, costs)
    assert outcomes.exit_depths.tolist() == [[1, 1]]
    assert outcomes.logits.tolist() == [list(logits)]


def test_confidence_stops_a_later_frame_only_where_it_may(readout):
    source = video([(1, 0)] * 3, [(1, 0), (1, 5), (1, 5)], [(9, 0)] * 3)
    policy = replace(Thresholds.never(3), stop=(NEVER, 0.9, NEVER))
    assert run(source, readout, policy, COSTS).exit_depths.tolist() == [[2, 1, -1]]


def test_the_first_frame_just_takes_its_feature(readout):
    policy = replace(Thresholds.never(3), first=(ALWAYS, NEVER, NEVER))
    outcomes = run(video([(-3, -1)] + [(9, 9)] * 2, [(9, 9)] * 3), readout, policy, WITH_REUSE)
    assert outcomes.logits.tolist() == [[-3, -1]]
    assert outcomes.macs.tolist() == [10 + 1 + 5]


def test_at_the_last_frame_the_video_stops_at_its_layer_exit(readout):
    policy = replace(Thresholds.never(3), layer=(NEVER, 0.9))
    outcomes = run(video([(1, 0)] * 3, [(1, 0), (9, 0), (1, 0)]), readout, policy, COSTS)
    assert outcomes.exit_depths.tolist() == [[2, 1]]


def test_always_leaving_needs_no_classifier_until_the_end(readout):
    policy = replace(Thresholds.never(3), layer=(NEVER, ALWAYS))
    outcomes = run(video(*[[(1, 0)] * 3] * 4), readout, policy, WITH_REUSE)
    assert outcomes.macs.tolist() == [4 * (10 + 20 + 2) + 3 * 100 + 5]


def test_each_step_has_its_classifier_and_gate():
    """A classifier of step ``t`` adds ``10 t`` to the first class, only the gate of the third step stops."""
    readout = identity_readout(readout="per_step")
    for t, classifier in enumerate(readout.classifiers):
        classifier.bias.data[0] = 10 * t

    class Gate(nn.Module):
        def __init__(self, logit: float):
            super().__init__()
            self.logit = logit

        def forward(self, current: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
            return current.new_full((len(current),), self.logit)

    readout.gates = nn.ModuleList([Gate(-1.0), Gate(1.0)])  # of the steps 1 and 2
    policy = replace(Thresholds.never(3), gate=(NEVER, NEVER, 0.5))
    outcomes = run(video(*[[(1, 2)] * 3] * 4), readout, policy, COSTS)
    assert outcomes.exit_depths.tolist() == [[2, 2, 2, -1]]
    assert outcomes.logits.tolist() == [[21, 2]]
    policy = replace(Thresholds.never(3), first=(NEVER, ALWAYS, NEVER))
    assert run(video(*[[(1, 2)] * 3] * 4), readout, policy, COSTS).logits.tolist() == [[1, 2]]
    assert run(video(*[[(1, 2)] * 3] * 4), readout, Thresholds.never(3), COSTS).logits.tolist() == [[31, 2]]


# --- given paths by hand -----------------------------------------------------------------------------


def test_given_exits_by_hand(readout):
    source = StoredFeatures(
        torch.tensor(
            [
                [[(1, 0), (9, 9), (9, 9)], [(9, 9), (0, 3), (9, 9)], [(9, 9)] * 3],
                [[(9, 9), (9, 9), (2, 1)], [(9, 9)] * 3, [(9, 9)] * 3],
                [[(0, 1), (9, 9), (9, 9)], [(1, 0), (9, 9), (9, 9)], [(9, 9), (9, 9), (0, 4)]],
            ],
            dtype=torch.float32,
        )
    )
    paths = torch.tensor([[0, 1, -1], [2, -1, -1], [0, 0, 2]])
    outcomes = follow(source, readout, paths, WITH_REUSE)
    assert torch.equal(outcomes.exit_depths, paths)
    assert outcomes.frames.tolist() == [2, 1, 3]
    assert outcomes.logits.tolist() == [[1, 3], [2, 1], [1, 4]]
    # Nothing is decided: one head a frame, reuse from the second frame on, the classifier once.
    assert outcomes.macs.tolist() == [
        (10 + 1) + (10 + 20 + 2 + 100) + 5,
        (10 + 20 + 30 + 0) + 5,
        (10 + 1) + (10 + 1 + 100) + (60 + 0 + 100) + 5,
    ]


def test_given_exits_accumulate_all_visited_exits(readout):
    readout.accumulates_visited = True
    source = video([(1, 0), (0, 2), (9, 9)], [(0, 3), (9, 9), (9, 9)])
    outcomes = follow(source, readout, torch.tensor([[1, 0]]), WITH_REUSE)
    assert outcomes.logits.tolist() == [[1, 3]]
    assert outcomes.macs.tolist() == [(10 + 1) + (20 + 2 + 100) + (10 + 1 + 100) + 5]


# --- properties on random videos -----------------------------------------------------------------------


def random_policies(count: int = 30) -> list[Thresholds]:
    generator = np.random.default_rng(0)
    levels = [ALWAYS, 0.6, 0.8, 0.9, NEVER, NEVER]
    sizes = {"layer": 2, "first": 3, "gate": 3, "stop": 3}
    return [
        Thresholds(**{name: tuple(generator.choice(levels, size).tolist()) for name, size in sizes.items()})
        for _ in range(count)
    ]


def random_values(count: int = 30) -> list[OptimalStopping]:
    """Policies of optimal stopping with random weights, each with its own exits at the first and at later frames."""
    generator = np.random.default_rng(0)

    def values(used: np.ndarray, last_frame: bool) -> tuple:
        rows = []
        for b in range(3):
            answer, next_frame, deeper = (generator.normal(0, 0.5, NUM_EVIDENCE) for _ in range(3))
            choices = (answer, NO_CHOICE if last_frame else next_frame, NO_CHOICE if b == used[-1] else deeper)
            rows.append(tuple(tuple(map(float, each)) for each in choices) if b in used else None)
        return tuple(rows)

    policies = []
    for _ in range(count):
        first, later = (np.sort(generator.choice(3, generator.integers(1, 4), replace=False)) for _ in range(2))
        frames = [values(later if t else first, t == T - 1) for t in range(T)]
        policies.append(OptimalStopping(0.1, tuple(frames)))
    return policies


def random_readout(**model: Any) -> Readout:
    torch.manual_seed(0)
    overrides = {"dataset.labels": model.pop("labels", "single")}
    return Readout(2, 2, small_params(overrides, **model)).eval()


RULES, STEPS = ("exit", "visited", "published"), ("shared", "per_step")
LEARNED = sorted(set(GATES) - {"random"})

#: Pairs that have each reuse, rule of accumulation, gate and kind of step; the other pairs are slow tests.
FEW_PAIRS = {*zip(REUSES, cycle(RULES), strict=False), *zip(LEARNED, cycle(STEPS), strict=False)}


def pair(**kind: str):
    return pytest.param(kind, marks=() if tuple(kind.values()) in FEW_PAIRS else pytest.mark.slow)


#: Every kind of readout: reuse and accumulation, gate and steps.
KINDS = [
    *(pair(reuse=reuse, accumulate=rule) for reuse, rule in product(REUSES, RULES)),
    *(pair(gate=gate, readout=per) for gate, per in product(LEARNED, STEPS)),
    {"method": "frameexit"},
    {"reuse": "mean", "accumulate": "visited", "gate": "frameexit", "readout": "per_step"},
    {"labels": "multi"},
]


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(kind.values()))
def any_readout(request: pytest.FixtureRequest) -> Readout:
    return random_readout(**request.param)


def agrees_with_the_reference(policy: Thresholds | OptimalStopping, readout: Readout) -> Outcomes:
    features = random_features(videos=12)
    outcomes = run(StoredFeatures(features), readout, policy, COSTS)
    for row, clip in enumerate(features):
        path, logits = run_one_video(clip, readout, policy)
        assert outcomes.exit_depths[row, : len(path)].tolist() == path
        assert outcomes.exit_depths[row, len(path) :].eq(-1).all()
        torch.testing.assert_close(outcomes.logits[row], logits)
    return outcomes


@torch.inference_mode()
def test_inference_agrees_with_the_reference_loop(any_readout):
    for policy in random_policies(15):
        agrees_with_the_reference(policy if any_readout.gates else replace(policy, gate=OFF), any_readout)


@torch.inference_mode()
def test_optimal_stopping_agrees_with_the_reference_loop(any_readout):
    outcomes = [agrees_with_the_reference(policy, any_readout) for policy in random_values(15)]
    paths = {tuple(path) for each in outcomes for path in each.exit_depths.tolist()}
    assert len(paths) > 10
    assert {sum(b >= 0 for b in path) for path in paths} == {1, 2, 3, 4}  # they stop after every number of frames


@torch.inference_mode()
def test_following_the_exits_of_a_policy_gives_its_logits(any_readout):
    """Policies accumulate visited exits only where they use them; following exits accumulates all of them."""
    features = StoredFeatures(random_features(videos=12))
    policy = Thresholds((0.7, 0.7), (0.9,) * 3, OFF, (0.95,) * 3)
    decided = run(features, any_readout, policy, WITH_REUSE)
    again = follow(features, any_readout, decided.exit_depths, WITH_REUSE)
    torch.testing.assert_close(again.logits, decided.logits)
    assert again.macs.le(decided.macs).all()


@torch.inference_mode()
def test_following_exits_agrees_with_training(any_readout):
    """``Readout.along`` and ``follow`` accumulate alike, for videos of one length and of many."""
    features = random_features(videos=12)
    paths = RandomExits(0.2, seed=0).exit_depths(12, T, 3)
    outcomes = follow(StoredFeatures(features), any_readout, paths, COSTS)
    logits = any_readout.prefix_logits(features, paths.clamp(min=0))
    torch.testing.assert_close(outcomes.logits, logits[torch.arange(12), outcomes.frames - 1])


@torch.inference_mode()
def test_thresholds_of_one_are_the_full_network(any_readout):
    features = random_features()
    outcomes = run(StoredFeatures(features), any_readout, Thresholds.never(3), WITH_REUSE)
    expected = any_readout.prefix_logits(features[:, :, -1:], 0)[:, -1]  # with either rule: no other exit is visited
    torch.testing.assert_close(outcomes.logits, expected)
    assert outcomes.exit_depths.eq(2).all()
    assert outcomes.macs.eq(WITH_REUSE.full_network(T)).all()


def test_no_policy_runs_more_of_the_backbone_than_the_full_network(any_readout):
    backbone = replace(COSTS, heads=(0, 0, 0), classifier=0, gate=0)
    for policy in random_policies():
        policy = policy if any_readout.gates else replace(policy, gate=OFF)
        outcomes = run(StoredFeatures(random_features()), any_readout, policy, backbone)
        assert outcomes.macs.le(backbone.full_network(T)).all()


def test_no_policy_costs_more_than_all_parts_at_all_exits(any_readout):
    """An exit in use costs a head, a reuse, the classifier and the gate at most, a frame all segments."""
    decisions = T * (sum(WITH_REUSE.heads) + 3 * (WITH_REUSE.reuse + WITH_REUSE.classifier + WITH_REUSE.gate))
    for policy in random_policies():
        policy = policy if any_readout.gates else replace(policy, gate=OFF)
        outcomes = run(StoredFeatures(random_features()), any_readout, policy, WITH_REUSE)
        assert outcomes.macs.le(T * sum(WITH_REUSE.segments) + decisions).all()


def same(together: Outcomes, alone: list[Outcomes]) -> None:
    for name in ("exit_depths", "macs"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(each, name) for each in alone]))
    torch.testing.assert_close(together.logits, torch.cat([each.logits for each in alone]))


def test_a_video_has_the_same_outcome_alone_and_in_a_batch(any_readout):
    features = random_features(videos=12)
    for policy in random_policies(5):
        policy = policy if any_readout.gates else replace(policy, gate=OFF)
        alone = [run(StoredFeatures(clip[None]), any_readout, policy, WITH_REUSE) for clip in features]
        same(run(StoredFeatures(features), any_readout, policy, WITH_REUSE), alone)
    paths = RandomExits(0.2, seed=0).exit_depths(12, T, 3)
    alone = [
        follow(StoredFeatures(clip[None]), any_readout, path[None], WITH_REUSE)
        for clip, path in zip(features, paths, strict=True)
    ]
    same(follow(StoredFeatures(features), any_readout, paths, WITH_REUSE), alone)


def some_policies(readout: Readout) -> list[Policy]:
    weights = (0.5, 1.0, 2.0)
    return [
        *(policy if readout.gates else replace(policy, gate=OFF) for policy in random_policies(10)),
        *random_values(5),
        *(StopAbove.between("confidence", level, T, 0, 2) for level in (0.6, 0.8)),
        *(StopAbove.between("agreement", (streak - 0.5) / T, T, 1, 1) for streak in (1, 2, 3)),
        *(StopAbove.between("ensemble", 0.9, T, shallowest, 2, weights) for shallowest in (0, 1)),
        Thresholds.never(3),
    ]


def test_policies_have_the_same_outcomes_alone_and_together(any_readout, monkeypatch):
    source, policies = StoredFeatures(random_features(videos=12)), some_policies(any_readout)
    alone = [run(source, any_readout, policy, WITH_REUSE) for policy in policies]
    monkeypatch.setattr(inference, "CHUNK", 5)  # and in parts of the split
    together = run_together(source, any_readout, policies, WITH_REUSE)
    for one, among in zip(alone, together, strict=True):
        same(among, [one])
    assert len({tuple(each.macs.tolist()) for each in together}) > 10


def test_what_policies_have_in_common_is_computed_once():
    """They stop at different exits, but none leaves a frame, so each exit of a video is asked for once at most."""

    class Counting(StoredFeatures):
        asked: ClassVar[list] = []

        def feature(self, rows: torch.Tensor, t: int, b: int) -> torch.Tensor:
            self.asked += [(row, t, b) for row in rows.tolist()]
            return super().feature(rows, t, b)

    policies = [StopAbove.between("confidence", level, T, 0, 2) for level in (0.7, 0.8, 0.9, 0.95)]
    source = Counting(random_features(videos=12))
    outcomes = run_together(source, identity_readout(), policies, COSTS)
    assert len(set(Counting.asked)) == len(Counting.asked) < 12 * T * 3
    assert max(each.frames.sum().item() for each in outcomes) < len(Counting.asked)


def test_giga_macs_are_macs():
    outcomes = Outcomes(logits=torch.zeros(1, 2), exit_depths=torch.zeros(1, 3), macs=torch.tensor([2_500_000_001]))
    assert outcomes.gmacs.tolist() == [2.500000001]
