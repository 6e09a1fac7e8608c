"""MobileNetV2 with the online temporal shift (Lin, Gan, Han, ICCV 2019, section 4.2).

In every block with a skip connection, the first eighth of the channels that the residual path reads are not those of
the current frame but those of the previously visited frame at the same block (zeros at the first frame). The skip
connection is not shifted, and the shift has no parameters: the names are MobileNetV2's.
"""

from collections.abc import Callable
from typing import Protocol, TypeGuard

import torch
from torch import nn

from tlee.backbones.cut import Backbone, Memory
from tlee.backbones.from_torchvision import MOBILENET_CUTS, mobilenet_v2_body
from tlee.backbones.parts import pooled

SHIFT_DIVISOR = 8  #: one in this many channels comes from the previous frame

Exchange = Callable[[torch.Tensor], torch.Tensor]  #: maps the shifted channels of a frame to those of the previous one


def mobilenet_v2_tsm(num_branches: int) -> Backbone:
    """MobileNetV2 1.0 with the online temporal shift, with the cuts and the ImageNet weights of MobileNetV2."""
    body = mobilenet_v2_body()
    return TemporalShift(body, pooled(body.features), MOBILENET_CUTS, 1280, num_branches, imagenet="mobilenet_v2")


class TemporalShift(Backbone):
    """Backbone of inverted residual blocks that shift channels from frame to frame.

    Features depend on the previous frames: ``taps`` on all frames of a video returns the same as ``step`` frame by
    frame, if every frame is run to the depth in question.
    """

    def taps(self, clips: torch.Tensor) -> list[torch.Tensor]:
        steps, tap, outputs = clips.shape[1], clips.flatten(0, 1), []
        for segment in self.segments:
            tap = _run(segment, tap, lambda shifted: _shift_in_time(shifted, steps))
            outputs.append(tap)
        return outputs

    def start_memory(self, size: int) -> list[Memory]:
        """Return zeros for one video: the shifted channels ``[1, C / 8, H, W]`` of each shifting block."""
        parameter = next(self.parameters())
        memories, side = [], size
        for segment in self.segments:
            memory = []
            for layer in segment:
                if _shifts(layer):
                    memory.append(parameter.new_zeros(1, layer.out_channels // SHIFT_DIVISOR, side, side))
                side = -(-side // _stride(layer))
            memories.append(tuple(memory))
        return memories

    def step(self, depth: int, tap: torch.Tensor, memory: Memory) -> tuple[torch.Tensor, Memory]:
        previous, current = iter(memory), []

        def exchange(shifted: torch.Tensor) -> torch.Tensor:
            current.append(shifted)
            return next(previous)

        return _run(self.segments[depth], tap, exchange), tuple(current)


def _run(segment: nn.Sequential, tap: torch.Tensor, exchange: Exchange) -> torch.Tensor:
    for layer in segment:
        if _shifts(layer):
            shifted = layer.out_channels // SHIFT_DIVISOR
            tap = tap + layer.conv(torch.cat([exchange(tap[:, :shifted]), tap[:, shifted:]], 1))
        else:
            tap = layer(tap)
    return tap


def _shift_in_time(channels: torch.Tensor, steps: int) -> torch.Tensor:
    """Delay ``[N * T, ...]`` by one time step within each video; the first step is zero."""
    videos = channels.unflatten(0, (-1, steps))
    return torch.cat([torch.zeros_like(videos[:, :1]), videos[:, :-1]], 1).flatten(0, 1)


class _ShiftingBlock(Protocol):
    """torchvision's inverted residual block with a shortcut."""

    out_channels: int
    conv: nn.Module


def _shifts(layer: nn.Module) -> TypeGuard[_ShiftingBlock]:
    return getattr(layer, "use_res_connect", False)


def _stride(layer: nn.Module) -> int:
    """Return the factor by which a layer before the pooling shrinks its map."""
    strides = (inner.stride for inner in layer.modules() if isinstance(inner, nn.Conv2d))
    return max((stride[0] for stride in strides), default=1)
