"""Policies with values: exported and run on any backend, they decide as in PyTorch."""

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from support.bundles import (
    TENSORRT_8_2,
    as_pixels,
    bundle_of,
    engine_of,
    operators,
    segment_and_head_runs,
    values_amid,
)
from support.refusals import one_line
from support.small import T, in_place_of_resnet18, random_clips, random_network, small_params

from tlee.checksums import save_sealed
from tlee.costs import count_costs
from tlee.edge.bundle import expected_result
from tlee.edge.graphs import compile_policy
from tlee.edge.margins import MAX_MARGIN, Watched, value_margins
from tlee.edge.quantise import quantise
from tlee.edge.runner import Bundle, Runner, RunnerError, check_results, take_turns
from tlee.levels import NEVER
from tlee.model import TLEE
from tlee.modules import REUSES
from tlee.policies.evidence import NUM_EVIDENCE, evidence
from tlee.policies.inference import run
from tlee.policies.optimal_stopping import NO_CHOICE, OptimalStopping, decision_scores
from tlee.policies.policy import Observation
from tlee.policies.sources import LiveFeatures

VIDEOS = 12

#: Exits in use of each frame, which differ in their number and in where they end.
SOME_EXITS = [(0, 2), (0, 1), (1, 2), (0, 1)]

five_layers = pytest.mark.usefixtures("five_layer_backbone")  # a small backbone stands for all


class Recorded(Watched):
    """A policy that records the scores of the exits where it decides something."""

    def __init__(self, policy: OptimalStopping):
        super().__init__(policy)
        self.scores: dict[tuple[int, int], np.ndarray] = {}

    def _note(self, seen: Observation) -> None:
        self.scores[seen.t, seen.b] = self.policy.scores(seen)[0].numpy()

    def stop_video(self, seen: Observation) -> torch.Tensor:
        self._note(seen)
        return super().stop_video(seen)

    def leave_frame(self, seen: Observation) -> torch.Tensor:
        self._note(seen)
        return super().leave_frame(seen)


@torch.inference_mode()
def check_engine(model: TLEE, folder: Path, used: list | None = None, videos: int = 16) -> Counter[int]:
    """Compare the engine with PyTorch, and count the depths at which frames are left (-1: not processed)."""
    clips, costs = random_clips(model, videos), count_costs(model)
    policy = values_amid(model, clips, used)
    engine, taken = engine_of(model, policy, folder), Counter()
    exits = [[each.segments.depth for each in frame] for frame in compile_policy(policy, model, T)]
    for clip in clips:
        source, recorded = LiveFeatures(model, clip), Recorded(policy)
        expected = run(source, model.readout, recorded, costs)
        for chunked in (False, engine.chunk is not None, False):  # nothing is left of the video before
            decision = engine.run(clip.numpy(), chunked=chunked)
            assert decision.exit_depths == expected.exit_depths[0].tolist()
            assert decision.logits.argmax() == expected.predictions.item()
            np.testing.assert_allclose(decision.logits, expected.logits[0], atol=1e-4, rtol=1e-4)
        runs = segment_and_head_runs(decision.segments_run, model.num_exits)
        assert runs == (source.segment_runs, source.head_runs)
        frames = enumerate(zip(exits, decision.exit_depths, strict=True))
        evaluated = [(t, b) for t, (depths, left) in frames for b in depths if b <= left]
        found = dict(zip(evaluated, decision.scores, strict=True))
        assert recorded.scores.keys() <= found.keys()
        for exit_, scores in recorded.scores.items():
            assert found[exit_] == pytest.approx(scores, abs=1e-4, rel=1e-4)
        taken.update(decision.exit_depths)
    return taken


# --- decisions -------------------------------------------------------------------------------------------


@five_layers
@pytest.mark.slow
@pytest.mark.parametrize(("reuse", "accumulate"), list(zip(REUSES, cycle(("exit", "visited", "published")))))
def test_every_reuse(reuse, accumulate, tmp_path):
    """Each with one way of accumulating; ``test_network_kinds`` combines all, without values."""
    model = random_network(small_params(reuse=reuse, accumulate=accumulate))
    assert set(check_engine(model, tmp_path / "all")) == {-1, 0, 1, 2}
    assert set(check_engine(model, tmp_path / "some", SOME_EXITS)) == {-1, 0, 1, 2}


