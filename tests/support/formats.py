"""A small undamaged file of every format that the kit reads, and the content that the kit reads from it."""

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import nbformat
import numpy as np
import pandas as pd
import torch
from PIL import Image
from support.bundles import small_bundle
from support.clips import encode
from support.dataset_files import TINY, lay_out, read
from support.labels import sparse
from support.rows import TensorRows
from support.small import ROOT, small_params
from support.stores import noisy, write_store
from support.tensorrt_fake import Cudart, tensorrt
from torch import nn

from tlee.edge.runner import Check, Clocks, Device, LatencyResult, Runner, Runtime, check_results
from tlee.edge.targets import measure_target
from tlee.explanation.trace import read_trace
from tlee.extraction import Sampling, decode
from tlee.extraction.parts import Record, find_parts, write_part
from tlee.features import FeatureTable, load_features, save_description
from tlee.frame_format import VideoRow
from tlee.frames import FrameStore
from tlee.params import load_params
from tlee.paths import FEATURES, GUARANTEED_POLICY, POLICY
from tlee.policies.files import read_policy, save_policies
from tlee.policies.given import RandomExits
from tlee.policies.stops import StopAbove
from tlee.policies.thresholds import Thresholds
from tlee.records import load_json, save_metrics, save_table
from tlee.stage_code import code_files
from tlee.training.loop import Task, fit
from tlee.weights import load_tensors, read_weights, save_tensors

POLICIES = {
    "tlee": Thresholds((0.5,), (1.0, 0.9), (1.0, 0.5), (1.0, 1.0)),
    "random": RandomExits(0.2, 4),
    "ensemble": StopAbove.between("ensemble", 0.9, 3, 1, 1, (0.0, 1.5)),
}


class Format(NamedTuple):
    """A format: ``make`` writes an undamaged example to the working folder and returns the files to damage.

    ``load`` reads all of its content. It must be the original content or an error if the format is ``checked``; a part
    of it is enough with ``parts``. Formats of others have no checksums.
    """

    make: Callable[[], list[Path]]
    load: Callable[[], Any]
    checked: bool = True
    parts: bool = False


def _state_dict() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"a.weight": torch.randn(6, 4, generator=generator), "b.bias": torch.arange(5), "c": torch.tensor(True)}


def _content(tensors: dict[str, torch.Tensor]) -> list:
    return [(name, str(tensor.dtype), tensor.tolist()) for name, tensor in sorted(tensors.items())]


# --- frames and features -------------------------------------------------------------------------------


def _make_store() -> list[Path]:
    path = Path("results/frames/val")
    write_store(path, [0, [1, 2], 2], 4, lambda row, frame: noisy(row, 10 * row + frame), "red\ngreen\nblue")
    return sorted(path.iterdir())


def _load_store() -> list:
    store = FrameStore("results/frames/val")
    pictures = [np.asarray(image) for row in range(len(store)) for image in store.clip(row, range(store.num_steps))]
    about = [[*store.videos], [*store.groups], store.classes, store.clip_frames, store.truth().tolist()]
    return [*about, *((image.shape, image.tobytes()) for image in pictures)]


_PARTS = Path("runs/extract-0")


def _make_parts() -> list[Path]:
    _PARTS.mkdir(parents=True)
    for part in range(2):
        records = []
        for row in (2 * part, 2 * part + 1):
            frames = [bytes([row, frame]) * 200 for frame in range(3)]
            batch = VideoRow(f"{row}.mp4", [0, 1], "g", [0, 1, 2], frames).to_batch()
            records.append(Record(row, f"{row}.mp4 1 2 3", "damaged" if row == 2 else "", batch))
        write_part(_PARTS, "train-00000", records, ["a", "b"], clip_frames=1)
    return sorted(_PARTS.iterdir())


def _load_parts() -> list:
    parts = [part for each in find_parts(_PARTS).values() for part in each]
    read = [part.read(line) for part in parts for line in range(len(part.rows)) if part.is_whole(line)]
    return [(row, source, reason, batch.to_pylist()) for row, source, reason, batch in read]


