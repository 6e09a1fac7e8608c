"""MobileNetV2 with the online temporal shift (Lin, Gan, Han, ICCV 2019, section 4.2).

In every block with a skip connection, the residual branch reads the first eighth of its channels not from
the frame at hand but from what the same block read at the frame visited before (zeros at the first). The
skip connection itself is not shifted, and nothing has parameters: the names are MobileNetV2's.
"""

from collections.abc import Callable

import torch
from torch import nn

from tlee.backbones.cut import Backbone, Memory
from tlee.backbones.from_torchvision import MOBILENET_CUTS, mobilenet_v2_body
from tlee.backbones.parts import pooled

SHARE = 8  #: one of this many channels comes from the frame before

Exchange = Callable[[torch.Tensor], torch.Tensor]  #: takes shifted channels, gives those of the frame before


def mobilenet_v2_tsm(num_branches: int) -> Backbone:
    """MobileNetV2 1.0 with the online temporal shift, cut as MobileNetV2; ImageNet weights are the same."""
    body = mobilenet_v2_body()
    return TemporalShift(body, pooled(body.features), MOBILENET_CUTS, 1280, num_branches, imagenet="mobilenet_v2")


class TemporalShift(Backbone):
    """A sequence of inverted residual blocks that shift channels from frame to frame.

    Features depend on the frames before: all frames of a video at once (``taps``) give what ``step`` gives
    frame by frame, if every frame runs to the depth that is compared.
    """

    def taps(self, clips: torch.Tensor) -> list[torch.Tensor]:
        steps, tap, outputs = clips.shape[1], clips.flatten(0, 1), []
        for segment in self.segments:
            tap = _run(segment, tap, lambda shifted: _of_the_step_before(shifted, steps))
            outputs.append(tap)
        return outputs

    def start_memory(self, size: int) -> list[Memory]:
        """Zeros for one video: of each shifting block, the channels that it shifts, ``[1, C / 8, H, W]``."""
        parameter = next(self.parameters())
        memories, side = [], size
        for segment in self.segments:
            memory = []
            for layer in segment:
                if _shifts(layer):
                    memory.append(parameter.new_zeros(1, layer.out_channels // SHARE, side, side))
                side = -(-side // _stride(layer))
            memories.append(tuple(memory))
        return memories

    def step(self, depth: int, tap: torch.Tensor, memory: Memory) -> tuple[torch.Tensor, Memory]:
        past, remembered = iter(memory), []

        def exchange(shifted: torch.Tensor) -> torch.Tensor:
            remembered.append(shifted)
            return next(past)

        return _run(self.segments[depth], tap, exchange), tuple(remembered)


def _run(segment: nn.Sequential, tap: torch.Tensor, exchange: Exchange) -> torch.Tensor:
    for layer in segment:
        if _shifts(layer):
            shifted = layer.out_channels // SHARE
            tap = tap + layer.conv(torch.cat([exchange(tap[:, :shifted]), tap[:, shifted:]], 1))
        else:
            tap = layer(tap)
    return tap


def _of_the_step_before(shifted: torch.Tensor, steps: int) -> torch.Tensor:
    """``[N * T, ...]`` one step later in each video, the first step zero."""
    videos = shifted.unflatten(0, (-1, steps))
    return torch.cat([torch.zeros_like(videos[:, :1]), videos[:, :-1]], 1).flatten(0, 1)


def _shifts(layer: nn.Module) -> bool:
    return getattr(layer, "use_res_connect", False)


def _stride(layer: nn.Module) -> int:
    """By how much a layer before the pooling shrinks its map."""
    strides = (inner.stride for inner in layer.modules() if isinstance(inner, nn.Conv2d))
    return max((stride[0] for stride in strides), default=1)
