"""Time of real exits relative to the full network and the ideal, and rounding errors of single precision."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tlee.benchmark.random_weights import NUM_CLASSES, mixed_policy, random_frames, random_network
from tlee.benchmark.rows import row
from tlee.costs import count_costs
from tlee.edge.bundle import Videos, write_bundle
from tlee.edge.failures import as_user_errors
from tlee.edge.latency import LOOP, READOUTS, time_parts
from tlee.edge.runner import (
    FULL,
    FULL_BATCH,
    IDEAL,
    REAL,
    REAL_CHUNKED,
    Check,
    Column,
    Runner,
    check_results,
    time_systems,
)
from tlee.model import TLEE
from tlee.params import Params


@as_user_errors()
def time_network(params: Params, num_videos: int) -> list[tuple]:
    """Measure the network described by ``params`` with random weights; rows of ``benchmark``."""
    clips = random_frames(params, num_videos)
    model = random_network(params, clips[:, ::2])
    costs = count_costs(model)
    policy = mixed_policy(model, _exit_features(model, clips), costs)
    with tempfile.TemporaryDirectory() as folder:
        names = [str(video) for video in range(num_videos)]
        write_bundle(model, policy, Videos(names, clips.__getitem__), list(map(str, range(NUM_CLASSES))), Path(folder))
        runner = Runner(folder, "onnxruntime")
        check = check_results(runner)
        check_results(runner, chunked=True)
        errors = _rounding_errors(model, clips, runner)
        parts = time_parts(runner)
        systems = (FULL, FULL_BATCH, REAL_CHUNKED, REAL, IDEAL)
        times = time_systems(runner, warmup=1, repeats=2, systems=systems)
    return _rows(params.model.backbone, runner, check, errors, parts, pd.DataFrame(times))


@torch.inference_mode()
def _exit_features(model: TLEE, clips: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.exit_features(clip[None]) for clip in clips])


@torch.inference_mode()
def _rounding_errors(model: TLEE, clips: torch.Tensor, runner: Runner) -> dict[str, float]:
    """Compute the largest error of single-precision logits relative to double precision, by runtime.

    PyTorch and ONNX Runtime differ by at most the sum of both errors. ``model`` is converted to double precision.
    """
    model, bundle = model.double(), runner.bundle
    exits = torch.tensor([video["exit_depths"] for video in bundle.videos])
    prefixes = model.readout.prefix_logits(_exit_features(model, clips.double()), exits.clamp(min=0))
    exact = prefixes[torch.arange(len(exits)), (exits >= 0).sum(1) - 1].numpy()
    single = {
        "PyTorch": [video["logits"] for video in bundle.videos],
        "ONNX Runtime": [runner.engine.run(bundle.clip(row)).logits for row in range(len(exits))],
    }
    return {name: float(np.abs(np.stack(logits) - exact).max()) for name, logits in single.items()}


def _rows(
    name: str,
    runner: Runner,
    check: Check,
    errors: dict[str, float],
    parts: pd.DataFrame,
    times: pd.DataFrame,
) -> list:
    videos, num_exits = runner.bundle.videos, runner.uncut.deepest + 1
    by_system = times.pivot(index=[Column.VIDEO, Column.REPEAT], columns=Column.SYSTEM)
    milliseconds, frames = by_system[Column.MILLISECONDS], by_system[Column.FRAMES]
    full = milliseconds[FULL].groupby(Column.VIDEO).median()
    depths = [depth for video in videos for depth in video["exit_depths"] if depth >= 0]
    rows = [
        row(name, f"share of frames left at depth {depth}", depths.count(depth) / len(depths))
        for depth in range(num_exits)
    ]
    rows += [
        row(name, "frames per video", frames[REAL]),
        row(name, "share of clips with the same exits and label as PyTorch", check.same / check.videos),
        row(name, "largest logit difference between ONNX Runtime and PyTorch", check.max_logit_difference),
        row(name, "largest logit error of PyTorch, to double precision", errors["PyTorch"]),
        row(name, "largest logit error of ONNX Runtime, to double precision", errors["ONNX Runtime"], target=1e-4),
        row(name, "real exits / ideal", milliseconds[REAL] / milliseconds[IDEAL], target=1.15),
        row(name, "real exits / full network", milliseconds[REAL] / milliseconds[FULL]),
        row(name, "decisions / full network", (parts[READOUTS] + parts[LOOP]) / full, target=0.03),
    ]
    shares = parts.div(parts.sum(axis=1), axis=0)
    rows += [row(name, f"share of time in {part}", share) for part, share in shares.items()]
    rows += [
        row(name, "full network in one batch / frame by frame", milliseconds[FULL_BATCH] / milliseconds[FULL]),
        row(name, "real exits / full network in one batch", milliseconds[REAL] / milliseconds[FULL_BATCH]),
        row(name, "real exits in chunks / frame by frame", milliseconds[REAL_CHUNKED] / milliseconds[REAL]),
        row(name, "share of frames wasted by chunks", 1 - frames[REAL].sum() / frames[REAL_CHUNKED].sum()),
    ]
    return rows
