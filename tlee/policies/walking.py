"""The loop for many videos and several policies at once: what policies have in common is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch

from tlee.costs import Costs
from tlee.policies.policy import ExitScores, Observation, Policy, evaluates
from tlee.policies.sources import FeatureSource
from tlee.readout import Accumulated, Readout


class Walk:
    """One policy on its way through some videos, with its outcomes so far: ``logits``, ``exit_depths``, ``macs``."""

    def __init__(self, policy: Policy, source: FeatureSource, readout: Readout):
        self.policy, self._t = policy, 0
        self.logits = torch.zeros(source.num_videos, readout.classes)
        self.exit_depths = torch.full((source.num_videos, source.num_frames), -1)
        self.macs = torch.zeros(source.num_videos, dtype=torch.long)
        self._noted = policy.memory(readout.classes)

    def begin(self, rows: torch.Tensor) -> None:
        """Start on the consecutive videos ``rows``; those that continue are ``rows``, in ``_states`` before the frame.

        Only of these videos is the memory of the policy kept.
        """
        self.rows, self._states, self._t = rows, torch.arange(len(rows)), -1
        self._first, self._memory = rows[:1], torch.zeros(len(rows), self._noted)

    def enter_frame(self) -> None:
        """Start on the next frame with all videos that continue inside it."""
        self._t += 1
        self._inside = torch.arange(len(self.rows))  # positions in `rows` of the frames not left yet
        self.states_inside = self._states  # their states before the frame
        self._spent: float = 0  # on this frame, by each video inside
        self._left = torch.zeros(len(self.rows), dtype=torch.long)
        self._goes_on = torch.ones(len(self.rows), dtype=torch.bool)

    @property
    def is_inside(self) -> bool:
        """True if the frame of some video has not been left yet."""
        return self._inside.shape[0] > 0

    def run_segment(self, macs: float) -> None:
        """Charge the videos inside for a segment."""
        self._spent += macs

    def decide(self, scores: ExitScores, positions: torch.Tensor, deepest: bool, macs: float, costs: Costs) -> None:
        """Observe an exit that costs ``macs``, charge for the scores requested, and stop videos or leave frames."""
        rows, index = self.rows[self._inside], positions[self.states_inside]
        seen = Observation(scores, index, self.exit_depths.shape[1], self._memory[rows - self._first])
        self.policy.observe(seen)
        if seen.memory.shape[1]:
            self._memory[rows - self._first] = seen.memory
        stop, leave = _decide(self.policy, seen, deepest)
        self._spent += macs + seen.macs(costs) + self.policy.macs(seen)
        if stop.any():
            stopped = rows[stop]
            self.logits[stopped] = self.policy.answer(seen.take(stop))
            if not seen.classified:
                self.macs[stopped] += costs.classifier
            self._goes_on[self._inside[stop]] = False
        leaving = leave.nonzero().squeeze(1)
        if leaving.shape[0]:
            left, staying = rows[leaving], (~leave).nonzero().squeeze(1)
            self.macs[left] += self._spent
            self.exit_depths[left, self._t] = seen.b
            self._left[self._inside[leaving]] = seen.b
            self._inside, self.states_inside = self._inside[staying], self.states_inside[staying]

    def leave_frame(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the depth that the videos that continue left the frame at, and their states before it."""
        going = self._goes_on.nonzero().squeeze(1)
        self.rows, self._left, self._states = self.rows[going], self._left[going], self._states[going]
        return self._left, self._states

    def end_frame(self, moved: torch.Tensor) -> None:
        """Continue in the states ``moved [B + 1, S]``, by depth left at and state before the frame."""
        self._states = moved[self._left, self._states]


