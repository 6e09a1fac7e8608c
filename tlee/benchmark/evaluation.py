"""Time and memory of stage 5 on synthetic exit features of several sizes, each in a process of its own."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

from tlee.arrays import create_array
from tlee.benchmark.measuring import MEGA, measure_memory
from tlee.benchmark.rows import row
from tlee.costs import Costs
from tlee.evaluation.evaluate import evaluate
from tlee.evaluation.replay import Split
from tlee.features import FeatureTable
from tlee.labels import SparseLabels
from tlee.params import Params, load_params
from tlee.readout import Readout

#: Thresholds of FrameExit's paper, and what videos with several labels need.
SEVERAL_LABELS = {
    "dataset.labels": "multi",
    "model.method": "frameexit",
    "evaluate.metric": "map",
    "evaluate.rule": "thresholds",
    "evaluate.first_threshold": 0.99,
    "evaluate.gate_threshold": 0.5,
    "evaluate.stop_threshold": 1,
}

NOISE = 1.2  #: standard deviation of features around the mean of their classes


@dataclass(frozen=True)
class Workload:
    """Splits ``val`` and ``test`` of ``N`` videos each, for each ``N`` of ``sizes``."""

    name: str
    sizes: Sequence[int]
    classes: int
    labels: int  #: of each video
    frames: int
    exits: int
    width: int
    overrides: dict[str, Any] = field(default_factory=dict)

    def params(self) -> Params:
        """Return the parameters of ``params.yaml`` with those of the workload."""
        steps = {"extract.frames": self.frames, "pretrain.frames": self.frames, "branches.frames": self.frames}
        return load_params(overrides=steps | {"model.num_branches": self.exits - 1} | self.overrides)


#: Up to the test split of UCF101 and the val split of HVU; few and narrow features, since only videos and classes grow.
WORKLOADS = (
    Workload("UCF101", (160, 1000, 3783), classes=101, labels=1, frames=10, exits=4, width=32),
    Workload(
        "HVU", (1000, 4000, 31_000), classes=3142, labels=12, frames=3, exits=1, width=16, overrides=SEVERAL_LABELS
    ),
)


def workloads(whole: bool = False) -> tuple[Workload, ...]:
    """Return all workloads, unless ``whole`` without their largest size, which takes a quarter of an hour."""
    return WORKLOADS if whole else tuple(replace(each, sizes=each.sizes[:-1]) for each in WORKLOADS)


def time_evaluation(evaluated: Sequence[Workload]) -> list[tuple]:
    """Run the comparison of all policies for each size of the workloads ``evaluated``; rows of ``benchmark``.

    Growth is that of the time, or of the memory, for each video: at most 1 if it is linear.
    """
    rows = []
    for workload in evaluated:
        part, measured = f"evaluation, {workload.name}", [_alone(workload, size) for size in workload.sizes]
        for size, (seconds, added) in zip(workload.sizes, measured, strict=True):
            rows.append(row(part, f"processor time, {size} videos (s)", seconds))
            rows.append(row(part, f"memory besides the mapped tables, {size} videos (MB)", added / MEGA))
        for (small, large), (first, second) in zip(pairwise(workload.sizes), pairwise(measured), strict=True):
            for name, before, after in zip(("time", "memory"), first, second, strict=True):
                growth = after / before * small / large
                rows.append(row(part, f"growth of {name} a video, {small} to {large} videos", growth, target=1.1))
    return rows


def _alone(workload: Workload, num_videos: int) -> tuple[float, float]:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(run_workload, workload, num_videos).result()


def run_workload(workload: Workload, num_videos: int) -> tuple[float, float]:
    """Return the processor time in seconds, and the memory in bytes, of comparing all policies."""
    params = workload.params()
    torch.manual_seed(params.seed)
    readout, means = (
        Readout(workload.width, workload.classes, params).eval(),
        torch.randn(workload.classes, workload.width),
    )
    with torch.no_grad():
        for classifier in readout.classifiers:
            weight, bias = classifier.parameters()
            weight.copy_(means)
            bias.copy_(-means.square().sum(1) / 2)
    with tempfile.TemporaryDirectory() as folder:
        tables = [_table(Path(folder) / name, workload, num_videos, means.numpy()) for name in ("val.npy", "test.npy")]
        costs = Costs((10**7,) * workload.exits, (10**6,) * workload.exits, reuse=10, classifier=1000, gate=1000)
        val, test = (Split(table, readout, costs, params.evaluate.metric) for table in tables)
        start = process_time()
        with measure_memory() as memory:
            evaluate(val, test, params)
        return process_time() - start, memory.added


def _table(path: Path, workload: Workload, num_videos: int, means: np.ndarray) -> FeatureTable:
    """Write features that are closer to the mean of their video's classes the deeper they are."""
    generator = np.random.default_rng(len(path.name))
    classes = generator.integers(0, workload.classes // workload.labels, (num_videos, workload.labels))
    classes = classes * workload.labels + np.arange(workload.labels)  # none twice
    stored = create_array(path, np.float32, (num_videos, workload.frames, workload.exits, workload.width))
    for video, labels in enumerate(classes):
        signal = np.linspace(0.5, 1, workload.exits)[:, None] * means[labels].mean(0)
        stored[video] = signal + NOISE * generator.standard_normal(stored.shape[1:])
    stored.flush()
    names = [f"video {number}" for number in range(num_videos)]
    return FeatureTable(
        stored=torch.from_numpy(np.load(path, mmap_mode="c")),
        all_labels=SparseLabels(
            torch.arange(num_videos + 1) * workload.labels,
            torch.from_numpy(classes.flatten().astype(np.int32)),
            workload.classes,
        ),
        videos=names,
        groups=names,
        classes=[f"class {number}" for number in range(workload.classes)],
    )
