"""Export and the engine: decisions equal those of PyTorch, and skipped graphs are not run."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from support.bundles import engine_of, segment_and_head_runs, small_bundle, uncut_of
from support.refusals import one_line
from support.small import between, in_place_of_resnet18, random_clips, random_network, small_params

from tlee.costs import count_costs
from tlee.edge.graphs import compile_policy
from tlee.edge.latency import ratios, time_decoding, time_parts
from tlee.edge.runner import FULL, IDEAL, REAL, Graph, Runner
from tlee.extraction import Sampling
from tlee.levels import ALWAYS, NEVER
from tlee.model import TLEE
from tlee.params import load_params
from tlee.policies.inference import run
from tlee.policies.sources import LiveFeatures
from tlee.policies.thresholds import Thresholds
from tlee.views import evaluation_transform

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CLIPS, FRAMES, EXITS, OPSET = 20, 6, 4, 13
OFF = (NEVER,) * EXITS


@pytest.fixture(scope="module")
def model() -> TLEE:
    """A network of five layers."""
    with in_place_of_resnet18():
        return random_network(small_params({"extract.frames": FRAMES}, num_branches=EXITS - 1), classes=5)


@pytest.fixture(scope="module")
def mobilenet() -> TLEE:
    """A network as it is shipped, with random weights, by which clips differ."""
    overrides = {"extract.frames": FRAMES, "model.input_size": 64, "model.weights": None}
    params = load_params(ROOT / "params.yaml", overrides)
    assert (params.model.backbone, params.model.num_branches) == ("mobilenet_v2", EXITS - 1)
    return random_network(params, classes=5)


@pytest.fixture(scope="module")
def clips(model: TLEE) -> list[np.ndarray]:
    return list(random_clips(model, CLIPS).numpy())


@pytest.fixture(scope="module")
def middle(model: TLEE, clips: list[np.ndarray]) -> Thresholds:
    return _amid(model, clips)


def _amid(model: TLEE, clips: list[np.ndarray]) -> Thresholds:
    """Return a policy whose thresholds are all among the scores that they are compared with."""
    with torch.inference_mode():
        features = model.exit_features(torch.from_numpy(np.stack(clips)))
        past = features.cummax(1).values
        confidence = model.readout.classify(past, 0).softmax(-1).amax(-1)
        gate = [
            model.readout.gate(past[:, 1:, b].flatten(0, 1), past[:, :-1, b].flatten(0, 1), 1).sigmoid()
            for b in range(EXITS)
        ]
    return Thresholds(
        tuple(between(confidence[:, :, b]) for b in range(EXITS - 1)),
        tuple(between(confidence[:, 0, b], 0.9) for b in range(EXITS)),
        tuple(between(scores, 0.8) for scores in gate),
        tuple(between(confidence[:, 1:, b], 0.9) for b in range(EXITS)),
    )


def _without(values: tuple[float, ...], depth: int) -> tuple[float, ...]:
    return (*values[:depth], NEVER, *values[depth + 1 :])


def _deepest(values: tuple[float, ...]) -> tuple[float, ...]:
    return (*OFF[1:], values[-1])


POLICIES = {
    "never": lambda middle: Thresholds.never(EXITS),
    "temporal": lambda middle: Thresholds(
        OFF[1:], _deepest(middle.first), _deepest(middle.gate), _deepest(middle.stop)
    ),
    "layer": lambda middle: Thresholds(middle.layer, OFF, OFF, OFF),
    "gate alone stops": lambda middle: replace(middle, stop=OFF),
    "confidence alone stops": lambda middle: replace(middle, gate=OFF),
    "all": lambda middle: middle,
    "without exit 1": lambda middle: Thresholds(
        *(_without(values, 1) for values in (middle.layer, middle.first, middle.gate, middle.stop))
    ),
    "exit 1 stops only": lambda middle: replace(middle, layer=_without(middle.layer, 1)),
    "always at exit 1": lambda middle: Thresholds((NEVER, ALWAYS, NEVER), OFF, OFF, OFF),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Number of runs of each graph."""
    calls: Counter[str] = Counter()

    class CountingGraph(Graph):
        def __call__(self) -> None:
            calls[self.name] += 1
            super().__call__()

    monkeypatch.setattr("tlee.edge.runner.Graph", CountingGraph)
    return calls


