"""Gates: map two features to the score of stopping the video.

``forward(current, past)`` maps the feature of this exit and that of the frames before, ``[N, D]`` each, to a logit
``[N]``, high where the video should stop. This is TLEE's sign; FrameExit's published weights stop below one half.
"""

from collections.abc import Callable

import torch
from torch import nn


class MLPGate(nn.Module):
    """TLEE's gating module (section III-C).

    One shared linear layer to 32 on each of the two features, concatenated, and a linear layer to 1.
    """

    hidden = 32

    def __init__(self, feature_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(feature_dim, self.hidden)
        self.fc2 = nn.Linear(2 * self.hidden, 1)

    def forward(self, current: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.fc1(current), self.fc1(past)], dim=1)
        return self.fc2(torch.relu(both)).squeeze(1)


class FrameExitGate(nn.Module):
    """FrameExit's gate (section 3.2): a shared MLP to 128 and 64 with batch norm, concatenated, linear to 1."""

    widths = (128, 64)

    def __init__(self, feature_dim: int):
        super().__init__()
        first, second = self.widths
        self.shared = nn.Sequential(
            nn.Linear(feature_dim, first),
            nn.BatchNorm1d(first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.BatchNorm1d(second),
            nn.ReLU(),
        )
        self.score = nn.Linear(2 * second, 1)

    def forward(self, current: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.shared(current), self.shared(past)], dim=1)
        return self.score(both).squeeze(1)


#: Values of ``model.gate``: classes that are built from ``D``; None where nothing is learned.
GATES: dict[str, Callable[[int], nn.Module] | None] = {
    "mlp": MLPGate,
    "frameexit": FrameExitGate,
    "confidence": None,
    "random": None,
}
