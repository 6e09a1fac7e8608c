"""The network as ONNX graphs: cut at the exits that a policy uses, and uncut for comparison.

A frame runs down a chain of graphs, one from each exit that the policy looks at to the next; an exit that
is switched off is no cut, no head and no call. After each of them one tiny graph, the readout, turns the
exit feature into the scores that decide. It is a file of its own since all exits share it: fused into the
chain, every kind of readout would bring a copy of the weights, and these cost more in caches than the
calls that they save.

Tensors are named by what they hold, and graphs connect by these names.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn

from tlee import model as networks
from tlee.policies import ALWAYS, NEVER, Thresholds

FRAME = "frame"  #: ``[1, 3, S, S]``
FEATURE = "feature"  #: an exit feature, ``[1, D]``
FEATURES = "features"  #: one feature a frame, ``[T, D]``
PAST = "past"  #: ``z`` of the frames before, ``[1, D]``
Z = "z"  #: ``z`` of this exit, ``[1, D]``
LOGITS = "logits"  #: ``[1, C]``
CONFIDENCE = "confidence"  #: largest softmax probability, ``[1]``
GATE = "gate"  #: the gate's score, ``[1]``


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
    def file(self) -> str:
        return f"segments{self.start}-{self.depth}.onnx"

    @property
    def inputs(self) -> list[str]:
        return [tap(self.start - 1) if self.start else FRAME]

    @property
    def outputs(self) -> list[str]:
        return [FEATURE] if self.ends else [FEATURE, tap(self.depth)]


@dataclass(frozen=True)
class Readout:
    """Reuse, classifier and gate: ``(feature, past) -> (z, logits, confidence, gate)``.

    The ``first`` frame has no past; there is a ``gate`` score only where the policy asks for it.
    """

    first: bool
    gate: bool

    @property
    def file(self) -> str:
        return f"readout_{'first' if self.first else 'gate' if self.gate else 'later'}.onnx"

    @property
    def inputs(self) -> list[str]:
        return [FEATURE] if self.first else [FEATURE, PAST]

    @property
    def outputs(self) -> list[str]:
        return [Z, LOGITS, CONFIDENCE, GATE] if self.gate else [Z, LOGITS, CONFIDENCE]


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


def compile_policy(policy: Thresholds, exits: int, frames: int) -> tuple[tuple[Look, ...], ...]:
    """The looks of ``policy`` at each of ``frames`` frames, from shallow to deep; ``exits`` is ``B + 1``."""
    return tuple(_looks(policy, exits, t, frames) for t in range(frames))


def _looks(policy: Thresholds, exits: int, t: int, frames: int) -> tuple[Look, ...]:
    looks: list[Look] = []
    for depth in range(exits):
        if not policy.looks(t, depth, frames):
            continue
        start = looks[-1].stretch.depth + 1 if looks else 0
        leave = policy.leave[depth] if depth < exits - 1 else ALWAYS
        stop, gate = policy.stop_above(t, depth, frames)
        readout = Readout(first=t == 0, gate=gate < NEVER)
        looks.append(Look(Stretch(start, depth, ends=leave == ALWAYS), readout, stop, gate, leave))
        if leave == ALWAYS:
            break
    return tuple(looks)


# --- export --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bundle:
    """An exported policy: ``frames[t]`` are the looks at frame ``t``, from shallow to deep."""

    folder: Path
    frames: tuple[tuple[Look, ...], ...]

    @property
    def stretches(self) -> list[Stretch]:
        """Each once."""
        return list(dict.fromkeys(look.stretch for looks in self.frames for look in looks))

    @property
    def readouts(self) -> list[Readout]:
        """Each once."""
        return list(dict.fromkeys(look.readout for looks in self.frames for look in looks))


@dataclass(frozen=True)
class UncutBundle:
    """The network without exits, which no policy changes.

    ``prefixes[b]``: ``frame -> feature``, up to exit ``b`` with its head and no other; the last is the full
    network. ``conclusion``: ``features -> logits``, reuse over all frames and the classifier.
    """

    prefixes: tuple[Path, ...]
    conclusion: Path


def export(model: networks.TLEE, policy: Thresholds, frames: int, folder: Path, opset: int) -> Bundle:
    """Write the graphs that ``policy`` needs for clips of ``frames`` frames: batch 1, static shapes."""
    write = _Writer(model, frames, folder, opset)
    bundle = Bundle(folder, compile_policy(policy, model.exits, frames))
    for stretch in bundle.stretches:
        write(stretch.file, _Stretch(model, stretch), stretch.inputs, stretch.outputs)
    for readout in bundle.readouts:
        write(readout.file, _Readout(model.readout, readout.gate), readout.inputs, readout.outputs)
    return bundle


def export_uncut(model: networks.TLEE, frames: int, folder: Path, opset: int) -> UncutBundle:
    """Write the graphs of the network without exits, for clips of ``frames`` frames."""
    write = _Writer(model, frames, folder, opset)
    segments = model.backbone.segments
    prefixes = [
        write(f"prefix{b}.onnx", nn.Sequential(*segments[: b + 1], model.head(b)), [FRAME], [FEATURE])
        for b in range(model.exits)
    ]
    return UncutBundle(tuple(prefixes), write("conclusion.onnx", _Conclusion(model.readout), [FEATURES], [LOGITS]))


class _Stretch(nn.Module):
    def __init__(self, model: networks.TLEE, stretch: Stretch):
        super().__init__()
        self.segments = nn.Sequential(*model.backbone.segments[stretch.start : stretch.depth + 1])
        self.head = model.head(stretch.depth)
        self.ends = stretch.ends

    def forward(self, tap: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        tap = self.segments(tap)
        feature = self.head(tap)
        return feature if self.ends else (feature, tap)


class _Readout(nn.Module):
    def __init__(self, readout: networks.Readout, gate: bool):
        super().__init__()
        self.readout, self.gate = readout, gate

    def forward(self, feature: torch.Tensor, past: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        z = self.readout.accumulate(past, feature, step=1)  # a reuse that counts frames needs an input for it
        logits = self.readout.classifier(z)
        confidence = logits.softmax(1).amax(1)
        return (z, logits, confidence, self.readout.gate(z, past).sigmoid()) if self.gate else (z, logits, confidence)


class _Conclusion(nn.Module):
    def __init__(self, readout: networks.Readout):
        super().__init__()
        self.readout = readout

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        z = None
        for step, feature in enumerate(features.split(1)):
            z = self.readout.accumulate(z, feature, step)
        return self.readout.classifier(z)


class _Writer:
    """Writes modules as checked ONNX files with named tensors of static shape."""

    def __init__(self, model: networks.TLEE, frames: int, folder: Path, opset: int):
        size, width = model.params.input_size, model.backbone.feature_dim
        frame = torch.zeros(1, 3, size, size)
        with torch.no_grad():
            taps = model.backbone.eval().taps(frame)
        self._examples = {
            FRAME: frame,
            FEATURE: torch.zeros(1, width),
            PAST: torch.zeros(1, width),
            FEATURES: torch.zeros(frames, width),
            **{tap(depth): value for depth, value in enumerate(taps)},
        }
        self._folder, self._opset = folder, opset
        folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def __call__(self, file: str, module: nn.Module, inputs: list[str], outputs: list[str]) -> Path:
        path = self._folder / file
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the exporter that still writes opset 13
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes are meant to be constants
            torch.onnx.export(
                module.eval(),
                tuple(self._examples[name] for name in inputs),
                str(path),
                input_names=inputs,
                output_names=outputs,
                opset_version=self._opset,
                do_constant_folding=True,
                dynamo=False,
            )
        onnx.checker.check_model(str(path), full_check=True)
        return path
