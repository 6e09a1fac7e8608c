"""Export: the network as files, cut at the exits that a policy uses, and uncut for comparison.

Graphs are connected by the names of their tensors, see ``tlee.edge.runner``.
"""

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from tlee.edge.graph_modules import ChunkModule, ReadoutModule, SegmentModule, VideoClassifier, WithConstants
from tlee.edge.graphs import Exportable, Program, compile_policy
from tlee.edge.runner import (
    BASE,
    BEFORE,
    CHUNK,
    CLIP,
    COUNT,
    FEATURE,
    FEATURES,
    FRAME,
    LOGITS,
    MEMORY,
    NEXT,
    PAST,
    VALUES,
    Kind,
    chunk_feature,
)
from tlee.model import TLEE
from tlee.policies.evidence import NUM_EVIDENCE
from tlee.policies.given import RandomExits

CHUNK_FRAMES = 3  #: number of frames that a chunked run processes together before the first decision


def memory(segment: int, index: int) -> str:
    """Return the name of a tensor that a segment keeps of the frame before (temporal shift)."""
    return f"{MEMORY}{segment}_{index}"


def tap(depth: int) -> str:
    """Return the name of the feature map after segment ``depth``, the input of segment ``depth + 1``."""
    return f"tap{depth}"


def export(
    model: TLEE,
    policy: Exportable,
    frames: int,
    folder: Path,
    opset: int,
    torchscript: bool = False,
) -> Program:
    """Write the graphs that ``policy`` needs for clips of ``frames`` frames: batch 1, static shapes.

    They are ONNX files, and with ``torchscript`` also files for PyTorch.
    Returns the program of ``runner.Engine``.
    """
    writer = GraphWriter(model, frames, folder, opset, torchscript)
    exits = compile_policy(policy, model, frames)
    for segments in dict.fromkeys(each.segments for frame in exits for each in frame):
        output_tap = None if segments.ends else tap(segments.depth)
        writer.write_segments(Kind.SEGMENTS, segments.name, segments.start, segments.depth, output_tap)
    for readout in dict.fromkeys(each.readout for frame in exits for each in frame):
        module = ReadoutModule(model.readout, readout)
        writer.write(Kind.READOUT, readout.name, module, readout.inputs, readout.outputs)
    depths = sorted({each.segments.depth for frame in exits[:CHUNK_FRAMES] for each in frame})
    return writer.program | {
        "decides": not isinstance(policy, RandomExits),
        "accumulate": model.params.model.accumulate,
        "chunk": None if writer.has_memories else writer.write_chunk(min(CHUNK_FRAMES, frames), depths),
        "exits": [[each.program for each in frame] for frame in exits],
    }


def export_uncut(model: TLEE, frames: int, folder: Path, opset: int, torchscript: bool = False) -> Program:
    """Write the graphs of the network without exits, for clips of ``frames`` frames.

    Returns the program of ``runner.UncutNetwork``: for each depth a graph up to it with its head and no other, one
    that runs all frames to full depth as a batch, unless frames depend on each other, and one that turns the features
    of all frames into logits.
    """
    writer = GraphWriter(model, frames, folder, opset, torchscript)
    prefixes = [writer.write_segments(Kind.PREFIX, f"prefix{depth}", 0, depth) for depth in range(model.num_exits)]
    batch = None if writer.has_memories else writer.write_batch()
    name = Kind.VIDEO_CLASSIFIER
    writer.write(Kind.VIDEO_CLASSIFIER, name, VideoClassifier(model.readout), [FEATURES], [LOGITS])
    return writer.program | {"prefixes": prefixes, "batch": batch, "video_classifier": name}


