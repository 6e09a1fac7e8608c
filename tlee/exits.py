"""The papers' three modules: branch head, feature reuse, gate.

Each kind is a class in a table; a new one is one class and one line there.
"""

from itertools import pairwise

import torch
from torch import nn

# --- branches: a tap [N, C, H, W] to a feature [N, D] ----------------------------------------------


class CRMBranch(nn.Module):
    """TLEE's channel reduction module (section III-B): the default branch head.

    ``alpha * maxpool + (1 - alpha) * avgpool`` to at most 4 x 4 with a learned ``alpha``, then ``convs``
    1x1 convolutions with ReLU, the first of which divides the channels by ``2 ** scale`` and each
    further one by 2, then a linear layer to ``feature_dim``.
    """

    side = 4

    def __init__(self, channels: int, feature_dim: int, convs: int, scale: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.5))
        widths = [channels] + [max(1, channels // 2 ** (scale + index)) for index in range(convs)]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 1), nn.ReLU()]
        self.crm = nn.Sequential(*layers)
        self.fc = nn.Linear(widths[-1] * self.side**2, feature_dim)

    def forward(self, tap: torch.Tensor) -> torch.Tensor:
        if min(tap.shape[-2:]) < self.side:
            tap = nn.functional.interpolate(tap, size=(self.side, self.side), mode="nearest")
        # Equal windows, overlapping where the map is no multiple of the side: these export as they are.
        stride = [size // self.side for size in tap.shape[-2:]]
        window = [size - (self.side - 1) * step for size, step in zip(tap.shape[-2:], stride, strict=True)]
        largest = nn.functional.max_pool2d(tap, window, stride)
        average = nn.functional.avg_pool2d(tap, window, stride)
        pooled = self.alpha * largest + (1 - self.alpha) * average
        return self.fc(self.crm(pooled).flatten(1))


BRANCHES = {"crm": CRMBranch}


# --- reuse: the feature so far and the current one to the next -------------------------------------


class MaxReuse(nn.Module):
    """Running maximum, the default of both papers (TLEE section III-D, FrameExit equation 4)."""

    def forward(self, past: torch.Tensor, current: torch.Tensor, step: int) -> torch.Tensor:
        """``past``, ``current``: ``[N, D]``; ``step``: how many frames ``past`` stands for."""
        return torch.maximum(past, current)


REUSES = {"max": MaxReuse}


# --- gates: should the video stop here? ------------------------------------------------------------


class MLPGate(nn.Module):
    """TLEE's gating module (section III-C): ``(z_tb, z)`` to a score, stop where it is high.

    One shared linear layer to 32 on each of the two features, concatenated, and a linear layer to 1.
    """

    def __init__(self, feature_dim: int, hidden: int = 32):
        super().__init__()
        self.fc1 = nn.Linear(feature_dim, hidden)
        self.fc2 = nn.Linear(2 * hidden, 1)

    def forward(self, current: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        """Two features ``[N, D]`` to a logit ``[N]``."""
        both = torch.cat([self.fc1(current), self.fc1(past)], dim=1)
        return self.fc2(torch.relu(both)).squeeze(1)


GATES = {"mlp": MLPGate}
