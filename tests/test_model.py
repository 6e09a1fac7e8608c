"""The network's parts, its readout by hand, and what it makes of clips."""

import math

import pytest
import torch
from support.small import T, identity_readout, random_clips, random_features, random_network, small_params
from torch import nn

from tlee.backbones import map_shapes
from tlee.costs import count_costs
from tlee.model import TLEE
from tlee.readout import Readout

pytestmark = pytest.mark.usefixtures("five_layer_backbone")

WIDTH = 12  # of the backbone's features


# --- the readout -------------------------------------------------------------------------------------


def test_one_classifier_and_one_gate_serve_all_steps():
    readout = Readout(2, 5, small_params())
    assert (len(readout.classifiers), len(readout.gates), readout.per_step) == (1, 1, False)
    current, past = torch.randn(2, 3, 2)
    for t in range(1, T - 1):
        assert torch.equal(readout.classify(current, t), readout.classifiers[0](current))
        assert torch.equal(readout.gate(current, past, t), readout.gates[0](current, past))


def test_steps_may_have_a_classifier_each_and_a_gate_where_the_video_may_stop():
    readout = Readout(2, 5, small_params({"extract.frames": 6}, readout="per_step"))
    assert (len(readout.classifiers), len(readout.gates), readout.per_step) == (6, 4, True)
    current, past = torch.randn(2, 3, 2)
    for t in range(6):
        assert torch.equal(readout.classify(current, t), readout.classifiers[t](current))
    for t in range(1, 5):
        assert torch.equal(readout.gate(current, past, t), readout.gates[t - 1](current, past))


@pytest.mark.parametrize("steps", ["shared", "per_step"])
def test_two_steps_leave_a_gate_nothing_to_decide(steps):
    settings = {"extract.frames": 2, "pretrain.frames": 2, "branches.frames": 2}
    assert not Readout(2, 5, small_params(settings, readout=steps)).gates


@pytest.mark.parametrize("kind", ["confidence", "random"])
def test_policies_without_a_learned_gate_have_none(kind):
    assert not Readout(2, 5, small_params(gate=kind, readout="per_step")).gates


def test_probabilities_of_one_label_add_up_and_of_several_need_not():
    logits = torch.tensor([[0.0, math.log(3)]])
    readout = identity_readout()
    torch.testing.assert_close(readout.probabilities(logits), torch.tensor([[0.25, 0.75]]))
    readout.multi_label = True
    torch.testing.assert_close(readout.probabilities(logits), torch.tensor([[0.5, 0.75]]))


def test_the_loss_of_one_label_is_cross_entropy():
    readout, logits = identity_readout(), torch.tensor([[0.0, math.log(3)]])
    torch.testing.assert_close(readout.loss(logits, torch.tensor([0])), torch.tensor([math.log(4)]))
    several = readout.loss(logits.expand(2, 3, 2), torch.tensor([[0, 1, 1], [1, 1, 0]]))
    low, high = math.log(4 / 3), math.log(4)
    torch.testing.assert_close(several, torch.tensor([[high, low, low], [low, low, high]]))


