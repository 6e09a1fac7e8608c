"""Exported networks, loaded to run on ONNX Runtime."""

import shutil
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from support.margins import WIDE, policy_amid
from support.small import in_place_of_resnet18, random_clips, random_network, small_params

from tlee.costs import count_costs
from tlee.edge.bundle import Videos, write_bundle, write_manifest
from tlee.edge.export import export, export_uncut
from tlee.edge.graphs import Exportable, Program
from tlee.edge.margins import Watched
from tlee.edge.runner import Bundle, Engine, OnnxRuntime, UncutNetwork
from tlee.model import TLEE
from tlee.policies.evidence import NUM_EVIDENCE, evidence
from tlee.policies.given import RandomExits
from tlee.policies.inference import run
from tlee.policies.optimal_stopping import NO_CHOICE, OptimalStopping
from tlee.policies.sources import StoredFeatures

OPSET = 13

#: Some of the operators that TensorRT 8.2 reads, by docs/operators.md and docs/Changelog.md of onnx/onnx-tensorrt.
TENSORRT_8_2 = {
    *("Abs", "Add", "And", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Constant"),
    *("ConstantOfShape", "Conv", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather"),
    *("GatherElements", "Gemm"),
    *("GlobalAveragePool", "GlobalMaxPool", "Greater", "HardSigmoid", "Identity", "LeakyRelu", "Less", "Log", "MatMul"),
    *("Max", "MaxPool", "Mean", "Min", "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Pow", "Reciprocal", "ReduceMax"),
    *(
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Resize",
        "Selu",
        "Shape",
        "Sigmoid",
        "Slice",
        "Softmax",
    ),
    *("Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "TopK", "Transpose", "Unsqueeze", "Where"),
}


def operators(folder: Path) -> set[str]:
    """Operators of all graphs in ``folder``."""
    return {node.op_type for path in folder.glob("*.onnx") for node in onnx.load(path).graph.node}


def loaded(program: Program, folder: Path) -> tuple[OnnxRuntime, Program]:
    """A backend and the program, for the graphs in ``folder``, all of which TensorRT can run."""
    assert operators(folder) <= TENSORRT_8_2
    write_manifest({"exits": [], "videos": [], **program}, folder)
    bundle = Bundle(folder)
    return OnnxRuntime(bundle, "fp32", threads=1), bundle.program


def engine_of(model: TLEE, policy: Exportable, folder: Path) -> Engine:
    return Engine(*loaded(export(model, policy, model.params.extract.frames, folder, OPSET), folder))


def uncut_of(model: TLEE, folder: Path) -> UncutNetwork:
    return UncutNetwork(*loaded(export_uncut(model, model.params.extract.frames, folder, OPSET), folder))


def segment_and_head_runs(segments_run: list[str], num_exits: int) -> tuple[list[int], list[int]]:
    """Count the runs of each segment and of each head in graphs of segments, by the ranges in their names."""
    ranges = [tuple(map(int, name.removeprefix("segments").split("-"))) for name in segments_run]
    segments = [sum(start <= b <= depth for start, depth in ranges) for b in range(num_exits)]
    return segments, [sum(depth == b for _, depth in ranges) for b in range(num_exits)]


def as_pixels(clips: torch.Tensor) -> torch.Tensor:
    """Round clips to values of pixels."""
    return (clips * 255).round() / 255


def bundle_of(model: TLEE, policy: Exportable, folder: Path, videos: int = 4) -> Path:
    """Write a bundle with random clips to ``folder``, which is returned."""
    clips = as_pixels(random_clips(model, videos))
    given_exits = None
    if isinstance(policy, RandomExits):
        given_exits = policy.exit_depths(videos, model.params.extract.frames, model.num_exits).tolist()
    names = [f"{row}.mp4" for row in range(videos)]
    write_bundle(model, policy, Videos(names, lambda row: clips[row], given_exits), ["a", "b", "c"], folder)
    return folder


def small_bundle(folder: Path, videos: int) -> Path:
    """Write a bundle of a small network, with thresholds among its scores, to ``folder``, which is returned."""
    return Path(shutil.copytree(_small_bundle(videos).name, folder, dirs_exist_ok=True))


@cache
def _small_bundle(videos: int) -> TemporaryDirectory:
    """Export it once; the folder is removed at the end of the process."""
    folder = TemporaryDirectory()
    with in_place_of_resnet18():
        model = random_network(small_params())
        bundle_of(model, policy_amid(model, as_pixels(random_clips(model, videos))), Path(folder.name), videos)
    return folder


# --- policies with values --------------------------------------------------------------------------------


def values_amid(model: TLEE, clips: torch.Tensor, used: Sequence[Sequence[int]] | None = None) -> OptimalStopping:
    """Return random values that stop some of ``clips`` early and take every exit, and by which no decision is close.

    ``used`` are the exits in use of each frame, all if it is not given.
    """
    used = used or [range(model.num_exits)] * model.params.extract.frames
    costs, features = count_costs(model), StoredFeatures(model.exit_features(clips))
    for seed in range(200):
        watched = Watched(_random_values(model, features.table, used, seed))
        outcomes = run(features, model.readout, watched, costs)
        if watched.margin > 10 * WIDE and {*outcomes.exit_depths.flatten().tolist()} == {-1, *chain(*used)}:
            return watched.policy
    raise AssertionError("some exit is never taken, or some decision is always close: try other clips")


@torch.no_grad()
def _random_values(model: TLEE, features: torch.Tensor, used: Sequence[Sequence[int]], seed: int) -> OptimalStopping:
    """Values that vary from clip to clip around 0.45 (in log-odds) for answering and 0.5 for going on."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.stack([model.readout.prefix_logits(features, b) for b in range(model.num_exits)])
    probabilities, values = model.readout.probabilities(logits), []
    for t, exits in enumerate(used):
        frame = [None] * model.num_exits
        for b in exits:
            shown = evidence(probabilities[b, :, t], probabilities[exits[-1], :, t - 1] if t else None)
            weights = torch.randn(3, NUM_EVIDENCE, generator=generator) / 5
            weights[:, 0] += torch.tensor([-0.2, 0.5, 0.5]) - (shown @ weights.T).mean(0)
            answer, onward, deeper = (tuple(row.tolist()) for row in weights)
            last = t == len(used) - 1
            frame[b] = answer, NO_CHOICE if last else onward, NO_CHOICE if b == exits[-1] else deeper
        values.append(tuple(frame))
    return OptimalStopping(0.1, tuple(values))
