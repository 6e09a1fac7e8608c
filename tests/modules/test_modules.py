"""The papers' three modules, each by hand."""

import math
from typing import get_args

import pytest
import torch
from support.small import small_params
from torch import nn

from tlee.modules import BRANCHES, GATES, REUSES
from tlee.params import ModelParams

PAST, CURRENT = torch.tensor([[1.0, -4.0]]), torch.tensor([[3.0, 2.0]])


def test_the_parameters_offer_all_modules_and_no_others():
    offered = {name: get_args(field.annotation) for name, field in ModelParams.model_fields.items()}
    assert (offered["branch"], offered["reuse"], offered["gate"]) == (tuple(BRANCHES), tuple(REUSES), tuple(GATES))


def fill(layer: nn.Module, weight: list, bias: list | None = None) -> None:
    """Set a layer's weights to zero but for its first ones, the rest of its biases to zero."""
    nn.init.zeros_(layer.weight)
    values = torch.tensor(weight, dtype=torch.float32)
    layer.weight.data[tuple(slice(size) for size in values.shape)] = values
    nn.init.zeros_(layer.bias)
    if bias:
        layer.bias.data[: len(bias)] = torch.tensor(bias, dtype=torch.float32)


# --- reuse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "count", "expected"),
    [
        ("max", 1, [3, 2]),
        ("mean", 1, [2, -1]),
        ("mean", 3, [1.5, -2.5]),
        ("ema", 1, [2, -1]),
        ("add", 1, [4, 6]),
        ("none", 1, [3, 2]),
    ],
)
@torch.inference_mode()
def test_reuse_by_hand(kind, count, expected):
    assert REUSES[kind](2)(PAST, CURRENT, count).tolist() == [expected]


@torch.inference_mode()
def test_attention_by_hand():
    """A score of ``ln 3`` weighs the current feature by three quarters; it is computed from both features."""
    reuse = REUSES["attention"](2)
    first, last = reuse.score[0], reuse.score[2]
    fill(first, [[1, 0, 0, 0], [0, 0, 0, -1]])  # the current one comes first: 3, and minus the past one: 4
    fill(last, [[1, -1]], [1 + math.log(3)])
    torch.testing.assert_close(reuse(PAST, CURRENT, 1), torch.tensor([[2.5, 0.5]]))
    torch.testing.assert_close(  # 0 - 0 + 1 + ln 3
        reuse(torch.zeros(1, 2), torch.tensor([[0.0, 4.0]]), 1), torch.tensor([[0, 4 * 3 * math.e / (1 + 3 * math.e)]])
    )


@torch.inference_mode()
def test_the_weight_of_the_past_is_learned():
    reuse = REUSES["ema"](2)
    reuse.logit.data = torch.tensor(math.log(3))
    torch.testing.assert_close(reuse(PAST, CURRENT, 1), torch.tensor([[1.5, -2.5]]))


@torch.inference_mode()
def test_each_video_of_a_mean_counts_for_itself():
    mean = REUSES["mean"](2)(PAST.repeat(2, 1), CURRENT.repeat(2, 1), torch.tensor([[1.0], [3.0]]))
    assert mean.tolist() == [[2, -1], [1.5, -2.5]]


def test_what_reuse_learns():
    learning = {kind: sum(each.numel() for each in REUSES[kind](10).parameters()) for kind in REUSES}
    attention = 2 * 10 * 32 + 32 + 32 + 1
    assert learning == {"max": 0, "attention": attention, "ema": 1, "mean": 0, "add": 0, "none": 0}


# --- gates -------------------------------------------------------------------------------------------


def test_the_papers_gate_by_hand():
    """Hidden units ``x`` and ``y`` of each feature; of the past, ``y`` is negative and so cut off."""
    gate = GATES["mlp"](2)
    fill(gate.fc1, [[1, 0], [0, 1]])
    fill(gate.fc2, [[0] * 64], [0.5])
    gate.fc2.weight.data[0, [0, 1, 32, 33]] = torch.tensor([1.0, 10, -2, 100])  # current, then past
    assert gate(CURRENT, PAST).tolist() == [3 + 20 - 2 + 0 + 0.5]


def test_frameexits_gate_by_hand():
    """Hidden units ``x`` and ``-y``: 3 and 0 of the current feature, 1 and 4 of the past one."""
    gate = GATES["frameexit"](2).eval()
    for norm in (gate.shared[1], gate.shared[4]):
        norm.eps = 0
    fill(gate.shared[0], [[1, 0], [0, -1]])
    fill(gate.shared[3], [[1, 0], [0, 1]])
    fill(gate.score, [[0] * 128], [0.5])
    gate.score.weight.data[0, [0, 1, 64, 65]] = torch.tensor([1.0, 10, -2, 100])
    assert gate(CURRENT, PAST).tolist() == [3 + 0 - 2 + 400 + 0.5]


@pytest.mark.parametrize("kind", ["mlp", "frameexit"])
def test_a_gate_scores_each_video(kind):
    gate = GATES[kind](7).eval()
    current, past = torch.randn(2, 5, 7)
    scores = gate(current, past)
    assert scores.shape == (5,)
    torch.testing.assert_close(scores[2:3], gate(current[2:3], past[2:3]))
    assert not torch.allclose(scores, gate(past, current))


def test_without_a_learned_gate_there_is_none():
    assert GATES["confidence"] is GATES["random"] is None


# --- branches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7, 14, 28])
@pytest.mark.parametrize("kind", BRANCHES)
def test_a_branch_makes_a_feature_of_any_map(kind, side):
    branch = BRANCHES[kind](6, 9, small_params().model).eval()
    assert branch(torch.rand(2, 6, side, side)).shape == (2, 9)
    assert branch(torch.rand(2, 6, side, side + 3)).shape == (2, 9)


