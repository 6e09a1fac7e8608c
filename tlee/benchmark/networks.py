"""Time of real exits, by themselves and against the ideal, and what single precision rounds."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tlee.benchmark.random_weights import CLASSES, mixed_policy, random_frames, random_network
from tlee.benchmark.rows import row
from tlee.costs import count_costs
from tlee.edge import runner as jetson
from tlee.edge.bundle import Videos, write_bundle
from tlee.edge.latency import time_parts
from tlee.edge.runner import BATCH, CHUNKED, FULL, IDEAL, REAL
from tlee.model import TLEE
from tlee.params import Params


def time_network(params: Params, videos: int) -> list[tuple]:
    """Rows of ``benchmark``, of the network that ``params`` describe."""
    clips = random_frames(params, videos)
    model = random_network(params, clips[:, ::2])
    costs = count_costs(model)
    policy = mixed_policy(model, _exit_features(model, clips), costs)
    with tempfile.TemporaryDirectory() as folder:
        names = [str(video) for video in range(videos)]
        write_bundle(model, policy, Videos(names, clips.__getitem__), list(map(str, range(CLASSES))), Path(folder))
        runner = jetson.Runner(folder, "onnxruntime")
        checked = jetson.check(runner)
        jetson.check(runner, chunked=True)
        rounding = _rounding(model, clips, runner)
        parts = time_parts(runner)
        times = jetson.measure(runner, warmup=1, repeats=2, systems=(FULL, BATCH, CHUNKED, REAL, IDEAL))
    return _rows(params.model.backbone, runner, checked, rounding, parts, pd.DataFrame(times))


@torch.inference_mode()
def _exit_features(model: TLEE, clips: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.exit_features(clip[None]) for clip in clips])


@torch.inference_mode()
def _rounding(model: TLEE, clips: torch.Tensor, runner: jetson.Runner) -> dict[str, float]:
    """How far logits in single precision are at most from those in double precision, in which ``model`` is left.

    Between PyTorch and ONNX Runtime lies what both of them round.
    """
    model, bundle = model.double(), runner.bundle
    exits = torch.tensor([video["exit_depths"] for video in bundle.videos])
    every = model.readout.prefix_logits(_exit_features(model, clips.double()), exits.clamp(min=0))
    exact = every[torch.arange(len(exits)), (exits >= 0).sum(1) - 1].numpy()
    found = {
        "PyTorch": [video["logits"] for video in bundle.videos],
        "ONNX Runtime": [runner.engine.run(jetson.prepare(bundle.frames(row))).logits for row in range(len(exits))],
    }
    return {name: float(np.abs(np.stack(logits) - exact).max()) for name, logits in found.items()}


def _rows(
    name: str,
    runner: jetson.Runner,
    checked: dict[str, Any],
    rounding: dict[str, float],
    parts: pd.DataFrame,
    times: pd.DataFrame,
) -> list:
    videos, exits = runner.bundle.videos, runner.uncut.deepest + 1
    took = times.pivot(index=["video", "repeat"], columns="system", values="milliseconds")
    frames = times.pivot(index=["video", "repeat"], columns="system", values="frames")
    full = took[FULL].groupby("video").median()
    left = [depth for video in videos for depth in video["exit_depths"] if depth >= 0]
    rows = [row(name, f"frames left at depth {depth}, share", left.count(depth) / len(left)) for depth in range(exits)]
    rows += [
        row(name, "frames a video", frames[REAL]),
        row(name, "clips with the exits and label of PyTorch, share", checked["same"] / checked["clips"]),
        row(name, "largest difference of a logit to PyTorch", checked["logits"]),
        row(name, "rounding of PyTorch: the same to double precision", rounding["PyTorch"]),
        row(name, "rounding of ONNX Runtime: the same to double precision", rounding["ONNX Runtime"], target=1e-4),
        row(name, "real exits / ideal", took[REAL] / took[IDEAL], target=1.15),
        row(name, "real exits / full network", took[REAL] / took[FULL]),
        row(name, "decisions / full network", (parts["readouts"] + parts["loop"]) / full, target=0.03),
    ]
    shares = parts.div(parts.sum(axis=1), axis=0)
    rows += [row(name, f"time in {part}, share", share) for part, share in shares.items()]
    rows += [
        row(name, "full network in one batch / frame by frame", took[BATCH] / took[FULL]),
        row(name, "real exits / full network in one batch", took[REAL] / took[BATCH]),
        row(name, "real exits chunked / frame by frame", took[CHUNKED] / took[REAL]),
        row(name, "frames computed in vain by chunks, share", 1 - frames[REAL].sum() / frames[CHUNKED].sum()),
    ]
    return rows