@five_layers
@pytest.mark.parametrize("accumulate", ["exit", pytest.param("published", marks=pytest.mark.slow)])
def test_one_exit_a_frame(accumulate, tmp_path):
    model = random_network(small_params(accumulate=accumulate))
    assert set(check_engine(model, tmp_path, [(2,), (0,), (1,), (1,)])) == {-1, 0, 1, 2}


@five_layers
@pytest.mark.parametrize("classes", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_other_numbers_of_classes(classes, tmp_path):
    assert set(check_engine(random_network(small_params(), classes), tmp_path)) == {-1, 0, 1, 2}


@five_layers
@pytest.mark.parametrize(
    "settings",
    [
        {"dataset.labels": "multi"},
        pytest.param({"model.readout": "per_step"}, marks=pytest.mark.slow),
        {"model.readout": "per_step", "model.accumulate": "visited"},
        {"model.gate": "confidence"},
        pytest.param({"latency.opset": 11, "latency.int8": False}, marks=pytest.mark.slow),
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_other_settings(settings, tmp_path):
    assert set(check_engine(random_network(small_params(settings)), tmp_path)) == {-1, 0, 1, 2}


@pytest.mark.slow
def test_the_temporal_shift(tmp_path):
    model = random_network(small_params(backbone="mobilenet_v2_tsm", input_size=32, num_branches=2, crm_scale=3))
    assert set(check_engine(model, tmp_path, videos=8)) == {-1, 0, 1, 2}


# --- graphs ----------------------------------------------------------------------------------------------


def readouts(accumulate: str, used: list | None = None) -> list[list[str]]:
    model = random_network(small_params(accumulate=accumulate))
    policy = values_amid(model, random_clips(model), used)
    return [[each.readout.name for each in frame] for frame in compile_policy(policy, model, T)]


@five_layers
def test_all_exits_of_later_frames_share_a_readout():
    first, later = "readout_first_values", "readout_later_compared"
    assert readouts("exit") == [[first] * 3, *[[later] * 3] * 3]
    assert readouts("visited") == [[first, *["readout_later_values"] * 2], *[[later] * 3] * 3]
    assert readouts("published") == [[first] * 3, [later] * 3, [later] * 3, [later]]


@five_layers
def test_a_graph_that_any_frame_continues_from_is_the_same_at_all_frames():
    model = random_network(small_params())
    policy = values_amid(model, random_clips(model), [(0,), (0, 1), (0, 2), (0,)])
    exits = compile_policy(policy, model, T)
    assert len({each.segments for frame in exits for each in frame}) == 3
    assert [[each.segments.ends for each in frame] for frame in exits] == [
        [False],
        [False, True],
        [False, True],
        [False],
    ]
    thresholds = [[(each.stop, each.gate, each.layer) for each in frame] for frame in exits]
    assert thresholds[0] == [(NEVER, 0.0, NEVER)]  # the last exit of a frame always leaves it
    assert thresholds[1] == [(NEVER, 0.0, 0.0), (NEVER, 0.0, NEVER)]
    assert thresholds[3] == [(NEVER, NEVER, NEVER)]  # the last frame always stops the video


# --- the bundle ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with in_place_of_resnet18():
        model = random_network(small_params())
        policy = values_amid(model, as_pixels(random_clips(model, VIDEOS)))
        return bundle_of(model, policy, tmp_path_factory.mktemp("values"), VIDEOS)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_a_bundle_is_checked_and_timed(made, backend):
    runner = Runner(made, backend)
    assert check_results(runner).same == VIDEOS
    assert len({tuple(video["exit_depths"]) for video in runner.bundle.videos}) > 3
    assert all(timing.seconds > 0 for timing in take_turns(runner, 0))


@five_layers
@pytest.mark.parametrize("opset", [11, pytest.param(13, marks=pytest.mark.slow)])
def test_tensorrt_can_read_the_graphs_of_any_operator_set(opset, tmp_path):
    model = random_network(small_params({"latency.opset": opset, "latency.int8": False}, accumulate="visited"))
    folder = bundle_of(model, values_amid(model, as_pixels(random_clips(model, 4))), tmp_path)
    assert operators(folder) <= TENSORRT_8_2
    assert {runner: check_results(Runner(folder, runner)).same for runner in ("onnxruntime", "torch")} == {
        "onnxruntime": 4,
        "torch": 4,
    }


def test_a_bundle_in_int8_has_the_same_values(folder):
    clips = [Bundle(folder).clip(video) for video in range(4)]
    eight = Runner(quantise(folder, clips), "onnxruntime")
    assert check_results(eight).same == VIDEOS
    assert eight.bundle.program["exits"] == Bundle(folder).program["exits"]
    assert all(0 <= video["margin"] < MAX_MARGIN for video in eight.bundle.videos)
    margins = [[video["margin"] for video in bundle.videos] for bundle in (eight.bundle, Bundle(folder))]
    assert np.corrcoef(*margins)[0, 1] > 0.5  # the same decisions are close


@pytest.mark.slow
def test_other_values_are_another_bundle(made, tmp_path):
    with in_place_of_resnet18():
        model = random_network(small_params())
        policy = values_amid(model, as_pixels(random_clips(model, VIDEOS)))
        ((answer, *others), *exits), *frames = policy.values
        raised = (((answer[0] + 0.01, *answer[1:]), *others), *exits)
        folder = bundle_of(model, replace(policy, values=(raised, *frames)), tmp_path, VIDEOS)
    assert Bundle(folder).program["id"] != Bundle(made).program["id"]


VALUES = [[0.0] * NUM_EVIDENCE] * 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("values", VALUES[:2]),
        ("values", [row[1:] for row in VALUES]),
        ("values", [*VALUES[:2], VALUES[0][1:]]),
        ("values", [*VALUES[:2], [math.nan] * NUM_EVIDENCE]),
        ("values", [*VALUES[:2], [1e300] * NUM_EVIDENCE]),
        ("values", [*VALUES[:2], ["a\nb"] * NUM_EVIDENCE]),
        ("values", [*VALUES[:2], [None] * NUM_EVIDENCE]),
        ("values", {"answer": 1}),
        ("values", 1),
        ("gate", "a"),
        ("gate", None),
        ("readout", "nothing"),
        ("segments", ["a"]),
    ],
    ids=str,
)
def test_an_exit_that_cannot_be_run_is_one_line(folder, key, value):
    about = json.loads((folder / "bundle.json").read_text())
    about["exits"][1][0][key] = value
    save_sealed(folder / "bundle.json", about)
    one_line(lambda: Runner(folder, "onnxruntime"), folder / "bundle.json", "export it again", error=RunnerError)


def test_an_exit_that_lacks_a_threshold_is_one_line(folder):
    about = json.loads((folder / "bundle.json").read_text())
    del about["exits"][1][0]["gate"]
    save_sealed(folder / "bundle.json", about)
    one_line(lambda: Runner(folder, "onnxruntime"), folder / "bundle.json", "export it again", error=RunnerError)


# --- margins ---------------------------------------------------------------------------------------------


def test_the_margin_of_a_value_of_the_log_odds_by_hand():
    """Answering is worth the confidence p, with the slope p (1 - p) in log-odds, and the next frame 0.75."""
    confidence = torch.tensor([0.6, 0.7, 0.9])
    probabilities = torch.stack([confidence, 1 - confidence], dim=1)
    answer = (0.0, 1.0) + (0.0,) * (NUM_EVIDENCE - 2)
    onward = (0.75,) + (0.0,) * (NUM_EVIDENCE - 1)
    for row, expected in enumerate([0.15 / 0.24, 0.05 / 0.21, 0.15 / 0.09]):
        leave, stop = value_margins(probabilities[row : row + 1], None, (answer, onward, NO_CHOICE))
        assert stop == pytest.approx(expected, abs=1e-4)
        assert leave == MAX_MARGIN  # deeper there is nothing
    assert value_margins(probabilities, None, (answer, onward, NO_CHOICE))[1] == pytest.approx(0.05 / 0.21, abs=1e-4)


@pytest.mark.parametrize(
    ("spread", "draws"), [(6.0, 200), *(pytest.param(spread, 800, marks=pytest.mark.slow) for spread in (1.0, 6.0))]
)
def test_no_decision_changes_by_less_than_its_margin(spread, draws):
    generator, changed, step = torch.Generator().manual_seed(0), 0, 0.05
    for _ in range(draws):
        values = torch.randn(3, NUM_EVIDENCE, generator=generator) / 5
        values[:, 0] = 0.5 + torch.randn(3, generator=generator) / 20
        logits = spread * torch.randn(2, 1, 5, generator=generator)
        nudged = logits + step * (torch.rand(200, 2, 1, 5, generator=generator) - 0.5)
        margins = value_margins(*logits.softmax(-1), values.tolist())
        scores = decision_scores(evidence(*logits.softmax(-1)), values)
        now, before = nudged.softmax(-1).movedim(1, 0).squeeze(2)
        moved = decision_scores(evidence(now, before), values)
        for decision in range(2):
            differs = bool(((moved > 0) != (scores > 0))[:, decision].any())
            changed += differs
            assert not differs or margins[decision] <= 1.2 * step
    assert changed > draws / 80


def test_rounding_of_a_certain_answer_is_no_margin():
    """Log-odds of 11 are rounded by 2**-23 (1 + exp(11)), or 0.007."""
    probabilities = torch.tensor([[11.0, -11.0]]).sigmoid()
    odds = float(evidence(probabilities, None)[0, 1])

    def margin(distance: float) -> float:
        answer, onward = (0.0, 0.1), (1 / (1 + math.exp(-0.1 * (odds + distance))),)
        values = tuple(row + (0.0,) * (NUM_EVIDENCE - len(row)) for row in (answer, onward, NO_CHOICE))
        return value_margins(probabilities, None, values)[1]

    assert margin(0.005) == margin(-0.005) == 0
    assert margin(0.107) == pytest.approx(0.1, abs=0.002)


@five_layers
def test_the_margin_of_a_video_is_of_the_decisions_that_it_takes():
    """The only choice is to stop at the first frame."""
    model = random_network(small_params())
    clip, costs = as_pixels(random_clips(model, 1))[0], count_costs(model)
    with torch.no_grad():
        logits = model.readout.classify(model.exit_features(clip[None])[0, 0, 0], 0)
    shown = evidence(logits.softmax(-1)[None], None)[0]
    first, second = sorted(logits.tolist())[:-3:-1]
    odds = float(shown[1])
    for distance in (0.01, -0.03, 50.0):
        answer, onward = (0.5, 0.01), (1 / (1 + math.exp(-0.5 - 0.01 * (odds - distance))),)
        rows = [row + (0.0,) * (NUM_EVIDENCE - len(row)) for row in (answer, onward)]
        stop = ((*rows, NO_CHOICE), None, None)
        never = ((rows[0], tuple(100 * weight for weight in rows[1]), NO_CHOICE), None, None)
        policy = OptimalStopping(0.1, (stop, *[never] * (T - 1)))
        expected = expected_result(model, policy, clip, costs, None)
        if distance > 0:
            assert expected["exit_depths"] == [0, -1, -1, -1]
            assert expected["margin"] == pytest.approx(min(distance, first - second), abs=1e-4)
        else:
            assert expected["exit_depths"] == [0] * T


def test_a_check_allows_only_decisions_that_are_close_to_differ(folder):
    about = json.loads((folder / "bundle.json").read_text())
    near, far = (choose(video["margin"] for video in about["videos"]) for choose in (_least, _most))
    for row, allowed in ((near, True), (far, False)):
        changed = json.loads(json.dumps(about))
        changed["videos"][row]["exit_depths"] = [2, 2, 2, 2]
        changed["videos"][row]["margin"] *= 1e-4 if allowed else 1
        save_sealed(folder / "bundle.json", changed)
        runner = Runner(folder, "onnxruntime")
        if allowed:
            assert check_results(runner).same == VIDEOS - 1
        else:
            one_line(lambda: check_results(runner), f"{row}.mp4", "exit_depths", error=RunnerError)  # noqa: B023


def _least(values) -> int:
    return int(np.argmin(list(values)))


def _most(values) -> int:
    return int(np.argmax(list(values)))
