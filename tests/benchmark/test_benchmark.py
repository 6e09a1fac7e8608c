"""The benchmark: its numbers, policies and memory measurement."""

import math
import time

import numpy as np
import pandas as pd
import pytest
import torch
from support.small import COSTS, T, in_place_of_resnet18, random_features, random_network, small_params

from tlee import benchmark
from tlee.benchmark import evaluation, inputs, measuring, random_weights
from tlee.benchmark.evaluation import SEVERAL_LABELS, Workload
from tlee.benchmark.training import time_training
from tlee.edge.bundle import Watched
from tlee.levels import NEVER
from tlee.params import Params, load_params
from tlee.policies.inference import run
from tlee.policies.sources import StoredFeatures


@pytest.fixture(scope="module")
def table(root) -> pd.DataFrame:
    """The benchmark of a network of five layers, on 4 frames of 16 pixels."""

    def small(name: str) -> Params:
        return small_params(backbone=name)

    with pytest.MonkeyPatch.context() as patch, in_place_of_resnet18():
        patch.setattr(benchmark, "_params", small)
        patch.setattr(evaluation, "_alone", evaluation.run_workload)  # not in a process of its own
        sizes = {"num_videos": 4, "num_replayed": 70, "num_policies": 40}
        sizes |= {"num_stored": 1000, "num_loaded": 16, "num_steps": 2}
        several = Workload("several", (40, 80), 6, 2, frames=3, exits=1, width=4, overrides=SEVERAL_LABELS)
        return benchmark.benchmark(["resnet18"], **sizes, evaluated=[several])


@pytest.mark.slow
def test_the_numbers_are_consistent(table):
    found = table.set_index(["part", "quantity"])["value"]
    network = found["resnet18"]
    shares = [network[f"share of frames left at depth {depth}"] for depth in range(3)]
    assert sum(shares) == pytest.approx(1)
    assert network["share of clips with the same exits and label as PyTorch"] == 1
    runtimes = "PyTorch", "ONNX Runtime"
    errors = [network[f"largest logit error of {runtime}, to double precision"] for runtime in runtimes]
    difference = network["largest logit difference between ONNX Runtime and PyTorch"]
    assert 0 <= difference <= sum(errors) + 1e-5  # logits of the bundle have six digits
    assert all(0 < error < 1e-4 for error in errors)
    parts = [quantity.removeprefix("share of time in ") for quantity in network.index if "share of time" in quantity]
    assert {"readouts", "loop"} < set(parts)
    assert not any("chunk" in part for part in parts)
    assert 0 <= network["share of frames wasted by chunks"] < 1
    replay = found["replay"]
    assert replay["feature table (MB)"] == pytest.approx(70 * T * 3 * 12 * 4 / 1e6, rel=0.01)
    assert replay["policies"] == 40
    one_policy = replay["one policy of the sweep / one pass of the full network"]
    assert replay["sweep / one pass of the full network"] == pytest.approx(40 * one_policy)
    loaded = found["input"]
    cores, each = loaded["cores that feed 3000 images/s"], loaded["frames/s of each worker, with one per core"]
    assert cores * each == pytest.approx(3000 / inputs.LOAD)
    assert 0 < loaded["share of time waited, at 3000 images/s"] < 1
    assert (loaded > 0).all()
    trained = found["training"]
    rates = trained["frames/s on clips that are on the device"], trained["frames/s from stored frames"]
    assert trained["time from stored frames / on the device"] == pytest.approx(rates[0] / rates[1])
    assert min(rates) > 0
    ratios = network[network.index.str.contains(" / ")]
    assert len(ratios) == 6
    assert (ratios > 0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_waits_little_for_its_input(root, monkeypatch):
    monkeypatch.chdir(root)
    _, _, slowdown, _, _, limit = time_training(benchmark._params("resnet50"))[-1]
    assert slowdown < limit


@pytest.mark.slow
def test_stage_5_grows_with_the_number_of_videos(table):
    found = table[table["part"] == "evaluation, several"].set_index("quantity")["value"]
    small, large = (found[f"processor time, {videos} videos (s)"] for videos in (40, 80))
    assert found["growth of time a video, 40 to 80 videos"] == pytest.approx(large / small / 2)
    assert found["growth of memory a video, 40 to 80 videos"] > 0


@pytest.mark.slow
def test_a_large_store_is_opened(table):
    found = table[table["part"] == "frame store"].set_index("quantity")
    assert found.at["videos", "value"] == 1000
    assert found.at["index (MB)", "value"] == pytest.approx(1000 * 200 / 1e6, rel=0.5)
    assert 0 < found.at["time to open it (s)", "value"] < found.at["time to open it (s)", "target"]


@pytest.mark.slow
def test_the_markdown_has_one_line_per_number(table):
    lines = benchmark.markdown(table).splitlines()
    assert len(lines) == len(table) + 2
    assert "at most 1.15" in next(line for line in lines if "real exits / ideal" in line)
    assert "nan" not in benchmark.markdown(table)


def test_the_policy_takes_all_exits_and_is_away_from_all_scores():
    with in_place_of_resnet18():
        model = random_network(small_params())
    features = random_features(videos=12, width=12)
    policy = random_weights.mixed_policy(model, features, COSTS)
    watched = Watched(policy)
    exit_depths = run(StoredFeatures(features), model.readout, watched, COSTS).exit_depths
    assert set(exit_depths.unique().tolist()) == {-1, 0, 1, 2}
    assert len((exit_depths >= 0).sum(1).unique()) > 1
    assert watched.margin > random_weights.MIN_MARGIN


def test_thresholds_are_in_the_widest_gap():
    values = torch.tensor([0.1, 0.2, 0.6, 0.7])
    odds = math.log(0.2 / 0.8) + math.log(0.6 / 0.4)
    assert random_weights._threshold(values, 0.5) == pytest.approx(1 / (1 + math.exp(-odds / 2)))
    assert random_weights._threshold(values, 1.2) == NEVER


def test_memory_is_measured_even_if_it_was_free_before():
    def allocate() -> list[np.ndarray]:
        return [np.ones(1000) for _ in range(8000)]

    allocate()
    with measuring.measure_memory() as memory:
        held = allocate()
        time.sleep(0.1)
    size = sum(each.nbytes for each in held)
    assert not memory.is_known or 0.9 * size < memory.added < 2 * size


def test_networks_have_224_pixels_ten_frames_and_three_branches(root, monkeypatch):
    monkeypatch.chdir(root)
    params = benchmark._params("resnet50")
    assert (params.model.input_size, params.extract.frames, params.model.num_branches) == (224, 10, 3)
    assert params.model.weights is None
    assert params.model_copy(update={"model": load_params().model, "extract": load_params().extract}) == load_params()
