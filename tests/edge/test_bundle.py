"""The bundle, and the checks and times of the runner."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.bundles import TENSORRT_8_2, as_pixels, bundle_of, operators, small_bundle
from support.margins import WIDE, policy_amid
from support.small import T, in_place_of_resnet18, random_clips, random_network, small_params

from tlee.checksums import save_sealed
from tlee.costs import count_costs
from tlee.edge.bundle import expected_result, to_pixels
from tlee.edge.latency import measure_parity
from tlee.edge.runner import TIMES, Bundle, Runner, RunnerError, check_results, prepare_frames, time_systems
from tlee.model import TLEE
from tlee.policies.given import RandomExits
from tlee.policies.inference import run
from tlee.policies.sources import LiveFeatures
from tlee.policies.thresholds import Thresholds

pytestmark = pytest.mark.usefixtures("five_layer_backbone")  # a small backbone stands for all
VIDEOS = 4


@pytest.fixture(scope="module")
def model() -> TLEE:
    with in_place_of_resnet18():
        return random_network(small_params())


@pytest.fixture(scope="module")
def policy(model: TLEE) -> Thresholds:
    return policy_amid(model, as_pixels(random_clips(model, VIDEOS)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle of ``model`` and ``policy`` that a test may change."""
    return small_bundle(tmp_path / "bundle", VIDEOS)


def manifest(folder: Path) -> dict:
    return json.loads((folder / "bundle.json").read_text())


def change(folder: Path, video: int, **values: object) -> None:
    """Change the result that the bundle expects of a video."""
    about = manifest(folder)
    about["videos"][video] |= values
    save_sealed(folder / "bundle.json", about)


# --- contents -------------------------------------------------------------------------------------


def test_frames_are_stored_exactly(model):
    clips = as_pixels(random_clips(model, VIDEOS))
    for clip in clips:
        frames = to_pixels(clip)
        assert frames.shape == (T, 16, 16, 3)
        assert np.array_equal(prepare_frames(frames), clip.numpy())


def test_frames_of_short_clips_keep_their_order():
    clip = torch.arange(2 * 3 * 5 * 4 * 4).reshape(2, 3, 5, 4, 4) % 256 / 255
    assert to_pixels(clip).shape == (2, 5, 4, 4, 3)
    assert np.array_equal(prepare_frames(to_pixels(clip)), clip.numpy())


def test_the_manifest_names_the_exits_and_the_expected_results(model, policy, folder):
    about, costs, latency = manifest(folder), count_costs(model), model.params.latency
    assert about["classes"] == ["a", "b", "c"]
    assert about["preprocessing"]["frames"] == [2, 0, 3, 1]
    assert about["preprocessing"]["centre_crop"] == 16
    assert about["timing"] == {"threads": 1, "warmup": latency.warmup, "repeats": latency.repeats}
    assert len(about["exits"]) == T
    assert about["exits"][1][0]["layer"] == policy.layer[0]
    assert about["accumulate"] == "exit"
    for clip, video in zip(as_pixels(random_clips(model, VIDEOS)), about["videos"], strict=True):
        expected = run(LiveFeatures(model, clip), model.readout, policy, costs)
        assert video["exit_depths"] == expected.exit_depths[0].tolist()
        assert video["label"] == expected.predictions.item()
        assert video["logits"] == pytest.approx(expected.logits[0].tolist(), rel=1e-4)
    listed = set(about["files"]) | {"bundle.json"}
    assert listed == {path.name for path in folder.iterdir()}


def test_the_same_export_is_the_same_bundle_and_another_policy_another(model, policy, folder, tmp_path):
    again = bundle_of(model, policy, tmp_path / "again", VIDEOS)
    for path in folder.glob("*.onnx"):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    other = bundle_of(model, Thresholds.never(3), tmp_path / "other", VIDEOS)
    assert manifest(again)["id"] == manifest(folder)["id"] != manifest(other)["id"]


@pytest.mark.slow
@pytest.mark.parametrize("opset", [11, 12])
def test_older_operator_sets_give_the_same_results(policy, tmp_path, opset):
    model = random_network(small_params({"latency.opset": opset, "latency.int8": False}))
    folder = bundle_of(model, policy, tmp_path, VIDEOS)
    for path in folder.glob("*.onnx"):
        assert [entry.version for entry in onnx.load(path).opset_import] == [opset]
    assert check_results(Runner(folder, "onnxruntime")).same == VIDEOS
    assert operators(folder) <= TENSORRT_8_2


