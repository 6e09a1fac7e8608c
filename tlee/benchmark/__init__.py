"""Benchmark of real exits against an ideal, decisions, policy sweeps, stage 5, large stores, input and training.

Ratios of alternating runs on one machine are more comparable between machines than times. The networks have random
weights, 224 pixels and ten frames; thresholds are chosen in the middle of their confidences, so that exits are mixed.
Other parameters are those of ``params.yaml``.
"""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from tlee.benchmark.evaluation import Workload, time_evaluation, workloads
from tlee.benchmark.inputs import time_input
from tlee.benchmark.networks import time_network
from tlee.benchmark.rows import COLUMNS
from tlee.benchmark.stores import time_store
from tlee.benchmark.sweeps import time_replay
from tlee.benchmark.training import time_training
from tlee.params import Params, load_params

__all__ = ["NETWORKS", "benchmark", "markdown", "workloads"]

NETWORKS = ("mobilenet_v2", "resnet50")
HVU = 500_000  #: number of videos, about


def benchmark(
    networks: Sequence[str] = NETWORKS,
    num_videos: int = 8,
    num_replayed: int = 512,
    num_policies: int = 200,
    num_stored: int = HVU,
    num_loaded: int = 240,
    num_steps: int | None = None,
    evaluated: Sequence[Workload] = workloads(),
) -> pd.DataFrame:
    """Run all benchmarks.

    Each network runs on ``num_videos`` clips, and ``num_policies`` policies on ``num_replayed`` videos; a frame store
    of ``num_stored`` videos is opened; the input of training has ``num_loaded`` clips; training takes ``num_steps``
    steps, by default few on a CPU; stage 5 runs on ``evaluated``.

    Returns one row per number: ``part`` (network, replay, evaluation, frame store, input or training), ``quantity``,
    ``value``, ``low`` and ``high``, ``target``. Where ``low`` and ``high`` are given, they are quartiles over videos
    and ``value`` the median; ``target`` is an upper limit, if there is one.
    """
    rows = [row for name in networks for row in time_network(_params(name), num_videos)]
    rows += time_replay(_params(networks[0]), num_replayed, num_policies)
    rows += time_evaluation(evaluated)
    rows += time_store(num_stored)
    rows += time_input(_params(networks[0]), num_loaded)
    rows += time_training(_params(networks[0]), num_steps)
    return pd.DataFrame(rows, columns=COLUMNS)


def markdown(table: pd.DataFrame) -> str:
    """Format the table of ``benchmark`` as Markdown."""
    shown = table.drop(columns=["low", "high"])
    shown["value"] = [_with_quartiles(row) for row in table.itertuples()]
    shown["target"] = ["" if math.isnan(target) else f"at most {target:g}" for target in table["target"]]
    return shown.to_markdown(index=False, disable_numparse=True)


def _with_quartiles(row: Any) -> str:
    return f"{row.value:.3g}" + ("" if math.isnan(row.low) else f" ({row.low:.3g} to {row.high:.3g})")


def _params(name: str) -> Params:
    model = {"backbone": name, "weights": None, "trained": None, "method": "tlee", "input_size": 224, "num_branches": 3}
    settings = {f"model.{key}": value for key, value in model.items()}
    return load_params(overrides=settings | {"extract.frames": 10, "extract.short_side": 256})
