"""A policy compiled to graphs: those that are run at each exit of each frame.

A frame runs through a chain of graphs of segments, each from one exit that the policy uses to the next; an exit that is
switched off is no cut, no head and no call. After each of them one tiny graph, the readout, turns the exit feature into
the scores that decide, a small tensor for the host. It is a file of its own because all exits share it: fused into the
chain, every kind of readout would contain a copy of the weights, which costs more in caches than the calls save.
"""

from dataclasses import dataclass
from typing import Any

from tlee.edge.runner import BASE, COUNT, FEATURE, PAST
from tlee.levels import ALWAYS, NEVER
from tlee.model import TLEE
from tlee.policies.given import RandomExits
from tlee.policies.policy import evaluates
from tlee.policies.thresholds import Thresholds

Program = dict[str, Any]  #: the part of ``bundle.json`` that ``runner.Engine`` or ``runner.UncutNetwork`` runs


@dataclass(frozen=True)
class SegmentGraph:
    """Segments ``start..depth`` and the head of ``depth``: ``frame or tap -> (feature, tap)``.

    There is no tap if the chain ``ends`` here.
    """

    start: int
    depth: int
    ends: bool

    @property
    def name(self) -> str:
        return f"segments{self.start}-{self.depth}"


@dataclass(frozen=True)
class ReadoutGraph:
    """Reuse, classifier and gate: ``(feature, past) -> (z, logits, scores)``.

    The ``first`` has no earlier feature to combine with; there is a ``gate`` only where the policy uses its score.
    ``step`` is the time step, where these have classifiers and gates of their own. The feature is combined with the
    tensor ``base``, and the gate compares with the tensor ``compared``: ``PAST`` or ``BASE``, see ``Readout``.
    """

    first: bool
    gate: bool
    step: int
    base: str
    compared: str

    @property
    def name(self) -> str:
        kind = "first" if self.first else "gate" if self.gate else "later"
        return f"readout_{kind}{self.step or ''}"

    @property
    def inputs(self) -> list[str]:
        """Names of the tensors that it may read."""
        if self.first:
            return [FEATURE]
        past = [self.compared] if self.gate and self.compared != self.base else []
        return [FEATURE, COUNT, self.base, *past]


@dataclass(frozen=True)
class ExitGraphs:
    """The two graphs of an exit, run one after the other, and the thresholds for its scores.

    ``stop``: stop the video if the confidence is above it; ``gate``: if the gate's score is.
    ``layer``: leave the frame if the confidence is above it.
    """

    segments: SegmentGraph
    readout: ReadoutGraph
    stop: float
    gate: float
    layer: float

    @property
    def program(self) -> Program:
        """Return the exit as ``runner.Engine`` reads it."""
        return {
            "segments": self.segments.name,
            "readout": self.readout.name,
            "depth": self.segments.depth,
            "stop": self.stop,
            "gate": self.gate,
            "layer": self.layer,
        }


def compile_policy(policy: Thresholds | RandomExits, model: TLEE, frames: int) -> tuple[tuple[ExitGraphs, ...], ...]:
    """Return the exits that ``policy`` uses at each of ``frames`` frames, from shallow to deep.

    Random exits have no thresholds: every exit can be taken, directly from the frame, or from the exit before if that
    is accumulated too.
    """
    if isinstance(policy, Thresholds):
        return tuple(_exits_used(policy, model, t, frames) for t in range(frames))
    return tuple(_all_exits(model, t) for t in range(frames))


def _exits_used(policy: Thresholds, model: TLEE, t: int, frames: int) -> tuple[ExitGraphs, ...]:
    exits: list[ExitGraphs] = []
    for depth in range(model.num_exits):
        if not evaluates(policy, model.readout, t, depth, frames):
            continue
        start = exits[-1].segments.depth + 1 if exits else 0
        layer = policy.layer[depth] if depth < model.num_exits - 1 else ALWAYS
        stop, gate = policy.stop_above(t, depth, frames)
        readout = _readout(model, t, first_exit=not exits, gate=gate < NEVER)
        exits.append(ExitGraphs(SegmentGraph(start, depth, ends=layer == ALWAYS), readout, stop, gate, layer))
        if layer == ALWAYS or model.readout.first_exit_ends(t, frames):
            break
    return tuple(exits)


def _all_exits(model: TLEE, t: int) -> tuple[ExitGraphs, ...]:
    readout, deepest = model.readout, model.num_exits - 1
    return tuple(
        ExitGraphs(
            SegmentGraph(
                start=depth if readout.accumulates_passed(t) else 0,
                depth=depth,
                ends=not readout.accumulates_visited or depth == deepest,
            ),
            _readout(model, t, first_exit=depth == 0, gate=False),
            NEVER,
            NEVER,
            NEVER,
        )
        for depth in range(model.num_exits)
    )


def _readout(model: TLEE, t: int, *, first_exit: bool, gate: bool) -> ReadoutGraph:
    readout = model.readout
    first = t == 0 and (first_exit or not readout.accumulates_passed(t))
    base = readout.base(PAST, BASE, t)
    return ReadoutGraph(first, gate, t if readout.per_step else 0, base, readout.compared(PAST, base))
