"""The network as graphs: cut at the exits that a policy uses, and uncut for comparison.

A frame runs down a chain of graphs, one from each exit that the policy looks at to the next; an exit that
is switched off is no cut, no head and no call. After each of them one tiny graph, the readout, turns the
exit feature into the scores that decide, one small tensor for the host. It is a file of its own since all exits
share it: fused into the chain, every kind of readout would bring a copy of the weights, and these cost more in
caches than the calls that they save.

Graphs connect by the names of tensors, which ``tlee.edge.runner`` lists.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from tlee import model as networks
from tlee.edge.runner import (
    BASE,
    CHUNK,
    CLIP,
    COUNT,
    FEATURE,
    FEATURES,
    FRAME,
    LOGITS,
    MEMORY,
    NEXT,
    PAST,
    SCORES,
    Z,
    chunk_feature,
)
from tlee.levels import ALWAYS, NEVER
from tlee.policies.given import RandomExits
from tlee.policies.thresholds import Thresholds
from tlee.readout import Accumulated

CHUNK_FRAMES = 3  #: that are run at once before the first decision, if that is asked for

Program = dict[str, Any]  #: what ``jetson.Engine`` and ``jetson.UncutNetwork`` run


def memory(segment: int, index: int) -> str:
    """Name of what segment ``segment`` remembers of the frame before (temporal shift)."""
    return f"{MEMORY}{segment}_{index}"


def tap(depth: int) -> str:
    """Name of the map after segment ``depth``, which segment ``depth + 1`` reads."""
    return f"tap{depth}"


# --- a policy as graphs to run -----------------------------------------------------------------------


@dataclass(frozen=True)
class Stretch:
    """Segments ``start..depth`` and the head of ``depth``: ``frame or tap -> (feature, tap)``.

    There is no tap where the chain ``ends``.
    """

    start: int
    depth: int
    ends: bool

    @property
    def name(self) -> str:
        return f"segments{self.start}-{self.depth}"


@dataclass(frozen=True)
class Readout:
    """Reuse, classifier and gate: ``(feature, past) -> (z, logits, scores)``.

    The ``first`` has nothing to fold into; there is a ``gate`` only where the policy asks for its score.
    ``step`` is the time step, where these have classifiers and gates of their own. Where ``visited`` exits
    are folded in too, there is a ``base`` besides the ``past`` that the gate compares with.
    """

    first: bool
    gate: bool
    step: int
    visited: bool

    @property
    def name(self) -> str:
        kind = "first" if self.first else "gate" if self.gate else "later"
        return f"readout_{kind}{self.step or ''}"

    @property
    def inputs(self) -> list[str]:
        if self.first:
            return [FEATURE]
        if not self.visited:
            return [FEATURE, COUNT, PAST]
        return [FEATURE, COUNT, BASE, PAST] if self.gate else [FEATURE, COUNT, BASE]


@dataclass(frozen=True)
class Look:
    """Two graphs to run one after the other, and what their scores decide.

    ``stop``: stop the video if the confidence is above it; ``gate``: if the gate's score is.
    ``leave``: leave the frame if the confidence is above it.
    """

    stretch: Stretch
    readout: Readout
    stop: float
    gate: float
    leave: float

    @property
    def program(self) -> Program:
        """As ``jetson.Engine`` reads it."""
        return {
            "segments": self.stretch.name,
            "readout": self.readout.name,
            "depth": self.stretch.depth,
            "stop": self.stop,
            "gate": self.gate,
            "leave": self.leave,
        }


def compile_policy(policy: Thresholds | RandomExits, model: networks.TLEE, frames: int) -> tuple[tuple[Look, ...], ...]:
    """The looks of ``policy`` at each of ``frames`` frames, from shallow to deep.

    Those of random exits decide nothing: every exit can be taken, straight from the frame, or from the exit
    before if that is folded in too.
    """
    looks = _looks if isinstance(policy, Thresholds) else _every_exit
    return tuple(looks(policy, model, t, frames) for t in range(frames))


def _looks(policy: Thresholds, model: networks.TLEE, t: int, frames: int) -> tuple[Look, ...]:
    looks: list[Look] = []
    for depth in range(model.num_exits):
        if not policy.uses_exit(t, depth, frames):
            continue
        start = looks[-1].stretch.depth + 1 if looks else 0
        leave = policy.layer[depth] if depth < model.num_exits - 1 else ALWAYS
        stop, gate = policy.stop_above(t, depth, frames)
        readout = _readout(model, t, first_look=not looks, gate=gate < NEVER)
        looks.append(Look(Stretch(start, depth, ends=leave == ALWAYS), readout, stop, gate, leave))
        if leave == ALWAYS:
            break
    return tuple(looks)


def _every_exit(_: RandomExits, model: networks.TLEE, t: int, frames: int) -> tuple[Look, ...]:
    chained, deepest = model.readout.accumulates_visited, model.num_exits - 1
    return tuple(
        Look(
            Stretch(depth if chained else 0, depth, ends=not chained or depth == deepest),
            _readout(model, t, first_look=depth == 0, gate=False),
            NEVER,
            NEVER,
            NEVER,
        )
        for depth in range(model.num_exits)
    )


def _readout(model: networks.TLEE, t: int, *, first_look: bool, gate: bool) -> Readout:
    visited = model.readout.accumulates_visited
    first = t == 0 and (first_look or not visited)
    return Readout(first, gate, step=t if model.readout.per_step else 0, visited=visited)


# --- export --------------------------------------------------------------------------------------------


def export(
    model: networks.TLEE,
    policy: Thresholds | RandomExits,
    frames: int,
    folder: Path,
    opset: int,
    torchscript: bool = False,
) -> Program:
    """Write the graphs that ``policy`` needs for clips of ``frames`` frames: batch 1, static shapes.

    They are ONNX files, and with ``torchscript`` files that PyTorch runs besides.
    Returns what ``jetson.Engine`` runs.
    """
    write = _Writer(model, frames, folder, opset, torchscript)
    looks = compile_policy(policy, model, frames)
    for stretch in dict.fromkeys(look.stretch for each in looks for look in each):
        write.segments(stretch.name, stretch.start, stretch.depth, None if stretch.ends else tap(stretch.depth))
    for readout in dict.fromkeys(look.readout for each in looks for look in each):
        write(readout.name, _Readout(model.readout, readout), readout.inputs, [Z, LOGITS, SCORES])
    depths = sorted({look.stretch.depth for each in looks[:CHUNK_FRAMES] for look in each})
    return write.program | {
        "decides": isinstance(policy, Thresholds),
        "visited": model.readout.accumulates_visited,
        "chunk": None if write.remembers else write.chunk(min(CHUNK_FRAMES, frames), depths),
        "looks": [[look.program for look in each] for each in looks],
    }


def export_uncut(model: networks.TLEE, frames: int, folder: Path, opset: int, torchscript: bool = False) -> Program:
    """Write the graphs of the network without exits, for clips of ``frames`` frames.

    Returns what ``jetson.UncutNetwork`` runs: for each depth a graph up to it with its head and no other, one that
    runs all frames to full depth as a batch, unless they need one another, and one that turns the features of all
    frames into logits.
    """
    write = _Writer(model, frames, folder, opset, torchscript)
    prefixes = [write.segments(f"prefix{depth}", 0, depth) for depth in range(model.num_exits)]
    batch = None if write.remembers else write.batch()
    conclusion = write("conclusion", _Conclusion(model.readout), [FEATURES], [LOGITS])
    return write.program | {"prefixes": prefixes, "batch": batch, "conclusion": conclusion}


class _Segments(nn.Module):
    """Segments ``start..depth`` and a head: ``(frame or tap, *memories) -> (feature[, tap], *next memories)``."""

    def __init__(self, model: networks.TLEE, start: int, depth: int, sizes: list[int], gives_tap: bool):
        super().__init__()
        self.backbone, self.head = model.backbone, model.head(depth)
        self.start, self.sizes, self.gives_tap = start, sizes, gives_tap  # sizes: memories of each segment

    def forward(self, tap: torch.Tensor, *memories: torch.Tensor) -> tuple[torch.Tensor, ...]:
        following: list[torch.Tensor] = []
        for depth, size in enumerate(self.sizes, start=self.start):
            tap, remembered = self.backbone.step(depth, tap, memories[:size])
            memories, following = memories[size:], [*following, *remembered]
        return (self.head(tap), *([tap] if self.gives_tap else []), *following)


class _Stage(_Segments):
    """The same for several frames without memories: ``(frames or taps) -> (one feature a frame[, taps])``."""

    def forward(self, tap: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features, *taps = super().forward(tap)
        return (*features.split(1), *taps)


class _Readout(nn.Module):
    def __init__(self, readout: networks.Readout, part: Readout):
        super().__init__()
        self.readout, self.part = readout, part
        self.register_buffer("no_gate", torch.zeros(1, 1))
        self.register_buffer("no_features", torch.zeros(1, 1))

    def forward(
        self,
        feature: torch.Tensor,
        count: torch.Tensor | None = None,
        base: torch.Tensor | None = None,
        past: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        z = self.readout.accumulate(Accumulated(base, self.no_features if count is None else count), feature).z
        logits = self.readout.classify(z, self.part.step)
        confidence, gate = self.readout.probabilities(logits).amax(1, keepdim=True), self.no_gate
        if self.part.gate:
            gate = self.readout.gate(z, past if self.part.visited else base, self.part.step).sigmoid()[:, None]
        return z, logits, torch.cat([confidence, gate], dim=1)


class _Conclusion(nn.Module):
    def __init__(self, readout: networks.Readout):
        super().__init__()
        self.readout = readout

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        known = Accumulated.nothing(1)
        for feature in features.split(1):
            known = self.readout.accumulate(known, feature)
        return self.readout.classify(known.z, len(features) - 1)


class _Writer:
    """Writes modules as checked ONNX files with named tensors of static shape, and as TorchScript if it is asked to.

    ``program`` holds the ``graphs`` written so far, with the tensors that they read and write, and the shapes of all.
    """

    def __init__(self, model: networks.TLEE, frames: int, folder: Path, opset: int, torchscript: bool):
        self._model, self._folder, self._opset, self._torchscript = model.eval(), folder, opset, torchscript
        width = model.readout.width
        vector, frame = torch.zeros(1, width), torch.zeros(1, *model.input_shape)
        self._memories = model.backbone.start_memory(model.params.model.input_size)
        self._examples = {
            FRAME: frame,
            **dict.fromkeys((FEATURE, PAST, BASE), vector),
            COUNT: torch.ones(1, 1),
            FEATURES: torch.zeros(frames, width),
            CLIP: torch.zeros(frames, *model.input_shape),
        }
        with torch.no_grad():
            self._taps = model.backbone.taps(frame[None])
        for segment, tensors in enumerate(self._memories):
            self._examples[tap(segment)] = self._taps[segment]
            self._examples |= {memory(segment, index): tensor for index, tensor in enumerate(tensors)}
        self.program: Program = {"graphs": {}, "tensors": {}}
        folder.mkdir(parents=True, exist_ok=True)

    def segments(self, name: str, start: int, depth: int, gives: str | None = None) -> str:
        """Write segments ``start..depth`` with the head of ``depth``; the graph also ``gives`` a tap by that name."""
        sizes = [len(self._memories[segment]) for segment in range(start, depth + 1)]
        memories = [memory(start + offset, index) for offset, size in enumerate(sizes) for index in range(size)]
        return self(
            name,
            _Segments(self._model, start, depth, sizes, gives is not None),
            [tap(start - 1) if start else FRAME, *memories],
            [FEATURE, *([gives] if gives else []), *(NEXT + name for name in memories)],
        )

    @property
    def remembers(self) -> bool:
        """Whether a frame needs something of the frame before."""
        return any(self._memories)

    def batch(self) -> str:
        """Write the whole network for all frames of a video at once: ``[T, *input_shape] -> [T, D]``."""
        deepest = self._model.num_exits - 1
        return self("batch", _Segments(self._model, 0, deepest, [0] * (deepest + 1), False), [CLIP], [FEATURES])

    def chunk(self, frames: int, depths: list[int]) -> Program:
        """Write what runs the first ``frames`` at once, in stages that end at ``depths``: see ``jetson.Chunk``."""
        self._examples[CHUNK] = torch.zeros(frames, *self._model.input_shape)
        stages, before, start = [], CHUNK, 0
        for depth in depths:
            sizes, gives = [0] * (depth + 1 - start), [] if depth == depths[-1] else [CHUNK + tap(depth)]
            features = [chunk_feature(t, depth) for t in range(frames)]
            stage = _Stage(self._model, start, depth, sizes, bool(gives))
            stages.append((depth, self(f"{CHUNK}{start}-{depth}", stage, [before], features + gives)))
            before, start = CHUNK + tap(depth), depth + 1
            self._examples[before] = self._taps[depth].repeat_interleave(frames, 0)
        return {"frames": frames, "stages": stages}

    @torch.no_grad()
    def __call__(self, name: str, module: nn.Module, inputs: list[str], outputs: list[str]) -> str:
        path, examples = self._folder / f"{name}.onnx", [self._examples[tensor] for tensor in inputs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the exporter that still writes opset 13
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes are meant to be constants
            torch.onnx.export(
                module.eval(),
                tuple(examples),
                str(path),
                input_names=inputs,
                output_names=outputs,
                opset_version=self._opset,
                do_constant_folding=True,
                dynamo=False,
            )
            onnx.checker.check_model(str(path), full_check=True)
            graph = onnx.load(path).graph
            shapes = {
                side: {
                    tensor.name: [size.dim_value for size in tensor.type.tensor_type.shape.dim] for tensor in tensors
                }
                for side, tensors in (("inputs", graph.input), ("outputs", graph.output))
            }
            if self._torchscript:
                given = [inputs.index(tensor) for tensor in shapes["inputs"]]  # the exporter drops what is not used
                script = _Given(module, examples, given).eval()
                traced = torch.jit.trace(script, tuple(examples[index] for index in given), check_trace=False)
                torch.jit.freeze(traced).save(str(path.with_suffix(".pt")))
        self.program["graphs"][name] = {side: list(tensors) for side, tensors in shapes.items()}
        self.program["tensors"] |= shapes["inputs"] | shapes["outputs"]
        return name


class _Given(nn.Module):
    """A module that is given some of its inputs, by position, and of the others examples; it returns a tuple."""

    def __init__(self, module: nn.Module, examples: list[torch.Tensor], given: list[int]):
        super().__init__()
        self.module, self.examples, self.given = module, examples, given

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = list(self.examples)
        for index, tensor in zip(self.given, tensors, strict=True):
            inputs[index] = tensor
        outputs = self.module(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)
