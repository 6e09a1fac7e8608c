"""What makes large batches faster changes no result."""

import resource
import sys

import pytest
import torch
from support.small import small_params
from torch import nn

from tlee.model import TLEE
from tlee.throughput import Depthwise, prepare


@pytest.mark.parametrize(
    "settings", [{}, {"model.backbone": "x3d_s", "extract.clip_frames": 13}], ids=["frames", "clips"]
)
def test_channels_go_last_and_nothing_else_changes(settings):
    """Branches of a network over clips read maps without time, so that both kinds of weights occur."""
    model = TLEE(small_params(settings, num_branches=1, crm_scale=3), classes=2).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert prepare(model) is model
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    weights = [weight for weight in model.parameters() if weight.dim() in layouts]
    assert {weight.dim() for weight in weights} == ({4, 5} if settings else {4})
    assert all(weight.is_contiguous(memory_format=layouts[weight.dim()]) for weight in weights)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 5), (3, 2), (4, 4)], ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1)])
def test_depthwise_convolutions_of_small_maps_are_the_same(size, kernel, stride):
    torch.manual_seed(0)
    settings = {"stride": stride, "padding": kernel // 2, "groups": 4, "dtype": torch.double}
    plain = nn.Conv2d(4, 4, kernel, **settings)
    faster = nn.Conv2d(4, 4, kernel, **settings)
    faster.load_state_dict(plain.state_dict())
    assert isinstance(prepare(nn.Sequential(faster))[0], Depthwise)
    maps = torch.randn(3, 4, *size, dtype=torch.double)
    found = []
    for layer in (plain, faster):
        shown = maps.clone().requires_grad_()
        result = layer(shown)
        result.square().sum().backward()
        found.append((result, shown.grad, layer.weight.grad, layer.bias.grad))
    for expected, actual in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


def test_other_convolutions_stay_as_they_are():
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding="same", groups=4)
    )
    assert not any(isinstance(layer, Depthwise) for layer in prepare(layers))


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told")
def test_freed_memory_is_kept():
    prepare(nn.Sequential())

    def fill() -> None:
        for tensor in [torch.empty(30 << 20, dtype=torch.uint8) for _ in range(3)]:
            tensor.fill_(1)

    fill()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        fill()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults * resource.getpagesize() < 300 << 20  # of 900; small allocations between may split the room once
