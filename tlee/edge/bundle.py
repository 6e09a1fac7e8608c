"""The bundle: all that a device needs to run a policy, check the result and time it, in one folder.

It holds the graphs as ONNX and as TorchScript, ``jetson.py``, which runs them, the frames of some test videos
(``clips.npy``, see ``pixels``) and ``bundle.json``:

====================================  ================================================================================
``id``                                changes with the graphs, the policy and the videos; results are known by it
``method``, ``classes``               what was trained
``precision``                         of the graphs: ``fp32``, or ``int8`` (``quantise``)
``preprocessing``                     from a video to the network's input; normalising is part of the network
``graphs``, ``tensors``, ``looks``,   what to run: see ``jetson.Engine``
``decides``, ``visited``, ``chunk``
``prefixes``, ``batch``,              what to compare with: see ``jetson.UncutNetwork``
``conclusion``
``videos``                            for each of the clips its exits, label and logits by PyTorch (``int8``: by ONNX
                                      Runtime), and its ``margin``:
                                      how far, in log-odds, its scores stayed from thresholds and its label from another
``timing``                            how often and with how many threads, unless the runner is told otherwise
``files``                             SHA-256 of each file
====================================  ================================================================================
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tlee.costs import Costs, count_costs
from tlee.edge import runner as jetson
from tlee.edge.export import Program, export, export_uncut
from tlee.frames import visiting_order
from tlee.levels import ALWAYS, NEVER
from tlee.model import TLEE
from tlee.policies.given import RandomExits
from tlee.policies.inference import follow, run
from tlee.policies.policy import Observation, Policy
from tlee.policies.sources import LiveFeatures
from tlee.policies.thresholds import Thresholds
from tlee.records import save_json

FAR = 99.0  #: a margin that is at least this


@dataclass(frozen=True)
class Videos:
    """Test videos to check with and to time: their names, and ``clip``, a row to ``float [T, *input_shape]`` in 0..1.

    ``paths`` are the exits to take of each, if the policy decides nothing.
    """

    names: Sequence[str]
    clip: Callable[[int], torch.Tensor]
    paths: Sequence[list[int]] | None = None


def write_bundle(
    model: TLEE, policy: Thresholds | RandomExits, videos: Videos, classes: list[str], folder: Path
) -> None:
    """Write the bundle of ``policy`` to ``folder``, with the parameters that ``model`` was built with."""
    params = model.params
    frames, opset = params.extract.frames, params.latency.opset
    cut = export(model, policy, frames, folder, opset, torchscript=True)
    uncut = export_uncut(model, frames, folder, opset, torchscript=True)
    shutil.copy(jetson.__file__, folder / "jetson.py")
    costs, expected = count_costs(model), []
    shape = (len(videos.names), frames, *model.input_shape[1:], 3)
    clips = np.lib.format.open_memmap(folder / jetson.CLIPS, "w+", np.uint8, shape)
    for row, name in enumerate(videos.names):
        clips[row] = pixels(videos.clip(row))
        path = videos.paths[row] if videos.paths else None
        clip = torch.from_numpy(jetson.prepare(clips[row]))
        expected.append({"video": name, **expect(model, policy, clip, costs, path)})
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
    program = join(cut, uncut)
    others = [f"{name}.pt" for name in program["graphs"]]
    seal(program | about, folder, *others, jetson.CLIPS, "jetson.py")


def join(*programs: Program) -> Program:
    """One program of several."""
    joined: Program = {}
    for program in programs:
        joined |= program | {key: joined.get(key, {}) | program[key] for key in ("graphs", "tensors")}
    return joined


def seal(program: Program, folder: Path, *others: str) -> None:
    """Write ``bundle.json``, with the digests of the graphs and of ``others`` among the files in ``folder``."""
    names = [*(f"{name}.onnx" for name in program["graphs"]), *others]
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    what = [program["looks"], *(digest for name, digest in files.items() if name.endswith((".onnx", ".npy")))]
    identity = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    save_json(folder / jetson.MANIFEST, {"id": identity, **program, "files": files})


def pixels(clip: torch.Tensor) -> np.ndarray:
    """``float [T, 3, ..., S, S]`` in 0..1, from pixels, to these: ``uint8 [T, ..., S, S, 3]``."""
    return (clip * 255).round().to(torch.uint8).movedim(1, -1).numpy()


# --- what must come out ----------------------------------------------------------------------------------


def expect(
    model: TLEE, policy: Thresholds | RandomExits, clip: torch.Tensor, costs: Costs, path: list[int] | None
) -> dict[str, Any]:
    """What PyTorch makes of one clip: ``exits``, ``label``, ``logits`` and ``margin``, see the table above."""
    source, margin = LiveFeatures(model, clip), FAR
    if isinstance(policy, Thresholds):
        watched = Watched(policy)
        outcomes, margin = run(source, model.readout, watched, costs), watched.margin
    else:
        outcomes = follow(source, model.readout, torch.tensor([path]), costs)
    (logits,) = outcomes.logits
    lead = -logits.sort(descending=True).values[:2].diff().sum().item()  # before the second class
    return {
        "exit_depths": outcomes.exit_depths[0].tolist(),
        "label": outcomes.predictions.item(),
        "logits": [float(f"{value:.6g}") for value in logits.tolist()],
        "margin": round(min(margin, lead, FAR), 6),
    }


class Watched(Policy):
    """A policy of which is noted how near the scores that it compares come to its thresholds, in log-odds."""

    def __init__(self, policy: Thresholds):
        self._policy, self.margin = policy, FAR

    def uses_exit(self, t: int, b: int, frames: int) -> bool:
        return self._policy.uses_exit(t, b, frames)

    def stop_video(self, seen: Observation) -> torch.Tensor:
        confidence, gate = self._policy.stop_above(seen.t, seen.b, seen.num_frames)
        self._note(seen, "confidence", confidence)
        self._note(seen, "gate_score", gate)
        return self._policy.stop_video(seen)

    def leave_frame(self, seen: Observation) -> torch.Tensor:
        self._note(seen, "confidence", self._policy.layer[seen.b])
        return self._policy.leave_frame(seen)

    def _note(self, seen: Observation, score: str, threshold: float) -> None:
        if ALWAYS < threshold < NEVER:
            distance = getattr(seen, score).double().logit() - math.log(threshold / (1 - threshold))
            self.margin = min(self.margin, distance.abs().min().item())
