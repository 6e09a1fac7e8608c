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
from itertools import product

import torch

from tlee.costs import GIGA, Costs
from tlee.model import Readout
from tlee.policies.given import GivenExits
from tlee.policies.policy import Look, Policy, SharedLook
from tlee.policies.sources import Source

CHUNK = 512  #: videos whose features are in memory at once


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


def run(
    source: Source, readout: Readout, policy: Policy, costs: Costs, temperatures: Sequence[float] | None = None
) -> Outcomes:
    """Run ``policy`` over all videos of ``source``; every part that runs is counted.

    ``temperatures`` calibrate what it sees, one a depth (see ``calibration``).
    """
    return run_together(source, readout, [policy], costs, temperatures)[0]


@torch.inference_mode()
def run_together(
    source: Source,
    readout: Readout,
    policies: Sequence[Policy],
    costs: Costs,
    temperatures: Sequence[float] | None = None,
) -> list[Outcomes]:
    """``run`` for several policies at once: where they have taken the same exits of a video, it is computed once."""
    walks = [_Walk(policy, source, readout) for policy in policies]
    temperatures = temperatures or (1.0,) * len(costs.segments)
    for rows in torch.arange(source.videos).split(CHUNK):
        for alike in _alike(walks, source.frames, costs) if readout.folds_visited else [walks]:
            _run_chunk(source, readout, alike, rows, costs, temperatures)
    return [Outcomes(walk.logits, walk.exits, walk.macs) for walk in walks]


def _alike(walks: list["_Walk"], frames: int, costs: Costs) -> list[list["_Walk"]]:
    """Where visited exits count: the policies that look at the same exits, for only they know the same of a video."""
    exits = list(product(range(frames), range(len(costs.segments))))
    groups: dict[tuple[bool, ...], list[_Walk]] = {}
    for walk in walks:
        groups.setdefault(tuple(walk.policy.looks(t, b, frames) for t, b in exits), []).append(walk)
    return list(groups.values())


def _run_chunk(
    source: Source,
    readout: Readout,
    walks: list["_Walk"],
    rows: torch.Tensor,
    costs: Costs,
    temperatures: Sequence[float],
) -> None:
    deepest, known = len(costs.segments) - 1, States.none(rows, readout)
    for walk in walks:
        walk.begin(rows)
    for t in range(source.frames):
        going = [walk for walk in walks if len(walk.rows)]
        if not going:
            break
        frame = _Frame(source, readout, known, t)
        for walk in going:
            walk.enter_frame()
        for b in range(deepest + 1):
            looking = []
            for walk in going:
                walk.macs[walk.rows_inside] += costs.segments[b]
                if len(walk.inside) and walk.policy.looks(t, b, source.frames):
                    looking.append(walk)
            if looking:
                look, folded = frame.look(b, [walk.states_inside for walk in looking], temperatures[b])
                for walk in looking:
                    walk.decide(look, frame.positions[b], b == deepest, costs, costs.heads[b] + costs.reuse * folded)
        known = frame.end(going)


@dataclass
class States:
    """Distinct states of knowledge: a video and the exits taken of it, from which ``z`` follows."""

    videos: torch.Tensor  #: ``[S]``
    z: torch.Tensor  #: ``[S, D]``
    counts: torch.Tensor  #: ``[S, 1]``, of how many features ``z`` is made

    @classmethod
    def none(cls, videos: torch.Tensor, readout: Readout) -> "States":
        """Nothing is known of any of ``videos``."""
        return cls(videos, torch.zeros(len(videos), readout.width), torch.zeros(len(videos), 1))

    def take(self, index: torch.Tensor) -> "States":
        return States(self.videos[index], self.z[index], self.counts[index])


