"""What real exits cost over an ideal, what a decision and a sweep take: ratios from one run, with random weights.

Ratios of what ran in turns on one machine travel further than its seconds. The networks have random weights, 224 pixels
and ten frames; thresholds are chosen amid their confidences, so that some videos stop early and others go deep. The
rest is as ``params.yaml`` says.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tlee.benchmark.networks import time_network
from tlee.benchmark.rows import COLUMNS
from tlee.benchmark.sweeps import time_replay
from tlee.params import Params, load_params

NETWORKS = ("mobilenet_v2", "resnet50")
UCF101_TEST = 3783  #: videos of the test split


def benchmark(
    networks: Sequence[str] = NETWORKS, videos: int = 8, replayed: int = 512, points: int = 200
) -> pd.DataFrame:
    """Run it all. One row a number: ``part`` (network, replay), ``what``, ``value``, ``low`` and ``high``, ``target``.

    ``value`` is a median over videos where ``low`` and ``high``, the quartiles, are given; ``target`` is what it is to
    be at most, if there is such a thing. ``replayed`` videos are in the synthetic table, on which ``points`` policies
    run.
    """
    rows = [row for name in networks for row in time_network(_params(name), videos)]
    rows += time_replay(_params(networks[0]), replayed, points)
    return pd.DataFrame(rows, columns=COLUMNS)


def markdown(table: pd.DataFrame) -> str:
    """As ``benchmark`` makes it."""
    shown = table.drop(columns=["low", "high"])
    shown["value"] = [_with_quartiles(row) for row in table.itertuples()]
    shown["target"] = [f"at most {target:g}" if target == target else "" for target in table["target"]]
    return shown.to_markdown(index=False, disable_numparse=True)


def _with_quartiles(row: Any) -> str:
    return f"{row.value:.3g}" + (f" ({row.low:.3g} to {row.high:.3g})" if row.low == row.low else "")


def _params(name: str) -> Params:
    model = {"backbone": name, "weights": None, "trained": None, "method": "tlee", "input_size": 224, "num_branches": 3}
    settings = {f"model.{key}": value for key, value in model.items()}
    return load_params(overrides=settings | {"extract.frames": 10})
