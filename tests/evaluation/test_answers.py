"""Failure prediction on planted answers."""

import math

import pandas as pd
import pytest
import torch
from support.small import T, identity_readout, small_params
from support.splits import noisy, planted

from tlee.costs import Costs
from tlee.evaluation.answers import answer_auroc, write_answers
from tlee.evaluation.replay import Split
from tlee.readout import Readout

CLASSES = 6


def steady_or_not(videos: int, seed: int) -> Split:
    """Half of the videos show their class at all frames; the others a wrong one, which changes from frame to frame.

    All are equally confident, so only agreement with the frame before distinguishes correct answers from wrong ones.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (videos,), generator=generator)
    wrong = (labels[:, None] + 1 + torch.arange(T) % 2) % CLASSES
    shown = torch.where(torch.arange(videos)[:, None] % 2 == 0, labels[:, None], wrong)
    odds = 3 + 0.3 * torch.randn(videos, T, 1, generator=generator)
    readout = Readout(CLASSES, CLASSES, small_params(num_branches=0, reuse="none", gate="confidence")).eval()
    readout.classifiers[0].weight.data, readout.classifiers[0].bias.data = torch.eye(CLASSES), torch.zeros(CLASSES)
    costs = Costs(segments=(10_000,), heads=(0,), reuse=0, classifier=500, gate=0)
    return planted((torch.eye(CLASSES)[shown] * odds)[:, :, None], labels, readout, costs)


def test_a_value_knows_of_agreement_what_confidence_does_not():
    """Correct answers rank above wrong ones but at the first of four frames, where neither score can tell."""
    val, test = steady_or_not(400, 0), steady_or_not(400, 1)
    table = answer_auroc(val, test, 0).set_index("exits")
    assert list(table.index) == ["depth 0", "all"]
    first = 0.5 / T**2
    between = 2 * (T - 1) / T**2  # one of the two is at the first frame: its value is between those of the others
    assert table.at["all", "value"] == pytest.approx(first + between + (T - 1) ** 2 / T**2, abs=0.01)
    assert table.at["all", "confidence"] == pytest.approx(0.5, abs=0.05)
    assert table.at["all", "answers"] == 400 * 8 * T


def test_there_is_a_row_for_each_depth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readout = identity_readout(num_branches=1)
    table = answer_auroc(noisy((0.5, 2.0), readout), noisy((0.5, 2.0), readout, seed=1), 0)
    rows = table.set_index("exits")
    assert list(rows.index) == ["depth 0", "depth 1", "all"]
    assert rows.at["depth 0", "confidence"] < rows.at["depth 1", "confidence"] <= 1
    assert rows["answers"].tolist() == [80 * 8 * T, 80 * 8 * T, 2 * 80 * 8 * T]
    write_answers(table)
    assert list(pd.read_csv("results/plots/evaluate/answers.csv")["exits"]) == list(rows.index)


def test_without_failures_there_is_nothing_to_predict():
    readout = identity_readout(num_branches=1)
    table = answer_auroc(noisy((0.5, 50.0), readout), noisy((0.5, 50.0), readout, seed=1), 0).set_index("exits")
    assert math.isnan(table.at["depth 1", "value"]) and math.isnan(table.at["depth 1", "confidence"])
    assert table.loc[["depth 0", "all"], ["value", "confidence"]].gt(0.5).all(axis=None)
