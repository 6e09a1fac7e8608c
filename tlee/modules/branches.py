"""Branch heads: map the tap after a segment, ``[N, C, H, W]``, to a feature of the backbone's size, ``[N, D]``."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

from tlee.params import ModelParams


class CRMBranch(nn.Module):
    """TLEE's channel reduction module (section III-B): the default branch head.

    ``alpha * maxpool + (1 - alpha) * avgpool`` with a learned ``alpha``, then ``crm_convs`` 1x1 convolutions with
    ReLU, the first of which divides the channels by ``2 ** crm_scale`` and each further one by 2, then a linear layer
    to ``feature_dim``.

    With ``crm_pool: grid`` any tap is pooled to 4 x 4 positions. With ``windows``, as in the authors' code, a side of
    ``s`` is divided into ``n = s // 4`` windows (one at least) of ``s // n``: 4, a little more only where ``s`` is 5,
    6, 7, 10, 11 or 15, and the whole side below 4. The linear layer is then lazy, until it has processed a tap.
    """

    side = 4  #: side of the grid, or of a window

    def __init__(self, channels: int, feature_dim: int, params: ModelParams):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.5))
        divisors = [2 ** (params.crm_scale + index) for index in range(params.crm_convs)]
        widths = [channels] + [max(1, channels // divisor) for divisor in divisors]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 1), nn.ReLU()]
        self.crm = nn.Sequential(*layers)
        self.in_windows = params.crm_pool == "windows"
        self.fc = nn.LazyLinear(feature_dim) if self.in_windows else nn.Linear(widths[-1] * self.side**2, feature_dim)

    def forward(self, tap: torch.Tensor) -> torch.Tensor:
        if not self.in_windows and min(tap.shape[-2:]) < self.side:
            tap = nn.functional.interpolate(tap, size=(self.side, self.side), mode="nearest")
        sides = [int(size) for size in tap.shape[-2:]]  # constants of an exported network
        if self.in_windows:
            window = stride = [side // max(side // self.side, 1) for side in sides]
        else:
            # Equal windows, overlapping where the map is no multiple of the side: these can be exported.
            stride = [side // self.side for side in sides]
            window = [side - (self.side - 1) * step for side, step in zip(sides, stride, strict=True)]
        largest = nn.functional.max_pool2d(tap, window, stride)
        average = nn.functional.avg_pool2d(tap, window, stride)
        pooled = self.alpha * largest + (1 - self.alpha) * average
        return self.fc(self.crm(pooled).flatten(1))


class ConvBranch(nn.Sequential):
    """Convolutions of 1x1, 3x3 and 1x1, each with batch norm and ReLU, global average pooling, a linear layer.

    The first halves the channels and the last restores them.
    """

    def __init__(self, channels: int, feature_dim: int, params: ModelParams):
        narrow = max(1, channels // 2)
        layers: list[nn.Module] = []
        for before, after, side in ((channels, narrow, 1), (narrow, narrow, 3), (narrow, channels, 1)):
            layers += [nn.Conv2d(before, after, side, padding=side // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, feature_dim))


class FCBranch(nn.Sequential):
    """Global average pooling, then a linear layer to 1024 with batch norm and ReLU, then one to ``feature_dim``."""

    width = 1024

    def __init__(self, channels: int, feature_dim: int, params: ModelParams):
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, self.width),
            nn.BatchNorm1d(self.width),
            nn.ReLU(),
            nn.Linear(self.width, feature_dim),
        )


#: Values of ``model.branch``: classes that are built from ``(channels of the tap, D, model parameters)``.
BRANCHES: dict[str, Callable[[int, int, ModelParams], nn.Module]] = {
    "crm": CRMBranch,
    "conv": ConvBranch,
    "fc": FCBranch,
}
