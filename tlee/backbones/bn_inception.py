"""BN-Inception (Ioffe & Szegedy, ICML 2015, figure 5), with the widths of the published weights.

The paper's table prints a pool projection of 96 channels in 4c and 4d. Published weights have 128 there, so that 4c
and 4d return 608 channels and 4e 1056, as in this network.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn

from tlee.backbones.cut import Backbone, Cuts
from tlee.backbones.parts import initialise, pooled


@dataclass(frozen=True)
class Width:
    """A row of the paper's table: the numbers of channels of one Inception block.

    ``three`` and ``double``: channels of the 1x1 reduction, then of the one or two 3x3 convolutions.
    ``pool``: kind of pooling and channels of its projection. A block without a 1x1 convolution and without a
    projection halves the map.
    """

    one: int
    three: tuple[int, int]
    double: tuple[int, int]
    pool: tuple[str, int]


BLOCKS = {
    "3a": Width(64, (64, 64), (64, 96), ("avg", 32)),
    "3b": Width(64, (64, 96), (64, 96), ("avg", 64)),
    "3c": Width(0, (128, 160), (64, 96), ("max", 0)),
    "4a": Width(224, (64, 96), (96, 128), ("avg", 128)),
    "4b": Width(192, (96, 128), (96, 128), ("avg", 128)),
    "4c": Width(160, (128, 160), (128, 160), ("avg", 128)),
    "4d": Width(96, (128, 192), (160, 192), ("avg", 128)),
    "4e": Width(0, (128, 192), (192, 256), ("max", 0)),
    "5a": Width(352, (192, 320), (160, 224), ("avg", 128)),
    "5b": Width(352, (192, 320), (192, 224), ("max", 128)),
}


def bn_inception(num_branches: int) -> Backbone:
    """BN-Inception, cut after block 2 (the second pooling), 3c and 4e."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=_convolution(3, 64, kernel=7, stride=2),
        pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
        conv2_reduce=_convolution(64, 64),
        conv2=_convolution(64, 192, kernel=3),
        pool2=nn.MaxPool2d(3, 2, ceil_mode=True),
    )
    channels = 192
    for name, width in BLOCKS.items():
        layers[f"inception_{name}"] = block = Inception(channels, width)
        channels = block.channels
    features = nn.Sequential(layers)
    body = initialise(nn.ModuleDict({"features": features}))
    return Backbone(body, pooled(features), Cuts((5, 8, 13), (192, 576, 1056)), channels, num_branches)


class Inception(nn.ModuleDict):
    """Parallel convolutions of the same map, whose outputs are concatenated to ``channels`` channels."""

    def __init__(self, channels: int, width: Width):
        stride = 1 if width.one else 2
        (reduced, three), (double_reduced, double), (kind, projection) = width.three, width.double, width.pool
        paths = {
            "conv3x3": nn.Sequential(_convolution(channels, reduced), _convolution(reduced, three, 3, stride)),
            "double3x3": nn.Sequential(
                _convolution(channels, double_reduced),
                _convolution(double_reduced, double, 3),
                _convolution(double, double, 3, stride),
            ),
            "pool": _pool(kind, stride),
        }
        if width.one:
            paths = {"conv1x1": _convolution(channels, width.one), **paths}
            paths["pool"] = nn.Sequential(paths["pool"], _convolution(channels, projection))
        super().__init__(paths)
        self.channels = width.one + three + double + (projection or channels)

    def forward(self, tap: torch.Tensor) -> torch.Tensor:
        return torch.cat([path(tap) for path in self.values()], 1)


def _pool(kind: str, stride: int) -> nn.Module:
    if stride == 2:
        return nn.MaxPool2d(3, 2, ceil_mode=True)
    return {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}[kind](3, 1, padding=1)


def _convolution(channels: int, out: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True))
