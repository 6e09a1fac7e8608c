"""Calibration: known temperatures, errors by hand, and the comparison of policies."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.labels import sparse
from support.small import COSTS, identity_readout, small_params
from support.titles import states

from tlee.evaluation import replay
from tlee.evaluation.candidates import candidates
from tlee.evaluation.comparison import area_under, chance_level
from tlee.evaluation.replay import Split
from tlee.evaluation.search import Search, frontier
from tlee.features import FeatureTable
from tlee.guarantee import calibration
from tlee.guarantee.calibration import (
    Calibration,
    calibrate,
    calibration_errors,
    compare_trade_offs,
    fit_temperatures,
    reliability,
)
from tlee.params import Params
from tlee.subsets import spread

SCALES = (0.4, 1.0, 3.0)  #: factor by which the logits of each depth are too large


def split(features: torch.Tensor, truth: torch.Tensor, frames: int = 2, **model: Any) -> Split:
    """Return videos of identical frames, from exit features ``[N, depths, 2]`` that are their logits."""
    names = [f"video {row}" for row in range(len(features))]
    repeated = features[:, None].repeat(1, frames, 1, 1)
    table = FeatureTable(repeated, sparse(truth), names, names, ["first", "second"])
    depths = features.shape[1]
    costs = replace(COSTS, segments=COSTS.segments[-depths:], heads=COSTS.heads[-depths:])
    return Split(table, identity_readout(**model), costs, "top1")


def drawn(seed: int, videos: int = 4000, labels: str = "single") -> Split:
    """Return videos with labels drawn from the probabilities of the logits, which are then scaled by ``SCALES``."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(videos, 2, generator=generator)
    if labels == "single":
        first = torch.rand(videos, generator=generator) < logits.softmax(1)[:, 0]
        truth = torch.stack([first, ~first], dim=1)
    else:
        truth = torch.rand(videos, 2, generator=generator) < logits.sigmoid()
    data = split(logits[:, None] * torch.tensor(SCALES)[:, None], truth)
    data.readout.multi_label = labels == "multi"
    return data


def layer_params(**model: Any) -> Params:
    return small_params({"evaluate.bootstrap": 50}, **({"method": "layer"} | model))


# --- temperatures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["single", "multi"])
def test_known_temperatures_are_found(labels):
    assert fit_temperatures(drawn(0, labels=labels)) == pytest.approx(SCALES, rel=0.1)


def test_all_time_steps_are_fitted_together():
    """The second frame has twice the logits of the first: the temperature is between."""
    data = drawn(0)
    features = data.table.features.clone()
    features[:, 1] *= 2
    between = fit_temperatures(
        Split(replace(data.table, stored=features), identity_readout(reuse="none"), COSTS, "top1")
    )
    assert all(scale < found < 2 * scale for scale, found in zip(SCALES, between, strict=True))


def test_the_temperature_is_bounded_if_all_videos_are_correct():
    features = torch.tensor([(3.0, 0.0), (0.0, 3.0)]).repeat(5, 1)[:, None]
    (temperature,) = fit_temperatures(split(features, features[:, 0] > 0))
    assert 0.05 <= temperature < 0.5


# --- errors -------------------------------------------------------------------------------------------


def test_the_error_by_hand():
    """Four predictions at 75%, two of them correct; four at 90%, all correct: half of .25 and half of .1."""
    chances = torch.tensor([0.75] * 2 + [0.9] * 2)
    features = torch.stack([chances, 1 - chances], dim=1).log()[:, None]
    data = split(features, torch.tensor([[1, 0], [0, 1], [1, 0], [1, 0]]).bool())
    assert calibration_errors(data) == pytest.approx([0.125 + 0.05])
    table = reliability(data)
    assert table["depth"].tolist() == [0, 0]
    assert table["confidence"].tolist() == pytest.approx([0.75, 0.9])
    assert table["accuracy"].tolist() == [0.5, 1]
    assert table["share"].tolist() == [0.5, 0.5]


def test_any_of_several_labels_is_correct():
    chances = torch.tensor([[0.6, 0.75], [0.75, 0.6]])
    data = split(chances.logit()[:, None], torch.tensor([[1, 1], [0, 1]]).bool())
    data.readout.multi_label = True
    table = reliability(data)
    assert table["confidence"].tolist() == pytest.approx([0.75])  # the largest probability of each video
    assert table["accuracy"].tolist() == [0.5]


def test_the_diagram_shows_the_error():
    data = drawn(1, videos=300)
    table = reliability(data).assign(gap=lambda bins: (bins["confidence"] - bins["accuracy"]).abs() * bins["share"])
    assert table.groupby("depth")["gap"].sum().tolist() == pytest.approx(calibration_errors(data), abs=1e-5)
    assert table.groupby("depth")["share"].sum().tolist() == pytest.approx([1, 1, 1])


def test_known_temperatures_calibrate_confidences():
    data = drawn(1)
    before, after = calibration_errors(data), calibration_errors(replace(data, temperatures=SCALES))
    assert before[0] > 0.05
    assert before[2] > 0.05
    assert max(after) < 0.03
    assert after[1] == before[1]