def _make_features() -> list[Path]:
    FEATURES.mkdir(parents=True)
    features = np.random.default_rng(0).standard_normal((3, 4, 2, 5), np.float32)
    np.save(FEATURES / "val.npy", features)
    table = FeatureTable(torch.from_numpy(features), sparse(torch.eye(3).bool()), *[["a", "b", "c"]] * 3)
    save_description(FEATURES / "val.npy", table)
    return sorted(FEATURES.iterdir())


def _load_features() -> list:
    table = load_features("val")
    tensors = [(str(each.dtype), each.tolist()) for each in (table.features, table.labels, table.truth)]
    return [*tensors, table.videos, table.groups, table.classes]


# --- weights -------------------------------------------------------------------------------------------


def _make_weights() -> list[Path]:
    about = {"classes": ["a", "b"], "model": {"backbone": "resnet18"}}
    return [save_tensors(Path("weights.safetensors"), _state_dict(), about)]


def _load_weights() -> list:
    tensors, about = load_tensors("weights.safetensors", "a remedy")
    return [_content(tensors), about]


def _make_pickle(zipped: bool) -> Callable[[], list[Path]]:
    def make() -> list[Path]:
        torch.save(_state_dict(), "weights.pth", _use_new_zipfile_serialization=zipped)
        return [Path("weights.pth")]

    return make


def _load_pickle() -> list:
    return _content(read_weights("weights.pth", "a remedy")[0])


class _Task(Task):
    def __init__(self, epochs: int = 99):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.epochs, self.steps = nn.Linear(3, 1), epochs, 0

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if self.steps > 2 * self.epochs:
            raise KeyboardInterrupt
        return nn.functional.mse_loss(self.layers(inputs), targets)


_STATE = Path("runs/gates-0.pt")


def _train(task: Task) -> Any:
    generator = torch.Generator().manual_seed(0)
    data = TensorRows(torch.randn(8, 3, generator=generator), torch.randn(8, 1, generator=generator))
    params = small_params({"gates.epochs": 3, "gates.batch_clips": 4}).gates
    return fit(task, data, params, seed=0, validate=dict, state=_STATE)


def _make_state() -> list[Path]:
    _STATE.parent.mkdir()
    with contextlib.suppress(KeyboardInterrupt):
        _train(_Task(epochs=2))
    return [_STATE]


def _load_state() -> list:
    task = _Task()
    history = _train(task)
    return [history.to_dict(), _content(task.state_dict())]


# --- policies, metrics and the trace -------------------------------------------------------------------


def _make_policies(path: Path) -> Callable[[], list[Path]]:
    def make() -> list[Path]:
        save_policies(POLICIES, path)
        return [path]

    return make


def _make_metrics() -> list[Path]:
    return [save_metrics("evaluate", {"tlee": {"score": 0.8125, "gmacs": 1.25}, "agreement": 1.0})]


def _make_trace() -> list[Path]:
    row = {"video": "a.mp4", "group": "g", "truth": "x", "prediction": "x", "correct": True, "confidence": 0.75}
    rows = [row | {"method": name, "frames": 2, "gmacs": 1.5, "exit_depths": "0 1"} for name in ("full", "oracle")]
    return [save_table("evaluate", "trace", pd.DataFrame(rows), checked=True)]


# --- bundles -------------------------------------------------------------------------------------------

_BUNDLE = Path("bundle")


def _make_bundle() -> list[Path]:
    return sorted(path for path in small_bundle(_BUNDLE, 2).iterdir() if path.name != "runner.py")


def _load_bundle() -> list:
    for backend in ("onnxruntime", "torch"):
        runner = Runner(_BUNDLE, backend, threads=1)
        check_results(runner)
    return [json.dumps(runner.bundle.program), runner.bundle.frames(0).tobytes()]


_VERSION = "10.3.0"  # of TensorRT


def _make_engines() -> list[Path]:
    small_bundle(_BUNDLE, 2)
    _load_engines()
    return sorted((_BUNDLE / "engines").iterdir())


def _load_engines() -> list[bytes]:
    """Return the engines that TensorRT loads; the runner builds a damaged one again."""
    cudart = Cudart()
    module = tensorrt(cudart, _VERSION)
    with mock.patch("tlee.edge.runner.load_library", lambda *_: cudart), mock.patch.dict(sys.modules, tensorrt=module):
        Runner(_BUNDLE, "tensorrt", threads=1)
    return module.loaded


