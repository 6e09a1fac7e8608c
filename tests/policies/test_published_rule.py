"""``accumulate: published`` takes the decisions of TLEE's test loop, network after network."""

from dataclasses import dataclass, replace

import pytest
import torch
from support import authors_networks as authors
from support.slow import slow_but
from support.small import COSTS, identity_readout, small_params, video
from torch import nn

from tlee.checkpoints.gates import linear_to_mlp_gate
from tlee.costs import Costs
from tlee.levels import NEVER
from tlee.policies.inference import follow, run
from tlee.policies.reference import run_one_video
from tlee.policies.sources import StoredFeatures
from tlee.policies.thresholds import Thresholds
from tlee.readout import Readout

NETWORKS, VIDEOS, EXITS, WIDTH = 20, 16, 3, 40
FEATURE_COSTS = Costs((1,) * EXITS, (0,) * EXITS, 0, 0, 0)

REUSES = {"max": torch.maximum, "ema": lambda past, current: (past + current) / 2, "none": lambda _, current: current}


@dataclass
class Case:
    """A random classifier and gate, features of videos, and thresholds that about a tenth and a fifth exceed."""

    state: authors.State
    features: torch.Tensor
    first: float
    layer: float

    def policy(self) -> Thresholds:
        return Thresholds((self.layer,) * (EXITS - 1), (self.first,) * EXITS, (0.5,) * EXITS, (NEVER,) * EXITS)

    def readout(self, accumulate: str, reuse: str = "max") -> Readout:
        """Return the readout of an imported checkpoint with these tensors."""
        params = small_params({"extract.frames": authors.FRAMES}, reuse=reuse, accumulate=accumulate)
        readout = Readout(WIDTH, authors.CLASSES, params).eval()
        ours = {name.replace("exit_selector", "gates"): tensor.clone() for name, tensor in self.state.items()}
        linear_to_mlp_gate(ours)
        readout.load_state_dict(ours, strict=False)
        return readout


@torch.inference_mode()
def random_case(seed: int, layer_exits: bool) -> Case:
    torch.manual_seed(seed)
    features = torch.randn(VIDEOS, authors.FRAMES, EXITS, WIDTH)
    state = authors.linear("classifiers.0", authors.CLASSES, WIDTH)
    state |= authors.linear("exit_selector.0.fc1", 32, WIDTH) | authors.linear("exit_selector.0.fc2", 1, 64)
    z = features.flatten(1, 2).cummax(1).values
    current, past = z[:, 1:].flatten(0, 1), z[:, :-1].flatten(0, 1)
    state["exit_selector.0.fc2.bias"] -= authors.between(authors.gate_score(state, 0, current, past), 0.9)
    confidences = authors.apply_linear(state, "classifiers.0", features).softmax(-1).amax(-1)
    layer = authors.between(confidences, 0.8) if layer_exits else NEVER
    return Case(state, features, authors.between(confidences[:, 0], 0.9), layer)


# Their `test_fine` has layer exits, their `test` none.
@pytest.mark.parametrize("layer_exits", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reuse", slow_but(["max"], REUSES))
@torch.inference_mode()
def test_all_decisions_are_those_of_the_published_loop(reuse, layer_exits):
    others_agree, last_frames = 0, 0
    for seed in range(NETWORKS):
        case = random_case(seed, layer_exits)
        paths, logits = authors.tlee_decisions(case.state, case.features, case.first, case.layer, REUSES[reuse])
        readout, policy = case.readout("published", reuse), case.policy()
        outcomes = run(StoredFeatures(case.features), readout, policy, FEATURE_COSTS)
        assert outcomes.exit_depths.tolist() == paths
        torch.testing.assert_close(outcomes.logits, logits)
        for features, path in zip(case.features, paths, strict=True):
            assert run_one_video(features, readout, policy)[0] == [depth for depth in path if depth >= 0]
        last_frames += sum(path[-1] >= 0 for path in paths)
        visited = run(StoredFeatures(case.features), case.readout("visited", reuse), policy, FEATURE_COSTS)
        others_agree += sum(a == b for a, b in zip(visited.exit_depths.tolist(), paths, strict=True))
    assert last_frames > NETWORKS
    assert others_agree < 0.8 * NETWORKS * VIDEOS


# --- by hand -----------------------------------------------------------------------------------------


class GrowthGate(nn.Module):
    """Stops (score above one half) where the feature has grown by more than 3."""

    def forward(self, current: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        return current.sum(1) - past.sum(1) - 3


@pytest.fixture
def readout() -> Readout:
    readout = identity_readout(accumulate="published")
    readout.gates = nn.ModuleList([GrowthGate()])
    return readout


POLICY = Thresholds(layer=(NEVER, 0.9), first=(0.99,) * 3, gate=(0.5, 0.5, NEVER), stop=(NEVER,) * 3)


def test_a_path_by_hand(readout):
    source = video(
        [(4, 3), (0, 3), (9, 9)],
        [(1, 5), (4, 6), (9, 9)],
        [(9, 9)] * 3,
        [(9, 9)] * 3,
    )
    outcomes = run(source, readout, POLICY, replace(COSTS, reuse=100))
    # Frame 1: depth 0 is 0.73 confident; depth 1, alone, is (0, 3), 0.95 confident: the frame is left. Frame 2, from
    # there: depth 0 is (1, 5), grown by 3; depth 1 is (4, 6), grown by 4 since depth 0: the video stops.
    first = (10 + 1 + 5) + (20 + 2 + 5)
    second = (10 + 1 + 100 + 7) + (20 + 2 + 100 + 7 + 5)
    assert outcomes.exit_depths.tolist() == [[1, 1, -1, -1]]
    assert outcomes.logits.tolist() == [[4, 6]]
    assert outcomes.macs.tolist() == [first + second]


def test_the_first_exit_of_the_last_frame_ends_the_video(readout):
    source = video(*[[(1, 1)] * 3] * 3, [(2, 1), (9, 9), (9, 9)])
    assert run(source, readout, POLICY, COSTS).exit_depths.tolist() == [[2, 2, 2, 0]]
    assert run(source, readout, POLICY, COSTS).logits.tolist() == [[2, 1]]
    deep = replace(POLICY, first=(NEVER, NEVER, 0.99), gate=(NEVER,) * 3)  # uses the depths 1 and 2
    assert run(source, readout, deep, COSTS).exit_depths.tolist() == [[2, 2, 2, 1]]
    assert run(source, readout, Thresholds.never(3), COSTS).exit_depths.tolist() == [[2, 2, 2, 2]]


def test_given_exits_run_no_other_head_at_the_first_frame(readout):
    source = video([(5, 0), (0, 2), (9, 9)], [(0, 3), (1, 0), (9, 9)])
    outcomes = follow(source, readout, torch.tensor([[1, 1]]), replace(COSTS, reuse=100))
    assert outcomes.logits.tolist() == [[1, 3]]
    assert outcomes.macs.tolist() == [(10 + 20 + 2) + (10 + 1 + 100) + (20 + 2 + 100) + 5]