def test_videos_are_read_in_parts(monkeypatch):
    data = drawn(1, videos=50)
    whole = fit_temperatures(data), reliability(data)
    monkeypatch.setattr(replay, "CHUNK", 7)
    assert fit_temperatures(data) == pytest.approx(whole[0])
    pd.testing.assert_frame_equal(reliability(data), whole[1])


def test_temperatures_are_fitted_to_as_many_videos_as_fit(monkeypatch):
    data = drawn(1, videos=60)
    third = fit_temperatures(data.take(np.array(spread(60, 20))))
    monkeypatch.setattr(calibration, "LOGITS", 20 * 2 * 2 + 3)  # of two frames and classes
    assert fit_temperatures(data) == third
    monkeypatch.setattr(calibration, "LOGITS", 1)
    assert fit_temperatures(data) == fit_temperatures(data.take(np.array([0])))


@pytest.mark.parametrize("measure", [reliability, calibration_errors])
def test_the_logits_of_one_part_at_a_time_are_in_memory(measure, monkeypatch):
    largest = 0

    def counted(part: Split, depth: int) -> torch.Tensor:
        nonlocal largest
        logits = logits_of(part, depth)
        largest = max(largest, len(logits))
        return logits

    logits_of = calibration._logits
    monkeypatch.setattr(calibration, "_logits", counted)
    monkeypatch.setattr(replay, "CHUNK", 7)
    measure(drawn(1, videos=50))
    assert largest == 7


# --- comparison of policies --------------------------------------------------------------------------------


def test_temperatures_of_one_change_nothing():
    table = compare_trade_offs(drawn(0, 200), drawn(1, 200), (1.0, 1.0, 1.0), layer_params())
    assert table["family"].tolist() == ["layer", "confidence"]
    for name in ("score", "gmacs", "area"):
        assert table[name].equals(table[f"calibrated_{name}"].rename(name))
    assert (table["gain"] == 0).all()
    verdict = Calibration(pd.DataFrame(), pd.DataFrame(), table).verdict()
    assert verdict.count("makes no clear difference: +0.0 points") == 2


def test_the_area_is_that_of_the_comparison():
    val, test, params = drawn(0, 200), drawn(1, 200), layer_params()
    row = compare_trade_offs(val, test, SCALES, params).set_index("family").loc["layer"]
    for prefix, temperatures in (("", None), ("calibrated_", SCALES)):
        search = Search(replace(val, temperatures=temperatures))
        reported = replace(test, temperatures=temperatures)
        best = frontier(candidates("layer", search, params))
        curve = [reported.point("", reported.result(each.policy)) | {"val_gmacs": each.gmacs} for each in best]
        area = area_under(pd.DataFrame(curve), search.full.gmacs, chance_level(val.table.all_labels))
        assert row[f"{prefix}area"] == pytest.approx(area)
    assert row["gain"] == pytest.approx(row["calibrated_area"] - row["area"])
    assert row["gain_low"] <= row["gain"] <= row["gain_high"]


@pytest.mark.parametrize(
    ("low", "high", "finding"),
    [
        (0.001, 0.02, "helps: +1.0 points"),
        (-0.02, 0.01, "makes no clear difference: -1.0 points"),
        (-0.03, -0.001, "hurts: -1.0 points"),
    ],
)
def test_the_verdict_follows_the_interval(low, high, finding):
    gain = 0.01 if low > 0 else -0.01
    row = {"family": "tlee", "score": 0.9, "gmacs": 0.5, "calibrated_score": 0.95, "calibrated_gmacs": 0.25}
    table = pd.DataFrame([row | {"gain": gain, "gain_low": low, "gain_high": high}])
    verdict = Calibration(pd.DataFrame(), pd.DataFrame(), table).verdict()
    assert states(verdict, "TLEE", finding, "90.0% at 0.5000 GMACs", "95.0% at 0.2500")


def test_a_network_without_exits_is_compared_by_confidence_only():
    val, test = (
        replace(
            data,
            table=replace(data.table, stored=data.table.stored[:, :, 2:]),
            costs=replace(COSTS, segments=(60,), heads=(0,)),
        )
        for data in (drawn(0, 100), drawn(1, 100))
    )
    table = compare_trade_offs(val, test, (3.0,), layer_params(method="full"))
    assert table["family"].tolist() == ["confidence"]


def test_the_tables_and_metrics_that_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = calibrate(drawn(0, 400), drawn(1, 400), layer_params())
    found.write()
    assert found.errors["temperature"].tolist() == pytest.approx(SCALES, rel=0.3)
    assert set(found.bins["state"]) == {"uncalibrated", "calibrated"}
    metrics = found.metrics()
    assert metrics["error_uncalibrated"] == pytest.approx(found.errors["uncalibrated"].mean())
    assert metrics["error_calibrated"] < metrics["error_uncalibrated"]
    assert set(metrics) == {"error_uncalibrated", "error_calibrated", "layer", "confidence"}
    written = {path.stem: len(pd.read_csv(path)) for path in (tmp_path / "results" / "plots" / "guarantee").iterdir()}
    assert written == {"calibration": 3, "reliability": len(found.bins), "calibrated_policies": 2}
