"""X3D-S (Feichtenhofer, CVPR 2020): a 3-D network that reads a clip of 13 frames as one time step.

Table 1 of the paper, expanded to X3D-S: widths 24, 48, 96, 192 (gamma_w = 2 on a base of 12), depths 3, 5, 11, 7
(gamma_d = 2.2), bottlenecks 2.25 times as wide as their block (gamma_b), 160 pixels. Parameter names are those of the
weights that the authors publish for PyTorchVideo.
"""

from collections import OrderedDict
from itertools import accumulate

import torch
from torch import nn

from tlee.backbones.cut import Backbone, Cuts
from tlee.backbones.parts import initialise

CLIP_FRAMES = 13
STEM = 24
WIDTHS = (24, 48, 96, 192)  #: widths of res2 to res5
DEPTHS = (3, 5, 11, 7)
EXPANSION = 2.25
FEATURE_DIM = 2048


def x3d_s(num_branches: int) -> Backbone:
    """X3D-S, cut after res3, res4 and res5; the last segment is conv5, pooling and the first linear layer."""
    stages = [_stage(*sizes) for sizes in zip((STEM, *WIDTHS), WIDTHS, DEPTHS, strict=False)]
    end, stem = _end(WIDTHS[-1]), _stem()
    named = [nn.ModuleDict({"res_blocks": stage}) for stage in stages]  # as in published weights
    body = initialise(nn.ModuleDict({"blocks": nn.ModuleList([stem, *named, nn.ModuleDict({"pool": end})])}))
    layers = nn.Sequential(stem, *(block for stage in stages for block in stage), *end, nn.Flatten())
    after = tuple(1 + blocks_so_far for blocks_so_far in accumulate(DEPTHS))
    return Backbone(body, layers, Cuts(after[1:], WIDTHS[1:]), FEATURE_DIM, num_branches, clip_frames=CLIP_FRAMES)


def _stem() -> nn.Sequential:
    """Build conv1: a spatial convolution, then a depthwise temporal one."""
    convolutions: OrderedDict[str, nn.Module] = OrderedDict(
        conv_t=nn.Conv3d(
            3, STEM, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False
        ),  # spatial in spite of its published name
        conv_xy=nn.Conv3d(STEM, STEM, (5, 1, 1), padding=(2, 0, 0), groups=STEM, bias=False),
    )
    return nn.Sequential(
        OrderedDict(conv=nn.Sequential(convolutions), norm=nn.BatchNorm3d(STEM), act=nn.ReLU(inplace=True))
    )


def _stage(before: int, width: int, depth: int) -> nn.Sequential:
    """Build ``depth`` blocks: the first halves the map, and every second one has squeeze and excitation."""
    first = ResidualBlock(before, width, stride=2, excitation=True)
    return nn.Sequential(first, *(ResidualBlock(width, width, 1, excitation=i % 2 == 0) for i in range(1, depth)))


def _end(channels: int) -> nn.Sequential:
    """Build conv5, the mean over space and time, and a linear layer (as a convolution) to the features."""
    width = int(channels * EXPANSION)
    return nn.Sequential(
        OrderedDict(
            pre_conv=nn.Conv3d(channels, width, 1, bias=False),
            pre_norm=nn.BatchNorm3d(width),
            pre_act=nn.ReLU(inplace=True),
            pool=nn.AdaptiveAvgPool3d(1),
            post_conv=nn.Conv3d(width, FEATURE_DIM, 1, bias=False),
            post_act=nn.ReLU(inplace=True),
        )
    )


class ResidualBlock(nn.Module):
    """Bottleneck block with a depthwise 3x3x3 convolution; the shortcut is projected if shapes differ."""

    def __init__(self, channels: int, width: int, stride: int, excitation: bool):
        super().__init__()
        self.branch1_conv: nn.Module = nn.Identity()
        self.branch1_norm: nn.Module = nn.Identity()
        if stride > 1 or channels != width:
            self.branch1_conv = nn.Conv3d(channels, width, 1, (1, stride, stride), bias=False)
        if channels != width:
            self.branch1_norm = nn.BatchNorm3d(width)
        inner = int(width * EXPANSION)
        self.branch2 = nn.Sequential(
            OrderedDict(
                conv_a=nn.Conv3d(channels, inner, 1, bias=False),
                norm_a=nn.BatchNorm3d(inner),
                act_a=nn.ReLU(inplace=True),
                conv_b=nn.Conv3d(inner, inner, 3, (1, stride, stride), padding=1, groups=inner, bias=False),
                norm_b=nn.Sequential(nn.BatchNorm3d(inner), Excitation(inner) if excitation else nn.Identity()),
                act_b=nn.SiLU(),
                conv_c=nn.Conv3d(inner, width, 1, bias=False),
                norm_c=nn.BatchNorm3d(width),
            )
        )

    def forward(self, tap: torch.Tensor) -> torch.Tensor:
        return (self.branch1_norm(self.branch1_conv(tap)) + self.branch2(tap)).relu()


class Excitation(nn.Module):
    """Squeeze and excitation (Hu et al., CVPR 2018) with a reduction ratio of 16."""

    def __init__(self, channels: int):
        super().__init__()
        width = _reduced_width(channels)
        self.block = nn.Sequential(
            nn.Conv3d(channels, width, 1), nn.ReLU(inplace=True), nn.Conv3d(width, channels, 1), nn.Sigmoid()
        )

    def forward(self, tap: torch.Tensor) -> torch.Tensor:
        return tap * self.block(tap.mean((2, 3, 4), keepdim=True))


def _reduced_width(channels: int) -> int:
    """Round a sixteenth of ``channels`` to a multiple of 8, at most a tenth below it."""
    width = max(8, round(channels / 16 / 8) * 8)
    return width + 8 if width < 0.9 * channels / 16 else width
