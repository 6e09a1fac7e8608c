"""The bundle: one folder with everything that a device needs to run a policy, check the result and time it.

It contains the graphs as ONNX and as TorchScript, ``runner.py``, which runs them, the frames of some test videos
(``clips.npy``, see ``to_pixels``) and ``bundle.json``:

====================================  ================================================================================
``id``                                identifies the graphs, the policy and the videos; results are matched by it
``method``, ``classes``               of the trained network
``precision``                         of the graphs: ``fp32``, or ``int8`` (``quantise``)
``preprocessing``                     from a video to the network's input; normalisation is part of the network
``graphs``, ``tensors``, ``exits``,   the graphs to run: see ``runner.Engine``
``decides``, ``accumulate``,
``chunk``
``prefixes``, ``batch``,              the graphs to compare with: see ``runner.UncutNetwork``
``video_classifier``
``videos``                            for each of the clips its exit depths, label and logits by PyTorch (``int8``: by
                                      ONNX Runtime), and its ``margin``: the smallest distance, in log-odds, of a
                                      decision (see ``tlee.edge.margins``) and of its label to the next class
``timing``                            default number of threads, warmup videos and repeats of the runner
``files``                             SHA-256 of each file
``crc32``                             checksum of all the other values
====================================  ================================================================================
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tlee.arrays import create_array
from tlee.checksums import save_sealed
from tlee.costs import Costs, count_costs
from tlee.edge import runner
from tlee.edge.export import export, export_uncut
from tlee.edge.graphs import Exportable, Program
from tlee.edge.margins import MAX_MARGIN, Watched
from tlee.edge.runner import CLIPS, MANIFEST, prepare_frames
from tlee.frames import visiting_order
from tlee.model import TLEE
from tlee.policies.given import RandomExits
from tlee.policies.inference import follow, run
from tlee.policies.sources import LiveFeatures

RUNNER = "runner.py"


@dataclass(frozen=True)
class Videos:
    """Test videos to check and time: their names, and ``clip``, a row to ``float [T, *input_shape]`` in 0..1.

    ``exit_depths`` are those to take in each, if the policy does not decide them.
    """

    names: Sequence[str]
    clip: Callable[[int], torch.Tensor]
    exit_depths: Sequence[list[int]] | None = None


def write_bundle(model: TLEE, policy: Exportable, videos: Videos, classes: list[str], folder: Path) -> None:
    """Write the bundle of ``policy`` to ``folder``, with the parameters that ``model`` was built with."""
    params = model.params
    frames, opset = params.extract.frames, params.latency.opset
    with_exits = export(model, policy, frames, folder, opset, torchscript=True)
    uncut = export_uncut(model, frames, folder, opset, torchscript=True)
    shutil.copy(runner.__file__, folder / RUNNER)
    costs, expected = count_costs(model), []
    shape = (len(videos.names), frames, *model.input_shape[1:], 3)
    clips = create_array(folder / CLIPS, np.uint8, shape)
    for row, name in enumerate(videos.names):
        clips[row] = to_pixels(videos.clip(row))
        given_exits = videos.exit_depths[row] if videos.exit_depths else None
        clip = torch.from_numpy(prepare_frames(clips[row]))
        expected.append({"video": name, **expected_result(model, policy, clip, costs, given_exits)})
    clips.flush()
    about = {
        "method": params.model.method,
        "precision": "fp32",
        "classes": classes,
        "preprocessing": {
            "frames": visiting_order(frames, params.model.order),
            "sampled_at": params.extract.fps,
            "clip_frames": params.extract.clip_frames,
            "clip_stride": params.extract.clip_stride,
            "short_side": round(params.model.input_size * 8 / 7),
            "centre_crop": params.model.input_size,
            "layout": "RGB, 0 to 255, divided by 255",
        },
        "videos": expected,
        "timing": {key: getattr(params.latency, key) for key in ("threads", "warmup", "repeats")},
    }
    program = merge_programs(with_exits, uncut)
    torchscript = [f"{name}.pt" for name in program["graphs"]]
    write_manifest(program | about, folder, *torchscript, CLIPS, RUNNER)


def merge_programs(*programs: Program) -> Program:
    """Merge programs into one with the graphs and tensors of all."""
    merged: Program = {}
    for program in programs:
        merged |= program | {key: merged.get(key, {}) | program[key] for key in ("graphs", "tensors")}
    return merged


def write_manifest(program: Program, folder: Path, *others: str) -> None:
    """Write ``bundle.json``, with the digests of the graphs and of ``others`` among the files in ``folder``."""
    names = [*(f"{name}.onnx" for name in program["graphs"]), *others]
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    content = [program["exits"], *(digest for name, digest in files.items() if name.endswith((".onnx", ".npy")))]
    identity = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    save_sealed(folder / MANIFEST, {"id": identity, **program, "files": files})


def to_pixels(clip: torch.Tensor) -> np.ndarray:
    """Convert ``float [T, 3, ..., S, S]`` in 0..1 back to its pixels, ``uint8 [T, ..., S, S, 3]``."""
    return (clip * 255).round().to(torch.uint8).movedim(1, -1).numpy()


# --- expected results ------------------------------------------------------------------------------------


def expected_result(
    model: TLEE, policy: Exportable, clip: torch.Tensor, costs: Costs, given_exits: list[int] | None
) -> dict[str, Any]:
    """Compute ``exit_depths``, ``label``, ``logits`` and ``margin`` of one clip by PyTorch, see ``videos`` above."""
    source, margin = LiveFeatures(model, clip), MAX_MARGIN
    if isinstance(policy, RandomExits):
        outcomes = follow(source, model.readout, torch.tensor([given_exits]), costs)
    else:
        watched = Watched(policy)
        outcomes, margin = run(source, model.readout, watched, costs), watched.margin
    return describe_result(outcomes.logits[0].numpy(), outcomes.exit_depths[0].tolist(), margin)


def describe_result(logits: np.ndarray, exit_depths: list[int], score_margin: float) -> dict[str, Any]:
    """Describe a result as in ``bundle.json``; ``score_margin`` is that of its decisions."""
    second, first = np.sort(logits)[-2:]
    return {
        "exit_depths": exit_depths,
        "label": int(logits.argmax()),
        "logits": [float(f"{value:.6g}") for value in logits.tolist()],
        "margin": round(min(MAX_MARGIN, score_margin, float(first - second)), 6),
    }
