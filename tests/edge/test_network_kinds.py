"""Exported graphs of every kind of network decide as PyTorch does, step by step."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.bundles import engine_of, segment_and_head_runs, uncut_of
from support.margins import policy_amid
from support.small import T, random_clips, random_network, small_params

from tlee.backbones import BACKBONES
from tlee.costs import Costs, count_costs
from tlee.edge.graphs import compile_policy
from tlee.edge.runner import Engine
from tlee.levels import NEVER
from tlee.model import TLEE
from tlee.modules import BRANCHES, GATES, REUSES
from tlee.params import METHOD_SETTINGS
from tlee.policies.given import RandomExits
from tlee.policies.inference import Outcomes, follow, run
from tlee.policies.sources import LiveFeatures
from tlee.policies.thresholds import Thresholds

pytestmark = pytest.mark.slow

five_layers = pytest.mark.usefixtures("five_layer_backbone")  # a small backbone stands for all


# --- one comparison ----------------------------------------------------------------------------------


def check_decision(
    engine: Engine, clip: torch.Tensor, expected: Outcomes, given_exits: list[int] | None = None
) -> None:
    decision = engine.run(clip.numpy(), given_exits)
    assert decision.exit_depths == expected.exit_depths[0].tolist()
    np.testing.assert_allclose(decision.logits, expected.logits[0], atol=1e-4, rtol=1e-4)
    assert decision.logits.argmax() == expected.predictions.item()


@torch.inference_mode()
def check_engine(model: TLEE, folder: Path, videos: int = 12) -> set[tuple[int, ...]]:
    """Check policies that decide and exits that are given; return the exit depths that were decided."""
    clips, costs = random_clips(model, videos), count_costs(model)
    decided = set()
    for policy in (policy_amid(model, clips), Thresholds.never(model.num_exits)):
        engine = engine_of(model, policy, folder / "decided")
        for clip in clips:
            source = LiveFeatures(model, clip)
            expected = run(source, model.readout, policy, costs)
            check_decision(engine, clip, expected)
            check_decision(engine, clip, expected)  # nothing is left of the video before
            decided.add(tuple(expected.exit_depths[0].tolist()))
    random = RandomExits(0.3, seed=1)
    engine = engine_of(model, random, folder / "given")
    for clip, given_exits in zip(clips, random.exit_depths(videos, T, model.num_exits), strict=True):
        source = LiveFeatures(model, clip)
        expected = follow(source, model.readout, given_exits[None], costs)
        check_decision(engine, clip, expected, given_exits.tolist())
        check_decision(engine, clip, expected, given_exits.tolist())
    return decided


# --- every kind of readout, branch and method ----------------------------------------------------------


@five_layers
@pytest.mark.parametrize(("reuse", "accumulate"), list(product(REUSES, ("exit", "visited", "published"))))
def test_every_reuse(reuse, accumulate, tmp_path):
    assert len(check_engine(random_network(small_params(reuse=reuse, accumulate=accumulate)), tmp_path)) > 3


@five_layers
@pytest.mark.parametrize(("gate", "readout"), list(product(GATES, ("shared", "per_step"))))
def test_every_gate_and_readout(gate, readout, tmp_path):
    assert len(check_engine(random_network(small_params(gate=gate, readout=readout)), tmp_path)) > 3


@five_layers
@pytest.mark.parametrize("method", METHOD_SETTINGS)
def test_every_method(method, tmp_path):
    assert len(check_engine(random_network(small_params(method=method)), tmp_path)) > 1


@five_layers
@pytest.mark.parametrize(
    "settings",
    [
        *({"model.branch": branch} for branch in BRANCHES if branch != "crm"),
        {"model.crm_pool": "windows", "model.input_size": 60},
        {"model.mlp": 20},
        {"dataset.labels": "multi"},
        {"model.mlp": 20, "model.reuse": "mean", "model.accumulate": "visited", "model.readout": "per_step"},
        {"model.num_branches": 3, "model.accumulate": "visited", "model.gate": "frameexit", "dataset.labels": "multi"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_other_settings(settings: dict[str, Any], tmp_path):
    assert len(check_engine(random_network(small_params(settings)), tmp_path)) > 3


# --- other backbones ----------------------------------------------------------------------


def test_the_temporal_shift_keeps_the_frame_before_and_clears_the_video_before(tmp_path):
    model = random_network(small_params(backbone="mobilenet_v2_tsm", input_size=32, num_branches=2, crm_scale=3))
    assert len(check_engine(model, tmp_path, videos=6)) > 2


def test_a_backbone_that_reads_clips(monkeypatch, tmp_path):
    """The backbone is X3D-S with time steps of five frames at few pixels."""
    build = BACKBONES["x3d_s"]

    def shorter(exits: int):
        backbone = build(exits)
        backbone.clip_frames = 5
        return backbone

    monkeypatch.setitem(BACKBONES, "x3d_s", shorter)
    params = small_params({"extract.clip_frames": 13}, backbone="x3d_s", input_size=32, num_branches=1, crm_scale=3)
    assert len(check_engine(random_network(params), tmp_path, videos=4)) > 1


# --- exported graphs ------------------------------------------------------------------------------------


@five_layers
def test_a_readout_per_step_has_a_graph_per_step():
    policy = Thresholds((0.5, NEVER), (NEVER,) * 3, (NEVER, NEVER, 0.5), (NEVER,) * 3)
    files = {
        steps: [
            [each.readout.name for each in exits]
            for exits in compile_policy(policy, random_network(small_params(readout=steps)), T)
        ]
        for steps in ("shared", "per_step")
    }
    first, later, gate = (f"readout_{kind}" for kind in ("first", "later", "gate"))
    assert files["shared"] == [[first, first], [later, gate], [later, gate], [later, later]]
    assert files["per_step"] == [
        [first, first],
        ["readout_later1", "readout_gate1"],
        ["readout_later2", "readout_gate2"],
        ["readout_later3", "readout_later3"],
    ]


@five_layers
def test_visited_exits_are_accumulated_from_the_second_on():
    model = random_network(small_params(accumulate="visited"))
    policy = Thresholds((0.5, NEVER), (NEVER,) * 3, (NEVER, NEVER, 0.5), (NEVER,) * 3)
    (shallow, deep), (_, gated), *_ = compile_policy(policy, model, T)
    assert (shallow.readout.first, deep.readout.first) == (True, False)
    assert deep.readout.inputs == ["feature", "count", "base"]
    assert gated.readout.inputs == ["feature", "count", "base", "past"]  # the gate compares with the frame before


@five_layers
def test_by_the_published_rule_the_first_frame_is_alone_and_the_last_has_one_exit():
    model = random_network(small_params(accumulate="published"))
    policy = Thresholds((0.5, NEVER), (NEVER,) * 3, (NEVER, NEVER, 0.5), (NEVER,) * 3)
    first, (later, gated), _, last = compile_policy(policy, model, T)
    assert [each.readout.inputs for each in first] == [["feature"]] * 2
    assert later.readout.inputs == gated.readout.inputs == ["feature", "count", "base"]  # the gate has no other past
    assert [(each.segments.depth, each.stop, each.gate) for each in last] == [(0, NEVER, NEVER)]


@five_layers
@pytest.mark.parametrize(
    ("accumulate", "files"),
    [
        ("exit", ["segments0-0", "segments0-1", "segments0-2"]),
        ("visited", ["segments0-0", "segments1-1", "segments2-2"]),
        ("published", ["segments0-0", "segments1-1", "segments2-2"]),  # the first frame directly
    ],
)
def test_random_exits_are_reached_directly_or_through_the_visited_ones(accumulate, files, tmp_path):
    model = random_network(small_params(accumulate=accumulate))
    compiled = compile_policy(RandomExits(0.5, seed=0), model, T)
    assert all([each.segments.name for each in exits] == files for exits in compiled[accumulate == "published" :])
    assert all((each.stop, each.gate, each.layer) == (NEVER,) * 3 for exits in compiled for each in exits)

    engine = engine_of(model, RandomExits(0.5, seed=0), tmp_path)
    clip, given_exits = random_clips(model, videos=1)[0], [1, 2, 0, -1]
    source = LiveFeatures(model, clip)
    follow(source, model.readout, torch.tensor([given_exits]), Costs((1,) * 3, (0,) * 3, 0, 0, 0))
    segments_run = engine.run(clip.numpy(), given_exits).segments_run
    assert segment_and_head_runs(segments_run, 3) == (source.segment_runs, source.head_runs)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2_tsm"])
@torch.inference_mode()
def test_the_uncut_network_is_the_full_network(backbone, five_layer_backbone, tmp_path):
    settings = {"reuse": "mean", "accumulate": "visited", "readout": "per_step", "mlp": 20, "crm_scale": 3}
    model = random_network(small_params(backbone=backbone, input_size=32, **settings))
    network = uncut_of(model, tmp_path)
    clips = random_clips(model, videos=3)
    features = model.exit_features(clips)
    expected = model.readout.prefix_logits(features[:, :, -1:], 0)[:, -1]
    for row, clip in enumerate(clips):
        np.testing.assert_allclose(network.run(clip.numpy()), expected[row], atol=1e-4)
        for depth in range(3):
            found = network.features(clip.numpy(), [depth] * T)
            np.testing.assert_allclose(found, features[row, :, depth], atol=1e-3)
