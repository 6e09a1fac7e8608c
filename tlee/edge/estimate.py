"""What a Jetson Nano would take, from numbers that others have published of it and from what the network does.

Time is taken to be a sum: so much for each multiply-accumulate, for each byte that layers read and write, and for each
layer. ``jetson_nano.csv`` has few points, so this is fitted several times, without and with the last term,
and each time without one of the points; that one then tells by what factor it is missed. The estimate is the geometric
mean of the fits, its spread goes to their extremes, as they are and corrected by what they miss.

It is of the network alone, and says little where frames are much smaller than those of the published points.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls
from torch import nn

from tlee._torchvision import models
from tlee.costs import GIGA, count_macs
from tlee.edge.export import Program
from tlee.edge.runner import FULL, IDEAL, NEVER, REAL, STATISTICS, fixed, statistics
from tlee.model import TLEE
from tlee.readout import Accumulated

FILE = Path(__file__).parent / "jetson_nano.csv"
NANO = "Jetson Nano (estimate)"

#: Whole networks as they were timed, by the names in the file.
NETWORKS = {
    "resnet18": models.resnet18,
    "resnet50": models.resnet50,
    "vgg16": models.vgg16,
    "mobilenet_v2_tsm_online": models.mobilenet_v2,
}
BYTES = {"fp16": 2, "fp32": 4}  #: of a number

_LAYERS = (nn.Conv2d, nn.Conv3d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d)  # what else there is becomes part of them
_MEGA = 1e6


def work(run: Callable[[], torch.Tensor], network: nn.Module) -> tuple[torch.Tensor, np.ndarray]:
    """The result of ``run``, and what the layers of ``network`` do in it.

    That is: GMACs, millions of numbers that are read and written, and how many layers were called.
    """
    numbers: list[int] = []

    def note(layer: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        weights = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
        numbers.append(given[0].numel() + result.numel() + weights)

    hooks = [layer.register_forward_hook(note) for layer in network.modules() if isinstance(layer, _LAYERS)]
    try:
        result, macs = count_macs(run)
    finally:
        for hook in hooks:
            hook.remove()
    return result, np.array([macs / GIGA, sum(numbers) / _MEGA, len(numbers)])


# --- the device ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """Milliseconds of a GMAC, of a MB and of a layer (``rates``), and the factor by which one point is missed."""

    rates: np.ndarray
    miss: float

    def milliseconds(self, done: np.ndarray) -> np.ndarray:
        """Of ``work [..., 3]``, in half precision."""
        return _costs(done, "fp16") @ self.rates


def _costs(done: np.ndarray, precision: str) -> np.ndarray:
    return done * [1, BYTES[precision], 1]


def fit_published(path: Path = FILE) -> list[Fit]:
    """Fits to the fastest published time of each network, each without one of them."""
    table = pd.read_csv(path)
    per_second = table["unit"] == "frames_per_second"
    table["milliseconds"] = table["value"].where(~per_second, 1000 / table["value"])
    table = table.sort_values("milliseconds").drop_duplicates("model")
    done = np.stack([_costs(_published_work(row.model, row.input), row.precision) for row in table.itertuples()])
    return [
        _fit(done, table["milliseconds"].to_numpy(), without, terms)
        for without in range(len(table))
        for terms in ((1, 1, 0), (1, 1, 1))
    ]


def _published_work(name: str, size: int) -> np.ndarray:
    with torch.device("meta"):
        network, frame = NETWORKS[name]().eval(), torch.zeros(1, 3, size, size)
        return work(partial(network, frame), network)[1]


def _fit(done: np.ndarray, milliseconds: np.ndarray, without: int, terms: tuple[int, ...]) -> Fit:
    """Rates of the ``terms`` that are not negative, and for which relative errors are small."""
    kept = np.arange(len(done)) != without
    rates, _ = nnls(done[kept] * terms / milliseconds[kept, None], np.ones(kept.sum()))
    return Fit(rates, milliseconds[without] / (done[without] @ rates))


# --- the network -----------------------------------------------------------------------------------------


def work_of_videos(model: TLEE, program: Program) -> dict[str, np.ndarray]:
    """``work [N, 3]`` of each system on the videos of a bundle, whose program this is."""
    backbone, readout = model.backbone, model.readout
    memory, tap = backbone.start_memory(model.params.model.input_size), torch.zeros(1, *model.input_shape)
    segments, heads = [], []
    for depth, segment in enumerate(backbone.segments):
        head = model.head(depth)
        tap, done = work(lambda depth=depth, tap=tap: backbone.step(depth, tap, memory[depth])[0], segment)
        segments.append(done)
        heads.append(work(partial(head, tap), head)[1])
    feature = torch.zeros(1, readout.width)
    classifier = work(partial(readout.classify, feature, 0), readout)[1]
    known = readout.accumulate(Accumulated.nothing(1), feature)
    reuse = work(lambda: readout.accumulate(known, feature).z, readout)[1]
    gate = work(partial(readout.gate, feature, feature, 1), readout)[1] if readout.gates else 0 * classifier
    up_to, frames = np.cumsum(segments, axis=0), len(program["looks"])

    def real(exits: list[int]) -> np.ndarray:
        looks = [
            look
            for left, frame in zip(exits, program["looks"], strict=True)
            for look in frame
            if look["depth"] <= left and (program["decides"] or program["visited"] or look["depth"] == left)
        ]
        seen = sum(heads[look["depth"]] + classifier + (look["gate"] < NEVER) * gate for look in looks)
        return seen + (len(looks) - 1) * reuse + sum(up_to[left] for left in exits if left >= 0)

    def ideal(exits: list[int]) -> np.ndarray:
        return sum(up_to[left] + heads[left] for left in exits if left >= 0)

    videos = [video["exit_depths"] for video in program["videos"]]
    whole = {
        fixed(depth): np.tile(frames * (up_to[depth] + heads[depth] + reuse) - reuse + classifier, (len(videos), 1))
        for depth in range(model.num_exits)
    }
    return {
        FULL: whole.pop(fixed(model.num_exits - 1)),
        **whole,
        REAL: np.stack([real(exits) for exits in videos]),
        IDEAL: np.stack([ideal(exits) for exits in videos]),
    }


def estimate_nano(model: TLEE, program: Program) -> pd.DataFrame:
    """Milliseconds a video of each ``system``: ``jetson.STATISTICS``; the median lies from ``low`` to ``high``.

    It is of the network in half precision, without preparing frames and without the loop between graphs.
    """
    fits, rows = fit_published(), []
    for system, done in work_of_videos(model, program).items():
        points = np.array([list(statistics(fit.milliseconds(done)).values()) for fit in fits])
        missed = points[:, 0] * [fit.miss for fit in fits]
        spread = np.concatenate([points[:, 0], missed])
        rows.append((system, *np.exp(np.log(points).mean(axis=0)), spread.min(), spread.max()))
    return pd.DataFrame(rows, columns=["system", *STATISTICS, "low", "high"])