def _decide(policy: Policy, seen: Observation, deepest: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which videos stop and which leave the frame: all that stop do, and leaving the last frame stops."""
    everyone = torch.ones(seen.num_videos, dtype=torch.bool)
    stop = ~everyone if seen.last_frame else policy.stop_video(seen)
    ends = deepest or seen.readout.first_exit_ends(seen.t, seen.num_frames)
    leave = everyone if ends else stop | policy.leave_frame(seen)
    return (leave if seen.last_frame else stop), leave


def comparable(walks: list[Walk], readout: Readout, frames: int, costs: Costs) -> list[list[Walk]]:
    """Group policies that can share states: where visited exits are accumulated, those that use the same exits."""
    if not readout.accumulates_visited:
        return [walks]
    exits = list(product(range(frames), range(len(costs.segments))))
    groups: dict[tuple[bool, ...], list[Walk]] = {}
    for walk in walks:
        key = tuple(evaluates(walk.policy, readout, t, b, frames) for t, b in exits)
        groups.setdefault(key, []).append(walk)
    return list(groups.values())


def walk_together(
    walks: Sequence[Walk],
    source: FeatureSource,
    readout: Readout,
    rows: torch.Tensor,
    costs: Costs,
    temperatures: Sequence[float],
) -> None:
    """Take ``walks``, one group of ``comparable`` ones, through the videos ``rows``."""
    deepest, states = len(costs.segments) - 1, States(rows, Accumulated.nothing(len(rows)))
    for walk in walks:
        walk.begin(rows)
    for t in range(source.num_frames):
        going = [walk for walk in walks if walk.rows.shape[0]]
        if not going:
            break
        frame = _Frame(source, readout, states, t)
        for walk in going:
            walk.enter_frame()
        for b in range(deepest + 1):
            inside = [walk for walk in going if walk.is_inside]
            for walk in inside:
                walk.run_segment(costs.segments[b])
            using = [walk for walk in inside if evaluates(walk.policy, readout, t, b, source.num_frames)]
            if using:
                scores, reused = frame.evaluate(b, [walk.states_inside for walk in using], temperatures[b])
                macs = costs.heads[b] + costs.reuse * reused
                for walk in using:
                    walk.decide(scores, frame.positions[b], b == deepest, macs, costs)
        states = frame.end(going)


@dataclass
class States:
    """Distinct states: a video and the features accumulated by the exits taken of it."""

    videos: torch.Tensor  #: ``[S]``
    known: Accumulated

    def take(self, index: torch.Tensor) -> "States":
        """Select states by index."""
        return States(self.videos[index], self.known.take(index))

    @classmethod
    def joined(cls, parts: Sequence["States"]) -> "States":
        """Concatenate states that have features."""
        z, count = torch.cat([part.known.z for part in parts]), torch.cat([part.known.count for part in parts])
        return cls(torch.cat([part.videos for part in parts]), Accumulated(z, count))


class _Frame:
    """The states within one frame: one for each that it began with, at each exit that is evaluated.

    ``positions[b]`` maps the states before the frame to their places among the states of exit ``b``.
    """

    def __init__(self, source: FeatureSource, readout: Readout, before: States, t: int):
        self._source, self._readout, self._before, self._t = source, readout, before, t
        self.positions: dict[int, torch.Tensor] = {}
        self._states: dict[int, States] = {}

    def evaluate(self, b: int, wanted: list[torch.Tensor], temperature: float) -> tuple[ExitScores, bool]:
        """Evaluate exit ``b`` of all states that are ``wanted``; return its scores, and True if reuse had to run."""
        chosen, self.positions[b] = _union(wanted, len(self._before.videos))
        before = self._before.take(chosen)
        base = self._readout.base(before.known, self._last(chosen).known, self._t)
        current = self._readout.accumulate(base, self._source.feature(before.videos, self._t, b))
        self._states[b] = States(before.videos, current)
        past = self._readout.compared(before.known, base)
        return ExitScores(self._readout, current, past, self._t, b, temperature), not base.is_empty

    def _last(self, chosen: torch.Tensor) -> States:
        """The states after the last exit evaluated, by states before the frame."""
        if not self._states:
            return self._before.take(chosen)
        last = max(self._states)
        return self._states[last].take(self.positions[last][chosen])

    def end(self, walks: Sequence[Walk]) -> States:
        """Return the states in which the videos that continue have left the frame, and move ``walks`` to them."""
        marked = torch.zeros(max(self._states) + 1, len(self._before.videos), dtype=torch.bool)
        for walk in walks:
            marked[walk.leave_frame()] = True
        places = marked.flatten().cumsum(0).sub(1).view(marked.shape)
        parts = [
            states.take(self.positions[b][marked[b].nonzero().squeeze(1)]) for b, states in sorted(self._states.items())
        ]
        for walk in walks:
            walk.end_frame(places)
        return States.joined(parts)


def _union(wanted: list[torch.Tensor], size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all indices that are in any of ``wanted``, and the place of each index below ``size`` among them."""
    mark = torch.zeros(size, dtype=torch.bool)
    for index in wanted:
        mark[index] = True
    return mark.nonzero().squeeze(1), mark.cumsum(0) - 1
