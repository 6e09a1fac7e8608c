"""Results of many videos and policies are computed in parts, of whatever size."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.labels import sparse
from support.small import COSTS, identity_readout, random_features
from support.splits import noisy, planted

from tlee.evaluation import baselines, replay, value_iteration
from tlee.evaluation.baselines import FAMILIES
from tlee.evaluation.cross_validation import out_of_fold
from tlee.evaluation.replay import Split
from tlee.evaluation.results import COLUMNS, Results
from tlee.metrics import mean_average_precision
from tlee.policies.given import FixedExits, RandomExits
from tlee.policies.thresholds import Thresholds

POLICIES = [Thresholds.one_confidence(level, 0, 3) for level in (0.5, 0.8, 0.95)]
POLICIES = [*POLICIES, RandomExits(0.3, 0), FixedExits(2, 1)]


@pytest.fixture
def data() -> Split:
    """Videos with one or both of two classes, ranked by mean average precision."""
    readout = identity_readout()
    readout.multi_label = True
    split = planted(random_features(40), torch.arange(40) % 2, readout, COSTS)
    truth = torch.stack([torch.arange(40) % 2 == 0, torch.arange(40) % 3 > 0], dim=1)
    return replace(split, metric="map", table=replace(split.table, all_labels=sparse(truth)))


@pytest.fixture
def in_small_parts(monkeypatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(replay, "CHUNK", 7)
    monkeypatch.setattr(replay, "PROBABILITIES", 2 * 40 * 2)  # of two policies
    return monkeypatch


def assert_equal(some: list[Results], others: list[Results]) -> None:
    for one, other in zip(some, others, strict=True):
        assert one.mean_ap == pytest.approx(other.mean_ap)
        for name in COLUMNS:
            torch.testing.assert_close(getattr(one, name), getattr(other, name))


def test_a_sweep_gives_what_each_policy_alone_does(data, in_small_parts):
    alone = [data.judge(data.run(policy)) for policy in POLICIES]
    assert_equal(list(data.sweep(POLICIES)), alone)
    in_small_parts.undo()
    assert_equal(list(data.sweep(POLICIES)), alone)


def test_results_by_hand():
    """The classes of the videos are both, the first and the first; the second one is answered."""
    features = torch.tensor([(0.0, 3.0), (0.0, 3.0), (2.0, 0.0)])[:, None, None].expand(3, 4, 3, 2)
    split = planted(features, torch.tensor([0, 0, 0]), identity_readout(), COSTS)
    split = replace(split, table=replace(split.table, all_labels=sparse(torch.tensor([[1, 1], [1, 0], [1, 0]]).bool())))
    found = split.result(FixedExits(1, 0))
    assert found.predictions.tolist() == [1, 1, 0]
    assert found.correct.tolist() == [True, False, True]
    assert found.in_top5.all()
    probability = torch.tensor([3.0, 3.0, 2.0]).sigmoid()  # of the answer
    torch.testing.assert_close(found.confidence, probability)
    torch.testing.assert_close(found.likelihood, torch.stack([torch.tensor(1.0), 1 - probability[1], probability[2]]))
    assert found.frames.tolist() == [1, 1, 1]
    assert split.score(found) == pytest.approx(2 / 3)


def test_a_sweep_that_is_not_scored_ranks_nothing(data):
    (found,) = data.sweep(POLICIES[:1], scored=False)
    assert found.mean_ap != found.mean_ap
    scored = data.result(POLICIES[0])
    probabilities = data.readout.probabilities(data.run(POLICIES[0]).logits)
    assert data.score(scored) == mean_average_precision(probabilities, data.table.all_labels)
    assert scored.correct.equal(found.correct)


def test_no_videos_have_no_results(data):
    empty = replace(data.take(np.arange(0)), metric="top1")
    assert [len(each.correct) for each in empty.sweep(POLICIES[:3])] == [0] * 3


def test_folds_in_small_parts(data, in_small_parts):
    def make(part: Split) -> list:
        return [*POLICIES[:3], FixedExits(1, part.num_videos % 3)]

    small = list(out_of_fold(data, make, 3, seed=0))
    in_small_parts.undo()
    assert_equal(small, list(out_of_fold(data, make, 3, seed=0)))


@pytest.mark.parametrize("family", ["budgeted", "ensemble", "confidence"])
def test_families_in_small_parts(family, in_small_parts):
    val = noisy((0.5, 2.0), identity_readout())
    small = FAMILIES[family](val, 0)
    in_small_parts.undo()
    for some, others in zip(small, FAMILIES[family](val, 0), strict=True):
        for one, other in zip(some, others, strict=True):
            assert one.above == other.above
            assert one.weights == pytest.approx(other.weights, rel=1e-4)


def test_an_ensemble_is_fitted_to_as_many_videos_as_fit(monkeypatch):
    val, fitted = noisy((0.5, 2.0), identity_readout()), []
    fit = baselines._fit_weights

    def fit_and_note(seen: torch.Tensor, part: Split, shallowest: int) -> tuple[float, ...]:
        fitted.append(part)
        return fit(seen, part, shallowest)

    monkeypatch.setattr(baselines, "PROBABILITIES", 10 * val.num_frames * 2 * 2 + 1)
    monkeypatch.setattr(baselines, "_fit_weights", fit_and_note)
    FAMILIES["ensemble"](val, 0)
    assert {part.num_videos for part in fitted} == {10}
    assert fitted[0].table.videos[0] == val.table.videos[0]
    assert fitted[0].table.videos[-1] == val.table.videos[-1]


def test_paths_in_small_parts(monkeypatch):
    val = noisy((0.5, 2.0), identity_readout())
    whole = value_iteration.collect(val, 0)
    monkeypatch.setattr(value_iteration, "PROBABILITIES", 50 * 2 * 2)
    small = value_iteration.collect(val, 0)
    assert torch.equal(small.correct, whole.correct)
    assert torch.equal(small.exit_depths, whole.exit_depths)
    torch.testing.assert_close(small.evidence, whole.evidence)
