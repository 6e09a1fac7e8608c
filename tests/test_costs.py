"""Multiply-accumulates against the numbers that are known."""

import pytest
import torch
from support.small import small_params
from torch import nn

from tlee.costs import GIGA, Costs, count_costs, count_macs
from tlee.model import TLEE
from tlee.params import load_params


def test_a_convolution_by_hand():
    layer = nn.Conv2d(3, 8, kernel_size=5, padding=2)
    _, macs = count_macs(lambda: layer(torch.zeros(1, 3, 10, 10)))
    assert macs == 8 * 10 * 10 * 3 * 5 * 5


def test_the_full_network_by_hand():
    costs = Costs(segments=(10, 20), heads=(3, 2), reuse=100, classifier=5, gate=7)
    assert costs.full_network(3) == 3 * (10 + 20 + 2) + 2 * 100 + 5


def test_mobilenet_v2_at_224_pixels(root):
    """Convolutions and linear layers of the bare segments, cumulative, in G."""
    params = load_params(root / "params.yaml", {"model.input_size": 224, "model.weights": None})
    segments = torch.tensor(count_costs(TLEE(params, classes=101).eval()).segments)
    assert (segments.cumsum(0) / GIGA).tolist() == pytest.approx([0.076, 0.121, 0.164, 0.299], abs=6e-4)


def test_every_part_is_counted(root):
    params = load_params(root / "params.yaml", {"model.weights": None})
    costs = count_costs(TLEE(params, classes=8).eval())
    assert costs.heads == (
        16 * (24 * 12 + 12 * 6) + 6 * 16 * 1280,
        16 * (64 * 32 + 32 * 16) + 16 * 16 * 1280,
        16 * (96 * 48 + 48 * 24) + 24 * 16 * 1280,
        0,
    )
    assert costs.reuse == 0
    assert costs.classifier == 1280 * 8
    assert costs.gate == 2 * 1280 * 32 + 64
    assert costs.full_network(10) == 10 * sum(costs.segments) + 1280 * 8


def small_costs(**model) -> Costs:
    """Of the backbone of five layers: features of size 12, taps of 8 x 4 x 4 and 10 x 4 x 4 at 16 pixels."""
    return count_costs(TLEE(small_params(**model), classes=5).eval())


@pytest.mark.usefixtures("five_layer_backbone")
def test_the_other_modules_are_counted():
    hidden = 2 * 12 * 32 + 32
    assert small_costs(reuse="attention").reuse == hidden
    assert {small_costs(reuse=reuse).reuse for reuse in ("max", "mean", "ema", "add", "none")} == {0}
    assert small_costs(gate="frameexit").gate == 2 * (12 * 128 + 128 * 64) + 128
    assert small_costs(gate="confidence").gate == 0
    mlp = small_costs(mlp=20)
    assert mlp.heads == tuple(head + 12 * 20 for head in small_costs().heads)
    assert (mlp.classifier, mlp.gate) == (20 * 5, 2 * 20 * 32 + 64)
    assert mlp.full_network(3) == 3 * (sum(mlp.segments) + 12 * 20) + 20 * 5


@pytest.mark.usefixtures("five_layer_backbone")
def test_a_readout_per_step_costs_as_much_as_a_shared_one():
    assert small_costs(readout="per_step") == small_costs(readout="shared")
    assert small_costs(accumulate="visited") == small_costs(accumulate="exit")


@pytest.mark.usefixtures("five_layer_backbone")
@pytest.mark.parametrize(
    ("branch", "heads"),
    [
        ("crm", [16 * (c * (c // 2) + (c // 2) * (c // 4)) + 16 * (c // 4) * 12 for c in (8, 10)]),
        ("conv", [4 * 4 * (c * (c // 2) * 2 + 9 * (c // 2) ** 2) + c * 12 for c in (8, 10)]),
        ("fc", [c * 1024 + 1024 * 12 for c in (8, 10)]),
    ],
)
def test_every_branch_is_counted(branch, heads):
    assert small_costs(branch=branch).heads == (*heads, 0)


@pytest.mark.usefixtures("five_layer_backbone")
def test_the_cost_up_to_a_depth_does_not_depend_on_the_cuts():
    assert sum(small_costs(num_branches=0).segments) == sum(small_costs(num_branches=3).segments)
