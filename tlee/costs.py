"""What each part of the network costs: multiply-accumulates, counted by running it once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from tlee.model import TLEE

GIGA = 1e9


@dataclass(frozen=True)
class Costs:
    """MACs of one run of each part on one frame or feature.

    ``segments`` and ``heads`` have one entry a depth; the deepest head has no branch, only the MLP if there is one.
    """

    segments: tuple[int, ...]
    heads: tuple[int, ...]
    reuse: int
    classifier: int
    gate: int

    def full_network(self, frames: int) -> int:
        """All frames at full depth, classified once: what every saving is measured against."""
        return frames * (sum(self.segments) + self.heads[-1]) + (frames - 1) * self.reuse + self.classifier


def count_macs(run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, int]:
    """The result of ``run`` and its multiply-accumulates: convolutions and matrix products."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        result = run()
    return result, counter.get_total_flops() // 2


def count_costs(model: TLEE) -> Costs:
    """Count every part of ``model``, which is to be in evaluation mode, at its input size."""
    backbone, readout = model.backbone, model.readout
    memory = backbone.start_memory(model.params.model.input_size)
    tap, segments, heads = torch.zeros(1, *model.input_shape), [], []
    for depth in range(model.exits):
        (tap, _), macs = count_macs(lambda depth=depth, tap=tap: backbone.step(depth, tap, memory[depth]))
        segments.append(macs)
        heads.append(count_macs(lambda depth=depth, tap=tap: model.head(depth)(tap))[1])
    feature = torch.zeros(1, readout.width)
    return Costs(
        tuple(segments),
        tuple(heads),
        reuse=count_macs(lambda: readout.accumulate(feature, feature, 1))[1],
        classifier=count_macs(lambda: readout.classify(feature, 0))[1],
        gate=count_macs(lambda: readout.gate(feature, feature, 1))[1] if readout.gates else 0,
    )
