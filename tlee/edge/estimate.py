"""Estimated time on a Jetson Nano, from published times and the work of the network.

Time is modelled as a sum: a constant per multiply-accumulate, per byte that layers read and write, and per layer.
``jetson_nano.csv`` has few points, so the constants are fitted several times, without and with the last term, and each
time without one of the points, whose prediction error is a factor. The estimate is the geometric mean of the fits; its
spread covers all of them, unchanged and corrected by that factor.

It covers the network alone, and is of little use if frames are much smaller than those of the published points.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls
from torch import nn

from tlee._torchvision import models
from tlee.costs import GIGA, Costs, count_macs, measure_costs, taken_alone
from tlee.edge.graphs import Program
from tlee.edge.runner import (
    FULL,
    IDEAL,
    NEVER,
    REAL,
    STATISTICS,
    Column,
    accumulates_passed,
    fixed_depth,
    summary_statistics,
)
from tlee.model import TLEE
from tlee.policies.evidence import NUM_EVIDENCE

FILE = Path(__file__).parent / "jetson_nano.csv"
NANO = "Jetson Nano (estimate)"

#: The networks that were timed, by their names in the file.
NETWORKS = {
    "resnet18": models.resnet18,
    "resnet50": models.resnet50,
    "vgg16": models.vgg16,
    "mobilenet_v2_tsm_online": models.mobilenet_v2,
}
BYTES = {"fp16": 2, "fp32": 4}  #: per number

#: Units of work: a GMAC, a million numbers, a layer.
UNITS = np.array([GIGA, 1e6, 1])

_LAYERS = (nn.Conv2d, nn.Conv3d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d)  # others are fused with them


def count_work(network: nn.Module, run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, np.ndarray]:
    """Return the result of ``run`` and the work of the layers of ``network`` in it, ``int [3]``.

    It consists of multiply-accumulates, numbers read and written, and calls of layers.
    """
    numbers: list[int] = []

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        weights = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
        numbers.append(inputs[0].numel() + result.numel() + weights)

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, _LAYERS)]
    try:
        result, macs = count_macs(run)
    finally:
        for hook in hooks:
            hook.remove()
    return result, np.array([macs, sum(numbers), len(numbers)])


# --- the device ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """Milliseconds per GMAC, per MB and per layer (``rates``), fitted without one point."""

    rates: np.ndarray
    error: float  #: time of that point as a multiple of its prediction

    def milliseconds(self, work: np.ndarray) -> np.ndarray:
        """Predict the time for ``work [..., 3]`` in ``UNITS``, in half precision."""
        return _in_bytes(work, "fp16") @ self.rates


def _in_bytes(work: np.ndarray, precision: str) -> np.ndarray:
    return work * [1, BYTES[precision], 1]


@cache
def fit_published(path: Path = FILE) -> list[Fit]:
    """Fit the fastest published time of each network, each fit without one of them."""
    table = pd.read_csv(path)
    per_second = table["unit"] == "frames_per_second"
    table["milliseconds"] = table["value"].where(~per_second, 1000 / table["value"])
    table = table.sort_values("milliseconds").drop_duplicates("model")
    points = np.stack([_in_bytes(_published_work(row.model, row.input), row.precision) for row in table.itertuples()])
    return [
        _fit(points, table["milliseconds"].to_numpy(), left_out, terms)
        for left_out in range(len(table))
        for terms in ((1, 1, 0), (1, 1, 1))
    ]


def _published_work(name: str, size: int) -> np.ndarray:
    with torch.device("meta"):
        network, frame = NETWORKS[name]().eval(), torch.zeros(1, 3, size, size)
        return count_work(network, partial(network, frame))[1] / UNITS


def _fit(points: np.ndarray, milliseconds: np.ndarray, left_out: int, terms: tuple[int, ...]) -> Fit:
    """Fit non-negative rates of the ``terms`` by relative errors."""
    kept = np.arange(len(points)) != left_out
    rates, _ = nnls(points[kept] * terms / milliseconds[kept, None], np.ones(kept.sum()))
    return Fit(rates, milliseconds[left_out] / (points[left_out] @ rates))


# --- the network -----------------------------------------------------------------------------------------


def work_of_videos(model: TLEE, program: Program) -> dict[str, np.ndarray]:
    """Return the work ``[N, 3]``, in ``UNITS``, of each system on the videos of a bundle with this ``program``."""
    exit_depths = torch.tensor([video["exit_depths"] for video in program["videos"]])
    costs = [measure_costs(model, partial(_count_quantity, index)) for index in range(len(UNITS))]
    values = _work_of_values()
    work = [_along_systems(each, program, exit_depths, values[index]) for index, each in enumerate(costs)]
    return {system: np.stack([each[system] for each in work], axis=1) / UNITS for system in work[0]}


def _count_quantity(index: int, network: nn.Module, run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, int]:
    result, work = count_work(network, run)
    return result, int(work[index])


def _work_of_values() -> np.ndarray:
    """Return the work of the weights of an exit with values, ``int [3]``: a matrix product with the evidence."""
    with torch.device("meta"):
        layer = nn.Linear(NUM_EVIDENCE, 3, bias=False)
        return count_work(layer, partial(layer, torch.zeros(1, NUM_EVIDENCE)))[1]


def _along_systems(costs: Costs, program: Program, exit_depths: torch.Tensor, values: float) -> dict[str, np.ndarray]:
    """Add up one quantity ``[N]`` for each system."""
    features_only = replace(costs, reuse=0, classifier=0)
    fixed = [
        costs.of_paths(torch.full_like(exit_depths, depth), taken_alone).numpy() for depth in range(len(costs.segments))
    ]
    return {
        FULL: fixed[-1],
        **{fixed_depth(depth): each for depth, each in enumerate(fixed[:-1])},
        REAL: np.array([_cost_of_engine(costs, program, depths, values) for depths in exit_depths.tolist()]),
        IDEAL: features_only.of_paths(exit_depths, taken_alone).numpy(),
    }


def _cost_of_engine(costs: Costs, program: Program, exit_depths: list[int], values: float) -> float:
    """Cost of a video in the engine, whose readouts classify at every exit that is evaluated.

    ``values`` is that of the weights of an exit that has them.
    """
    passed = [accumulates_passed(program["accumulate"], t) for t in range(len(exit_depths))]
    first, *later = (
        [each for each in frame if each["depth"] <= depth and (program["decides"] or every or each["depth"] == depth)]
        for frame, depth, every in zip(program["exits"], exit_depths, passed, strict=True)
    )
    evaluated = [*first, *chain.from_iterable(later)]
    combined = len(evaluated) - (1 if passed[0] else len(first))
    segments = sum(sum(costs.segments[: depth + 1]) for depth in exit_depths)
    heads = sum(costs.heads[each["depth"]] for each in evaluated)
    decisions = sum(values if "values" in each else costs.gate * (each["gate"] < NEVER) for each in evaluated)
    return segments + heads + len(evaluated) * costs.classifier + decisions + combined * costs.reuse


def estimate_nano(model: TLEE, program: Program) -> pd.DataFrame:
    """Estimate milliseconds per video of each ``system``: ``runner.STATISTICS``, and the range of the median.

    The range is from ``low`` to ``high``. The estimate is for the network in half precision, without the preparation
    of frames and without the loop between graphs.
    """
    fits, rows = fit_published(), []
    for system, work in work_of_videos(model, program).items():
        points = np.array([list(summary_statistics(fit.milliseconds(work)).values()) for fit in fits])
        corrected = points[:, 0] * [fit.error for fit in fits]
        spread = np.concatenate([points[:, 0], corrected])
        rows.append((system, *np.exp(np.log(points).mean(axis=0)), spread.min(), spread.max()))
    return pd.DataFrame(rows, columns=[Column.SYSTEM, *STATISTICS, "low", "high"])
