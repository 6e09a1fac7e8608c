"""Batch norm with the statistics of the whole batch, of which each rank has a part."""

from typing import Any

import torch
from torch import nn

from tlee.distributed.ranks import mean, world

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """``nn.SyncBatchNorm`` on CPUs, where PyTorch's own does not run; ranks have parts of the same size."""

    def _check_input_dim(self, _: torch.Tensor) -> None:
        """Accept any number of dimensions, as the batch norm of 1, 2 or 3 that this one replaces."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise ``values [N, C, ...]``; in training by their means and variances over all ranks."""
        if not self.training:
            return super().forward(values)
        dims = [0, *range(2, values.dim())]
        shape = [1, -1] + [1] * (values.dim() - 2)
        centre = _Mean.apply(values.mean(dims))
        centred = values - centre.view(shape)
        variance = _Mean.apply(centred.square().mean(dims))
        self._remember(centre.detach(), variance.detach(), values[:, 0].numel() * world().size)
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        return normalised * self.weight.view(shape) + self.bias.view(shape) if self.affine else normalised

    def _remember(self, centre: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        """Update the running statistics, as ``nn.BatchNorm2d`` does from ``count`` values a channel."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(centre, share)
        self.running_var.lerp_(variance * count / (count - 1), share)


class _Mean(torch.autograd.Function):
    """Mean over ranks, with its gradient: the mean of the gradients of all ranks' losses, each a mean of its own."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return mean(values)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return mean(gradient)


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Let the batch norms of ``network``, which trains on ``device``, use all ranks; alone, nothing is changed.

    Layers change their class, not their identity: a backbone refers to them from its segments too.
    """
    if world().size == 1:
        return
    for layer in network.modules():
        if isinstance(layer, BATCH_NORMS):
            layer.__class__ = CPUSyncBatchNorm if device.type == "cpu" else nn.SyncBatchNorm
            layer.process_group = None  # all ranks
