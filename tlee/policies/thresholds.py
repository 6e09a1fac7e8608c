"""TLEE's policy; the policies along one axis are special cases of it."""

from dataclasses import astuple, dataclass

import torch

from tlee.levels import ALWAYS, NEVER
from tlee.policies.policy import Observation, Policy


@dataclass(frozen=True)
class Thresholds(Policy):
    """TLEE's policy with one threshold a depth; a threshold of 1 switches that decision off.

    ``layer[b]``, ``b < B``: leave the frame where the confidence is above it (branch layer exit).
    ``first[b]``: stop the video at the first frame where the confidence is above it.
    ``gate[b]``: stop the video at a later frame where the gate's score is above it.
    ``stop[b]``: stop the video at a later frame also where the confidence is above it. The papers have no
    such rule (then it is off); with it, the search on val weighs confidence against the gate.

    Every policy along one axis is a special case: see ``never`` and ``search.families``.
    """

    layer: tuple[float, ...]
    first: tuple[float, ...]
    gate: tuple[float, ...]
    stop: tuple[float, ...]

    @classmethod
    def never(cls, num_exits: int) -> "Thresholds":
        """The full network: no early exit of a network with ``num_exits`` (``B + 1``) is ever taken."""
        off = (NEVER,) * num_exits
        return cls(layer=off[1:], first=off, gate=off, stop=off)

    @classmethod
    def one_confidence(cls, level: float, shallowest: int, num_exits: int) -> "Thresholds":
        """Stop the video where the confidence is above ``level`` at any exit from the depth ``shallowest`` on."""
        row = (NEVER,) * shallowest + (level,) * (num_exits - shallowest)
        return cls(layer=row[:-1], first=row, gate=(NEVER,) * num_exits, stop=row)

    def reachable(self) -> "Thresholds":
        """Set every threshold beyond a depth at which all frames are left to ``NEVER``: the same decisions."""
        if ALWAYS not in self.layer:
            return self
        last = self.layer.index(ALWAYS) + 1
        return Thresholds(*(values[:last] + (NEVER,) * (len(values) - last) for values in astuple(self)))

    def stop_above(self, t: int, b: int, frames: int) -> tuple[float, float]:
        """Return the confidence and the gate score above which the video stops at ``(t, b)``."""
        if t == frames - 1:  # the last frame ends the video anyway
            return NEVER, NEVER
        return (self.first[b], NEVER) if t == 0 else (self.stop[b], self.gate[b])

    def uses_exit(self, t: int, b: int, frames: int) -> bool:
        if b == len(self.layer) or self.layer[b] < NEVER:
            return True
        return min(self.stop_above(t, b, frames)) < NEVER

    def num_exits_used(self) -> int:
        """Number of exits in use at the first frame, plus that at a later frame."""
        depths = 1 + (self.layer.index(ALWAYS) if ALWAYS in self.layer else len(self.layer))
        return sum(self.uses_exit(t, b, frames=3) for t in (0, 1) for b in range(depths))

    def stop_video(self, seen: Observation) -> torch.Tensor:
        confidence, gate = self.stop_above(seen.t, seen.b, seen.num_frames)
        stop = torch.zeros(seen.num_videos, dtype=torch.bool)
        if confidence < NEVER:
            stop |= seen.confidence > confidence
        if gate < NEVER:
            stop |= seen.gate_score > gate
        return stop

    def leave_frame(self, seen: Observation) -> torch.Tensor:
        threshold = self.layer[seen.b]
        if threshold in (ALWAYS, NEVER):
            return torch.full((seen.num_videos,), threshold == ALWAYS)
        return seen.confidence > threshold
