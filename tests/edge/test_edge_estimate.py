"""The estimate for a Jetson Nano: from published times and what networks do."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.bundles import as_pixels
from support.margins import policy_amid
from support.small import T, random_clips, random_network, small_params
from torch import nn

from tlee.costs import GIGA, count_costs
from tlee.edge.estimate import FILE, NETWORKS, estimate_nano, fit_published, work, work_of_videos
from tlee.edge.export import Program, compile_policy
from tlee.model import TLEE
from tlee.policies.given import RandomExits
from tlee.policies.inference import follow, run
from tlee.policies.sources import LiveFeatures
from tlee.policies.thresholds import Thresholds

VIDEOS = 4
SHARED = Path(__file__).parents[3] / "shared" / "published" / "jetson_nano.csv"


def test_the_work_of_layers_by_hand():
    """3 x 6 x 6 by 3 x 3 kernels to 4 x 6 x 6, pooled to 4 x 3 x 3, which are 36 inputs of 5 outputs."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    result, done = work(partial(network, torch.zeros(1, 3, 6, 6)), network)
    assert result.shape == (1, 5)
    convolution, pooling, linear = 108 + 144 + (108 + 4), 144 + 36, 36 + 5 + (180 + 5)
    assert done == pytest.approx([(36 * 108 + 180) / 1e9, (convolution + pooling + linear) / 1e6, 3])
    assert not any(layer._forward_hooks for layer in network)


# --- the device ----------------------------------------------------------------------------------------


def test_the_published_times_name_networks_that_are_known_and_their_source():
    table = pd.read_csv(FILE)
    assert set(table["model"]) == set(NETWORKS)
    assert set(table["unit"]) == {"frames_per_second", "milliseconds_per_frame"}
    assert table["source"].notna().all()
    if SHARED.exists():
        assert table.equals(pd.read_csv(SHARED))


def test_a_published_time_is_missed_by_less_than_a_factor_of_two_by_the_others():
    fits = fit_published()
    assert len(fits) == 2 * len(NETWORKS)
    assert all((fit.rates >= 0).all() and fit.rates[0] > 0 for fit in fits)
    assert all(0.5 < fit.miss < 2 for fit in fits)


def test_a_device_that_is_such_a_sum_is_found(tmp_path):
    """2 ms a GMAC, 0.1 ms a MB: what is fitted to three of the networks foretells the fourth."""
    done = {}
    for name, build in NETWORKS.items():
        with torch.device("meta"):
            network, frame = build().eval(), torch.zeros(1, 3, 224, 224)
            done[name] = work(partial(network, frame), network)[1]
    rows = [
        (name, 224, "TensorRT", "fp16", 2 * w[0] + 0.1 * 2 * w[1], "milliseconds_per_frame") for name, w in done.items()
    ]
    rows += [(name, 224, "PyTorch", "fp16", 1.0, "frames_per_second") for name in done]  # slower ones do not count
    path = tmp_path / "published.csv"
    pd.DataFrame(rows, columns=["model", "input", "runtime", "precision", "value", "unit"]).to_csv(path)
    for fit in fit_published(path):
        assert fit.rates == pytest.approx([2, 0.1, 0], abs=1e-6)
        assert fit.miss == pytest.approx(1)
        assert fit.milliseconds(np.array([3, 5, 7])) == pytest.approx(2 * 3 + 0.1 * 2 * 5)


# --- the network ---------------------------------------------------------------------------------------


def program_of(model: TLEE, policy: Thresholds | RandomExits, exits: list[list[int]]) -> Program:
    """The parts of a bundle that tell what runs."""
    return {
        "decides": isinstance(policy, Thresholds),
        "visited": model.readout.accumulates_visited,
        "looks": [[look.program for look in looks] for looks in compile_policy(policy, model, T)],
        "videos": [{"exit_depths": each} for each in exits],
    }


@pytest.mark.usefixtures("five_layer_backbone")
@pytest.mark.parametrize(("accumulate", "reuse"), [("exit", "max"), ("visited", "attention")])
def test_work_is_what_the_policy_is_charged_for(accumulate, reuse):
    model = random_network(small_params(accumulate=accumulate, reuse=reuse))
    clips, costs = as_pixels(random_clips(model, VIDEOS)), count_costs(model)
    policy = policy_amid(model, clips)
    outcomes = [run(LiveFeatures(model, clip), model.readout, policy, costs) for clip in clips]
    done = work_of_videos(model, program_of(model, policy, [each.exit_depths[0].tolist() for each in outcomes]))
    assert list(done) == ["full", "depth 0", "depth 1", "real", "ideal"]
    assert done["real"][:, 0] == pytest.approx([each.gmacs.item() for each in outcomes])
    assert done["full"][:, 0] == pytest.approx(costs.full_network(T) / GIGA)
    assert (done["ideal"] < done["real"]).all()
    depth = costs.segments[0] + costs.heads[0]
    assert done["depth 0"][:, 0] == pytest.approx((T * depth + (T - 1) * costs.reuse + costs.classifier) / GIGA)


@pytest.mark.usefixtures("five_layer_backbone")
@pytest.mark.parametrize("accumulate", ["exit", "visited"])
def test_work_of_random_exits_is_that_of_their_paths(accumulate):
    model, policy = random_network(small_params(method="random", accumulate=accumulate)), RandomExits(0.3, seed=0)
    clips, costs = random_clips(model, VIDEOS), count_costs(model)
    paths = policy.exit_depths(VIDEOS, T, model.num_exits)
    done = work_of_videos(model, program_of(model, policy, paths.tolist()))["real"]
    looks = done[:, 0] - [
        follow(LiveFeatures(model, clip), model.readout, path[None], costs).gmacs.item()
        for clip, path in zip(clips, paths, strict=True)
    ]
    heads = (paths >= 0).sum(1) if accumulate == "exit" else (paths + 1).sum(1)
    assert looks == pytest.approx((heads.numpy() - 1) * costs.classifier / GIGA)  # readouts classify, always


@pytest.mark.usefixtures("five_layer_backbone")
def test_the_estimate_lies_within_its_spread_and_grows_with_the_work():
    model = random_network(small_params())
    exits = [[0, -1, -1, -1], [2, 2, -1, -1], [2, 2, 2, 2]]
    table = estimate_nano(model, program_of(model, Thresholds.never(3), exits)).set_index("system")
    assert (table["low"] < table["p50"]).all() and (table["p50"] < table["high"]).all()
    assert (table["p50"] <= table["p90"]).all() and (table["p90"] <= table["p99"]).all()
    assert (table["mean"] <= table["p99"]).all()
    assert table["p50"]["ideal"] == pytest.approx(table["p50"]["full"] / 2, rel=0.1)  # two frames of four
    assert table["p99"]["ideal"] == pytest.approx(table["p50"]["full"], rel=0.1)