@pytest.mark.parametrize("name", POLICIES)
def test_the_engine_decides_as_pytorch_and_runs_only_the_graphs_it_needs(name, model, clips, middle, tmp_path, calls):
    taken = _check_engine(model, POLICIES[name](middle), clips, tmp_path, calls)
    if name == "all":
        assert taken == {-1, *range(EXITS)}


def test_the_engine_decides_as_pytorch_on_mobilenet(mobilenet, tmp_path, calls):
    clips = list(random_clips(mobilenet, videos=8).numpy())
    assert _check_engine(mobilenet, _amid(mobilenet, clips), clips, tmp_path, calls) == {-1, *range(EXITS)}


def _check_engine(
    model: TLEE, policy: Thresholds, clips: list[np.ndarray], folder: Path, calls: Counter[str]
) -> set[int]:
    """Compare the engine with PyTorch, and return the depths at which frames are left (-1: not processed)."""
    engine, costs, taken = engine_of(model, policy, folder), count_costs(model), set()
    for clip in clips:
        source = LiveFeatures(model, torch.from_numpy(clip))
        expected = run(source, model.readout, policy, costs)
        calls.clear()
        decision = engine.run(clip)
        taken |= {*decision.exit_depths}

        assert decision.exit_depths == expected.exit_depths[0].tolist()
        assert decision.logits.argmax() == expected.predictions.item()
        np.testing.assert_allclose(decision.logits, expected.logits[0], atol=1e-4, rtol=1e-4)

        assert Counter(decision.segments_run) == _only_segments(calls)
        assert segment_and_head_runs(decision.segments_run, EXITS) == (source.segment_runs, source.head_runs)
        assert sum(calls.values()) == 2 * len(decision.segments_run)  # and a readout each
        assert len(decision.scores) == len(decision.segments_run)
    return taken


def _only_segments(calls: Counter[str]) -> Counter[str]:
    return Counter({name: count for name, count in calls.items() if name.startswith("segments")})


def test_files_are_static_batch_1_and_of_the_opset(model, middle, tmp_path):
    engine_of(model, middle, tmp_path)
    uncut_of(model, tmp_path)
    files = list(tmp_path.glob("*.onnx"))
    assert len(files) == EXITS + 3 + EXITS + EXITS + 2  # segments, readouts, chunk; prefixes, batch, video classifier
    for file in files:
        graph = onnx.load(file)
        assert all(entry.version <= OPSET for entry in graph.opset_import)
        for tensor in [*graph.graph.input, *graph.graph.output]:
            shape = [size.dim_value for size in tensor.type.tensor_type.shape.dim]
            assert shape and all(shape)
            is_chunk = tensor.name.startswith("chunk") and "feature" not in tensor.name
            assert shape[0] == (FRAMES if tensor.name in ("clip", "features") else 3 if is_chunk else 1)
            assert tensor.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_host_reads_one_small_tensor_of_each_readout(model, middle, tmp_path):
    engine_of(model, middle, tmp_path)
    for file in tmp_path.glob("readout_*.onnx"):
        shapes = {
            tensor.name: [size.dim_value for size in tensor.type.tensor_type.shape.dim]
            for tensor in onnx.load(file).graph.output
        }
        assert shapes == {"z": [1, 12], "logits": [1, 5], "scores": [1, 2]}


def test_a_switched_off_exit_has_no_graph(model, middle):
    policy = POLICIES["without exit 1"](middle)
    names = {each.segments.name for frame in compile_policy(policy, model, FRAMES) for each in frame}
    assert names == {"segments0-0", "segments1-2", "segments3-3"}


def test_an_exit_is_cut_only_on_the_frames_that_use_it(model):
    policy = Thresholds((NEVER, 0.5, NEVER), OFF, (0.5, *OFF[1:]), OFF)
    first, later, last = compile_policy(policy, model, 3)
    assert [each.segments.name for each in first] == ["segments0-1", "segments2-3"]
    assert [each.segments.name for each in later] == ["segments0-0", "segments1-1", "segments2-3"]
    assert [each.readout.gate for each in later] == [True, False, False]
    assert [each.segments for each in last] == [each.segments for each in first]


def test_there_are_no_graphs_behind_an_exit_that_is_always_taken(model):
    (exits,) = set(compile_policy(POLICIES["always at exit 1"](None), model, FRAMES)[1:])
    assert [each.segments.name for each in exits] == ["segments0-1"]
    assert exits[0].segments.ends


