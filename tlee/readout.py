"""The readout: reuse, classifier and gate, which turn exit features into decisions."""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from tlee.modules import GATES, REUSES
from tlee.params import Params

State = TypeVar("State")


@dataclass(frozen=True)
class Accumulated:
    """The features accumulated so far by each of ``N`` videos that have evaluated the same number of frames."""

    z: torch.Tensor  #: ``[N, D]``; ``[N, 0]`` before the first feature
    count: torch.Tensor  #: ``[N, 1]``, number of features in ``z``

    @classmethod
    def nothing(cls, videos: int, device: torch.device | None = None) -> "Accumulated":
        """No features yet."""
        return cls(torch.zeros(videos, 0, device=device), torch.zeros(videos, 1, device=device))

    @property
    def is_empty(self) -> bool:
        """True before the first feature."""
        return self.z.shape[1] == 0

    def take(self, rows: torch.Tensor) -> "Accumulated":
        """Select videos by index or mask."""
        return Accumulated(self.z[rows], self.count[rows])

    def put(self, rows: torch.Tensor, other: "Accumulated") -> "Accumulated":
        """Replace the videos ``rows`` (indices) by those of ``other``, which has a feature."""
        z = other.z.new_zeros(len(self.count), other.z.shape[1]) if self.is_empty else self.z
        return Accumulated(z.index_copy(0, rows, other.z), self.count.index_copy(0, rows, other.count))

    def where(self, mask: torch.Tensor, other: "Accumulated") -> "Accumulated":
        """Take ``other`` where ``mask [N, 1]`` is true; all of it if there is nothing yet."""
        z = other.z if self.is_empty else torch.where(mask, other.z, self.z)
        return Accumulated(z, torch.where(mask, other.count, self.count))


class Readout(nn.Module):
    """Reuse, classifier and gate: everything that follows an exit feature.

    It needs no frame, so it runs on stored exit features exactly as it runs on fresh ones.
    ``t`` is the time step in visiting order; only a readout per step depends on it.
    """

    def __init__(self, width: int, classes: int, params: Params):
        super().__init__()
        steps, per_step = params.extract.frames, params.model.readout == "per_step"
        self.width, self.classes = width, classes
        self.reuse = REUSES[params.model.reuse](width)
        self.classifiers = nn.ModuleList(nn.Linear(width, classes) for _ in range(steps if per_step else 1))
        gate, gated = GATES[params.model.gate], max(steps - 2, 0)  # none at the first and the last step
        gates = [] if gate is None else [gate(width) for _ in range(gated if per_step else min(gated, 1))]
        self.gates = nn.ModuleList(gates)
        self.accumulates_visited = params.model.accumulate != "exit"
        self.as_published = params.model.accumulate == "published"
        self.multi_label = params.dataset.labels == "multi"

    @property
    def per_step(self) -> bool:
        """True if time steps have classifiers and gates of their own."""
        return len(self.classifiers) > 1

    # --- accumulation, the one place where it is computed in PyTorch --------------------------------------

    def accumulate(self, known: Accumulated, features: torch.Tensor) -> Accumulated:
        """Reuse: combine ``features [N, D]`` with those accumulated so far; the first ones are taken unchanged."""
        z = features if known.is_empty else self.reuse(known.z, features, known.count)
        return Accumulated(z, known.count + 1)

    def accumulates_passed(self, t: int) -> bool:
        """True if the exits evaluated on the way to a deeper one are accumulated at step ``t``."""
        return self.accumulates_visited and not (self.as_published and t == 0)

    def base(self, before: State, last: State, t: int) -> State:
        """Return the state that the next exit of step ``t`` is combined with.

        ``before`` is the state before the frame, and ``last`` that after the last exit evaluated.
        """
        return last if self.accumulates_passed(t) else before

    def compared(self, before: State, base: State) -> State:
        """Return the state that the gate compares an exit with: see ``base``, its result is the second."""
        return base if self.as_published else before

    def first_exit_ends(self, t: int, frames: int) -> bool:
        """True if the first exit evaluated at step ``t`` of ``frames`` ends the video."""
        return self.as_published and 0 < t == frames - 1

    def along(self, features: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
        """Return ``z`` after each step, ``[N, T, D]``, where step ``t`` of a video is left at depth ``depths[n, t]``.

        ``features`` are ``[N, T, B + 1, D]``, of which those up to the depth are read.
        """
        rows = torch.arange(len(features), device=features.device)
        known, steps = Accumulated.nothing(len(features), features.device), []
        for t in range(features.shape[1]):
            if self.accumulates_passed(t):
                for b in range(int(depths[:, t].max()) + 1):
                    known = known.where(b <= depths[:, t, None], self.accumulate(known, features[:, t, b]))
            else:
                known = self.accumulate(known, features[rows, t, depths[:, t]])
            steps.append(known.z)
        return torch.stack(steps, dim=1)

    # --- decisions -----------------------------------------------------------------------------------------

    def classify(self, z: torch.Tensor, t: int) -> torch.Tensor:
        """Map ``z [N, D]`` after step ``t`` to logits ``[N, C]``."""
        return self.classifiers[min(t, len(self.classifiers) - 1)](z)

    def gate(self, current: torch.Tensor, past: torch.Tensor, t: int) -> torch.Tensor:
        """Return logits ``[N]`` of stopping at step ``0 < t < T - 1``."""
        return self.gates[min(t, len(self.gates)) - 1](current, past)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Class probabilities ``[..., C]``: softmax, or sigmoid where videos have several labels."""
        return logits.sigmoid() if self.multi_label else logits.softmax(-1)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Cross-entropy of each of ``logits [..., C]``, or the mean binary cross-entropy over all classes.

        ``targets`` are class indices ``[...]``, for several labels zeros and ones ``[..., C]``. ``smoothing`` is the
        share of label smoothing (Szegedy et al., CVPR 2016), which is spread evenly over classes.
        """
        if self.multi_label:
            smooth = targets * (1 - smoothing) + smoothing / 2
            return nn.functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none").mean(-1)
        losses = nn.functional.cross_entropy(
            logits.flatten(0, -2), targets.flatten(), reduction="none", label_smoothing=smoothing
        )
        return losses.unflatten(0, logits.shape[:-1])

    def prefix_logits(self, features: torch.Tensor, depths: torch.Tensor | int) -> torch.Tensor:
        """Logits after each step, ``[N, T, C]``: see ``along``; a single depth holds for all frames."""
        if isinstance(depths, int):
            depths = torch.full(features.shape[:2], depths, device=features.device)
        z = self.along(features, depths)
        if not self.per_step:
            return self.classify(z, 0)
        return torch.stack([self.classify(each, t) for t, each in enumerate(z.unbind(1))], dim=1)

    def prefix_loss(self, features: torch.Tensor, depths: torch.Tensor | int, targets: torch.Tensor) -> torch.Tensor:
        """See ``mean_loss``, of the ``prefix_logits`` of exit features."""
        return self.mean_loss(self.prefix_logits(features, depths), targets)

    def mean_loss(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Mean ``loss`` of ``logits [N, T, C]`` over videos and steps (TLEE section III-E, FrameExit 3.3).

        ``targets`` has one row for each video.
        """
        expanded = targets.unsqueeze(1).expand(-1, logits.shape[1], *targets.shape[1:])
        return self.loss(logits, expanded, smoothing).mean()
