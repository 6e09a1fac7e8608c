"""Metrics of the kit, some of them from torchmetrics."""

from importlib import import_module
from typing import Any

import numpy as np
import torch

from tlee.average_precision import average_precisions
from tlee.labels import SparseLabels


def is_correct(scores: torch.Tensor, truth: torch.Tensor, k: int = 1) -> torch.Tensor:
    """Return booleans ``[N]``: True if one of the ``k`` highest ``scores [N, C]`` is of a class of the video."""
    best = scores.topk(min(k, scores.shape[1])).indices
    return truth.gather(1, best).any(1)


def top1(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """Top-1 accuracy: share of videos whose highest score is of one of their classes."""
    return is_correct(scores, truth).double().mean().item()


def mean_average_precision(probabilities: torch.Tensor, labels: SparseLabels) -> float:
    """Mean over classes of the area under the precision-recall curve, from probabilities ``[N, C]``.

    Not interpolated, and over the classes of at least one video, as FrameExit computes it for ActivityNet.
    """
    return float(np.nanmean(average_precisions(probabilities, labels)))


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


#: Display names by ``evaluate.metric``.
METRIC_NAMES = {"top1": "top-1", "map": "mAP"}
