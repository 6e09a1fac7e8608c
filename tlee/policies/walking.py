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
        self._memory = torch.zeros(source.num_videos, policy.memory(readout.classes))

    def begin(self, rows: torch.Tensor) -> None:
        """Start on the videos ``rows``; those that continue are ``rows``, in ``_states`` before the frame."""
        self.rows, self._states, self._t = rows, torch.arange(len(rows)), -1

    def enter_frame(self) -> None:
        """Start on the next frame with all videos that continue inside it."""
        self._t += 1
        self.inside = torch.arange(len(self.rows))  # positions in `rows` of the frames not left yet
        self._left = torch.zeros(len(self.rows), dtype=torch.long)
        self._stopped = torch.zeros(len(self.rows), dtype=torch.bool)

    @property
    def rows_inside(self) -> torch.Tensor:
        """Videos whose frame has not been left yet."""
        return self.rows[self.inside]

    @property
    def states_inside(self) -> torch.Tensor:
        """Their states before the frame."""
        return self._states[self.inside]

    def run_segment(self, macs: float) -> None:
        """Charge the videos inside for a segment."""
        self.macs[self.rows_inside] += macs

    def decide(self, scores: ExitScores, positions: torch.Tensor, deepest: bool, macs: float, costs: Costs) -> None:
        """Observe an exit that costs ``macs``, charge for the scores requested, and stop videos or leave frames."""
        rows, index = self.rows_inside, positions[self.states_inside]
        seen = Observation(scores, index, self.exit_depths.shape[1], self._memory[rows])
        self.policy.observe(seen)
        self._memory[rows] = seen.memory
        stop, leave = _decide(self.policy, seen, deepest)
        self.macs[rows] += macs + seen.macs(costs) + self.policy.macs(seen)
        if stop.any():
            self.macs[rows[stop]] += 0 if seen.classified else costs.classifier
            self.logits[rows[stop]] = self.policy.answer(seen.take(stop))
        self.exit_depths[rows[leave], self._t] = seen.b
        self._left[self.inside[leave]] = seen.b
        self._stopped[self.inside[stop]] = True
        self.inside = self.inside[~leave]

    def states_that_left(self, b: int) -> torch.Tensor:
        """States before the frame of the videos that left it at depth ``b`` and continue."""
        return self._states[(self._left == b) & ~self._stopped]

    def end_frame(self, moved: torch.Tensor) -> None:
        """Continue in the states ``moved [B + 1, S]``, by depth left at and state before the frame."""
        on = ~self._stopped
        self._states, self.rows = moved[self._left[on], self._states[on]], self.rows[on]


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
        going = [walk for walk in walks if len(walk.rows)]
        if not going:
            break
        frame = _Frame(source, readout, states, t)
        for walk in going:
            walk.enter_frame()
        for b in range(deepest + 1):
            for walk in going:
                walk.run_segment(costs.segments[b])
            inside = [walk for walk in going if len(walk.inside)]
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
        moved = torch.zeros(max(self._states) + 1, len(self._before.videos), dtype=torch.long)
        parts, start = [], 0
        for b, states in self._states.items():
            chosen, places = _union([walk.states_that_left(b) for walk in walks], len(self._before.videos))
            moved[b] = start + places
            parts.append(states.take(self.positions[b][chosen]))
            start += len(chosen)
        for walk in walks:
            walk.end_frame(moved)
        return States.joined(parts)


def _union(wanted: list[torch.Tensor], size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all indices that are in any of ``wanted``, and the place of each index below ``size`` among them."""
    mark = torch.zeros(size, dtype=torch.bool)
    for index in wanted:
        mark[index] = True
    return mark.nonzero().squeeze(1), mark.cumsum(0) - 1