@torch.inference_mode()
def test_the_channel_reduction_by_hand():
    """8 x 8 in windows of 2 x 2: the maximum 4 and the mean 1 of channel 0, weighed by ``alpha``, and ones."""
    branch = BRANCHES["crm"](2, 2, small_params(crm_convs=1, crm_scale=1).model)
    tap = torch.zeros(1, 2, 8, 8)
    tap[:, 0, ::2, ::2] = 4
    tap[:, 1] = 1
    branch.alpha.data = torch.tensor(0.25)
    (convolution,) = (layer for layer in branch.crm if isinstance(layer, nn.Conv2d))
    assert convolution.weight.shape == (1, 2, 1, 1)
    fill(convolution, [[[[2]], [[1]]]], [0.5])
    fill(branch.fc, [[1 / 16] * 16, [-1 / 8] * 16], [0, 1])
    pooled = 0.25 * 4 + 0.75 * 1
    assert branch(tap).tolist() == [[2 * pooled + 1 + 0.5, -2 * (2 * pooled + 1 + 0.5) + 1]]
    tap[:, 1] = -9  # below the ReLU
    assert branch(tap).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("convs", "scale", "widths"), [(1, 0, [16]), (2, 1, [8, 4]), (3, 1, [8, 4, 2]), (2, 3, [2, 1]), (2, 6, [1, 1])]
)
def test_channels_are_halved_from_a_first_share_on(convs, scale, widths):
    branch = BRANCHES["crm"](16, 5, small_params(crm_convs=convs, crm_scale=scale).model)
    assert [layer.out_channels for layer in branch.crm if isinstance(layer, nn.Conv2d)] == widths
    assert branch.fc.in_features == widths[-1] * 16


@torch.inference_mode()
def test_the_channel_reduction_in_windows_by_hand():
    """14 x 14 is three windows a side, of 4 x 4: the last two rows and columns are outside of all."""
    branch = BRANCHES["crm"](1, 2, small_params(crm_pool="windows", crm_convs=1, crm_scale=0).model)
    tap = torch.zeros(1, 1, 14, 14)
    tap[..., 12:, :] = tap[..., 12:] = 1000
    tap[..., 2, 3] = 16  # in the first window: 16 at most and 1 on average
    tap[..., 8:12, 4:8] = 3  # the whole of the eighth
    branch(tap)
    branch.alpha.data = torch.tensor(0.25)
    fill(branch.crm[0], [[[[2]]]], [1])
    fill(branch.fc, [[1] * 9, [1, 0, 0, 0, 0, 0, 0, 10, 0]], [0, 5])
    first, eighth = 2 * (0.25 * 16 + 0.75 * 1) + 1, 2 * 3 + 1
    assert branch(tap).tolist() == [[first + eighth + 7, first + 10 * eighth + 5]]


@pytest.mark.parametrize(("side", "places"), [(112, 28), (56, 14), (28, 7), (14, 3), (11, 2), (7, 1), (4, 1), (2, 1)])
def test_windows_are_as_many_as_fit(side, places):
    branch = BRANCHES["crm"](4, 5, small_params(crm_pool="windows", crm_convs=1, crm_scale=0).model)
    assert branch(torch.rand(2, 4, side, side)).shape == (2, 5)
    assert branch.fc.in_features == 4 * places**2


@torch.inference_mode()
def test_a_map_smaller_than_a_window_is_one():
    branch = BRANCHES["crm"](1, 1, small_params(crm_pool="windows", crm_convs=1, crm_scale=0).model)
    tap = torch.tensor([[[[1.0, 2], [3, 6]]]])
    branch(tap)
    fill(branch.crm[0], [[[[1]]]])
    fill(branch.fc, [[1]])
    assert branch(tap).tolist() == [[0.5 * 6 + 0.5 * 3]]


@torch.inference_mode()
def test_the_convolutions_by_hand():
    """One channel of ones: 2, then sums of 3 x 3 with zeros around (49 neighbours in all), then the mean of 9."""
    branch = BRANCHES["conv"](1, 1, small_params().model).eval()
    for layer in branch.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0
    first, middle, last = (layer for layer in branch if isinstance(layer, nn.Conv2d))
    for layer, value in ((first, 2.0), (middle, 1.0), (last, 3.0)):
        nn.init.constant_(layer.weight, value)
    fill(branch[-1], [[9]], [1])
    torch.testing.assert_close(branch(torch.ones(1, 1, 3, 3)), torch.tensor([[49 * 2 * 3 + 1.0]]))


def test_the_convolutions_are_a_bottleneck():
    branch = BRANCHES["conv"](16, 5, small_params().model)
    shapes = [tuple(layer.weight.shape) for layer in branch if isinstance(layer, nn.Conv2d)]
    assert shapes == [(8, 16, 1, 1), (8, 8, 3, 3), (16, 8, 1, 1)]


@torch.inference_mode()
def test_the_linear_branch_by_hand():
    """The means of two channels, 1 and 5: their difference, and minus it, which the ReLU cuts off."""
    branch = BRANCHES["fc"](2, 1, small_params().model).eval()
    linear, norm, last = branch[2], branch[3], branch[5]
    assert linear.out_features == 1024
    norm.eps = 0
    fill(linear, [[-1, 1], [1, -1]])
    fill(last, [[10, 100]], [1])
    tap = torch.tensor([[[[0.0, 2]], [[4, 6]]]])
    assert branch(tap).tolist() == [[41]]