class GraphWriter:
    """A folder of modules as checked ONNX files with named tensors of static shape, and optionally as TorchScript.

    ``program`` contains the ``graphs`` written so far, with their ``kind``, the range of their ``segments`` (if any)
    and the names of their ``inputs`` and ``outputs``, and the shapes of all ``tensors``.
    """

    def __init__(self, model: TLEE, frames: int, folder: Path, opset: int, torchscript: bool):
        self._model = model.eval().requires_grad_(False)  # weights become constants of the graphs
        self._folder, self._opset, self._torchscript = folder, opset, torchscript
        width = model.readout.width
        vector, frame = torch.zeros(1, width), torch.zeros(1, *model.input_shape)
        self._memories = model.backbone.start_memory(model.params.model.input_size)
        self._examples = {
            FRAME: frame,
            **dict.fromkeys((FEATURE, PAST, BASE), vector),
            COUNT: torch.ones(1, 1),
            BEFORE: torch.zeros(1, model.readout.classes),
            VALUES: torch.zeros(3, NUM_EVIDENCE),
            FEATURES: torch.zeros(frames, width),
            CLIP: torch.zeros(frames, *model.input_shape),
        }
        with torch.no_grad():
            self._taps = model.backbone.taps(frame[None])
        for segment, tensors in enumerate(self._memories):
            self._examples[tap(segment)] = self._taps[segment]
            self._examples |= {memory(segment, index): tensor for index, tensor in enumerate(tensors)}
        self.program: Program = {"graphs": {}, "tensors": {}}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def has_memories(self) -> bool:
        """True if a frame depends on the frame before."""
        return any(self._memories)

    def write_segments(self, kind: str, name: str, start: int, depth: int, output_tap: str | None = None) -> str:
        """Write segments ``start..depth`` with the head of ``depth``, and the tap as another output if it is named."""
        num_memories = [len(self._memories[segment]) for segment in range(start, depth + 1)]
        memories = [
            memory(start + offset, index) for offset, count in enumerate(num_memories) for index in range(count)
        ]
        inputs = [tap(start - 1) if start else FRAME, *memories]
        outputs = [FEATURE, *([output_tap] if output_tap else []), *(NEXT + name for name in memories)]
        module = SegmentModule(self._model, start, depth, num_memories, output_tap is not None)
        return self.write(kind, name, module, inputs, outputs, (start, depth))

    def write_batch(self) -> str:
        """Write the full network for all frames of a video in one call: ``[T, *input_shape] -> [T, D]``."""
        deepest = self._model.num_exits - 1
        module = SegmentModule(self._model, 0, deepest, [0] * (deepest + 1), False)
        return self.write(Kind.BATCH, "batch", module, [CLIP], [FEATURES], (0, deepest))

    def write_chunk(self, frames: int, depths: list[int]) -> Program:
        """Write the first ``frames`` frames together, in stages that end at ``depths``: see ``runner.Chunk``."""
        self._examples[CHUNK] = torch.zeros(frames, *self._model.input_shape)
        stages, before, start = [], CHUNK, 0
        for depth in depths:
            num_memories, output_tap = [0] * (depth + 1 - start), [] if depth == depths[-1] else [CHUNK + tap(depth)]
            features = [chunk_feature(t, depth) for t in range(frames)]
            module = ChunkModule(self._model, start, depth, num_memories, bool(output_tap))
            name, outputs = f"{CHUNK}{start}-{depth}", features + output_tap
            stages.append((depth, self.write(Kind.CHUNK, name, module, [before], outputs, (start, depth))))
            before, start = CHUNK + tap(depth), depth + 1
            self._examples[before] = self._taps[depth].repeat_interleave(frames, 0)
        return {"frames": frames, "stages": stages}

    @torch.no_grad()
    def write(
        self,
        kind: str,
        name: str,
        module: nn.Module,
        inputs: list[str],
        outputs: list[str],
        segments: tuple[int, int] | None = None,
    ) -> str:
        """Write ``module`` as the graph ``name``, which is returned; inputs that it does not use are left out."""
        path, examples = self._folder / f"{name}.onnx", [self._examples[tensor] for tensor in inputs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the exporter that still writes opset 13
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes are meant to be constants
            torch.onnx.export(
                module.eval(),
                tuple(examples),
                str(path),
                input_names=inputs,
                output_names=outputs,
                opset_version=self._opset,
                do_constant_folding=True,
                dynamo=False,
            )
            onnx.checker.check_model(str(path), full_check=True)
            graph = onnx.load(path).graph
            input_shapes, output_shapes = _shapes(graph.input), _shapes(graph.output)
            if self._torchscript:
                given = [inputs.index(tensor) for tensor in input_shapes]  # the exporter drops unused inputs
                script = WithConstants(module, examples, given).eval()
                traced = torch.jit.trace(script, tuple(examples[index] for index in given), check_trace=False)
                torch.jit.freeze(traced).save(str(path.with_suffix(".pt")))
        self.program["graphs"][name] = {
            "kind": kind,
            "segments": segments,
            "inputs": list(input_shapes),
            "outputs": list(output_shapes),
        }
        self.program["tensors"] |= input_shapes | output_shapes
        return name


def _shapes(tensors: list[onnx.ValueInfoProto]) -> dict[str, list[int]]:
    return {tensor.name: [size.dim_value for size in tensor.type.tensor_type.shape.dim] for tensor in tensors}
