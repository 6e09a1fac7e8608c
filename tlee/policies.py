"""When to leave a frame and when to stop a video: policies, and the one loop that runs them.

The loop is TLEE's inference (section III-A):

.. code-block:: text

    z = nothing
    for t in 0..T-1:                         # frames, in visiting order
        for b in 0..B:                       # depth
            z_tb = reuse(z, f[t, b])
            if stop_video: return classify(z_tb)
            if b == B or leave_frame: break
        z = z_tb
    return classify(z)

It asks a *source* for the exit features: a table of stored ones (many videos at once), or the
network itself (one video, each segment run only when it is needed).
"""

from dataclasses import astuple, dataclass, field
from functools import cached_property
from typing import Protocol

import torch

from tlee.costs import GIGA, Costs
from tlee.model import TLEE, Readout

NEVER = 1.0  # no confidence and no gate score is above it
ALWAYS = 0.0


# --- where exit features come from ---------------------------------------------------------------


class Source(Protocol):
    """Exit features of ``videos`` videos of ``frames`` frames, on demand."""

    videos: int
    frames: int

    def feature(self, rows: torch.Tensor, t: int, b: int) -> torch.Tensor:
        """``f[t, b]`` of the videos ``rows``, ``[len(rows), D]``."""
        ...


class StoredFeatures:
    """Exit features from a table ``[N, T, B + 1, D]``."""

    def __init__(self, table: torch.Tensor):
        self.table = table
        self.videos, self.frames = table.shape[:2]

    def feature(self, rows: torch.Tensor, t: int, b: int) -> torch.Tensor:
        return self.table[rows, t, b]


class LiveFeatures:
    """Exit features of one clip from the network: a segment runs when its output is first needed.

    ``clip`` is ``[T, 3, H, W]`` in visiting order. ``segment_runs[b]`` and ``head_runs[b]`` count.
    """

    videos = 1

    def __init__(self, model: TLEE, clip: torch.Tensor):
        self.model, self.clip, self.frames = model, clip, len(clip)
        self.segment_runs = [0] * model.exits
        self.head_runs = [0] * model.exits
        self._step, self._depth, self._tap = -1, -1, clip[:0]

    def feature(self, rows: torch.Tensor, t: int, b: int) -> torch.Tensor:
        if t != self._step:
            self._step, self._depth, self._tap = t, -1, self.clip[t : t + 1]
        while self._depth < b:
            self._depth += 1
            self._tap = self.model.backbone.segments[self._depth](self._tap)
            self.segment_runs[self._depth] += 1
        self.head_runs[b] += 1
        return self.model.head(b)(self._tap)


# --- what a policy sees, and policies --------------------------------------------------------------


class Look:
    """The exit ``(t, b)`` of some videos as a policy sees it; what it does not ask for is not run."""

    def __init__(self, readout: Readout, current: torch.Tensor, past: torch.Tensor | None, t: int, b: int, frames: int):
        self.readout, self.current, self.past = readout, current, past
        self.t, self.b, self.frames = t, b, frames

    @cached_property
    def logits(self) -> torch.Tensor:
        """``[n, C]``"""
        return self.readout.classifier(self.current)

    @cached_property
    def confidence(self) -> torch.Tensor:
        """Largest softmax probability, ``[n]``."""
        return self.logits.softmax(1).amax(1)

    @cached_property
    def gate_score(self) -> torch.Tensor:
        """Probability that the gate gives to stopping, ``[n]``."""
        return self.readout.gate(self.current, self.past).sigmoid()

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
    """The papers' ablation: stop and leave at random, with the same chances everywhere."""

    stop_chance: float
    leave_chance: float
    generator: torch.Generator = field(repr=False)

    def looks(self, t: int, b: int, frames: int) -> bool:
        return True

    def stop_video(self, look: Look) -> torch.Tensor:
        return self._draw(look) < self.stop_chance

    def leave_frame(self, look: Look) -> torch.Tensor:
        return self._draw(look) < self.leave_chance

    def _draw(self, look: Look) -> torch.Tensor:
        return torch.rand(len(look.current), generator=self.generator)


# --- the loop ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcomes:
    """What a policy did with ``N`` videos."""

    logits: torch.Tensor  #: ``[N, C]``, at the exit where the video stopped
    exits: torch.Tensor  #: ``[N, T]``, depth at which each frame was left; -1: never looked at
    macs: torch.Tensor  #: ``[N]``, everything that ran

    @property
    def predictions(self) -> torch.Tensor:
        return self.logits.argmax(1)

    @property
    def frames(self) -> torch.Tensor:
        """Frames looked at, ``[N]``."""
        return (self.exits >= 0).sum(1)

    @property
    def gmacs(self) -> torch.Tensor:
        return self.macs.double() / GIGA


@torch.inference_mode()
def run(source: Source, readout: Readout, policy: Policy, costs: Costs) -> Outcomes:
    """Run ``policy`` over all videos of ``source``; every part that runs is counted."""
    videos, frames, depths = source.videos, source.frames, len(costs.segments)
    logits = torch.zeros(videos, readout.classifier.out_features)
    exits = torch.full((videos, frames), -1)
    macs = torch.zeros(videos, dtype=torch.long)
    going, past = torch.arange(videos), None  # the videos that go on, and z of each
    for t in range(frames):
        inside = torch.arange(len(going))  # positions in `going` of the frames not left yet
        following = None  # z for the next frame
        stopped = torch.zeros(len(going), dtype=torch.bool)
        for b in range(depths):
            rows = going[inside]
            macs[rows] += costs.segments[b]
            if not policy.looks(t, b, frames):
                continue
            before = None if past is None else past[inside]
            current = readout.accumulate(before, source.feature(rows, t, b), t)
            look = Look(readout, current, before, t, b, frames)
            none = torch.zeros(len(rows), dtype=torch.bool)
            stop = policy.stop_video(look) if t < frames - 1 else none
            leave = stop | (policy.leave_frame(look) if b < depths - 1 else ~none)
            if t == frames - 1:
                stop = leave
            macs[rows] += costs.heads[b] + (costs.reuse if t else 0) + look.macs(costs)
            if stop.any():
                macs[rows[stop]] += 0 if look.classified else costs.classifier
                logits[rows[stop]] = look.logits[stop]
            exits[rows[leave], t] = b
            following = current.new_zeros(len(going), current.shape[1]) if following is None else following
            following[inside[leave]] = current[leave]
            stopped[inside[stop]] = True
            inside = inside[~leave]
            if not len(inside):
                break
        going, past = going[~stopped], following[~stopped]
        if not len(going):
            break
    return Outcomes(logits, exits, macs)
