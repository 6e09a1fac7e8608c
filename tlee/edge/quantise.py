"""A bundle in int8: post-training static quantisation by ONNX Runtime.

Weights of convolutions and linear layers become ``int8`` with a scale per channel, activations ``uint8`` with a scale
and zero point per tensor, which are set by calibration clips. Segments and uncut graphs are quantised. Readouts and the
video classifier stay in single precision: they are tiny, and their scores decide.

The runner treats such a bundle like any other, and runs it on ONNX Runtime.
"""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from tlee.checksums import save_sealed
from tlee.edge.bundle import RUNNER, describe_result, write_manifest
from tlee.edge.graphs import Program
from tlee.edge.margins import MAX_MARGIN, threshold_margin, value_margins
from tlee.edge.runner import (
    BEFORE,
    CLIPS,
    FRAME,
    MANIFEST,
    PROBABILITIES,
    SCORES,
    Bundle,
    Engine,
    Kind,
    OnnxRuntime,
    UncutNetwork,
)
from tlee.levels import ALWAYS, NEVER

QUANTISED = (Kind.SEGMENTS, Kind.PREFIX)
LEFT_OUT = (Kind.CHUNK, Kind.BATCH)  #: kinds of graphs for several frames, and their keys in the program
FOLDER = "int8"  #: of the quantised bundle, in the folder of the original


def quantise(folder: Path, clips: Sequence[np.ndarray]) -> Path:
    """Write the bundle in ``folder`` in int8 to its folder ``FOLDER``, which is returned.

    ``clips`` are for calibration, each ``float32 [T, *input_shape]`` in 0..1 and visiting order. The results that the
    new bundle expects of its videos are those of ONNX Runtime on this machine, with unchanged thresholds or values.
    """
    source, target = Bundle(folder), folder / FOLDER
    target.mkdir(exist_ok=True)
    others, recorded = (CLIPS, RUNNER), record_inputs(source, clips)
    graphs = {name: graph for name, graph in source.program["graphs"].items() if graph["kind"] not in LEFT_OUT}
    for file in (*others, *(f"{name}.onnx" for name in graphs if name not in recorded)):
        shutil.copy(source.file(file), target)
    for name, inputs in recorded.items():
        _quantise_graph(Path(source.file(f"{name}.onnx")), target / f"{name}.onnx", inputs)
    program = {key: value for key, value in source.program.items() if key not in ("id", "files")}
    write_manifest(program | dict.fromkeys(LEFT_OUT) | {"precision": "int8", "graphs": graphs}, target, *others)
    bundle = Bundle(target)
    save_sealed(target / MANIFEST, bundle.program | {"videos": expected_results(bundle)})
    return target


