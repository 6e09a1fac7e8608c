"""Cost of every exit of every backbone: ``python -m tlee.paper.backbone_table`` prints the table of
``docs/backbones.md``.
"""

from dataclasses import dataclass
from functools import partial

import torch

from tlee.backbones import BACKBONES
from tlee.costs import GIGA, count_macs

MAX_BRANCHES = 3  #: number of cuts of every backbone
SIZE = 224  #: input size in pixels
SIZES = {"x3d_s": 160}  #: input sizes that differ from ``SIZE``, in pixels

#: Published GMACs of each exit: TLEE's at 224 pixels; for X3D-S, FrameExit's for a clip at full depth.
AUTHORS_GMACS: dict[str, tuple[float | None, ...]] = {
    "vgg16": (4.754, 9.389, 14.018, 15.531),
    "resnet50": (0.79, 1.83, 3.29, 4.1),
    "mobilenet_v2": (0.086, 0.135, 0.181, 0.319),
    "mobilenet_v2_tsm": (0.086, 0.135, 0.181, 0.319),
    "efficientnet_b3": (0.045, 0.295, 0.629, 0.992),
    "x3d_s": (None, None, None, 1.96),
}


@dataclass(frozen=True)
class ExitCost:
    """Tap shape of one exit, and the cost of all segments up to it, without heads."""

    tap: tuple[int, ...]
    gmacs: float
    parameters: int


def exit_costs(backbone: str, size: int) -> list[ExitCost]:
    """Count the cost of every exit of a backbone for one time step of ``size`` pixels, without computing anything."""
    with torch.device("meta"):
        network = BACKBONES[backbone](MAX_BRANCHES).eval()
        tap = torch.zeros(1, *network.input_shape(size))
        memories = network.start_memory(size)
    costs, macs, parameters = [], 0, 0
    for depth, (segment, memory) in enumerate(zip(network.segments, memories, strict=True)):
        (tap, _), own = count_macs(partial(network.step, depth, tap, memory))
        macs += own
        parameters += sum(parameter.numel() for parameter in segment.parameters())
        costs.append(ExitCost(tuple(tap.shape[1:]), macs / GIGA, parameters))
    return costs


def markdown() -> str:
    """Format the table of all backbones as Markdown."""
    lines = [
        "| backbone | pixels | exit | tap | D | GMACs | authors' | parameters, M |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in BACKBONES:
        size = SIZES.get(name, SIZE)
        costs = exit_costs(name, size)
        authors = AUTHORS_GMACS.get(name, (None,) * len(costs))
        for depth, (cost, published) in enumerate(zip(costs, authors, strict=True)):
            lines.append(
                f"| {name} | {size} | {depth} | {' x '.join(map(str, cost.tap))} | {costs[-1].tap[0]} "
                f"| {cost.gmacs:.3f} | {'-' if published is None else published} | {cost.parameters / 1e6:.3f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