def test_the_margin_is_the_smallest_distance_in_log_odds(model):
    """There is one threshold, at the first exit of the first frame, which stops the video or decides nothing."""
    clip, costs = as_pixels(random_clips(model, 1))[0], count_costs(model)
    with torch.no_grad():
        logits = model.readout.classify(model.exit_features(clip[None])[0, 0, 0], 0)
    confidence = logits.softmax(-1).max().item()
    first, second = sorted(logits.tolist())[:-3:-1]
    for threshold in (confidence - 0.01, confidence - 0.1):
        stops = Thresholds((1.0,) * 2, (threshold, 1.0, 1.0), (1.0,) * 3, (1.0,) * 3)
        expected = expected_result(model, stops, clip, costs, None)
        distance = math.log(confidence / (1 - confidence)) - math.log(threshold / (1 - threshold))
        assert expected["exit_depths"] == [0, -1, -1, -1]
        assert expected["margin"] == pytest.approx(min(distance, first - second), abs=1e-4)


# --- checking ------------------------------------------------------------------------------------------


def test_onnx_runtime_agrees_with_pytorch(model, folder):
    runner = Runner(folder, "onnxruntime")
    parity = measure_parity(runner, model, check_results(runner))
    assert (parity.videos, parity.same) == (VIDEOS, VIDEOS)
    assert max(parity.max_feature_difference, parity.max_logit_difference) < 1e-4


@pytest.mark.slow
def test_random_exits_are_checked_too(tmp_path):
    model = random_network(small_params(method="random"))
    folder = bundle_of(model, RandomExits(0.3, seed=0), tmp_path, VIDEOS)
    given_exits = RandomExits(0.3, seed=0).exit_depths(VIDEOS, T, model.num_exits).tolist()
    assert [video["exit_depths"] for video in manifest(folder)["videos"]] == given_exits
    assert check_results(Runner(folder, "onnxruntime")).same == VIDEOS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"exit_depths": [0, 0, 0, 0], "margin": 9.0}, r"1\.mp4 .*exit_depths \[.*\], expected \[0, 0, 0, 0\]$"),
        ({"label": 7, "margin": 9.0}, r"1\.mp4 .*label \d, expected 7$"),
        ({"logits": [9.0, 0.0, 0.0]}, r"1\.mp4 .*logits .*, expected at most 0\.018$"),
    ],
)
def test_a_wrong_result_is_an_error(folder, values, message):
    change(folder, 1, **values)
    with pytest.raises(RunnerError, match=message):
        check_results(Runner(folder, "onnxruntime"))


@pytest.mark.parametrize("values", [{"exit_depths": [0, 0, 0, 0]}, {"label": 7}])
def test_near_a_threshold_a_result_may_differ(folder, values):
    change(folder, 1, margin=WIDE, **values)
    check = check_results(Runner(folder, "onnxruntime"))
    assert (check.videos, check.same) == (VIDEOS, VIDEOS - 1)


@pytest.mark.parametrize("name", ["prefix0.onnx", "clips.npy", "readout_first.onnx"])
def test_a_damaged_file_is_named(folder, name):
    with (folder / name).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    with pytest.raises(RunnerError, match=rf"{name} .*copy the bundle again$"):
        check_results(Runner(folder, "onnxruntime"))


def test_a_missing_file_is_named(folder):
    (folder / "prefix1.onnx").unlink()
    with pytest.raises(RunnerError, match=r"prefix1\.onnx .*\(No such file.*copy the bundle again$"):
        Runner(folder, "onnxruntime")


@pytest.mark.parametrize("content", [None, "{"])
def test_a_folder_without_a_bundle_is_named(tmp_path, content):
    if content:
        (tmp_path / "bundle.json").write_text(content)
    with pytest.raises(RunnerError, match=r"bundle\.json .*copy the bundle again$"):
        Bundle(tmp_path)


# --- timing --------------------------------------------------------------------------------------------


def test_every_system_is_timed_on_every_video(folder):
    times = time_systems(Runner(folder, "onnxruntime"), warmup=6, repeats=2)
    assert tuple(times) == TIMES
    rows = list(zip(*times.values(), strict=True))
    systems = ["full", "full_batch", "depth_0", "depth_1", "real_chunked", "real", "ideal"]
    assert [row[:3] for row in rows] == [
        (system, video, repeat) for repeat in range(2) for video in range(VIDEOS) for system in systems
    ]
    frames = [sum(depth >= 0 for depth in video["exit_depths"]) for video in manifest(folder)["videos"]]
    for system, video, _, count, total, in_graphs, preparation in rows:
        needed = {"real": frames[video], "ideal": frames[video], "real_chunked": max(frames[video], 3)}
        assert count == needed.get(system, T)
        assert total > in_graphs > 0
        assert preparation > 0
