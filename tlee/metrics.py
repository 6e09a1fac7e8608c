"""Metrics of the kit, from torchmetrics and scikit-learn."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch


def is_correct(scores: torch.Tensor, truth: torch.Tensor, k: int = 1) -> torch.Tensor:
    """Return booleans ``[N]``: True if one of the ``k`` highest ``scores [N, C]`` is of a class of the video."""
    best = scores.topk(min(k, scores.shape[1])).indices
    return truth.gather(1, best).any(1)


def top1(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """Top-1 accuracy: share of videos whose highest score is of one of their classes."""
    return is_correct(scores, truth).double().mean().item()


def top5(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """Top-5 accuracy: share of videos with one of their classes among the five highest scores."""
    return is_correct(scores, truth, k=5).double().mean().item()


def mean_average_precision(probabilities: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean over classes of the area under the precision-recall curve, from ``[N, C]`` each.

    Not interpolated, and over the classes of at least one video, as FrameExit computes it for ActivityNet.
    """
    from sklearn.metrics import average_precision_score  # slow to import, and training needs other metrics

    present = truth.any(0)
    columns = zip(truth[:, present].T.numpy(), probabilities[:, present].T.numpy(), strict=True)
    return float(np.mean([average_precision_score(*column) for column in columns]))


def confusion(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Confusion matrix, counts ``[C, C]``: rows are the true classes, columns the predicted ones."""
    return _torchmetrics().multiclass_confusion_matrix(logits, labels, logits.shape[1])


def auroc(scores: torch.Tensor, correct: torch.Tensor) -> float:
    """Area under the ROC curve of ``scores [N]`` as a classifier of ``correct`` (booleans ``[N]``)."""
    return _torchmetrics().binary_auroc(scores, correct.long()).item()


def calibration_error(confidence: torch.Tensor, correct: torch.Tensor, bins: int) -> float:
    """Expected calibration error: mean ``|confidence - accuracy|`` over ``bins`` of equal width, from ``[N]`` each."""
    return _torchmetrics().binary_calibration_error(confidence, correct.long(), n_bins=bins).item()


def _torchmetrics() -> Any:
    """Import torchmetrics, which is slow, after torchvision, which it imports and which must be loadable by then."""
    import_module("tlee._torchvision")
    return import_module("torchmetrics.functional.classification")


#: Functions of scores and ground truth, ``[N, C]`` each, by ``evaluate.metric``.
METRICS: dict[str, Callable[[torch.Tensor, torch.Tensor], float]] = {"top1": top1, "map": mean_average_precision}

#: Display names by ``evaluate.metric``.
METRIC_NAMES = {"top1": "top-1", "map": "mAP"}
