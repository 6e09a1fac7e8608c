"""Export, the exit engine and its latency: decides as PyTorch does, and runs nothing that it skips."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from small import between
from torch import nn

from tlee.costs import count_costs
from tlee.edge import engine as engines
from tlee.edge.engine import Engine, UncutNetwork
from tlee.edge.export import UncutBundle, compile_policy, export, export_uncut
from tlee.edge.latency import FULL, IDEAL, REAL, measure, parity, percentiles, ratios, time_decoding
from tlee.extraction import Sampling
from tlee.frames import evaluation_transform
from tlee.inference import run
from tlee.model import TLEE
from tlee.params import load_params
from tlee.policies.look import ALWAYS, NEVER
from tlee.policies.thresholds import Thresholds
from tlee.sources import LiveFeatures

ROOT = Path(__file__).parents[1]
CLIPS, FRAMES, EXITS, OPSET = 20, 6, 4, 13
OFF = (NEVER,) * EXITS


@pytest.fixture(scope="module")
def model() -> TLEE:
    """Random weights, with normalisation statistics and a classifier that let confidences vary."""
    overrides = {"model.input_size": 64, "model.exits": EXITS - 1, "model.weights": None}
    torch.manual_seed(0)
    model = TLEE(load_params(ROOT / "params.yaml", overrides), classes=5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train().full_features(torch.randn(4, FRAMES, 3, 64, 64))
        model.readout.classifiers[0].weight *= 2
    return model.eval()


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return list(generator.standard_normal((CLIPS, FRAMES, 3, 64, 64), np.float32))


@pytest.fixture(scope="module")
def middle(model: TLEE, clips: list[np.ndarray]) -> Thresholds:
    """Every threshold amid what it is compared with."""
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


@pytest.fixture(scope="module")
def uncut(model: TLEE, tmp_path_factory: pytest.TempPathFactory) -> UncutBundle:
    return export_uncut(model, FRAMES, tmp_path_factory.mktemp("uncut"), OPSET)


def _without(values: tuple[float, ...], depth: int) -> tuple[float, ...]:
    return (*values[:depth], NEVER, *values[depth + 1 :])


def _deepest(values: tuple[float, ...]) -> tuple[float, ...]:
    return (*OFF[1:], values[-1])


POLICIES = {
    "never": lambda middle: Thresholds.never(EXITS),
    "temporal": lambda middle: Thresholds(
        OFF[1:], _deepest(middle.first), _deepest(middle.gate), _deepest(middle.sure)
    ),
    "layer": lambda middle: Thresholds(middle.leave, OFF, OFF, OFF),
    "gate alone stops": lambda middle: replace(middle, sure=OFF),
    "confidence alone stops": lambda middle: replace(middle, gate=OFF),
    "all": lambda middle: middle,
    "without exit 1": lambda middle: Thresholds(
        *(_without(values, 1) for values in (middle.leave, middle.first, middle.gate, middle.sure))
    ),
    "exit 1 stops only": lambda middle: replace(middle, leave=_without(middle.leave, 1)),
    "always at exit 1": lambda middle: Thresholds((NEVER, ALWAYS, NEVER), OFF, OFF, OFF),
}


@pytest.mark.parametrize("name", POLICIES)
def test_engine_decides_as_pytorch_and_runs_only_what_it_needs(name, model, clips, middle, tmp_path, monkeypatch):
    calls: Counter[str] = Counter()

    class Counting(engines.BoundGraph):
        def __init__(self, path: Path, *rest):
            super().__init__(path, *rest)
            self.file = path.name

        def __call__(self) -> None:
            calls[self.file] += 1
            super().__call__()

    monkeypatch.setattr(engines, "BoundGraph", Counting)
    policy, costs = POLICIES[name](middle), count_costs(model)
    engine = Engine(export(model, policy, FRAMES, tmp_path, OPSET), threads=1)
    taken = []
    for clip in clips:
        source = LiveFeatures(model, torch.from_numpy(clip))
        expected = run(source, model.readout, policy, costs)
        calls.clear()
        verdict = engine.run(clip)
        taken.append(verdict.exits)

        assert verdict.exits.tolist() == expected.exits[0].tolist()
        assert verdict.label == expected.predictions.item()
        np.testing.assert_allclose(verdict.logits, expected.logits[0], atol=1e-4)

        assert Counter(part.file for part in verdict.ran) == _only_segments(calls)
        segments = Counter(b for part in verdict.ran for b in range(part.start, part.depth + 1))
        heads = Counter(part.depth for part in verdict.ran)
        assert [segments[b] for b in range(EXITS)] == source.segment_runs
        assert [heads[b] for b in range(EXITS)] == source.head_runs
        assert sum(calls.values()) == 2 * len(verdict.ran)  # and a readout each
    if name == "all":
        assert set(np.unique(taken)) == {-1, *range(EXITS)}


def _only_segments(calls: Counter[str]) -> Counter[str]:
    return Counter({file: count for file, count in calls.items() if file.startswith("segments")})


def test_files_are_static_batch_1_and_of_the_opset(model, middle, uncut, tmp_path):
    export(model, middle, FRAMES, tmp_path, OPSET)
    files = [*tmp_path.glob("*.onnx"), *uncut.prefixes, uncut.conclusion]
    assert len(files) == EXITS + 3 + EXITS + 1
    for file in files:
        graph = onnx.load(file)
        assert all(entry.version <= OPSET for entry in graph.opset_import)
        for tensor in [*graph.graph.input, *graph.graph.output]:
            shape = [size.dim_value for size in tensor.type.tensor_type.shape.dim]
            assert shape and all(shape)
            assert shape[0] == (FRAMES if tensor.name == "features" else 1)


def test_a_switched_off_exit_is_no_file(model, middle):
    policy = POLICIES["without exit 1"](middle)
    files = {look.stretch.file for looks in compile_policy(policy, model, FRAMES) for look in looks}
    assert files == {"segments0-0.onnx", "segments1-2.onnx", "segments3-3.onnx"}


def test_an_exit_is_cut_only_on_the_frames_that_look_at_it(model):
    policy = Thresholds((NEVER, 0.5, NEVER), OFF, (0.5, *OFF[1:]), OFF)
    first, later, last = compile_policy(policy, model, 3)
    assert [look.stretch.file for look in first] == ["segments0-1.onnx", "segments2-3.onnx"]
    assert [look.stretch.file for look in later] == [
        "segments0-0.onnx",
        "segments1-1.onnx",
        "segments2-3.onnx",
    ]
    assert [look.readout.gate for look in later] == [True, False, False]
    assert [look.stretch for look in last] == [look.stretch for look in first]


def test_nothing_lies_behind_an_exit_that_is_always_taken(model):
    (looks,) = set(compile_policy(POLICIES["always at exit 1"](None), model, FRAMES)[1:])
    assert [look.stretch.file for look in looks] == ["segments0-1.onnx"]
    assert looks[0].stretch.ends


def test_clips_of_another_length_are_refused(model, clips, tmp_path):
    engine = Engine(export(model, POLICIES["always at exit 1"](None), FRAMES, tmp_path, OPSET), threads=1)
    with pytest.raises(ValueError, match="exported for 6"):
        engine.run(clips[0][:-1])


def test_uncut_network_is_the_full_network(model, clips, uncut):
    network = UncutNetwork(uncut, threads=1)
    for clip in clips[:5]:
        with torch.inference_mode():
            features = model.full_features(torch.from_numpy(clip)[None])
            expected = model.readout.prefix_logits(features, 0)[0, -1]
        np.testing.assert_allclose(network.run(clip), expected, atol=1e-4)


def test_parity_and_measured_times(model, clips, middle, uncut, tmp_path):
    engine = Engine(export(model, middle, FRAMES, tmp_path, OPSET), threads=1)
    network = UncutNetwork(uncut, threads=1)

    found = parity(engine, network, model, middle, clips[:4], paths=[None] * 4)
    assert found.clips == found.same == 4
    assert found.features < 1e-4
    assert found.logits < 1e-4

    times = measure(engine, network, clips[:4], [None] * 4, warmup=6, repeats=2)
    assert set(zip(times["system"], times["video"], times["repeat"], strict=True)) == {
        (system, video, repeat) for system in (FULL, REAL, IDEAL) for video in range(4) for repeat in range(2)
    }
    assert len(times) == 24
    assert (times["network"] > 0).all()
    assert (times["milliseconds"] > times["network"]).all()

    summary = percentiles(times)
    assert list(summary.index) == [FULL, REAL, IDEAL]
    assert list(summary.columns) == ["p50", "p90", "p99"]
    assert (summary["p50"] <= summary["p90"]).all() and (summary["p90"] <= summary["p99"]).all()
    assert 0 < ratios(times)["outside_network"] < 1


def test_ratios_are_of_medians():
    milliseconds = {FULL: [10.0, 20.0, 90.0], REAL: [1.0, 5.0, 40.0], IDEAL: [2.0, 4.0, 6.0]}
    network = {FULL: [9.0, 19.0, 80.0], REAL: [0.5, 4.5, 32.0], IDEAL: [1.0, 3.0, 5.0]}
    times = pd.concat(
        pd.DataFrame({"system": name, "milliseconds": milliseconds[name], "network": network[name]})
        for name in (FULL, REAL, IDEAL)
    )
    assert ratios(times) == pytest.approx({"real_to_ideal": 1.25, "real_to_full": 0.25, "outside_network": 0.2})
    assert percentiles(times).loc[FULL, "p50"] == 20.0


def test_decoding_is_timed_apart():
    videos = sorted((ROOT / "data" / "UCF-101").rglob("*.mp4"))[:2]
    if not videos:
        pytest.skip("the demo clips are not here")
    times = time_decoding(videos, Sampling(4), evaluation_transform(64))
    assert times["video"].tolist() == [video.name for video in videos]
    assert (times[["decode", "resize"]] > 0).all(axis=None)
