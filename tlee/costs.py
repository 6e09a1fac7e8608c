"""Cost of each part of the network and of every path through it: multiply-accumulates, counted by running it once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from tlee.backbones import Backbone
from tlee.model import TLEE
from tlee.readout import Accumulated

GIGA = 1e9

Result = TypeVar("Result")


@dataclass(frozen=True)
class Costs:
    """MACs of one run of each part on one frame or feature.

    ``segments`` and ``heads`` have one entry a depth; the deepest head has no branch, only the MLP if there is one.
    Any other additive quantity, such as bytes or layers, can stand in the place of MACs.
    """

    segments: tuple[float, ...]
    heads: tuple[float, ...]
    reuse: float
    classifier: float
    gate: float

    def of_paths(self, exit_depths: torch.Tensor, accumulates_passed: Callable[[int], bool]) -> torch.Tensor:
        """MACs ``[N]`` of leaving frames at ``exit_depths [N, T]`` (-1: not processed) without deciding on the way.

        Each frame runs up to its depth with the head there, and the heads passed on the way if their features are
        accumulated at that step (see ``Readout``); reuse runs for all features but the first, the classifier once.
        """
        processed, depths = exit_depths >= 0, exit_depths.clamp(min=0)
        passed = torch.tensor([accumulates_passed(t) for t in range(exit_depths.shape[1])])
        segments, heads = (torch.from_numpy(np.array(each)) for each in (self.segments, self.heads))
        segments = segments.cumsum(0)
        each_frame = torch.where(passed, (segments + heads.cumsum(0))[depths], (segments + heads)[depths])
        frames = (each_frame * processed).sum(1)
        features = (torch.where(passed, depths + 1, 1) * processed).sum(1).to(segments.dtype)
        return frames + (features - 1) * self.reuse + self.classifier

    def full_network(self, frames: int) -> float:
        """MACs of all frames at full depth, classified once: what every saving is measured against."""
        deepest = len(self.segments) - 1
        return self.of_paths(torch.full((1, frames), deepest), taken_alone).item()


def taken_alone(t: int) -> bool:
    """Return False, for ``Costs.of_paths``: at no step is an exit accumulated but the one taken."""
    return False


def count_macs(run: Callable[[], Result]) -> tuple[Result, int]:
    """Return the result of ``run`` and its multiply-accumulates in convolutions and matrix products."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        result = run()
    return result, counter.get_total_flops() // 2


#: Runs a part of the network by the function given; returns its result and its cost.
Measure = Callable[[torch.nn.Module, Callable[[], torch.Tensor]], tuple[torch.Tensor, Any]]


def count_costs(model: TLEE) -> Costs:
    """Count every part of ``model``, which must be in evaluation mode, at its input size."""
    return measure_costs(model, lambda part, run: count_macs(run))


def measure_costs(model: TLEE, measure: Measure) -> Costs:
    """Measure the cost of every part of ``model``, which must be in evaluation mode, at its input size."""
    backbone, readout = model.backbone, model.readout
    memory = backbone.start_memory(model.params.model.input_size)
    tap, segments, heads = torch.zeros(1, *model.input_shape), [], []
    for depth, segment in enumerate(backbone.segments):
        head = model.head(depth)
        tap, cost = measure(segment, partial(_step, backbone, depth, tap, memory[depth]))
        segments.append(cost)
        heads.append(measure(head, partial(head, tap))[1])
    feature = torch.zeros(1, readout.width)
    known = readout.accumulate(Accumulated.nothing(1), feature)
    return Costs(
        tuple(segments),
        tuple(heads),
        reuse=measure(readout, lambda: readout.accumulate(known, feature).z)[1],
        classifier=measure(readout, lambda: readout.classify(feature, 0))[1],
        gate=measure(readout, lambda: readout.gate(feature, feature, 1))[1] if readout.gates else 0,
    )


def _step(backbone: Backbone, depth: int, tap: torch.Tensor, memory: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return backbone.step(depth, tap, memory)[0]
