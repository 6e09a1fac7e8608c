"""Metrics by hand and compared with torchmetrics, and their confidence intervals."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from support.labels import sparse

import tlee._torchvision  # noqa: F401, before torchmetrics
from tlee import intervals
from tlee.average_precision import average_precisions
from tlee.metrics import METRIC_NAMES, auroc, is_correct, mean_average_precision, top1
from tlee.params import EvaluateParams

# isort: split
from torchmetrics.functional.classification import multiclass_accuracy, multilabel_average_precision


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.eye(classes, dtype=torch.bool)[labels]


# --- metrics -----------------------------------------------------------------------------------------


def test_correct_predictions_by_hand():
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    truth = torch.tensor([[False, True, False], [False, True, True], [True, False, False]])
    assert is_correct(scores, truth).tolist() == [True, False, False]
    assert is_correct(scores, truth, k=2).tolist() == [True, True, False]
    assert is_correct(scores, truth, k=5).all()  # there are fewer than five classes
    assert top1(scores, truth) == pytest.approx(1 / 3)


@pytest.mark.parametrize("classes", [2, 7, 30])
@pytest.mark.parametrize("k", [1, 2])
def test_accuracies_agree_with_torchmetrics_for_videos_with_one_label(classes, k):
    generator = torch.Generator().manual_seed(classes)
    scores = torch.randn(200, classes, generator=generator)
    labels = torch.randint(classes, (200,), generator=generator)
    theirs = multiclass_accuracy(scores, labels, classes, top_k=k, average="micro").item()
    assert is_correct(scores, one_hot(labels, classes), k).double().mean().item() == pytest.approx(theirs)


def test_mean_average_precision_by_hand():
    """Four videos (rows) and three classes: the precision at each positive video, from the highest score down."""
    scores = torch.tensor([[0.9, 0.1, 0.4], [0.8, 0.2, 0.3], [0.7, 0.3, 0.2], [0.6, 0.4, 0.1]])
    truth = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    first = (1 / 1 + 2 / 3) / 2
    second = (1 / 2 + 2 / 3) / 2
    third = 1 / 4
    assert mean_average_precision(scores, sparse(truth)) == pytest.approx((first + second + third) / 3)
    truth[3, 2] = False  # a class without videos does not count
    assert mean_average_precision(scores, sparse(truth)) == pytest.approx((first + second) / 2)


def test_mean_average_precision_agrees_with_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    scores, truth = torch.rand(100, 6, generator=generator), torch.rand(100, 6, generator=generator) < 0.3
    theirs = multilabel_average_precision(scores, truth.long(), num_labels=6).item()
    assert mean_average_precision(scores, sparse(truth)) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_of_a_resample_is_that_of_its_videos(levels):
    """Scikit-learn is given each video as often as it is drawn; few levels make ties, many classes several blocks."""
    generator = np.random.default_rng(0)
    scores, truth = generator.integers(0, levels, (30, 70)) / levels, generator.random((30, 70)) < 0.05
    draws = generator.integers(0, 3, (30, 4), np.int32)
    ours = average_precisions(torch.from_numpy(scores), sparse(torch.from_numpy(truth)), draws)
    for resample, counts in enumerate(draws.T):
        drawn = np.repeat(np.arange(30), counts)
        for label in range(70):
            present = truth[drawn, label].any()
            theirs = average_precision_score(truth[drawn, label], scores[drawn, label]) if present else np.nan
            assert ours[label, resample] == pytest.approx(theirs, nan_ok=True)


def test_area_under_the_curve_by_hand():
    """Three of the four pairs of a positive and a negative are in order."""
    scores, correct = torch.tensor([0.9, 0.4, 0.5, 0.1]), torch.tensor([True, True, False, False])
    assert auroc(scores, correct) == 0.75


def test_every_metric_of_the_parameters_has_a_name():
    assert set(METRIC_NAMES) == set(EvaluateParams.model_fields["metric"].annotation.__args__)


# --- intervals ---------------------------------------------------------------------------------------

EACH = range(100)  #: each video a group of its own


def test_an_interval_covers_the_mean_at_its_nominal_rate():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = (generator.random(100) < 0.8).astype(float)
        low, high = intervals.of_mean(values, EACH, resamples=300, seed=trial)
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_equal_values_have_an_interval():
    """The exact 95% interval of 256 correct videos of 256 begins at 0.025 ** (1 / 256)."""
    low, high = intervals.of_mean(np.ones(256), range(256), resamples=10, seed=0)
    assert low == pytest.approx(0.025 ** (1 / 256))
    assert high == 1.0
    assert intervals.of_mean(np.zeros(256), range(256), resamples=10, seed=0) == pytest.approx((low - 1, 1 - low))


def test_the_interval_of_the_mean_as_a_statistic_is_that_of_the_mean():
    values = np.random.default_rng(0).random(80)
    mean = intervals.of_mean(values, range(80), intervals.SLOW_RESAMPLES, seed=3)
    draws = intervals.draws(range(80), resamples=10_000, seed=3)
    assert draws.shape == (80, intervals.SLOW_RESAMPLES)
    assert intervals.of_statistic(values @ draws / 80, range(80)) == pytest.approx(mean)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random(50)
    first, second, other = (intervals.of_mean(values, range(50), 100, seed) for seed in (1, 1, 2))
    assert first == second != other
    first, second, other = (intervals.draws(range(50), 100, seed) for seed in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()


def test_the_interval_does_not_depend_on_the_number_of_draws_in_memory(monkeypatch):
    generator = np.random.default_rng(0)
    values, costs, groups = generator.random(50), 1 + generator.random(50), np.arange(50) // 2
    arguments = values, costs, groups, 300, 0
    whole = intervals.of_ratio(*arguments)
    monkeypatch.setattr(intervals, "AT_ONCE", 7 * 25)
    assert intervals.of_ratio(*arguments) == whole
    monkeypatch.setattr(intervals, "AT_ONCE", 1)
    assert intervals.of_ratio(*arguments) == whole


def test_whole_groups_are_resampled():
    """Ten groups of ten equal videos have the interval of ten videos, not of a hundred."""
    values, groups = np.repeat([1.0] * 7 + [0.0] * 3, 10), np.repeat(np.arange(10), 10)
    grouped, ungrouped = intervals.of_mean(values, groups, 2000, 0), intervals.of_mean(values, EACH, 2000, 0)
    one_each = intervals.of_mean(values[::10], groups[::10], 2000, 0)
    assert grouped == pytest.approx(one_each)
    assert grouped[1] - grouped[0] > 2 * (ungrouped[1] - ungrouped[0])
    draws = intervals.draws(groups, intervals.SLOW_RESAMPLES, 0)
    statistic = intervals.of_statistic(values @ draws / 100, groups)
    assert statistic == pytest.approx(intervals.of_mean(values, groups, intervals.SLOW_RESAMPLES, 0))


def test_the_interval_of_a_constant_ratio_has_no_width():
    denominator = np.random.default_rng(0).random(100) + 1
    assert intervals.of_ratio(denominator / 2, denominator, EACH, 300, 0) == pytest.approx((0.5, 0.5))


def test_a_single_group_has_no_interval():
    assert np.isnan(intervals.of_mean(np.array([1.0, 0.0]), ["a", "a"], 100, 0)).all()
    assert np.isnan(intervals.of_statistic(np.array([1.0, 0.0]), ["a", "a"])).all()
