"""Latency of a policy on this machine: agreement with PyTorch, decoding, the parts of the network, and ratios."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tlee.edge.runner import FULL, FULL_BATCH, IDEAL, REAL, REAL_CHUNKED, Check, Column, Kind, Runner
from tlee.errors import UserError
from tlee.extraction import Sampling, decode
from tlee.model import TLEE

MILLISECOND = 1e-3  # s


# --- parity --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parity:
    """Agreement of ONNX Runtime with PyTorch."""

    videos: int
    same: int  #: number of videos with the same exits and label
    max_feature_difference: float  #: absolute, over all exit features
    max_logit_difference: float  #: absolute, over the videos with the same exits and label; NaN if there are none


@torch.inference_mode()
def measure_parity(runner: Runner, model: TLEE, check: Check) -> Parity:
    """Add to ``check`` the largest difference of exit features from those of ``model``, which was exported."""
    largest = 0.0
    for video in range(len(runner.bundle.videos)):
        clip = runner.bundle.clip(video)
        for depth, feature in enumerate(model.exit_features(torch.from_numpy(clip)[None])[0].unbind(1)):
            exported = runner.uncut.features(clip, [depth] * len(clip))
            largest = max(largest, float(np.abs(exported - feature.numpy()).max()))
    logits = np.nan if check.max_logit_difference is None else check.max_logit_difference
    return Parity(check.videos, check.same, largest, logits)


# --- decoding --------------------------------------------------------------------------------------------


def time_decoding(
    paths: Sequence[Path], sampling: Sampling, transform: Callable[[torch.Tensor], torch.Tensor]
) -> pd.DataFrame:
    """Time the steps before the network, in milliseconds: one row per video, ``decode`` and ``resize``.

    The frames of ``sampling`` are decoded, and ``transform`` makes the network's input of ``uint8 [T, 3, H, W]``.
    Raises ``UserError`` if a video cannot be decoded.
    """
    rows = []
    for path in paths:
        begin = time.perf_counter()
        try:
            _, pictures = decode(path, sampling)
        except ValueError as error:
            raise UserError(f"{path} cannot be decoded: {error}: restore the file that was extracted") from None
        decoded = time.perf_counter()
        transform(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
        rows.append((path.name, decoded - begin, time.perf_counter() - decoded))
    times = pd.DataFrame(rows, columns=["video", "decode", "resize"])
    return times.assign(decode=times["decode"] / MILLISECOND, resize=times["resize"] / MILLISECOND)


# --- the network and its parts ---------------------------------------------------------------------------

READOUTS, LOOP = "readouts", "loop"


def time_parts(runner: Runner) -> pd.DataFrame:
    """Time the parts of the engine, in milliseconds: one row per video.

    There is a column for each graph of segments (its name), then ``READOUTS``, and the ``LOOP`` between graphs. Each
    video is run untimed directly before.
    """
    rows, bundle, engine = [], runner.bundle, runner.engine
    kinds = {name: graph["kind"] for name, graph in bundle.program["graphs"].items()}
    for video in range(len(bundle.videos)):
        clip, given_exits = bundle.clip(video), bundle.given_exits(video)
        engine.run(clip, given_exits)
        before, begin = engine.seconds_per_graph, time.perf_counter()
        engine.run(clip, given_exits)
        total, after = time.perf_counter() - begin, engine.seconds_per_graph
        spent = {name: after[name] - before[name] for name in sorted(after)}
        rows.append(
            {name: seconds for name, seconds in spent.items() if kinds[name] == Kind.SEGMENTS}
            | {READOUTS: sum(seconds for name, seconds in spent.items() if kinds[name] == Kind.READOUT)}
            | {LOOP: total - sum(spent.values())}
        )
    return pd.DataFrame(rows) / MILLISECOND


# --- ratios ----------------------------------------------------------------------------------------------


def ratios(times: pd.DataFrame) -> dict[str, float]:
    """Compute ratios of the medians in ``times`` (see ``runner.time_systems``), and one of the means.

    ``real_to_ideal``: the cost of real exits over a network cut by an oracle: shallower heads, readouts, calls and
    loop. ``real_to_full`` and ``mean_real_to_full``: their savings. ``outside_graphs``: the share of the engine's time
    outside graphs, if it is known: not if graphs run asynchronously. If they were timed: ``real_to_batch`` against all
    frames in one call, and ``chunked_to_real`` of the first few frames together.
    """
    milliseconds = times.groupby(Column.SYSTEM)[Column.MILLISECONDS]
    medians, means = milliseconds.median(), milliseconds.mean()
    found = {
        "real_to_ideal": medians[REAL] / medians[IDEAL],
        "real_to_full": medians[REAL] / medians[FULL],
        "mean_real_to_full": means[REAL] / means[FULL],
    }
    if FULL_BATCH in medians:
        found["real_to_batch"] = medians[REAL] / medians[FULL_BATCH]
    if REAL_CHUNKED in medians:
        found["chunked_to_real"] = medians[REAL_CHUNKED] / medians[REAL]
    real = times[times[Column.SYSTEM] == REAL]
    if real[Column.IN_GRAPHS].notna().all():
        found["outside_graphs"] = 1 - (real[Column.IN_GRAPHS] / real[Column.MILLISECONDS]).median()
    return found
