"""The metrics of the kit, all torchmetrics'."""

import torch

import tlee._torchvision  # noqa: F401  torchmetrics imports torchvision, which must be found loadable

# isort: split
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_accuracy,
    multiclass_confusion_matrix,
)


def top1(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of right predictions, from logits ``[N, C]`` and class indices ``[N]``."""
    return multiclass_accuracy(logits, labels, logits.shape[1], average="micro").item()


def confusion(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Counts ``[C, C]``: rows are the truth, columns the prediction."""
    return multiclass_confusion_matrix(logits, labels, logits.shape[1])


def auroc(scores: torch.Tensor, right: torch.Tensor) -> float:
    """Area under the ROC curve of ``scores [N]`` telling ``right`` (booleans) from wrong."""
    return binary_auroc(scores, right.long()).item()
