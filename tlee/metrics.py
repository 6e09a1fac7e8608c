"""The metrics of the kit, from torchmetrics and scikit-learn."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import average_precision_score

import tlee._torchvision  # noqa: F401  torchmetrics imports torchvision, which must be found loadable

# isort: split
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_confusion_matrix,
)


def hits(scores: torch.Tensor, truth: torch.Tensor, among: int = 1) -> torch.Tensor:
    """Whether one of the ``among`` highest of ``scores [N, C]`` is a class of the video, booleans ``[N]``."""
    best = scores.topk(min(among, scores.shape[1])).indices
    return truth.gather(1, best).any(1)


def top1(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of videos whose highest score is of one of their classes."""
    return hits(scores, truth).double().mean().item()


def top5(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of videos one of whose five highest scores is of one of their classes."""
    return hits(scores, truth, among=5).double().mean().item()


def mean_average_precision(probabilities: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean over classes of the area under the precision-recall curve, from ``[N, C]`` each.

    Not interpolated, and over classes that some video has, as FrameExit computes it for ActivityNet.
    """
    present = truth.any(0)
    columns = zip(truth[:, present].T.numpy(), probabilities[:, present].T.numpy(), strict=True)
    return float(np.mean([average_precision_score(*column) for column in columns]))


def confusion(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Counts ``[C, C]``: rows are the truth, columns the prediction."""
    return multiclass_confusion_matrix(logits, labels, logits.shape[1])


def auroc(scores: torch.Tensor, right: torch.Tensor) -> float:
    """Area under the ROC curve of ``scores [N]`` telling ``right`` (booleans) from wrong."""
    return binary_auroc(scores, right.long()).item()


#: ``evaluate.metric`` to a function of scores and truth, ``[N, C]`` each.
METRICS: dict[str, Callable[[torch.Tensor, torch.Tensor], float]] = {"top1": top1, "map": mean_average_precision}

METRIC_NAMES = {"top1": "top-1", "map": "mAP"}
