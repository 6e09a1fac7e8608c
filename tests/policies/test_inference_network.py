"""The exit loop on the network itself, one segment after the other: as the replay of stored features does."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from support.margins import policy_amid
from support.small import T, between, random_clips, random_network, small_params

from tlee.backbones import BACKBONES
from tlee.costs import Costs, count_costs
from tlee.levels import ALWAYS, NEVER
from tlee.model import TLEE
from tlee.modules import BRANCHES, GATES, REUSES
from tlee.params import METHOD_SETTINGS, Params
from tlee.policies.given import RandomExits
from tlee.policies.inference import Outcomes, follow, run
from tlee.policies.sources import LiveFeatures, Remembered, StoredFeatures
from tlee.policies.thresholds import Thresholds

pytestmark = pytest.mark.slow

SMALL_CLIPS = 5  # frames of a time step of X3D-S here


def replayed(model: TLEE, clips: torch.Tensor) -> StoredFeatures:
    return StoredFeatures(model.exit_features(clips))


def policies(model: TLEE, clips: torch.Tensor) -> list[Thresholds]:
    """Policies that part the clips: along each axis, and along all."""
    found = [Thresholds.never(model.num_exits), policy_amid(model, clips), policy_amid(model, clips, ("first", "stop"))]
    if model.num_exits > 1:
        found.append(policy_amid(model, clips, ("layer",)))
    if model.readout.gates:
        found.append(policy_amid(model, clips, ("layer", "gate")))
    return found


def agree(live: Outcomes, stored: Outcomes, row: int) -> None:
    assert torch.equal(live.exit_depths[0], stored.exit_depths[row])
    assert torch.equal(live.macs[0], stored.macs[row])
    torch.testing.assert_close(live.logits[0], stored.logits[row], atol=1e-3, rtol=1e-3)  # one frame or many at once


@torch.inference_mode()
def step_by_step_agrees(params: Params, videos: int) -> list[Outcomes]:
    """Replay policies and given exits, and run the network with them."""
    model = random_network(params)
    clips, costs = random_clips(model, videos), count_costs(model)
    source = replayed(model, clips)
    found = []
    for policy in policies(model, clips):
        stored = run(source, model.readout, policy, costs)
        found.append(stored)
        for row, clip in enumerate(clips):
            live = LiveFeatures(model, clip)
            agree(run(live, model.readout, policy, costs), stored, row)
            depths = [depth for depth in stored.exit_depths[row].tolist() if depth >= 0]
            assert live.segment_runs == [sum(depth >= b for depth in depths) for b in range(model.num_exits)]
            assert all(heads <= runs for heads, runs in zip(live.head_runs, live.segment_runs, strict=True))
    paths = RandomExits(0.3, seed=0).exit_depths(len(clips), T, model.num_exits)
    stored = follow(source, model.readout, paths, costs)
    for row, clip in enumerate(clips):
        agree(follow(LiveFeatures(model, clip), model.readout, paths[row : row + 1], costs), stored, row)
    return found


# --- every kind of network ---------------------------------------------------------------------------


five_layers = pytest.mark.usefixtures("five_layer_backbone")  # a small backbone stands for all


@five_layers
@pytest.mark.parametrize(("reuse", "accumulate"), list(product(REUSES, ("exit", "visited", "published"))))
def test_every_reuse(reuse, accumulate):
    outcomes = step_by_step_agrees(small_params(reuse=reuse, accumulate=accumulate), videos=6)
    assert len({tuple(path) for each in outcomes for path in each.exit_depths.tolist()}) > 3


@five_layers
@pytest.mark.parametrize(("gate", "readout"), list(product(GATES, ("shared", "per_step"))))
def test_every_gate_and_readout(gate, readout):
    step_by_step_agrees(small_params(gate=gate, readout=readout), videos=6)


@five_layers
@pytest.mark.parametrize("method", METHOD_SETTINGS)
def test_every_method(method):
    step_by_step_agrees(small_params(method=method), videos=6)


@five_layers
@pytest.mark.parametrize("branch", BRANCHES)
def test_every_branch(branch):
    step_by_step_agrees(small_params(branch=branch), videos=6)


@five_layers
@pytest.mark.parametrize(
    "settings",
    [
        {"model.mlp": 20},
        {"dataset.labels": "multi"},
        {"model.mlp": 20, "model.reuse": "mean", "model.accumulate": "visited", "model.readout": "per_step"},
        {"model.order": "sequential", "model.num_branches": 3},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_other_settings(settings: dict[str, Any]):
    step_by_step_agrees(small_params(settings), videos=6)


LARGER = {"efficientnet_b3": 64}  #: pixels; on maps of one cell its random weights amplify rounding


@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"mobilenet_v2_tsm", "x3d_s"}))
def test_every_backbone(name):
    settings = {"input_size": LARGER.get(name, 32), "num_branches": 1, "crm_scale": 2}
    step_by_step_agrees(small_params({"extract.frames": T}, backbone=name, **settings), videos=2)


@pytest.fixture
def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """X3D-S reads fewer frames a time step, which takes less time."""
    build = BACKBONES["x3d_s"]

    def shorter(exits: int):
        backbone = build(exits)
        backbone.clip_frames = SMALL_CLIPS
        return backbone

    monkeypatch.setitem(BACKBONES, "x3d_s", shorter)


def test_a_backbone_that_reads_clips(short_clips):
    params = small_params({"extract.clip_frames": 13}, backbone="x3d_s", input_size=32, num_branches=1)
    step_by_step_agrees(params, videos=2)


# --- the online temporal shift -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def shifting() -> TLEE:
    return random_network(small_params(backbone="mobilenet_v2_tsm", input_size=64, reuse="max"))


@torch.inference_mode()
def test_the_temporal_shift_replays_exactly_where_every_frame_runs_to_the_end(shifting):
    clips, costs = random_clips(shifting, videos=2), count_costs(shifting)
    source, off = replayed(shifting, clips), (NEVER,) * 3
    stop = between(shifting.readout.prefix_logits(source.table, 2)[:, 0].softmax(-1).amax(-1))
    for policy in (Thresholds.never(3), Thresholds(off[1:], (NEVER, NEVER, stop), off, off)):
        stored = run(source, shifting.readout, policy, costs)
        for row, clip in enumerate(clips):
            agree(run(LiveFeatures(shifting, clip), shifting.readout, policy, costs), stored, row)


@torch.inference_mode()
def test_the_temporal_shift_remembers_only_segments_that_ran(shifting):
    """After a frame that left early the deeper layers remember the frame before it."""
    clips, costs = random_clips(shifting, videos=1), count_costs(shifting)
    paths = torch.tensor([[0, 2, 0, 2]])
    live = follow(LiveFeatures(shifting, clips[0]), shifting.readout, paths, costs)
    stored = follow(replayed(shifting, clips), shifting.readout, paths, costs)
    assert torch.equal(live.macs, stored.macs)
    assert not torch.allclose(live.logits, stored.logits, atol=1e-3)


# --- what is run -------------------------------------------------------------------------------------


@pytest.fixture
def model(five_layer_backbone) -> TLEE:
    return random_network(small_params(num_branches=3))


def ran(model: TLEE, policy: Thresholds) -> tuple[list[int], list[int]]:
    source = LiveFeatures(model, random_clips(model, videos=1)[0])
    run(source, model.readout, policy, Costs((1,) * 4, (0,) * 4, 0, 0, 0))
    return source.segment_runs, source.head_runs


def test_policies_may_share_the_features_of_one_clip(model):
    """Features requested by one policy are remembered for others, which may use other or earlier exits."""
    (clip,), costs = random_clips(model, videos=1, seed=5), count_costs(model)
    deep = Thresholds.never(model.num_exits)
    shallow = replace(deep, layer=(ALWAYS, *deep.layer[1:]))
    source = Remembered(LiveFeatures(model, clip))
    for policy in (deep, shallow, deep):
        alone, shared = (run(each, model.readout, policy, costs) for each in (LiveFeatures(model, clip), source))
        assert torch.equal(alone.exit_depths, shared.exit_depths)
        assert torch.equal(alone.logits, shared.logits)


def test_a_segment_runs_only_where_it_is_needed(model):
    policy = replace(Thresholds.never(4), layer=(NEVER, ALWAYS, NEVER))
    assert ran(model, policy) == ([4, 4, 0, 0], [0, 4, 0, 0])
    policy = replace(policy, first=(NEVER, ALWAYS, NEVER, NEVER))
    assert ran(model, policy) == ([1, 1, 0, 0], [0, 1, 0, 0])
    assert ran(model, Thresholds.never(4)) == ([4, 4, 4, 4], [0, 0, 0, 4])


def test_given_exits_run_only_their_segments_and_heads(model):
    clip, paths = random_clips(model, videos=1)[0], torch.tensor([[1, 3, 0, -1]])
    for visited, heads in ((False, [1, 1, 0, 1]), (True, [3, 2, 1, 1])):
        model.readout.accumulates_visited = visited
        source = LiveFeatures(model, clip)
        follow(source, model.readout, paths, Costs((1,) * 4, (0,) * 4, 0, 0, 0))
        assert source.segment_runs == [3, 2, 1, 1]
        assert source.head_runs == heads


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")
@torch.inference_mode()
def test_the_network_runs_on_a_gpu_and_its_features_are_on_the_cpu():
    model = random_network(small_params())
    clips = random_clips(model, videos=1)
    row, exits = torch.tensor([0]), list(product(range(T), range(model.num_exits)))
    expected = [LiveFeatures(model, clips[0]).feature(row, *each) for each in exits]
    source = LiveFeatures(model.to("cuda"), clips[0].to("cuda"))
    torch.testing.assert_close([source.feature(row, *each) for each in exits], expected, atol=1e-3, rtol=1e-3)
