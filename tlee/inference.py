"""The one loop that runs a policy.

The loop is TLEE's inference (section III-A):

.. code-block:: text

    z = nothing
    for t in 0..T-1:                         # frames, in visiting order
        for b in 0..B:                       # depth
            z_tb = reuse(z, f[t, b])         # or, where visited exits count, reuse(z_t(b-1), f[t, b])
            if stop_video: return classify(z_tb)
            if b == B or leave_frame: break
        z = z_tb
    return classify(z)

It asks a *source* for the exit features: a table of stored ones (many videos at once), or the
network itself (one video, each segment run only when it is needed).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from tlee.costs import GIGA, Costs
from tlee.model import TLEE, Readout
from tlee.policies.given import GivenExits
from tlee.policies.look import Look, Policy

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

    ``clip`` is ``[T, *input_shape]`` in visiting order. ``segment_runs[b]`` and ``head_runs[b]`` count.
    """

    videos = 1

    def __init__(self, model: TLEE, clip: torch.Tensor):
        self.model, self.clip, self.frames = model, clip, len(clip)
        self.segment_runs = [0] * model.exits
        self.head_runs = [0] * model.exits
        self._memory = model.backbone.start_memory(model.params.model.input_size)
        self._step, self._depth, self._tap = -1, -1, clip[:0]

    def feature(self, rows: torch.Tensor, t: int, b: int) -> torch.Tensor:
        if t != self._step:
            self._step, self._depth, self._tap = t, -1, self.clip[t : t + 1]
        while self._depth < b:
            self._depth += 1
            memory = self._memory[self._depth]
            self._tap, self._memory[self._depth] = self.model.backbone.step(self._depth, self._tap, memory)
            self.segment_runs[self._depth] += 1
        self.head_runs[b] += 1
        return self.model.head(b)(self._tap)


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


def run_any(
    source: Source,
    readout: Readout,
    policy: Policy | GivenExits,
    costs: Costs,
    temperatures: Sequence[float] | None = None,
) -> Outcomes:
    """Run a policy that decides by what it sees, or one whose exits are given."""
    if isinstance(policy, Policy):
        return run(source, readout, policy, costs, temperatures)
    return follow(source, readout, policy.paths(source.videos, source.frames, len(costs.segments)), costs)


@torch.inference_mode()
def run(
    source: Source, readout: Readout, policy: Policy, costs: Costs, temperatures: Sequence[float] | None = None
) -> Outcomes:
    """Run ``policy`` over all videos of ``source``; every part that runs is counted.

    ``temperatures`` calibrate what it sees, one a depth (see ``calibration``).
    """
    videos, frames, depths = source.videos, source.frames, len(costs.segments)
    temperatures = temperatures or (1.0,) * depths
    logits, memory = torch.zeros(videos, readout.classes), torch.zeros(videos, policy.memory(readout.classes))
    exits = torch.full((videos, frames), -1)
    macs = torch.zeros(videos, dtype=torch.long)
    going, known = torch.arange(videos), Known(videos, readout)  # the videos that go on
    for t in range(frames):
        past = known.z if t else None
        inside = torch.arange(len(going))  # positions in `going` of the frames not left yet
        stopped = torch.zeros(len(going), dtype=torch.bool)
        known.enter_frame()
        for b in range(depths):
            rows = going[inside]
            macs[rows] += costs.segments[b]
            if not policy.looks(t, b, frames):
                continue
            current, folded = known.fold(inside, source.feature(rows, t, b))
            before = None if past is None else past[inside]
            look = Look(readout, current, before, t, b, frames, memory[rows], temperatures[b])
            policy.observe(look)
            memory[rows] = look.memory
            stop, leave = _decide(policy, look, deepest=b == depths - 1)
            macs[rows] += costs.heads[b] + costs.reuse * folded + look.macs(costs)
            if stop.any():
                macs[rows[stop]] += 0 if look.classified else costs.classifier
                logits[rows[stop]] = policy.answer(look)[stop]
            exits[rows[leave], t] = b
            stopped[inside[stop]] = True
            inside = inside[~leave]
            if not len(inside):
                break
        going = going[~stopped]
        known.keep(~stopped)
        if not len(going):
            break
    return Outcomes(logits, exits, macs)


def _decide(policy: Policy, look: Look, deepest: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Who stops the video, and who leaves the frame: all who stop do, and who leaves the last frame stops."""
    everyone = torch.ones(len(look.current), dtype=torch.bool)
    stop = ~everyone if look.last_frame else policy.stop_video(look)
    leave = everyone if deepest else stop | policy.leave_frame(look)
    return (leave if look.last_frame else stop), leave


@torch.inference_mode()
def follow(source: Source, readout: Readout, paths: torch.Tensor, costs: Costs) -> Outcomes:
    """Take the exits of ``paths [N, T]``, a depth for each frame and -1 after the last, whatever is seen.

    Nothing is decided on the way, so other heads are run only where their features are folded in too.
    """
    videos, frames = paths.shape
    logits = torch.zeros(videos, readout.classes)
    segments, heads = torch.tensor(costs.segments).cumsum(0), torch.tensor(costs.heads)
    macs = torch.full((videos,), costs.classifier)
    going, known = torch.arange(videos), Known(videos, readout)
    for t in range(frames):
        left = paths[going, t]
        macs[going] += segments[left]
        known.enter_frame()
        for b in range(int(left.max()) + 1):
            inside = (b <= left if readout.folds_visited else b == left).nonzero().squeeze(1)
            if len(inside):
                rows = going[inside]
                _, folded = known.fold(inside, source.feature(rows, t, b))
                macs[rows] += heads[b] + costs.reuse * folded
        ended = paths[going, t + 1] < 0 if t + 1 < frames else torch.ones(len(going), dtype=torch.bool)
        if ended.any():
            logits[going[ended]] = readout.classify(known.z[ended], t)
        going = going[~ended]
        known.keep(~ended)
        if not len(going):
            break
    return Outcomes(logits, paths, macs)


class Known:
    """What is known of the videos that go on: ``z`` of each, and of how many features it is made."""

    def __init__(self, videos: int, readout: Readout):
        self.z, self._counts = torch.zeros(videos, readout.width), torch.zeros(videos, 1)
        self._readout = readout

    def enter_frame(self) -> None:
        """From here on the exits of one frame are folded: each into what is known now, or one into the other."""
        self._before, self._counts_before = self.z, self._counts
        self.z, self._counts = self.z.clone(), self._counts.clone()

    def fold(self, inside: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Fold the ``features`` of some videos, by position; their new ``z``, and whether reuse had to run."""
        visited = self._readout.folds_visited
        base, counts = (self.z, self._counts) if visited else (self._before, self._counts_before)
        counts = counts[inside]
        folds = bool(counts.any())
        current = self._readout.accumulate(base[inside] if folds else None, features, counts)
        self.z[inside], self._counts[inside] = current, counts + 1
        return current, folds

    def keep(self, going: torch.Tensor) -> None:
        """Forget the videos that have stopped."""
        self.z, self._counts = self.z[going], self._counts[going]
