"""Exported networks, loaded to run on ONNX Runtime."""

from pathlib import Path

import onnx
import torch
from support.margins import policy_amid
from support.small import in_place_of_resnet18, random_clips, random_network, small_params

from tlee.edge import runner as jetson
from tlee.edge.bundle import Videos, seal, write_bundle
from tlee.edge.export import Program, export, export_uncut
from tlee.model import TLEE
from tlee.policies.given import RandomExits
from tlee.policies.thresholds import Thresholds

OPSET = 13

#: Operators that TensorRT 8.2 reads, by docs/operators.md and docs/Changelog.md of onnx/onnx-tensorrt; not all of them.
TENSORRT_8_2 = {
    *("Abs", "Add", "And", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Constant"),
    *("ConstantOfShape", "Conv", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "Gemm"),
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
    """Of all graphs in ``folder``."""
    return {node.op_type for path in folder.glob("*.onnx") for node in onnx.load(path).graph.node}


def loaded(program: Program, folder: Path) -> tuple[jetson.OnnxRuntime, Program]:
    """What an engine is made of, for graphs that are in ``folder``: none that TensorRT could not run."""
    assert operators(folder) <= TENSORRT_8_2
    seal({"looks": [], "videos": [], **program}, folder)
    bundle = jetson.Bundle(folder)
    return jetson.OnnxRuntime(bundle, "fp32", threads=1), bundle.program


def engine_of(model: TLEE, policy: Thresholds | RandomExits, folder: Path) -> jetson.Engine:
    return jetson.Engine(*loaded(export(model, policy, model.params.extract.frames, folder, OPSET), folder))


def uncut_of(model: TLEE, folder: Path) -> jetson.UncutNetwork:
    return jetson.UncutNetwork(*loaded(export_uncut(model, model.params.extract.frames, folder, OPSET), folder))


def segments_and_heads(ran: list[str], exits: int) -> tuple[list[int], list[int]]:
    """How often each segment and each head is part of the graphs that ``ran``."""
    parts = [tuple(map(int, name.removeprefix("segments").split("-"))) for name in ran]
    segments = [sum(start <= b <= depth for start, depth in parts) for b in range(exits)]
    return segments, [sum(depth == b for _, depth in parts) for b in range(exits)]


def as_pixels(clips: torch.Tensor) -> torch.Tensor:
    """The nearest clips that come from pixels."""
    return (clips * 255).round() / 255


def bundle_of(model: TLEE, policy: Thresholds | RandomExits, folder: Path, videos: int = 4) -> Path:
    """A bundle with random clips; ``folder``."""
    clips = as_pixels(random_clips(model, videos))
    paths = None
    if isinstance(policy, RandomExits):
        paths = policy.exit_depths(videos, model.params.extract.frames, model.num_exits).tolist()
    names = [f"{row}.mp4" for row in range(videos)]
    write_bundle(model, policy, Videos(names, lambda row: clips[row], paths), ["a", "b", "c"], folder)
    return folder


def small_bundle(folder: Path, videos: int) -> Path:
    """A bundle of a small network, with thresholds amid its scores; ``folder``."""
    with in_place_of_resnet18():
        model = random_network(small_params())
        return bundle_of(model, policy_amid(model, as_pixels(random_clips(model, videos))), folder, videos)
