"""The estimate for a Jetson Nano, from published times and the work of networks."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.bundles import as_pixels, values_amid
from support.margins import policy_amid
from support.small import T, random_clips, random_network, small_params
from torch import nn

from tlee.costs import GIGA, count_costs
from tlee.edge.estimate import FILE, NETWORKS, UNITS, count_work, estimate_nano, fit_published, work_of_videos
from tlee.edge.graphs import Exportable, Program, compile_policy
from tlee.model import TLEE
from tlee.policies.given import RandomExits
from tlee.policies.inference import follow, run
from tlee.policies.sources import LiveFeatures
from tlee.policies.thresholds import Thresholds

VIDEOS = 4
SHARED = Path(__file__).parents[3] / "shared" / "published" / "jetson_nano.csv"


def test_the_work_of_layers_by_hand():
    """Convolve 3 x 6 x 6 by 3 x 3 kernels to 4 x 6 x 6, pool to 4 x 3 x 3, and map these 36 inputs to 5 outputs."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    result, found = count_work(network, partial(network, torch.zeros(1, 3, 6, 6)))
    assert result.shape == (1, 5)
    convolution, pooling, linear = 108 + 144 + (108 + 4), 144 + 36, 36 + 5 + (180 + 5)
    assert found.tolist() == [36 * 108 + 180, convolution + pooling + linear, 3]
    assert not any(layer._forward_hooks for layer in network)


# --- the device ----------------------------------------------------------------------------------------


def test_the_published_times_name_known_networks_and_their_source():
    table = pd.read_csv(FILE)
    assert set(table["model"]) == set(NETWORKS)
    assert set(table["unit"]) == {"frames_per_second", "milliseconds_per_frame"}
    assert table["source"].notna().all()
    if SHARED.exists():
        assert table.equals(pd.read_csv(SHARED))


def test_each_published_time_is_predicted_by_the_others_within_a_factor_of_two():
    fits = fit_published()
    assert len(fits) == 2 * len(NETWORKS)
    assert all((fit.rates >= 0).all() and fit.rates[0] > 0 for fit in fits)
    assert all(0.5 < fit.error < 2 for fit in fits)


def test_the_rates_of_an_exactly_linear_device_are_recovered(tmp_path):
    """It takes 2 ms per GMAC and 0.1 ms per MB: a fit to three of the networks predicts the fourth."""
    known = {}
    for name, build in NETWORKS.items():
        with torch.device("meta"):
            network, frame = build().eval(), torch.zeros(1, 3, 224, 224)
            known[name] = count_work(network, partial(network, frame))[1] / UNITS
    rows = [
        (name, 224, "TensorRT", "fp16", 2 * w[0] + 0.1 * 2 * w[1], "milliseconds_per_frame")
        for name, w in known.items()
    ]
    rows += [(name, 224, "PyTorch", "fp16", 1.0, "frames_per_second") for name in known]  # slower ones do not count
    path = tmp_path / "published.csv"
    pd.DataFrame(rows, columns=["model", "input", "runtime", "precision", "value", "unit"]).to_csv(path)
    for fit in fit_published(path):
        assert fit.rates == pytest.approx([2, 0.1, 0], abs=1e-6)
        assert fit.error == pytest.approx(1)
        assert fit.milliseconds(np.array([3, 5, 7])) == pytest.approx(2 * 3 + 0.1 * 2 * 5)


# --- the network ---------------------------------------------------------------------------------------


def program_of(model: TLEE, policy: Exportable, exit_depths: list[list[int]]) -> Program:
    """The parts of a bundle that define what runs."""
    return {
        "decides": not isinstance(policy, RandomExits),
        "accumulate": model.params.model.accumulate,
        "exits": [[each.program for each in exits] for exits in compile_policy(policy, model, T)],
        "videos": [{"exit_depths": each} for each in exit_depths],
    }


