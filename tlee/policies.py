"""When to leave a frame and when to stop a video: what a policy sees and what it decides."""

from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Protocol

import torch

from tlee.costs import Costs
from tlee.model import Readout

NEVER = 1.0  # no confidence and no gate score is above it
ALWAYS = 0.0


class Look:
    """The exit ``(t, b)`` of some videos as a policy sees it; what it does not ask for is not run."""

    def __init__(self, readout: Readout, current: torch.Tensor, past: torch.Tensor | None, t: int, b: int, frames: int):
        self.readout, self.current, self.past = readout, current, past
        self.t, self.b, self.frames = t, b, frames

    @cached_property
    def logits(self) -> torch.Tensor:
        """``[n, C]``"""
        return self.readout.classify(self.current, self.t)

    @cached_property
    def confidence(self) -> torch.Tensor:
        """Largest probability of a class, ``[n]``."""
        return self.readout.probabilities(self.logits).amax(1)

    @cached_property
    def gate_score(self) -> torch.Tensor:
        """Probability that the gate gives to stopping, ``[n]``."""
        return self.readout.gate(self.current, self.past, self.t).sigmoid()

    @property
    def classified(self) -> bool:
        """Whether the logits have been asked for."""
        return "logits" in self.__dict__

    def macs(self, costs: Costs) -> int:
        """Of the parts of the readout that have been asked for, for each video."""
        return costs.classifier * self.classified + costs.gate * ("gate_score" in self.__dict__)


class Policy(Protocol):
    """Decides at the exits of a network with ``B + 1`` depths and ``T`` frames."""

    def looks(self, t: int, b: int, frames: int) -> bool:
        """Whether anything can be decided at ``(t, b)``; if not, the head there is not run."""
        ...

    def stop_video(self, look: Look) -> torch.Tensor:
        """For ``t < T - 1``: booleans ``[n]``."""
        ...

    def leave_frame(self, look: Look) -> torch.Tensor:
        """For ``b < B``: booleans ``[n]``."""
        ...


@dataclass(frozen=True)
class Thresholds:
    """TLEE's policy with one threshold a depth; a threshold of 1 switches that decision off.

    ``leave[b]``, ``b < B``: leave the frame where the confidence is above it (branch layer exit).
    ``first[b]``: stop the video at the first frame where the confidence is above it.
    ``gate[b]``: stop the video at a later frame where the gate's score is above it.
    ``sure[b]``: stop the video at a later frame also where the confidence is above it. The papers have no
    such rule (it is off); with it, confidence and the gate are weighed by what they do on val.

    Every policy along one axis is a case of it: see ``never`` and ``search.families``.
    """

    leave: tuple[float, ...]
    first: tuple[float, ...]
    gate: tuple[float, ...]
    sure: tuple[float, ...]

    @classmethod
    def never(cls, exits: int) -> "Thresholds":
        """The full network: no exit of ``exits`` (``B + 1``) is ever taken."""
        off = (NEVER,) * exits
        return cls(leave=off[1:], first=off, gate=off, sure=off)

    def reachable(self) -> "Thresholds":
        """The same policy with every threshold at ``NEVER`` behind a depth at which all frames are left."""
        if ALWAYS not in self.leave:
            return self
        last = self.leave.index(ALWAYS) + 1
        return Thresholds(*(values[:last] + (NEVER,) * (len(values) - last) for values in astuple(self)))

    def stop_above(self, t: int, b: int, frames: int) -> tuple[float, float]:
        """The confidence and the gate's score above which the video stops at ``(t, b)``."""
        if t == frames - 1:  # after the last frame it stops anyway
            return NEVER, NEVER
        return (self.first[b], NEVER) if t == 0 else (self.sure[b], self.gate[b])

    def looks(self, t: int, b: int, frames: int) -> bool:
        if b == len(self.leave) or self.leave[b] < NEVER:
            return True
        return min(self.stop_above(t, b, frames)) < NEVER

    def exits_in_use(self) -> int:
        """At how many depths it looks, at the first frame and at later ones taken together."""
        depths = 1 + (self.leave.index(ALWAYS) if ALWAYS in self.leave else len(self.leave))
        return sum(self.looks(t, b, frames=3) for t in (0, 1) for b in range(depths))

    def stop_video(self, look: Look) -> torch.Tensor:
        confidence, gate = self.stop_above(look.t, look.b, look.frames)
        stop = torch.zeros(len(look.current), dtype=torch.bool)
        if confidence < NEVER:
            stop |= look.confidence > confidence
        if gate < NEVER:
            stop |= look.gate_score > gate
        return stop

    def leave_frame(self, look: Look) -> torch.Tensor:
        threshold = self.leave[look.b]
        if threshold in (ALWAYS, NEVER):
            return torch.full((len(look.current),), threshold == ALWAYS)
        return look.confidence > threshold


@dataclass(frozen=True)
class RandomExits:
    """The papers' ablation: at each exit on the way the video stops with ``chance``, and so is the frame left.

    Nothing is looked at, so the exits are drawn beforehand (see ``inference.follow``).
    """

    chance: float
    seed: int

    def paths(self, videos: int, frames: int, exits: int) -> torch.Tensor:
        """A depth for each frame and -1 after the last one, ``[N, T]``; the same for the same seed."""
        generator = torch.Generator().manual_seed(self.seed)
        stop, leave = (torch.rand(videos, frames, exits, generator=generator) < self.chance for _ in range(2))
        leave[:, :, -1] = True
        depth = (stop | leave).int().argmax(2)  # the first of them
        stops = stop.gather(2, depth[:, :, None]).squeeze(2).int()
        return depth.masked_fill(stops.cumsum(1) > stops, -1)
