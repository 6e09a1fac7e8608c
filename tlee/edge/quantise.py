"""A bundle in eight bits: post-training static quantisation by ONNX Runtime.

Weights of convolutions and linear layers become ``int8`` with a scale a channel, activations ``uint8`` with a scale
and zero point a tensor, which calibration clips settle. Segments and uncut graphs are quantised. Readouts and the
conclusion stay in single precision: they are tiny, and what they compute is compared with thresholds.

The runner gets such a bundle like any other, and runs it on ONNX Runtime.
"""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from scipy.special import logit

from tlee.edge import runner as jetson
from tlee.edge.bundle import FAR, seal
from tlee.edge.export import Program
from tlee.levels import ALWAYS, NEVER
from tlee.records import save_json

AT_ONCE = (jetson.CHUNK, "batch")  #: systems, and their graphs, that such a bundle is without
FOLDER = "int8"  #: of the bundle in eight bits, in that of the bundle that it was made of


def quantise(folder: Path, clips: Sequence[np.ndarray]) -> Path:
    """Write the bundle in ``folder`` once more, in eight bits, to its folder ``FOLDER``, which is returned.

    ``clips`` are those to calibrate with, each ``float32 [T, *input_shape]`` in 0..1 and visiting order. What the new
    bundle expects of its videos is what ONNX Runtime makes of them here, with thresholds as they were.
    """
    source, target = jetson.Bundle(folder), folder / FOLDER
    target.mkdir(exist_ok=True)
    others, given = (jetson.CLIPS, "jetson.py"), record(source, clips)
    graphs = {name: graph for name, graph in source.program["graphs"].items() if not name.startswith(AT_ONCE)}
    for file in (*others, *(f"{name}.onnx" for name in graphs if name not in given)):
        shutil.copy(folder / file, target)
    for name, inputs in given.items():
        _quantise_graph(folder / f"{name}.onnx", target / f"{name}.onnx", inputs)
    program = {key: value for key, value in source.program.items() if key not in ("id", "files")}
    seal(program | dict.fromkeys(AT_ONCE) | {"precision": "int8", "graphs": graphs}, target, *others)
    bundle = jetson.Bundle(target)
    save_json(target / jetson.MANIFEST, bundle.program | {"videos": expect(bundle)})
    return target


def _quantise_graph(path: Path, target: Path, given: list[dict[str, np.ndarray]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / path.name
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Reader(given),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # sums of two products fit 16 bits, into which processors without VNNI put them
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    _declare_what_is_used(target)


def _declare_what_is_used(path: Path) -> None:
    """Take away the operator sets that the quantiser declares and no node is of: an older runtime may refuse them."""
    model = onnx.load(path)
    domains = {node.domain for node in model.graph.node}
    used = [each for each in model.opset_import if each.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(used)
    onnx.save(model, path)


class _Reader(CalibrationDataReader):
    def __init__(self, given: list[dict[str, np.ndarray]]):
        self._given = iter(given)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._given, None)


# --- what graphs are given -----------------------------------------------------------------------------------


def record(bundle: jetson.Bundle, clips: Sequence[np.ndarray]) -> dict[str, list[dict[str, np.ndarray]]]:
    """What each graph with layers of the network is given, if on ``clips`` it is always run.

    That is: by the name of the graph, the inputs of every call, by theirs.
    """
    backend, program = _CalibrationBackend(bundle), _never_stops(bundle.program)
    engine, uncut = jetson.Engine(backend, program), jetson.UncutNetwork(backend, program)
    depths = range(uncut.deepest + 1)
    paths = [None] if program["decides"] else [[depth] * len(program["looks"]) for depth in depths]
    for clip in clips:
        for path in paths:
            engine.run(clip, path)
        for depth in depths:
            uncut.features(clip, [depth] * len(clip))
    return backend.given


class _CalibrationBackend(jetson.OnnxRuntime):
    def __init__(self, bundle: jetson.Bundle):
        super().__init__(bundle, "fp32", threads=1)
        self.given: dict[str, list[dict[str, np.ndarray]]] = defaultdict(list)
        self._frame = np.empty(0)

    def load(self, name: str) -> Callable[[], None]:
        run = super().load(name)
        return partial(self._run, name, run) if name.startswith(("segments", "prefix")) else run

    def put(self, name: str, array: Any) -> None:
        super().put(name, array)
        if name == jetson.FRAME:
            self._frame = array  # which many graphs are given; it is kept once

    def _run(self, name: str, run: Callable[[], None]) -> None:
        inputs = self._bundle.program["graphs"][name]["inputs"]
        kept = {tensor: self._frame if tensor == jetson.FRAME else self.get(tensor).copy() for tensor in inputs}
        self.given[name].append(kept)
        run()


def _never_stops(program: Program) -> Program:
    never = dict.fromkeys(("stop", "gate", "leave"), NEVER)
    return program | {"looks": [[look | never for look in frame] for frame in program["looks"]]}


# --- what must come out --------------------------------------------------------------------------------------


def expect(bundle: jetson.Bundle) -> list[dict[str, Any]]:
    """What ONNX Runtime makes of the videos of ``bundle``: see ``videos`` in ``tlee.edge.bundle``."""
    backend, program = _Watching(bundle), bundle.program
    engine, found = jetson.Engine(backend, program), []
    for number, video in enumerate(bundle.videos):
        backend.scores.clear()
        logits, exits, _ = engine.run(jetson.prepare(bundle.frames(number)), bundle.path_taken(number))
        frames = zip(program["looks"], exits, strict=True)
        looks = [look for frame, left in frames for look in frame if look["depth"] <= left]
        lead = -float(np.diff(np.sort(logits)[:-3:-1]).sum())  # before the second class
        distances = map(_distance, looks, backend.scores)  # of random exits nobody asks for scores
        found.append(
            {
                "video": video["video"],
                "exit_depths": exits,
                "label": int(logits.argmax()),
                "logits": [float(f"{value:.6g}") for value in logits.tolist()],
                "margin": round(min(FAR, lead, *distances), 6),
            }
        )
    return found


def _distance(look: dict[str, Any], scores: tuple[float, float]) -> float:
    """How near the scores of a look come to its thresholds, in log-odds."""
    pairs = zip((*scores, scores[0]), (look["stop"], look["gate"], look["leave"]), strict=True)
    return min((abs(float(logit(score) - logit(at))) for score, at in pairs if ALWAYS < at < NEVER), default=FAR)


class _Watching(jetson.OnnxRuntime):
    def __init__(self, bundle: jetson.Bundle):
        super().__init__(bundle, "int8", threads=1)
        self.scores: list[tuple[float, float]] = []  #: of each look of a video

    def get(self, name: str) -> np.ndarray:
        array = super().get(name)
        if name == jetson.SCORES:
            self.scores.append(tuple(map(float, array[0])))
        return array