class _Frame:
    """What is known within one frame: one state for each that it began with, at each exit that is looked at.

    ``positions[b]`` are the places among the states of exit ``b`` of those before the frame.
    """

    def __init__(self, source: Source, readout: Readout, before: States, t: int):
        self._source, self._readout, self._before, self._t = source, readout, before, t
        self.positions: dict[int, torch.Tensor] = {}
        self._states: dict[int, States] = {}

    def look(self, b: int, wanted: list[torch.Tensor], temperature: float) -> tuple[Look, bool]:
        """The exit ``b`` of all states that are ``wanted``, and whether reuse had to run."""
        readout, size = self._readout, len(self._before.videos)
        chosen, self.positions[b] = _union(wanted, size)
        base = self._before.take(chosen)
        past = base.z if self._t else None
        if readout.folds_visited and self._states:
            last = max(self._states)
            base = self._states[last].take(self.positions[last][chosen])
        folded = bool(self._t) or (readout.folds_visited and bool(self._states))
        features = self._source.feature(base.videos, self._t, b)
        z = readout.accumulate(base.z if folded else None, features, base.counts)
        self._states[b] = States(base.videos, z, base.counts + 1)
        look = Look(readout, z, past, self._t, b, self._source.frames, temperature=temperature)
        return look, folded

    def end(self, walks: list["_Walk"]) -> States:
        """The states in which the videos that go on have left the frame; each of ``walks`` is told its own."""
        moved = torch.zeros(max(self._states) + 1, len(self._before.videos), dtype=torch.long)
        parts, start = [], 0
        for b, states in self._states.items():
            chosen, places = _union([walk.states_that_left(b) for walk in walks], len(self._before.videos))
            moved[b] = start + places
            parts.append(states.take(self.positions[b][chosen]))
            start += len(chosen)
        for walk in walks:
            walk.end_frame(moved)
        return States(*(torch.cat([getattr(part, name) for part in parts]) for name in ("videos", "z", "counts")))


def _union(wanted: list[torch.Tensor], size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All indices that are in any of ``wanted``, and the place of each index below ``size`` among them."""
    mark = torch.zeros(size, dtype=torch.bool)
    for index in wanted:
        mark[index] = True
    return mark.nonzero().squeeze(1), mark.cumsum(0) - 1


class _Walk:
    """One policy on its way through some videos."""

    def __init__(self, policy: Policy, source: Source, readout: Readout):
        self.policy, self._t = policy, 0
        self.logits = torch.zeros(source.videos, readout.classes)
        self.exits = torch.full((source.videos, source.frames), -1)
        self.macs = torch.zeros(source.videos, dtype=torch.long)
        self._memory = torch.zeros(source.videos, policy.memory(readout.classes))

    def begin(self, rows: torch.Tensor) -> None:
        """Start on the videos ``rows``; those that go on are ``rows``, in the states ``_states`` before the frame."""
        self.rows, self._states, self._t = rows, torch.arange(len(rows)), -1

    def enter_frame(self) -> None:
        self._t += 1
        self.inside = torch.arange(len(self.rows))  # positions in `rows` of the frames not left yet
        self._left = torch.zeros(len(self.rows), dtype=torch.long)
        self._stopped = torch.zeros(len(self.rows), dtype=torch.bool)

    @property
    def rows_inside(self) -> torch.Tensor:
        return self.rows[self.inside]

    @property
    def states_inside(self) -> torch.Tensor:
        return self._states[self.inside]

    def decide(self, whole: Look, positions: torch.Tensor, deepest: bool, costs: Costs, macs: int) -> None:
        """Look, at the price of ``macs`` and of what is asked for, and stop videos or leave frames."""
        rows, index = self.rows_inside, positions[self.states_inside]
        look = SharedLook(whole, index, self._memory[rows])
        self.policy.observe(look)
        self._memory[rows] = look.memory
        stop, leave = _decide(self.policy, look, deepest)
        self.macs[rows] += macs + look.macs(costs)
        if stop.any():
            answered = SharedLook(whole, index[stop], look.memory[stop])
            self.macs[rows[stop]] += 0 if look.classified else costs.classifier
            self.logits[rows[stop]] = self.policy.answer(answered)
        self.exits[rows[leave], self._t] = look.b
        self._left[self.inside[leave]] = look.b
        self._stopped[self.inside[stop]] = True
        self.inside = self.inside[~leave]

    def states_that_left(self, b: int) -> torch.Tensor:
        """Before the frame, of the videos that left it at depth ``b`` and go on."""
        return self._states[(self._left == b) & ~self._stopped]

    def end_frame(self, moved: torch.Tensor) -> None:
        """``moved [B + 1, S]``: into which state one before the frame turns where the frame is left at a depth."""
        on = ~self._stopped
        self._states, self.rows = moved[self._left[on], self._states[on]], self.rows[on]


def _decide(policy: Policy, look: Look, deepest: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Who stops the video, and who leaves the frame: all who stop do, and who leaves the last frame stops."""
    everyone = torch.ones(look.videos, dtype=torch.bool)
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
