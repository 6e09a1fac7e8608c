"""The benchmark: what its numbers are made of."""

import math
import time

import numpy as np
import pandas as pd
import pytest
import torch
from support.small import COSTS, T, in_place_of_resnet18, random_features, random_network, small_params

from tlee import benchmark
from tlee.benchmark import random_weights, sweeps
from tlee.edge.bundle import Watched
from tlee.levels import NEVER
from tlee.params import Params, load_params
from tlee.policies.inference import run
from tlee.policies.sources import StoredFeatures


@pytest.fixture(scope="module")
def table(root) -> pd.DataFrame:
    """Of a network of five layers, 16 pixels and 4 frames."""

    def small(name: str) -> Params:
        return small_params(backbone=name)

    with pytest.MonkeyPatch.context() as patch, in_place_of_resnet18():
        patch.setattr(benchmark, "_params", small)
        return benchmark.benchmark(["resnet18"], videos=4, replayed=70, points=40)


def test_it_tells_what_was_asked_for(table):
    found = table.set_index(["part", "what"])["value"]
    net = found["resnet18"]
    depths = [share for what, share in net.items() if what.startswith("frames left at depth")]
    assert len(depths) == 3
    assert sum(depths) == pytest.approx(1)
    assert net["clips with the exits and label of PyTorch, share"] == 1
    apart = net["largest difference of a logit to PyTorch"]
    rounded = net[net.index.str.startswith("rounding of")]
    assert list(rounded.index.str.extract(r"of (.*):", expand=False)) == ["PyTorch", "ONNX Runtime"]
    assert 0 <= apart <= rounded.sum() + 1e-5  # as the bundle's logits have six digits
    assert (rounded > 0).all()
    assert (rounded < 1e-4).all()
    parts = [what for what in net.index if what.startswith("time in")]
    assert {"time in readouts, share", "time in loop, share"} < set(parts)
    assert not any("chunk" in part for part in parts)
    assert 0 <= net["frames computed in vain by chunks, share"] < 1
    assert found["replay", "table, MB"] == pytest.approx(70 * T * 3 * 12 * 4 / 1e6, rel=0.01)
    assert found["replay", "policies"] == 40
    each = found["replay", "a policy of the sweep / one pass of the full network"]
    assert found["replay", "sweep / one pass of the full network"] == pytest.approx(40 * each)
    ratios = net[net.index.str.contains(" / ")]
    assert (ratios > 0).all()


def test_as_markdown_there_is_a_line_a_number(table):
    lines = benchmark.markdown(table).splitlines()
    assert len(lines) == len(table) + 2
    assert "at most 1.15" in next(line for line in lines if "real exits / ideal" in line)
    assert "nan" not in benchmark.markdown(table)


def test_the_policy_takes_all_exits_and_is_not_near_any_score():
    with in_place_of_resnet18():
        model = random_network(small_params())
    features = random_features(videos=12, width=12)
    policy = random_weights.mixed_policy(model, features, COSTS)
    watched = Watched(policy)
    exits = run(StoredFeatures(features), model.readout, watched, COSTS).exit_depths
    assert set(exits.unique().tolist()) == {-1, 0, 1, 2}
    assert len((exits >= 0).sum(1).unique()) > 1
    assert watched.margin > random_weights.CLEAR


def test_thresholds_lie_in_the_widest_gap():
    values = torch.tensor([0.1, 0.2, 0.6, 0.7])
    odds = math.log(0.2 / 0.8) + math.log(0.6 / 0.4)
    assert random_weights._amid(values, 0.5) == pytest.approx(1 / (1 + math.exp(-odds / 2)))
    assert random_weights._amid(values, 1.2) == NEVER


def test_memory_that_is_taken_is_seen_though_it_was_free_before():
    def take() -> list[np.ndarray]:
        return [np.ones(1000) for _ in range(8000)]

    take()
    with sweeps._memory() as memory:
        held = take()
        time.sleep(0.1)
    size = sum(each.nbytes for each in held)
    assert not memory.known or 0.9 * size < memory.added < 2 * size


def test_it_is_of_224_pixels_ten_frames_and_three_branches(root, monkeypatch):
    monkeypatch.chdir(root)
    params = benchmark._params("resnet50")
    assert (params.model.input_size, params.extract.frames, params.model.num_branches) == (224, 10, 3)
    assert params.model.weights is None
    assert params.model_copy(update={"model": load_params().model, "extract": load_params().extract}) == load_params()
