"""Bundles in int8, and their comparison with single precision."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from support.bundles import OPSET, as_pixels, bundle_of
from support.margins import policy_amid
from support.small import CLASSES, T, in_place_of_resnet18, random_clips, random_network, small_params

from tlee.checksums import save_sealed
from tlee.edge.precisions import FP32, INT8, compare_precisions
from tlee.edge.quantise import quantise, record_inputs
from tlee.edge.runner import FULL, REAL, Bundle, Check, Runner, RunnerError, check_results
from tlee.model import TLEE
from tlee.policies.given import RandomExits
from tlee.policies.thresholds import Thresholds

VIDEOS = 12


def setting() -> tuple[TLEE, Thresholds, np.ndarray]:
    """A network, a policy with thresholds among its scores, and clips for calibration."""
    with in_place_of_resnet18():
        model = random_network(small_params({"latency.repeats": 1}))
        clips = as_pixels(random_clips(model, VIDEOS))
        return model, policy_amid(model, clips), clips.numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, policy, clips = setting()
    folder = bundle_of(model, policy, tmp_path_factory.mktemp("edge"), VIDEOS)
    quantise(folder, clips)
    return folder


def weights(path: Path) -> list[TensorProto]:
    """Weights of convolutions and linear layers in the file, without the mean and scale per channel of pixels."""
    return [each for each in onnx.load(path).graph.initializer if np.prod(each.dims) > max(each.dims, default=1)]


def test_weights_of_segments_are_int8_in_the_file_and_readouts_are_unchanged(folder):
    eight = folder / "int8"
    names = {path.name for path in folder.glob("*.onnx") if not path.name.startswith(("chunk", "batch"))}
    assert {path.name for path in eight.glob("*.onnx")} == names
    for name in names:
        if name.startswith(("segments", "prefix")):
            assert {weight.data_type for weight in weights(eight / name)} == {TensorProto.INT8}
            assert {weight.data_type for weight in weights(folder / name)} == {TensorProto.FLOAT}
        else:
            assert (eight / name).read_bytes() == (folder / name).read_bytes()


def test_graphs_declare_the_operator_set_of_onnx_and_no_other(folder):
    for path in (folder / "int8").glob("*.onnx"):
        assert [(each.domain, each.version) for each in onnx.load(path).opset_import] == [("", OPSET)]


def test_the_runner_gets_the_expected_results(folder):
    runner = Runner(folder / "int8", "onnxruntime")
    assert runner.backend.precision == "int8"
    assert check_results(runner) == Check(VIDEOS, VIDEOS, pytest.approx(0, abs=1e-4))


def test_it_is_another_bundle_with_mostly_the_same_decisions(folder):
    single, eight = (Bundle(path) for path in (folder, folder / "int8"))
    assert single.program["id"] != eight.program["id"]
    assert single.program["exits"] == eight.program["exits"]
    labels = [[video["label"] for video in bundle.videos] for bundle in (single, eight)]
    assert np.mean(np.equal(*labels)) >= 0.75
    logits = [np.array([video["logits"] for video in bundle.videos]) for bundle in (single, eight)]
    assert not np.array_equal(*logits)
    assert all(video["margin"] >= 0 for video in eight.videos)


def test_a_wrong_result_is_an_error(folder, tmp_path):
    copy = shutil.copytree(folder / "int8", tmp_path / "int8")
    about = json.loads((copy / "bundle.json").read_text())
    about["videos"][0] |= {"label": 7, "margin": 9.0}
    save_sealed(copy / "bundle.json", about)
    with pytest.raises(RunnerError, match=r"0\.mp4 .*label"):
        check_results(Runner(copy, "onnxruntime"))


@pytest.mark.parametrize(
    ("which", "backend", "precision", "message"),
    [
        ("int8", "torch", None, "^torch .*int8: use onnxruntime$"),
        ("int8", "tensorrt", None, "^tensorrt .*int8: use onnxruntime$"),
        ("int8", "onnxruntime", "fp32", "^onnxruntime .*int8, not in fp32$"),
        (".", "onnxruntime", "int8", "^onnxruntime .*fp32, not in int8$"),
    ],
)
def test_a_backend_or_precision_that_cannot_run_it_is_refused(folder, which, backend, precision, message):
    with pytest.raises(RunnerError, match=message):
        Runner(folder / which, backend, precision)


def test_calibration_runs_every_graph_on_every_frame(folder):
    _, _, clips = setting()
    bundle = Bundle(folder)
    recorded = record_inputs(bundle, clips[:2])
    assert {name for name in bundle.program["graphs"] if name.startswith(("segments", "prefix"))} == set(recorded)
    assert {name: len(calls) for name, calls in recorded.items() if name.startswith("prefix")} == {
        f"prefix{depth}": 2 * T for depth in range(3)
    }
    assert np.array_equal(recorded["prefix2"][T]["frame"], clips[1, :1])
    for name, calls in recorded.items():
        assert len(calls) >= 2 * T
        assert list(calls[0]) == bundle.program["graphs"][name]["inputs"]


@pytest.mark.slow
def test_random_exits_are_the_same_in_int8(tmp_path):
    model, _, clips = setting()
    folder = bundle_of(model, RandomExits(0.5, seed=0), tmp_path, 3)
    eight = Bundle(quantise(folder, clips[:2]))
    assert [video["exit_depths"] for video in eight.videos] == [video["exit_depths"] for video in Bundle(folder).videos]
    assert check_results(Runner(eight.folder, "onnxruntime")).same == 3


def test_precisions_are_compared_by_video(folder):
    model, _, _ = setting()
    runners = {FP32: Runner(folder, "onnxruntime"), INT8: Runner(folder / "int8", "onnxruntime")}
    labels = [video["label"] for video in runners[FP32].bundle.videos]
    truth = torch.nn.functional.one_hot(torch.tensor(labels), CLASSES).bool()  # so that fp32 is always correct
    found = compare_precisions(runners, model, truth, [str(row) for row in range(VIDEOS)], seed=0)
    table = found.table.set_index(["precision", "system"])
    assert list(table.index) == [(FP32, FULL), (FP32, REAL), (INT8, FULL), (INT8, REAL)]
    assert table.loc[(FP32, REAL), "accuracy"] == table.loc[(FP32, REAL), "same"] == 1
    eight = table.loc[(INT8, REAL)]
    pairs = zip(*(runner.bundle.videos for runner in runners.values()), strict=True)
    assert eight["same"] == np.mean([all(a[key] == b[key] for key in ("exit_depths", "label")) for a, b in pairs])
    assert eight["difference"] == pytest.approx(eight["accuracy"] - 1)
    assert eight["difference_low"] <= eight["difference"] <= eight["difference_high"]
    assert table["gmacs"][FP32, FULL] == table["gmacs"][INT8, FULL] > table["gmacs"][FP32, REAL]
    assert found.time_ratio(REAL) == pytest.approx(eight["p50"] / table.loc[(FP32, REAL), "p50"])
    both = [path.name for path in (folder / "int8").glob("*.onnx")]
    assert found.metrics["megabytes_fp32"] == sum((folder / name).stat().st_size for name in both) / 1e6