@pytest.mark.usefixtures("five_layer_backbone")
@pytest.mark.parametrize(
    ("accumulate", "reuse"),
    [("exit", "max"), ("exit", "attention"), ("visited", "attention"), ("published", "attention")],
)
@pytest.mark.parametrize("kind", [policy_amid, values_amid])
def test_work_equals_the_cost_of_the_policy(accumulate, reuse, kind):
    model = random_network(small_params(accumulate=accumulate, reuse=reuse))
    clips, costs = as_pixels(random_clips(model, VIDEOS)), count_costs(model)
    policy = kind(model, clips)
    outcomes = [run(LiveFeatures(model, clip), model.readout, policy, costs) for clip in clips]
    found = work_of_videos(model, program_of(model, policy, [each.exit_depths[0].tolist() for each in outcomes]))
    assert list(found) == ["full", "depth_0", "depth_1", "real", "ideal"]
    assert found["real"][:, 0] == pytest.approx([each.gmacs.item() for each in outcomes])
    assert found["full"][:, 0] == pytest.approx(costs.full_network(T) / GIGA)
    assert (found["ideal"] < found["real"]).all()
    depth = costs.segments[0] + costs.heads[0]
    assert found["depth_0"][:, 0] == pytest.approx((T * depth + (T - 1) * costs.reuse + costs.classifier) / GIGA)


@pytest.mark.usefixtures("five_layer_backbone")
def test_the_layers_of_given_exits_by_hand():
    """Segments have three, one and one convolutions, branches two linear layers, and the classifier is one."""
    model = random_network(small_params(branch="fc", reuse="max"))
    found = work_of_videos(model, program_of(model, Thresholds.never(3), [[1, 2, -1, -1], [0, -1, -1, -1]]))
    assert found["full"][:, 2].tolist() == [4 * 5 + 1] * 2
    assert found["depth_0"][:, 2].tolist() == [4 * (3 + 2) + 1] * 2
    assert found["depth_1"][:, 2].tolist() == [4 * (4 + 2) + 1] * 2
    assert found["ideal"][:, 2].tolist() == [(4 + 2) + 5, 3 + 2]


@pytest.mark.usefixtures("five_layer_backbone")
@pytest.mark.parametrize("accumulate", ["exit", "visited", "published"])
def test_work_of_random_exits_equals_the_cost_of_their_paths(accumulate):
    model, policy = random_network(small_params(method="random", accumulate=accumulate)), RandomExits(0.3, seed=0)
    clips, costs = random_clips(model, VIDEOS), count_costs(model)
    exit_depths = policy.exit_depths(VIDEOS, T, model.num_exits)
    found = work_of_videos(model, program_of(model, policy, exit_depths.tolist()))["real"]
    readouts = found[:, 0] - [
        follow(LiveFeatures(model, clip), model.readout, depths[None], costs).gmacs.item()
        for clip, depths in zip(clips, exit_depths, strict=True)
    ]
    every_exit = {"exit": (), "visited": range(T), "published": range(1, T)}[accumulate]  # steps where all run a head
    heads = (exit_depths >= 0).sum(1) + exit_depths[:, list(every_exit)].clamp(min=0).sum(1)
    assert readouts == pytest.approx((heads.numpy() - 1) * costs.classifier / GIGA)  # a readout always classifies


@pytest.mark.usefixtures("five_layer_backbone")
def test_the_estimate_is_within_its_range_and_grows_with_the_work():
    model = random_network(small_params())
    exit_depths = [[0, -1, -1, -1], [2, 2, -1, -1], [2, 2, 2, 2]]
    table = estimate_nano(model, program_of(model, Thresholds.never(3), exit_depths)).set_index("system")
    assert (table["low"] < table["p50"]).all() and (table["p50"] < table["high"]).all()
    assert (table["p50"] <= table["p90"]).all() and (table["p90"] <= table["p99"]).all()
    assert (table["mean"] <= table["p99"]).all()
    assert table["p50"]["ideal"] == pytest.approx(table["p50"]["full"] / 2, rel=0.1)  # two frames of four
    assert table["p99"]["ideal"] == pytest.approx(table["p50"]["full"], rel=0.1)