def test_the_loss_of_several_labels_is_binary_cross_entropy_over_classes():
    """Class 0, at one half, is shown; class 1, at three quarters, is not (1st) or is (2nd video)."""
    readout = Readout(2, 2, small_params({"dataset.labels": "multi"}))
    logits = torch.tensor([[0.0, math.log(3)]]).expand(2, 2)
    loss = readout.loss(logits, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    torch.testing.assert_close(loss, torch.tensor([math.log(2) + math.log(4), math.log(2) + math.log(4 / 3)]) / 2)


FEATURES = torch.tensor([[[(1.0, 0.0), (0.0, 2.0)], [(0.0, 3.0), (8.0, 0.0)]]] * 2)  # [2 videos, 2 steps, 2 exits, D]
DEPTHS = torch.tensor([[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("reuse", "accumulate", "expected"),
    [
        ("max", "exit", [[(1, 0), (8, 0)], [(0, 2), (0, 3)]]),
        ("max", "visited", [[(1, 0), (8, 3)], [(1, 2), (1, 3)]]),
        ("mean", "exit", [[(1, 0), (4.5, 0)], [(0, 2), (0, 2.5)]]),
        ("mean", "visited", [[(1, 0), (3, 1)], [(0.5, 1), (1 / 3, 5 / 3)]]),  # of 3 features each at the end
        ("mean", "published", [[(1, 0), (3, 1)], [(0, 2), (0, 2.5)]]),  # of 3 and of 2 features
        ("none", "visited", [[(1, 0), (8, 0)], [(0, 2), (0, 3)]]),
        ("add", "visited", [[(1, 0), (9, 3)], [(1, 2), (1, 5)]]),
        ("ema", "exit", [[(1, 0), (4.5, 0)], [(0, 2), (0, 2.5)]]),
    ],
)
def test_accumulation_along_exits_by_hand(reuse, accumulate, expected):
    readout = identity_readout(reuse=reuse, accumulate=accumulate)
    torch.testing.assert_close(readout.along(FEATURES, DEPTHS), torch.tensor(expected, dtype=torch.float32))
    torch.testing.assert_close(readout.prefix_logits(FEATURES, DEPTHS), readout.along(FEATURES, DEPTHS))


def test_a_single_depth_holds_for_all_frames():
    readout, features = identity_readout(reuse="mean", accumulate="visited"), random_features()
    everywhere = torch.full(features.shape[:2], 1)
    assert torch.equal(readout.prefix_logits(features, 1), readout.prefix_logits(features, everywhere))


def test_each_step_is_classified_by_its_classifier():
    readout = identity_readout(readout="per_step")
    for t, classifier in enumerate(readout.classifiers):
        classifier.bias.data[0] = 10 * t
    expected = readout.along(FEATURES, DEPTHS) + torch.tensor([[(0.0, 0.0), (10.0, 0.0)]])
    assert torch.equal(readout.prefix_logits(FEATURES, DEPTHS), expected)


def test_the_loss_of_a_video_is_the_mean_over_its_steps():
    readout = identity_readout()
    features = torch.tensor([[[(0.0, 0.0)], [(0.0, math.log(3))]]])  # of class 0: ln 2, then ln 4
    loss = readout.prefix_loss(features, 0, torch.tensor([0]))
    torch.testing.assert_close(loss, torch.tensor((math.log(2) + math.log(4)) / 2))
    readout.multi_label = True  # class 0: ln 2 twice; class 1: ln 2, then -ln (1 / 4)
    loss = readout.prefix_loss(features, 0, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(loss, torch.tensor((3 * math.log(2) + math.log(4)) / 4))


# --- the network -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mlp", [None, 20])
@pytest.mark.parametrize("exits", [0, 1, 3])
@torch.inference_mode()
def test_clips_become_features_of_every_exit(exits, mlp):
    model = random_network(small_params(num_branches=exits, mlp=mlp))
    clips = random_clips(model, videos=2)
    features = model.exit_features(clips)
    assert features.shape == (2, T, exits + 1, mlp or WIDTH)
    assert model.num_exits == exits + 1
    torch.testing.assert_close(model.full_features(clips), features[:, :, -1:])
    assert (mlp is None) == (len(model.mlp) == 0)
    assert not mlp or (features >= 0).all()  # it ends in a ReLU


@torch.inference_mode()
def test_an_exit_is_segments_branch_and_mlp():
    model = random_network(small_params(mlp=20))
    clip = random_clips(model, videos=1)[0]
    tap = clip
    features = model.exit_features(clip[None])[0]
    for depth, segment in enumerate(model.backbone.segments):
        tap = segment(tap)
        branch = model.branches[depth] if depth < 2 else nn.Identity()
        torch.testing.assert_close(model.mlp(branch(tap)), features[:, depth])
        torch.testing.assert_close(model.head(depth)(tap), features[:, depth])


@torch.inference_mode()
def test_other_branches_can_take_the_place_of_its_own():
    model = random_network(small_params())
    clips = random_clips(model, videos=2)
    taps, others = model.backbone.taps(clips), model.new_branches().eval()
    own, other = model.heads(taps), model.heads(taps, others)
    assert torch.equal(own[:, -1], other[:, -1])
    torch.testing.assert_close(other[:, 0], others[0](taps[0]))
    assert not torch.allclose(own[:, 0], other[:, 0])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_branches_in_windows_fit_the_taps_from_the_start(device):
    """At 60 pixels both maps of the five layers are of 15 x 15, so three windows a side."""
    with torch.device(device):
        model = TLEE(small_params(crm_pool="windows", input_size=60), classes=5)
    assert model.training
    assert all(layer.training for layer in model.modules())
    shapes = map_shapes("resnet18", 2, 60)
    for branch, (channels, height, width) in zip(model.branches, shapes, strict=True):
        assert type(branch.fc) is nn.Linear
        assert branch.fc.weight.device.type == device
        assert branch.fc.weight.requires_grad
        assert not branch.fc.weight.is_inference()
        assert branch.fc.in_features == max(1, channels // 4) * (height // 4) * (width // 4)


def test_branches_in_windows_leave_the_rest_of_the_network_unchanged():
    model = TLEE(small_params(crm_pool="windows"), classes=5)
    model.backbone.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    branches = []
    for _ in range(2):
        torch.manual_seed(0)
        branches.append(model.new_branches().state_dict())
    assert all(torch.equal(tensor, branches[1][name]) for name, tensor in branches[0].items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(layer.training for layer in model.backbone.modules())


@torch.inference_mode()
def test_branches_in_windows_have_costs_of_their_own():
    grid, windows = (
        count_costs(TLEE(small_params(crm_pool=pool, input_size=60, crm_convs=1, crm_scale=0), classes=5).eval())
        for pool in ("grid", "windows")
    )
    assert grid.segments == windows.segments
    for channels, of_grid, of_windows in zip((8, 10), grid.heads, windows.heads, strict=False):
        assert of_grid == 16 * channels * (channels + WIDTH)
        assert of_windows == 9 * channels * (channels + WIDTH)


def test_frameexit_is_the_network_without_branches():
    model = TLEE(small_params(method="frameexit"), classes=5)
    assert (model.num_exits, len(model.branches)) == (1, 0)
    assert (len(model.readout.classifiers), len(model.readout.gates)) == (T, T - 2)


def test_the_shape_of_a_time_step_is_the_backbones():
    assert TLEE(small_params(), classes=2).input_shape == (3, 16, 16)
    clips = small_params({"extract.clip_frames": 13}, backbone="x3d_s")
    assert TLEE(clips, classes=2).input_shape == (3, 13, 16, 16)
