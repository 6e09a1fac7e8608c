"""Feature reuse: combine the features accumulated so far with the current exit feature (TLEE section III-D).

``forward(past, current, count)``: ``past`` and ``current`` are ``[N, D]``; ``count`` is the number of features
accumulated in ``past``, a number or ``[N, 1]``.
"""

from collections.abc import Callable

import torch
from torch import nn

Count = float | torch.Tensor


class MaxReuse(nn.Module):
    """Running maximum, the default of both papers (TLEE section III-D, FrameExit equation 4)."""

    def __init__(self, feature_dim: int):
        super().__init__()

    def forward(self, past: torch.Tensor, current: torch.Tensor, count: Count) -> torch.Tensor:
        return torch.maximum(past, current)


class AttentionReuse(nn.Module):
    """A two-layer MLP with a sigmoid weighs the current feature against the past, one weight a sample."""

    hidden = 32

    def __init__(self, feature_dim: int):
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(2 * feature_dim, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1), nn.Sigmoid()
        )

    def forward(self, past: torch.Tensor, current: torch.Tensor, count: Count) -> torch.Tensor:
        weight = self.score(torch.cat([current, past], dim=1))
        return weight * current + (1 - weight) * past


class EMAReuse(nn.Module):
    """Exponential moving average whose ``beta``, the weight of the past, is learned; it starts at 1/2."""

    def __init__(self, feature_dim: int):
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(()))  # of beta, which therefore stays between 0 and 1

    def forward(self, past: torch.Tensor, current: torch.Tensor, count: Count) -> torch.Tensor:
        beta = self.logit.sigmoid()
        return beta * past + (1 - beta) * current


class MeanReuse(nn.Module):
    """Running mean of all features so far."""

    def __init__(self, feature_dim: int):
        super().__init__()

    def forward(self, past: torch.Tensor, current: torch.Tensor, count: Count) -> torch.Tensor:
        return past + (current - past) / (count + 1)


class AddReuse(nn.Module):
    """``|past| + |current|``: the naive baseline."""

    def __init__(self, feature_dim: int):
        super().__init__()

    def forward(self, past: torch.Tensor, current: torch.Tensor, count: Count) -> torch.Tensor:
        return past.abs() + current.abs()


class NoReuse(nn.Module):
    """The current feature alone."""

    def __init__(self, feature_dim: int):
        super().__init__()

    def forward(self, past: torch.Tensor, current: torch.Tensor, count: Count) -> torch.Tensor:
        return current


#: Values of ``model.reuse``: classes that are built from ``D``.
REUSES: dict[str, Callable[[int], nn.Module]] = {
    "max": MaxReuse,
    "attention": AttentionReuse,
    "ema": EMAReuse,
    "mean": MeanReuse,
    "add": AddReuse,
    "none": NoReuse,
}
