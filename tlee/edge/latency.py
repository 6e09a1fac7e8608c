"""What the latency of a policy is made of, and summaries of what was timed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tlee.edge import runner as jetson
from tlee.edge.runner import BATCH, CHUNKED, FULL, IDEAL, REAL
from tlee.extraction import Sampling, decode
from tlee.model import TLEE

MILLISECOND = 1e-3  # s


# --- parity --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime is from PyTorch, over ``clips`` clips."""

    clips: int
    same: int  #: clips with the same exits and label
    features: float  #: largest absolute difference of an exit feature
    logits: float  #: likewise of a logit, on the clips with the same exits and label; NaN if there are none


@torch.inference_mode()
def parity(runner: jetson.Runner, model: TLEE, found: dict[str, Any]) -> Parity:
    """What ``jetson.check`` has ``found``, and how far features are from those of ``model``, which was exported."""
    furthest = 0.0
    for video in range(len(runner.bundle.videos)):
        clip = jetson.prepare(runner.bundle.frames(video))
        for depth, feature in enumerate(model.exit_features(torch.from_numpy(clip)[None])[0].unbind(1)):
            exported = runner.uncut.features(clip, [depth] * len(clip))
            furthest = max(furthest, float(np.abs(exported - feature.numpy()).max()))
    logits = np.nan if found["logits"] is None else found["logits"]
    return Parity(found["clips"], found["same"], furthest, logits)


# --- decoding --------------------------------------------------------------------------------------------


def time_decoding(
    paths: Sequence[Path], sampling: Sampling, transform: Callable[[torch.Tensor], torch.Tensor]
) -> pd.DataFrame:
    """What comes before the network, in milliseconds: one row a video, ``decode`` and ``resize``.

    The frames of ``sampling`` are decoded, and ``transform`` makes the network's input of ``uint8 [T, 3, H, W]``.
    Raises ``ValueError`` if a video cannot be decoded.
    """
    rows = []
    for path in paths:
        begin = time.perf_counter()
        _, pictures = decode(path, sampling)
        decoded = time.perf_counter()
        transform(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
        rows.append((path.name, decoded - begin, time.perf_counter() - decoded))
    times = pd.DataFrame(rows, columns=["video", "decode", "resize"])
    return times.assign(decode=times["decode"] / MILLISECOND, resize=times["resize"] / MILLISECOND)


# --- the network and its parts ---------------------------------------------------------------------------


def time_parts(runner: jetson.Runner) -> pd.DataFrame:
    """What the engine's time goes into, in milliseconds: one row a video.

    There is a column for each graph of ``segments``, then ``readouts``, and the ``loop`` between graphs. Each video is
    run untimed right before.
    """
    rows, bundle, engine = [], runner.bundle, runner.engine
    for video in range(len(bundle.videos)):
        clip, path = jetson.prepare(bundle.frames(video)), bundle.path_taken(video)
        engine.run(clip, path)
        before, begin = engine.seconds_of_graphs, time.perf_counter()
        engine.run(clip, path)
        total, after = time.perf_counter() - begin, engine.seconds_of_graphs
        spent = {name: after[name] - before[name] for name in sorted(after)}
        rows.append(
            {name: seconds for name, seconds in spent.items() if name.startswith("segments")}
            | {"readouts": sum(seconds for name, seconds in spent.items() if name.startswith("readout"))}
            | {"loop": total - sum(spent.values())}
        )
    return pd.DataFrame(rows) / MILLISECOND


# --- summaries -------------------------------------------------------------------------------------------


def ratios(times: pd.DataFrame) -> dict[str, float]:
    """Of the medians in ``times`` (see ``jetson.measure``), and once of the means.

    ``real_to_ideal``: what real exits cost over a network cut by an oracle: shallower heads, readouts,
    calls and loop. ``real_to_full`` and ``mean_real_to_full``: what they save. ``outside_network``: share of the
    engine's time in no graph, where that is known: not where graphs run on while the loop goes on. Where they were
    timed: ``real_to_batch`` against all frames in one call, and ``chunked_to_real`` of the first few at once.
    """
    milliseconds = times.groupby("system")["milliseconds"]
    medians, means = milliseconds.median(), milliseconds.mean()
    found = {
        "real_to_ideal": medians[REAL] / medians[IDEAL],
        "real_to_full": medians[REAL] / medians[FULL],
        "mean_real_to_full": means[REAL] / means[FULL],
    }
    if BATCH in medians:
        found["real_to_batch"] = medians[REAL] / medians[BATCH]
    if CHUNKED in medians:
        found["chunked_to_real"] = medians[CHUNKED] / medians[REAL]
    real = times[times["system"] == REAL]
    if real["network"].notna().all():
        found["outside_network"] = 1 - (real["network"] / real["milliseconds"]).median()
    return found
