"""A policy compiled to graphs: those that are run at each exit of each frame.

A frame runs through a chain of graphs of segments, each from one exit that the policy uses to the next; an exit that is
switched off is no cut, no head and no call. After each of them one tiny graph, the readout, turns the exit feature into
the scores that decide, a small tensor for the host. It is a file of its own because all exits share it: fused into the
chain, every kind of readout would contain a copy of the weights, which costs more in caches than the calls save.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from tlee.edge.runner import BASE, BEFORE, COUNT, FEATURE, LOGITS, PAST, PROBABILITIES, SCORES, VALUES, Z
from tlee.levels import ALWAYS, NEVER
from tlee.model import TLEE
from tlee.policies.given import RandomExits
from tlee.policies.optimal_stopping import OptimalStopping, Weights
from tlee.policies.policy import evaluates
from tlee.policies.thresholds import Thresholds

Deciding: TypeAlias = Thresholds | OptimalStopping  #: policies whose decisions depend on the video
Exportable: TypeAlias = Deciding | RandomExits

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

    If it ``weighs`` values, the scores are those of ``decision_scores``. Their weights are an input, so that exits
    share a graph; the evidence ``compares`` with the frame before, if there is one.
    """

    first: bool
    gate: bool
    step: int
    base: str
    compared: str
    weighs: bool = False
    compares: bool = False

    @property
    def name(self) -> str:
        kind = "first" if self.first else "gate" if self.gate else "later"
        if self.weighs:
            kind += "_compared" if self.compares else "_values"
        return f"readout_{kind}{self.step or ''}"

    @property
    def inputs(self) -> list[str]:
        """Names of the tensors that it may read."""
        known = [] if self.first else [COUNT, self.base]
        past = [self.compared] if self.gate and self.compared != self.base else []
        before = [BEFORE] if self.compares else []
        return [FEATURE, *known, *past, *before, *([VALUES] if self.weighs else [])]

    @property
    def outputs(self) -> list[str]:
        """Names of the tensors that it writes."""
        return [Z, LOGITS, SCORES, *([PROBABILITIES] if self.weighs else [])]


@dataclass(frozen=True)
class ExitGraphs:
    """The two graphs of an exit, run one after the other, the thresholds for its scores, and ``values`` of a policy.

    ``stop``: stop the video if the first score is above it; ``gate``: if the second is.
    ``layer``: leave the frame if the first is above it. The last exit of a frame leaves it in any case.
    """

    segments: SegmentGraph
    readout: ReadoutGraph
    stop: float
    gate: float
    layer: float
    values: tuple[Weights, Weights, Weights] | None = None

    @property
    def program(self) -> Program:
        """Return the exit as ``runner.Engine`` reads it."""
        values = {} if self.values is None else {"values": self.values}
        return {
            "segments": self.segments.name,
            "readout": self.readout.name,
            "depth": self.segments.depth,
            "stop": self.stop,
            "gate": self.gate,
            "layer": self.layer,
            **values,
        }


def compile_policy(policy: Exportable, model: TLEE, frames: int) -> tuple[tuple[ExitGraphs, ...], ...]:
    """Return the exits that ``policy`` uses at each of ``frames`` frames, from shallow to deep.

    Random exits have no thresholds: every exit can be taken, directly from the frame, or from the exit before if that
    is accumulated too.
    """
    if isinstance(policy, RandomExits):
        return tuple(_all_exits(model, t) for t in range(frames))
    depths = [_depths_used(policy, model, t, frames) for t in range(frames)]
    continued = {pair for used in depths for pair in _segments(used)[:-1]}  # by a deeper exit, at some frame
    segments = [[SegmentGraph(*pair, ends=pair not in continued) for pair in _segments(used)] for used in depths]
    return tuple(_exits_used(policy, model, t, segments) for t in range(frames))


def _depths_used(policy: Deciding, model: TLEE, t: int, frames: int) -> list[int]:
    """Depths of the exits that are evaluated at frame ``t``: none behind one that is always taken."""
    depths = [depth for depth in range(model.num_exits) if evaluates(policy, model.readout, t, depth, frames)]
    if model.readout.first_exit_ends(t, frames):
        return depths[:1]
    if isinstance(policy, Thresholds) and ALWAYS in policy.layer:
        return [depth for depth in depths if depth <= policy.layer.index(ALWAYS)]
    return depths


def _segments(depths: list[int]) -> list[tuple[int, int]]:
    """Return the first and the last segment on the way to each exit from the one before."""
    return list(zip([0, *(depth + 1 for depth in depths)], depths, strict=False))


def _exits_used(policy: Deciding, model: TLEE, t: int, segments: list[list[SegmentGraph]]) -> tuple[ExitGraphs, ...]:
    frames, exits = len(segments), list[ExitGraphs]()
    for graph in segments[t]:
        depth, first_exit, last_exit = graph.depth, not exits, graph is segments[t][-1]
        if isinstance(policy, Thresholds):
            stop, gate = policy.stop_above(t, depth, frames)
            layer = policy.layer[depth] if depth < model.num_exits - 1 else ALWAYS
            readout = _readout(model, t, first_exit=first_exit, gate=gate < NEVER)
            exits.append(ExitGraphs(graph, readout, stop, gate, layer))
        else:
            gate, layer = (NEVER if ends else 0.0 for ends in (t == frames - 1, last_exit))
            readout = replace(_readout(model, t, first_exit=first_exit, gate=False), weighs=True, compares=t > 0)
            exits.append(ExitGraphs(graph, readout, NEVER, gate, layer, policy.values[t][depth]))
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
