"""Numbers of the comparison, on cases small enough to check by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tlee.costs import Costs
from tlee.evaluation import Split, compare, evaluate, fixed_thresholds, interval, oracle
from tlee.features import FeatureTable
from tlee.model import Readout
from tlee.params import load_params
from tlee.policies import Outcomes

ROOT = Path(__file__).parents[1]
PARAMS = load_params(ROOT / "params.yaml")
COSTS = Costs(segments=(10, 20), heads=(1, 0), reuse=0, classifier=5, gate=7)


@pytest.fixture
def readout() -> Readout:
    torch.manual_seed(0)
    readout = Readout(2, 2, PARAMS.model)
    readout.classifier.weight.data = torch.eye(2)
    readout.classifier.bias.data = torch.zeros(2)
    return readout


def split(features: torch.Tensor, labels: list[int], readout: Readout) -> Split:
    names = [f"video {row}" for row in range(len(features))]
    return Split(FeatureTable(features, torch.tensor(labels), names, names, ["first", "second"]), readout, COSTS)


def test_the_oracle_takes_the_cheapest_exit_that_is_right(readout):
    first, second = (1.0, 0.0), (0.0, 1.0)
    features = torch.tensor(
        [
            [[first, first], [first, first]],  # right at once
            [[second, first], [second, second]],  # the first frame is right at full depth only
            [[second, second], [(3.0, 0.0), (3.0, 0.0)]],  # the second frame is needed, a shallow one will do
            [[second, second], [second, second]],  # never right
        ]
    )
    outcomes = oracle(split(features, [0, 0, 0, 0], readout))
    assert outcomes.exits.tolist() == [[0, -1], [1, -1], [0, 0], [1, 1]]
    assert outcomes.macs.tolist() == [10 + 1 + 5, 10 + 20 + 5, 2 * (10 + 1) + 5, 2 * (10 + 20) + 5]
    assert outcomes.predictions.tolist() == [0, 0, 0, 1]


def outcomes(predictions: list[int]) -> Outcomes:
    count = len(predictions)
    return Outcomes(torch.eye(2)[predictions], torch.zeros(count, 3, dtype=torch.long), torch.full((count,), 2 * 10**9))


def test_a_row_of_the_table_by_hand():
    labels = torch.tensor([0, 0, 1, 1])
    row = compare("tlee", outcomes([0, 1, 1, 1]), outcomes([0, 0, 0, 1]), labels, resamples=500, seed=0)
    assert row["accuracy"] == 0.75
    assert row["gmacs"] == 2.0
    assert row["frames"] == 3.0
    assert row["difference"] == 0.0
    assert row["difference_low"] < 0 < row["difference_high"]
    assert 0 <= row["low"] < 0.75 < row["high"] <= 1


def test_an_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        values = (generator.random(100) < 0.8).astype(float)
        low, high = interval(values, resamples=300, seed=trial)
        hits += low <= 0.8 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_equal_values_are_not_taken_for_certain():
    """256 right of 256: the exact 95% interval begins at 0.025 ** (1 / 256)."""
    low, high = interval(np.ones(256), resamples=10, seed=0)
    assert low == pytest.approx(0.025 ** (1 / 256))
    assert high == 1.0
    assert interval(np.zeros(256), resamples=10, seed=0) == pytest.approx((low - 1, 1 - low))


def test_a_number_in_the_parameters_fixes_a_threshold():
    overrides = {"evaluate.layer_threshold": 0.8, "evaluate.stop_threshold": 1, "evaluate.gate_threshold": "auto"}
    params = load_params(ROOT / "params.yaml", overrides).evaluate
    assert fixed_thresholds(params) == {"leave": 0.8, "sure": 1.0}


def test_the_comparison_has_every_method_and_repeats_exactly(readout):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (60,), generator=generator).tolist()
    truth = 3 * torch.eye(2)[labels][:, None, None]
    val, test = (split(truth + torch.randn(60, 3, 2, 2, generator=generator), labels, readout) for _ in range(2))
    first, second = (evaluate(val, test, PARAMS.evaluate, seed=0) for _ in range(2))
    assert list(first.table["method"]) == ["full", "temporal", "layer", "tlee_gate", "tlee", "random", "oracle"]
    assert first.table.equals(second.table)
    assert first.curves.equals(second.curves)
    rows = first.table.set_index("method")
    assert rows.at["full", "share_of_full"] == 1
    assert rows.at["oracle", "accuracy"] == rows["accuracy"].max()
    assert first.exit_shares("full")[:, -1].tolist() == [1, 1, 1]
    assert first.confusion().sum() == 60
    assert list(first.trace("full")["frames"]) == [3] * 60
