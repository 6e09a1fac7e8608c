"""Normalisation of the input, part of the network so that it is saved with the weights."""

from collections.abc import Sequence

import torch
from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  #: mean of RGB in 0..1, as torchvision's weights expect
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """Subtract ``mean`` from RGB in 0..1, ``[N, 3, ...]``, and divide by ``std``: ImageNet's unless set otherwise."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN))
        self.register_buffer("std", torch.tensor(IMAGENET_STD))

    def set(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the statistics, one number per channel."""
        self.mean.copy_(torch.as_tensor(mean))
        self.std.copy_(torch.as_tensor(std))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        per_channel = (3,) + (1,) * (frames.dim() - 2)
        return (frames - self.mean.view(per_channel)) / self.std.view(per_channel)