def _quantise_graph(path: Path, target: Path, recorded: list[dict[str, np.ndarray]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / path.name
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Reader(recorded),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # processors without VNNI add two products in 16 bits, which would overflow
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    _remove_unused_operator_sets(target)


def _remove_unused_operator_sets(path: Path) -> None:
    """Remove operator sets that the quantiser declares but does not use: an older runtime may refuse them."""
    model = onnx.load(path)
    domains = {node.domain for node in model.graph.node}
    used = [each for each in model.opset_import if each.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(used)
    onnx.save(model, path)


class _Reader(CalibrationDataReader):
    def __init__(self, recorded: list[dict[str, np.ndarray]]):
        self._recorded = iter(recorded)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._recorded, None)


# --- inputs of graphs ------------------------------------------------------------------------------------


def record_inputs(bundle: Bundle, clips: Sequence[np.ndarray]) -> dict[str, list[dict[str, np.ndarray]]]:
    """Record the inputs of every call of each graph that is quantised, if on ``clips`` all of them are always run.

    Returns them by the name of the graph, and within a call by the name of the tensor.
    """
    backend, program = _RecordingBackend(bundle), _without_stops(bundle.program)
    engine, uncut = Engine(backend, program), UncutNetwork(backend, program)
    depths = range(uncut.deepest + 1)
    runs = [None] if program["decides"] else [[depth] * len(program["exits"]) for depth in depths]
    for clip in clips:
        for given_exits in runs:
            engine.run(clip, given_exits)
        for depth in depths:
            uncut.features(clip, [depth] * len(clip))
    return backend.recorded


class _RecordingBackend(OnnxRuntime):
    def __init__(self, bundle: Bundle):
        super().__init__(bundle, "fp32", threads=1)
        self.recorded: dict[str, list[dict[str, np.ndarray]]] = defaultdict(list)
        self._frame = np.empty(0)

    def load(self, name: str) -> Callable[[], None]:
        run, graph = super().load(name), self.bundle.program["graphs"][name]
        return partial(self._run, name, graph["inputs"], run) if graph["kind"] in QUANTISED else run

    def put(self, name: str, array: Any) -> None:
        super().put(name, array)
        if name == FRAME:
            self._frame = array  # an input of many graphs, which is kept once

    def _run(self, name: str, inputs: list[str], run: Callable[[], None]) -> None:
        values = {tensor: self._frame if tensor == FRAME else self.get(tensor).copy() for tensor in inputs}
        self.recorded[name].append(values)
        run()


def _without_stops(program: Program) -> Program:
    never = dict.fromkeys(("stop", "gate", "layer"), NEVER)
    return program | {"exits": [[each | never for each in frame] for frame in program["exits"]]}


# --- expected results ------------------------------------------------------------------------------------


def expected_results(bundle: Bundle) -> list[dict[str, Any]]:
    """Compute the results of the videos of ``bundle`` by ONNX Runtime: see ``videos`` in ``tlee.edge.bundle``."""
    program, backend, results = bundle.program, _ObservedBackend(bundle), []
    engine = Engine(backend, program)
    for number, video in enumerate(bundle.videos):
        backend.observed.clear()
        logits, exit_depths, _, _ = engine.run(bundle.clip(number), bundle.given_exits(number))
        margin = MAX_MARGIN
        if program["decides"]:
            frames = zip(program["exits"], exit_depths, strict=True)
            evaluated = [each for frame, depth in frames for each in frame if each["depth"] <= depth]
            margin = min(chain.from_iterable(map(_margins, evaluated, backend.observed)))
        results.append({"video": video["video"], **describe_result(logits, exit_depths, margin)})
    return results


class _ObservedBackend(OnnxRuntime):
    """``observed``: the tensors by which each exit decides, in order."""

    def __init__(self, bundle: Bundle):
        super().__init__(bundle, "int8", threads=1)
        self.observed: list[dict[str, torch.Tensor]] = []

    def load(self, name: str) -> Callable[[], None]:
        run, graph = super().load(name), self.bundle.program["graphs"][name]
        if graph["kind"] != Kind.READOUT:
            return run
        names = {SCORES, PROBABILITIES, BEFORE} & {*graph["inputs"], *graph["outputs"]}
        return partial(self._observe, run, names)

    def _observe(self, run: Callable[[], None], names: set[str]) -> None:
        run()
        self.observed.append({name: torch.from_numpy(self.get(name).copy()) for name in names})


def _margins(exit_: dict[str, Any], observed: dict[str, torch.Tensor]) -> list[float]:
    """Margins of the decisions that an exit takes."""
    thresholds = [exit_[name] for name in ("layer", "gate", "stop")]
    if exit_.get("values"):
        found = value_margins(observed[PROBABILITIES], observed.get(BEFORE), exit_["values"])
        return [MAX_MARGIN, *(margin for margin, at in zip(found, thresholds, strict=False) if at < NEVER)]
    first, second = observed[SCORES].unbind(1)
    pairs = zip((first, second, first), thresholds, strict=True)
    return [MAX_MARGIN, *(threshold_margin(score, at) for score, at in pairs if ALWAYS < at < NEVER)]
