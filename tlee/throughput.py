"""What lets a network compute large batches faster, on CPUs above all, with the same results but for rounding."""

import ctypes
import sys
from typing import TypeVar, cast

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}  # of weights, by their number of dimensions

#: Options of glibc's ``mallopt`` (malloc.h), with the largest value that it takes for the first, and 256 MiB.
_KEPT_MEMORY = {-3: 32 << 20, -1: 256 << 20}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD

#: Clips at a time where nothing is trained: their maps are small enough to be kept, and enough for a GPU.
CLIPS_AT_ONCE = 8


def prepare(network: Network) -> Network:
    """Prepare ``network`` for large batches: to be trained, or to compute the exit features of many clips.

    Weights of 2-D and 3-D convolutions are stored with channels last, depthwise convolutions become ``Depthwise``, and
    this process keeps freed memory: glibc would return that of each large tensor to the system, and a quarter of a
    training step would be spent on getting it back page by page.
    """
    for weight in network.parameters():
        if weight.dim() in _LAYOUTS:
            weight.data = weight.data.to(memory_format=_LAYOUTS[weight.dim()])
    for layer in network.modules():
        if type(layer) is nn.Conv2d and layer.groups == layer.in_channels > 1 and _pads_with_zeros(layer):
            layer.__class__ = Depthwise  # not replaced: a backbone refers to its layers from segments too
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        for option, size in _KEPT_MEMORY.items():
            library.mallopt(option, size)
    return network


class Depthwise(nn.Conv2d):
    """Depthwise convolution that, in training on CPUs, adds the zeros around maps smaller than its kernel itself.

    oneDNN computes the gradient of the weights fast only for maps at least as large as the kernel. For 2 x 2 maps, as
    those of MobileNetV2 from frames of 64 pixels, it takes some twenty times as long as for 4 x 4.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map ``[N, C, H, W]`` as ``nn.Conv2d`` does."""
        small = maps.shape[-2] < self.kernel_size[0] or maps.shape[-1] < self.kernel_size[1]
        if not (small and self.training and maps.device.type == "cpu"):
            return super().forward(maps)
        rows, columns = cast(tuple[int, int], self.padding)
        maps = nn.functional.pad(maps, (columns, columns, rows, rows))
        return nn.functional.conv2d(maps, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _pads_with_zeros(layer: nn.Conv2d) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
