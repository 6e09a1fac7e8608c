"""Do the exported graphs compute the same, and how long do they take?

Times come as tables, one row a measurement, so that those of another device can stand beside them.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tlee.costs import count_costs
from tlee.edge.engine import Engine, UncutNetwork
from tlee.extraction import Sampling, decode
from tlee.inference import follow, run
from tlee.model import TLEE
from tlee.policies.thresholds import Thresholds
from tlee.sources import LiveFeatures

FULL = "full"  #: the uncut network on all frames, classified once
REAL = "real"  #: the engine
IDEAL = "ideal"  #: the uncut network up to the exits that the engine takes, and nothing else

MILLISECOND = 1e6  # ns

Paths = Sequence[list[int] | None]  #: of each clip: the depth of each frame and -1 after the last; or none is given


# --- parity --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime is from PyTorch, over ``clips`` clips."""

    clips: int
    same: int  #: clips with the same exits and label
    features: float  #: largest absolute difference of an exit feature
    logits: float  #: likewise of a logit, on the clips with the same exits; NaN if there are none


@torch.inference_mode()
def parity(
    engine: Engine,
    uncut: UncutNetwork,
    model: TLEE,
    policy: Thresholds | None,
    clips: Iterable[np.ndarray],
    paths: Paths,
) -> Parity:
    """Compare with ``model`` and ``policy``, which were exported, on clips ``float32 [T, *input_shape]``.

    ``paths`` are the exits to take of each clip, where no policy decides.
    """
    costs = count_costs(model)
    same, features, logits = [], [], []
    for clip, path in zip(clips, paths, strict=True):
        frames = torch.from_numpy(clip)
        source, verdict = LiveFeatures(model, frames), engine.run(clip, path)
        if path is None:
            expected = run(source, model.readout, policy, costs)
        else:
            expected = follow(source, model.readout, torch.tensor([path]), costs)
        same_exits = np.array_equal(expected.exits[0].numpy(), verdict.exits)
        same.append(same_exits and expected.predictions.item() == verdict.label)
        if same_exits:
            logits.append(np.abs(expected.logits[0].numpy() - verdict.logits).max())
        for depth, feature in enumerate(model.exit_features(frames[None])[0].unbind(1)):
            features.append(np.abs(uncut.features(clip, [depth] * len(clip)) - feature.numpy()).max())
    return Parity(len(same), sum(same), float(max(features)), float(max(logits, default=np.nan)))


# --- measuring -------------------------------------------------------------------------------------------


def measure(
    engine: Engine, uncut: UncutNetwork, clips: Sequence[np.ndarray], paths: Paths, warmup: int, repeats: int
) -> pd.DataFrame:
    """Time the systems ``FULL``, ``REAL`` and ``IDEAL`` on every clip, ``repeats`` times.

    Returns one row a system, video (position in ``clips``) and repeat: ``milliseconds``, and how many of
    them were spent inside graphs, ``network``.

    The systems take turns on each video, so that whatever slows the machine down hits all of them. Each
    runs the video once untimed right before, for in use none finds the caches filled by another.
    The first ``warmup`` turns are not recorded. ``paths``: see ``parity``.
    """
    rows: list[tuple] = []
    for clip, path in islice(cycle(zip(clips, paths, strict=True)), warmup):
        _take_turns(engine, uncut, clip, path)
    for repeat in range(repeats):
        for video, (clip, path) in enumerate(zip(clips, paths, strict=True)):
            rows += [(system, video, repeat, *times) for system, *times in _take_turns(engine, uncut, clip, path)]
    return pd.DataFrame(rows, columns=["system", "video", "repeat", "milliseconds", "network"])


def _take_turns(
    engine: Engine, uncut: UncutNetwork, clip: np.ndarray, path: list[int] | None
) -> list[tuple[str, float, float]]:
    exits = engine.run(clip, path).exits.tolist()
    return [
        (FULL, *_time(lambda: uncut.run(clip), uncut)),
        (REAL, *_time(lambda: engine.run(clip, path), engine)),
        (IDEAL, *_time(lambda: uncut.features(clip, exits), uncut)),
    ]


def _time(work: Callable[[], object], runner: Engine | UncutNetwork) -> tuple[float, float]:
    """Milliseconds of ``work``, and of them inside the graphs of ``runner``."""
    work()
    inside = runner.nanoseconds
    begin = time.perf_counter_ns()
    work()
    total = time.perf_counter_ns() - begin
    return total / MILLISECOND, (runner.nanoseconds - inside) / MILLISECOND


def time_decoding(
    paths: Sequence[Path], sampling: Sampling, transform: Callable[[torch.Tensor], torch.Tensor]
) -> pd.DataFrame:
    """What comes before the network, in milliseconds: one row a video, ``decode`` and ``resize``.

    The frames of ``sampling`` are decoded, and ``transform`` makes the network's input of ``uint8 [T, 3, H, W]``.
    Raises ``ValueError`` if a video cannot be decoded.
    """
    rows = []
    for path in paths:
        begin = time.perf_counter_ns()
        _, pictures = decode(path, sampling)
        decoded = time.perf_counter_ns()
        transform(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
        rows.append((path.name, decoded - begin, time.perf_counter_ns() - decoded))
    times = pd.DataFrame(rows, columns=["video", "decode", "resize"])
    return times.assign(decode=times["decode"] / MILLISECOND, resize=times["resize"] / MILLISECOND)


# --- summaries -------------------------------------------------------------------------------------------


def percentiles(times: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds a video of each system in ``times`` (see ``measure``): ``p50``, ``p90``, ``p99``."""
    table = times.groupby("system", sort=False)["milliseconds"].quantile([0.5, 0.9, 0.99]).unstack()
    return table.set_axis(["p50", "p90", "p99"], axis=1)


def ratios(times: pd.DataFrame) -> dict[str, float]:
    """Of the medians in ``times`` (see ``measure``).

    ``real_to_ideal``: what real exits cost over a network cut by an oracle: shallower heads, readouts,
    calls and loop. ``real_to_full``: what they save. ``outside_network``: share of the engine's time in
    no graph.
    """
    medians = times.groupby("system")["milliseconds"].median()
    real = times[times["system"] == REAL]
    return {
        "real_to_ideal": medians[REAL] / medians[IDEAL],
        "real_to_full": medians[REAL] / medians[FULL],
        "outside_network": 1 - (real["network"] / real["milliseconds"]).median(),
    }