def test_clips_of_another_length_are_refused(model, clips, tmp_path):
    engine = engine_of(model, POLICIES["always at exit 1"](None), tmp_path)
    with pytest.raises(ValueError, match="exported for 6"):
        engine.run(clips[0][:-1])


def test_the_uncut_network_is_the_full_network_or_one_depth_of_it(model, clips, tmp_path):
    network = uncut_of(model, tmp_path)
    for clip in clips[:5]:
        with torch.inference_mode():
            features = model.exit_features(torch.from_numpy(clip)[None])
            expected = [model.readout.prefix_logits(features, depth)[0, -1] for depth in range(EXITS)]
        np.testing.assert_allclose(network.run(clip), expected[-1], atol=1e-4)
        for depth in range(EXITS):
            np.testing.assert_allclose(network.run(clip, depth), expected[depth], atol=1e-4)


def test_ratios_are_of_medians_and_once_of_means():
    milliseconds = {FULL: [10.0, 20.0, 90.0], REAL: [1.0, 5.0, 40.0], IDEAL: [2.0, 4.0, 6.0]}
    in_graphs = {FULL: [9.0, 19.0, 80.0], REAL: [0.5, 4.5, 32.0], IDEAL: [1.0, 3.0, 5.0]}
    times = pd.concat(
        pd.DataFrame({"system": name, "milliseconds": milliseconds[name], "in_graphs": in_graphs[name]})
        for name in (FULL, REAL, IDEAL)
    )
    found = {"real_to_ideal": 1.25, "real_to_full": 0.25, "mean_real_to_full": 46 / 120, "outside_graphs": 0.2}
    assert ratios(times) == pytest.approx(found)
    assert "outside_graphs" not in ratios(times.assign(in_graphs=None))


def test_the_parts_of_the_network_are_the_graphs_that_ran(tmp_path):
    runner = Runner(small_bundle(tmp_path, videos=3), "onnxruntime")
    parts = time_parts(runner)
    *segments, readouts, loop = parts
    assert (readouts, loop) == ("readouts", "loop")
    assert segments == sorted({each["segments"] for frame in runner.bundle.program["exits"] for each in frame})
    assert (parts[["readouts", "loop"]] > 0).all(axis=None)
    for row, found in parts.iterrows():
        ran = runner.engine.run(runner.bundle.clip(row)).segments_run
        assert {name for name in segments if found[name] > 0} == set(ran)


def test_decoding_is_timed_separately():
    videos = sorted((ROOT / "data" / "UCF-101").rglob("*.mp4"))[:2]
    if not videos:
        pytest.skip("the demo clips do not exist")
    times = time_decoding(videos, Sampling(4), evaluation_transform(64))
    assert times["video"].tolist() == [video.name for video in videos]
    assert (times[["decode", "resize"]] > 0).all(axis=None)


def test_a_video_that_cannot_be_decoded_is_named(tmp_path):
    path = tmp_path / "0.mp4"
    one_line(
        lambda: time_decoding([path], Sampling(4), evaluation_transform(64)), path, "not exist", "restore the file"
    )


# --- several frames in one call --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["never", "all", "without exit 1", "always at exit 1"])
def test_a_chunked_run_decides_the_same_and_runs_a_stage_once_if_a_frame_needs_it(
    name, model, clips, middle, tmp_path, calls
):
    engine = engine_of(model, POLICIES[name](middle), tmp_path)
    assert engine.chunk.frames == 3
    for clip in clips[:8]:
        expected = engine.run(clip)
        calls.clear()
        decision = engine.run(clip, chunked=True)
        assert decision.exit_depths == expected.exit_depths
        np.testing.assert_allclose(decision.logits, expected.logits, atol=1e-4)
        deepest = max(decision.exit_depths[:3])
        needed = [graph.name for depth, graph in engine.chunk.stages if depth <= deepest]
        assert {graph: count for graph, count in calls.items() if graph.startswith("chunk")} == dict.fromkeys(needed, 1)
        assert Counter(decision.segments_run) == _only_segments(calls)
        readouts = sum(count for graph, count in calls.items() if graph.startswith("readout"))
        assert readouts == len(expected.segments_run)


def test_the_network_in_one_batch_is_the_network_frame_by_frame(model, clips, tmp_path):
    network = uncut_of(model, tmp_path)
    for clip in clips[:3]:
        np.testing.assert_allclose(network.run_batch(clip), network.run(clip), atol=1e-4)