def _make_result() -> list[Path]:
    small_bundle(_BUNDLE, 2)
    bundle = json.loads((_BUNDLE / "bundle.json").read_text())["id"]
    device = Device("nano", "aarch64", "Linux", "R32", "MAXN", 4, "3.6.9", "1.19")
    clocks, runtime = Clocks([[1.0, 2.0]], []), Runtime("torch", "fp32", 1, "1.10", "CPU")
    times = {"system": ["real", "full"], "milliseconds": [1.5, 2.5]}
    result = LatencyResult(bundle, device, clocks, clocks, runtime, {}, Check(1, 1, 0.5), times, [], None)
    Path("nano.json").write_text(result.to_json())
    return [Path("nano.json")]


def _load_result() -> Any:
    return measure_target(small_params({"latency.target": "file:nano.json"}).latency, _BUNDLE)


# --- formats of others ---------------------------------------------------------------------------------


def _make_params() -> list[Path]:
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return [Path("params.yaml")]


def _make_lists(name: str) -> Callable[[], list[Path]]:
    def make() -> list[Path]:
        files, videos = TINY[name]()
        lay_out(Path(), files | dict.fromkeys(videos, ""))
        return [Path(file) for file in files]

    return make


def _make_clip(path: Path) -> Callable[[], list[Path]]:
    return lambda: [encode(path)]


def _load_clip(path: Path) -> Callable[[], Any]:
    return lambda: decode(path, Sampling(4, fps=3), finish=lambda image: image.tobytes())


def _make_images() -> list[Path]:
    Path("clip").mkdir()
    for number in range(4):
        suffix = "jpg" if number % 2 else "png"
        Image.fromarray(np.full((8, 12, 3), 40 * number, np.uint8)).save(f"clip/{number}.{suffix}")
    return sorted(Path("clip").iterdir())


def _make_notebook() -> list[Path]:
    code = "from tlee.params import load_params\nfrom tlee.records import save_metrics\nload_params()\n"
    cells = [nbformat.v4.new_markdown_cell("Title", id="0"), nbformat.v4.new_code_cell(code, id="1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), "1_extract.ipynb")
    return [Path("1_extract.ipynb")]


FORMATS: dict[str, Format] = {
    "frame store": Format(_make_store, _load_store),
    "part of a shard": Format(_make_parts, _load_parts, parts=True),
    "features": Format(_make_features, _load_features),
    "safetensors": Format(_make_weights, _load_weights),
    "pth": Format(_make_pickle(zipped=True), _load_pickle),
    "pth before PyTorch 1.6": Format(_make_pickle(zipped=False), _load_pickle, checked=False),
    "state of training": Format(_make_state, _load_state),
    "policy": Format(_make_policies(POLICY), lambda: [repr(read_policy(name)) for name in POLICIES]),
    "guaranteed policy": Format(
        _make_policies(GUARANTEED_POLICY), lambda: [repr(read_policy(name, GUARANTEED_POLICY)) for name in POLICIES]
    ),
    "metrics": Format(_make_metrics, lambda: load_json(Path("results/metrics/evaluate.json"), "evaluate")),
    "trace": Format(_make_trace, lambda: {name: rows.to_dict() for name, rows in read_trace("full").items()}),
    "bundle": Format(_make_bundle, _load_bundle),
    "manifest of a bundle": Format(lambda: [path for path in _make_bundle() if path.suffix == ".json"], _load_bundle),
    "engines of TensorRT": Format(_make_engines, _load_engines),
    "result of a device": Format(_make_result, _load_result),
    "params": Format(_make_params, lambda: load_params("params.yaml"), checked=False),
    **{
        f"lists of {name}": Format(_make_lists(name), lambda name=name: read(name, Path()), checked=False)
        for name in TINY
        if name != "folder"
    },
    **{
        f"clip{suffix}": Format(_make_clip(Path(f"clip{suffix}")), _load_clip(Path(f"clip{suffix}")), checked=False)
        for suffix in (".mp4", ".avi", ".mkv")
    },
    "folder of images": Format(_make_images, _load_clip(Path("clip")), checked=False),
    "notebook": Format(_make_notebook, lambda: code_files(Path("1_extract.ipynb")), checked=False),
}
