"""The modules of the graphs: pure functions from tensors to a tuple of tensors, of static shape."""

import torch
from torch import nn

from tlee.edge.graphs import ReadoutGraph
from tlee.edge.runner import BEFORE, COUNT, FEATURE, VALUES
from tlee.model import TLEE
from tlee.policies.evidence import evidence
from tlee.policies.optimal_stopping import decision_scores
from tlee.readout import Accumulated, Readout


class SegmentModule(nn.Module):
    """Segments ``start..depth`` and a head: ``(frame or tap, *memories) -> (feature[, tap], *next memories)``.

    ``num_memories`` are those of each segment.
    """

    def __init__(self, model: TLEE, start: int, depth: int, num_memories: list[int], returns_tap: bool):
        super().__init__()
        self.backbone, self.head = model.backbone, model.head(depth)
        self.start, self.num_memories, self.returns_tap = start, num_memories, returns_tap

    def forward(self, tap: torch.Tensor, *memories: torch.Tensor) -> tuple[torch.Tensor, ...]:
        following: list[torch.Tensor] = []
        for depth, count in enumerate(self.num_memories, start=self.start):
            tap, remembered = self.backbone.step(depth, tap, memories[:count])
            memories, following = memories[count:], [*following, *remembered]
        return (self.head(tap), *([tap] if self.returns_tap else []), *following)


class ChunkModule(SegmentModule):
    """The same for several frames without memories: ``(frames or taps) -> (one feature per frame[, taps])``."""

    def forward(self, tap: torch.Tensor, *memories: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features, *taps = super().forward(tap, *memories)
        return (*features.split(1), *taps)


class ReadoutModule(nn.Module):
    """The readout of ``graph``, from its ``inputs`` to its ``outputs``."""

    no_gate: torch.Tensor

    def __init__(self, readout: Readout, graph: ReadoutGraph):
        super().__init__()
        self.readout, self.graph = readout, graph
        self.register_buffer("no_gate", torch.zeros(1, 1))

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given, step = dict(zip(self.graph.inputs, inputs, strict=True)), self.graph.step
        known = Accumulated.nothing(1) if self.graph.first else Accumulated(given[self.graph.base], given[COUNT])
        z = self.readout.accumulate(known, given[FEATURE]).z
        logits = self.readout.classify(z, step)
        probabilities = self.readout.probabilities(logits)
        if self.graph.weighs:
            shown = evidence(probabilities, given.get(BEFORE))
            return z, logits, decision_scores(shown, given[VALUES]), probabilities
        confidence, gate = probabilities.amax(1, keepdim=True), self.no_gate
        if self.graph.gate:
            gate = self.readout.gate(z, given[self.graph.compared], step).sigmoid()[:, None]
        return z, logits, torch.cat([confidence, gate], dim=1)


class VideoClassifier(nn.Module):
    """Reuse over the features of all frames, then the classifier: ``features [T, D] -> logits [1, C]``."""

    def __init__(self, readout: Readout):
        super().__init__()
        self.readout = readout

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        known = Accumulated.nothing(1)
        for feature in features.split(1):
            known = self.readout.accumulate(known, feature)
        return self.readout.classify(known.z, len(features) - 1)


class WithConstants(nn.Module):
    """A module whose inputs are given at the positions ``given`` only, and are constants elsewhere; returns a tuple.

    Its weights are constants of a trace too, since it is not registered as a part: otherwise tracing would first make
    a script of each of its layers, which takes longer than all the rest.
    """

    def __init__(self, module: nn.Module, constants: list[torch.Tensor], given: list[int]):
        super().__init__()
        self.call, self.constants, self.given = module.__call__, constants, given

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = list(self.constants)
        for index, tensor in zip(self.given, tensors, strict=True):
            inputs[index] = tensor
        outputs = self.call(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)
