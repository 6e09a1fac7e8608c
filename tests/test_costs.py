"""Multiply-accumulates against the numbers that are known."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tlee.costs import GIGA, count_costs, count_macs
from tlee.model import TLEE
from tlee.params import load_params

ROOT = Path(__file__).parents[1]


def test_a_convolution_by_hand():
    layer = nn.Conv2d(3, 8, kernel_size=5, padding=2)
    _, macs = count_macs(lambda: layer(torch.zeros(1, 3, 10, 10)))
    assert macs == 8 * 10 * 10 * 3 * 5 * 5


def test_mobilenet_v2_at_224_pixels():
    """Convolutions and linear layers of the bare segments, cumulative, in G."""
    params = load_params(ROOT / "params.yaml", {"model.input_size": 224}).model
    segments = torch.tensor(count_costs(TLEE(params, classes=101)).segments)
    assert (segments.cumsum(0) / GIGA).tolist() == pytest.approx([0.076, 0.121, 0.164, 0.299], abs=6e-4)


def test_every_part_is_counted():
    params = load_params(ROOT / "params.yaml").model
    costs = count_costs(TLEE(params, classes=8))
    assert costs.heads == (
        16 * (24 * 12 + 12 * 6) + 6 * 16 * 1280,
        16 * (64 * 32 + 32 * 16) + 16 * 16 * 1280,
        16 * (96 * 48 + 48 * 24) + 24 * 16 * 1280,
        0,
    )
    assert costs.classifier == 1280 * 8
    assert costs.gate == 2 * 1280 * 32 + 64
    assert costs.full_network(10) == 10 * sum(costs.segments) + 1280 * 8
