"""The bundle, and the runner that checks and times it."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.bundles import TENSORRT_8_2, as_pixels, bundle_of, operators
from support.margins import WIDE, policy_amid
from support.small import T, random_clips, random_network, small_params

from tlee.costs import count_costs
from tlee.edge import runner as jetson
from tlee.edge.bundle import expect, pixels
from tlee.edge.latency import parity
from tlee.model import TLEE
from tlee.policies.given import RandomExits
from tlee.policies.inference import run
from tlee.policies.sources import LiveFeatures
from tlee.policies.thresholds import Thresholds

pytestmark = pytest.mark.usefixtures("five_layer_backbone")  # a small backbone stands for all
VIDEOS = 4


@pytest.fixture
def model() -> TLEE:
    return random_network(small_params())


@pytest.fixture
def policy(model: TLEE) -> Thresholds:
    return policy_amid(model, as_pixels(random_clips(model, VIDEOS)))


@pytest.fixture
def folder(model: TLEE, policy: Thresholds, tmp_path: Path) -> Path:
    return bundle_of(model, policy, tmp_path / "bundle", VIDEOS)


def manifest(folder: Path) -> dict:
    return json.loads((folder / "bundle.json").read_text())


def change(folder: Path, video: int, **values: object) -> None:
    """Let the bundle expect something else of a video."""
    about = manifest(folder)
    about["videos"][video] |= values
    (folder / "bundle.json").write_text(json.dumps(about))


# --- what is in it -------------------------------------------------------------------------------------


def test_frames_are_kept_to_the_last_bit(model):
    clips = as_pixels(random_clips(model, VIDEOS))
    for clip in clips:
        frames = pixels(clip)
        assert frames.shape == (T, 16, 16, 3)
        assert np.array_equal(jetson.prepare(frames), clip.numpy())


def test_frames_of_short_clips_keep_their_order():
    clip = torch.arange(2 * 3 * 5 * 4 * 4).reshape(2, 3, 5, 4, 4) % 256 / 255
    assert pixels(clip).shape == (2, 5, 4, 4, 3)
    assert np.array_equal(jetson.prepare(pixels(clip)), clip.numpy())


def test_it_says_what_is_run_and_what_must_come_out(model, policy, folder):
    about, costs = manifest(folder), count_costs(model)
    assert about["classes"] == ["a", "b", "c"]
    assert about["preprocessing"]["frames"] == [2, 0, 3, 1]
    assert about["preprocessing"]["centre_crop"] == 16
    assert about["timing"] == {"threads": 1, "warmup": 20, "repeats": 3}
    assert len(about["looks"]) == T
    assert about["looks"][1][0]["leave"] == policy.layer[0]
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


@pytest.mark.parametrize("opset", [11, 12])
def test_older_operators_will_do(policy, tmp_path, opset):
    model = random_network(small_params({"latency.opset": opset, "latency.int8": False}))
    folder = bundle_of(model, policy, tmp_path, VIDEOS)
    for path in folder.glob("*.onnx"):
        assert [entry.version for entry in onnx.load(path).opset_import] == [opset]
    assert jetson.check(jetson.Runner(folder, "onnxruntime"))["same"] == VIDEOS
    assert operators(folder) <= TENSORRT_8_2


def test_the_margin_is_the_smallest_distance_in_log_odds(model):
    """One threshold, at the first exit of the first frame, which stops the video or decides nothing."""
    clip, costs = as_pixels(random_clips(model, 1))[0], count_costs(model)
    with torch.no_grad():
        logits = model.readout.classify(model.exit_features(clip[None])[0, 0, 0], 0)
    confidence = logits.softmax(-1).max().item()
    first, second = sorted(logits.tolist())[:-3:-1]
    for threshold in (confidence - 0.01, confidence - 0.1):
        stops = Thresholds((1.0,) * 2, (threshold, 1.0, 1.0), (1.0,) * 3, (1.0,) * 3)
        expected = expect(model, stops, clip, costs, None)
        distance = math.log(confidence / (1 - confidence)) - math.log(threshold / (1 - threshold))
        assert expected["exit_depths"] == [0, -1, -1, -1]
        assert expected["margin"] == pytest.approx(min(distance, first - second), abs=1e-4)


# --- checking ------------------------------------------------------------------------------------------


def test_what_pytorch_expects_comes_out(model, folder):
    runner = jetson.Runner(folder, "onnxruntime")
    found = parity(runner, model, jetson.check(runner))
    assert (found.clips, found.same) == (VIDEOS, VIDEOS)
    assert max(found.features, found.logits) < 1e-4


def test_random_exits_are_checked_too(tmp_path):
    model = random_network(small_params(method="random"))
    folder = bundle_of(model, RandomExits(0.3, seed=0), tmp_path, VIDEOS)
    paths = RandomExits(0.3, seed=0).exit_depths(VIDEOS, T, model.num_exits).tolist()
    assert [video["exit_depths"] for video in manifest(folder)["videos"]] == paths
    assert jetson.check(jetson.Runner(folder, "onnxruntime"))["same"] == VIDEOS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"exit_depths": [0, 0, 0, 0], "margin": 9.0},
            r"^wrong result, nothing is timed: exit_depths of 1\.mp4 are .*\[0, 0, 0, 0\]",
        ),
        ({"label": 7, "margin": 9.0}, r"^wrong result, nothing is timed: label of 1\.mp4 are \d, expected 7"),
        (
            {"logits": [9.0, 0.0, 0.0]},
            r"^wrong result, nothing is timed: logits of 1\.mp4 are .* off, expected at most",
        ),
    ],
)
def test_a_wrong_result_is_an_error(folder, values, message):
    change(folder, 1, **values)
    with pytest.raises(jetson.RunnerError, match=message):
        jetson.check(jetson.Runner(folder, "onnxruntime"))


@pytest.mark.parametrize("values", [{"exit_depths": [0, 0, 0, 0]}, {"label": 7}])
def test_near_a_threshold_a_video_may_come_out_otherwise(folder, values):
    change(folder, 1, margin=WIDE, **values)
    found = jetson.check(jetson.Runner(folder, "onnxruntime"))
    assert (found["clips"], found["same"]) == (VIDEOS, VIDEOS - 1)


@pytest.mark.parametrize("name", ["prefix0.onnx", "clips.npy", "readout_first.onnx"])
def test_a_damaged_file_is_named(folder, name):
    with (folder / name).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    with pytest.raises(jetson.RunnerError, match=rf"{name} is not the file that was exported: copy the bundle again"):
        jetson.check(jetson.Runner(folder, "onnxruntime"))


def test_a_missing_file_is_named(folder):
    (folder / "prefix1.onnx").unlink()
    with pytest.raises(jetson.RunnerError, match=r"prefix1\.onnx cannot be read \(No such file"):
        jetson.Runner(folder, "onnxruntime")


@pytest.mark.parametrize("content", [None, "{"])
def test_a_folder_without_a_bundle_is_named(tmp_path, content):
    if content:
        (tmp_path / "bundle.json").write_text(content)
    with pytest.raises(jetson.RunnerError, match=r"holds no readable bundle\.json"):
        jetson.Bundle(tmp_path)


# --- timing --------------------------------------------------------------------------------------------


def test_every_system_is_timed_on_every_video(folder):
    times = jetson.measure(jetson.Runner(folder, "onnxruntime"), warmup=6, repeats=2)
    assert tuple(times) == jetson.COLUMNS
    rows = list(zip(*times.values(), strict=True))
    systems = ["full", "full, one batch", "depth 0", "depth 1", "real, chunked", "real", "ideal"]
    assert [row[:3] for row in rows] == [
        (system, video, repeat) for repeat in range(2) for video in range(VIDEOS) for system in systems
    ]
    frames = [sum(depth >= 0 for depth in video["exit_depths"]) for video in manifest(folder)["videos"]]
    for system, video, _, count, total, network, preparation in rows:
        needed = {"real": frames[video], "ideal": frames[video], "real, chunked": max(frames[video], 3)}
        assert count == needed.get(system, T)
        assert total > network > 0
        assert preparation > 0
