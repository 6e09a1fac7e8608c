"""Average precision of many classes, also on bootstrap resamples, from one sort of the scores of each class."""

import numpy as np
import torch
from scipy import sparse

from tlee.labels import SparseLabels

CLASSES = 64  #: number of classes whose scores are in memory in another order at once


def average_precisions(scores: torch.Tensor, labels: SparseLabels, draws: np.ndarray | None = None) -> np.ndarray:
    """Return the area under the precision-recall curve of each class, ``[C, R]``, not interpolated.

    ``scores`` are ``[N, C]``. ``draws [N, R]`` are numbers of times that each video counts in each of ``R`` resamples;
    without them each counts once, in a single one. NaN where no video of a class counts.
    """
    resamples = 1 if draws is None else draws.shape[1]
    videos, found = labels.videos_of_classes(), np.full((scores.shape[1], resamples), np.nan)
    for start in range(0, scores.shape[1], CLASSES):
        for label, column in enumerate(scores[:, start : start + CLASSES].T.numpy(force=True).copy(), start):
            if len(videos[label]):
                found[label] = _average_precision(column, videos[label], draws)
    return found


def _average_precision(scores: np.ndarray, positive: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
    """Return ``[R]`` from the ``scores [N]`` of one class and the videos that have it."""
    thresholds, places = np.unique(-scores[positive], return_inverse=True)  # of equal scores, one
    numbers = np.searchsorted(np.sort(-scores), thresholds, "right"), np.bincount(places).cumsum()
    if draws is None:
        above, true = (each[:, None] for each in numbers)
    else:  # the videos that are above each threshold, and those of the class
        orders = np.argsort(-scores), positive[np.argsort(places)]
        above, true = (_drawn(*each, draws).cumsum(0) for each in zip(orders, numbers, strict=True))
    with np.errstate(invalid="ignore"):
        return (np.diff(true, axis=0, prepend=0) * true / np.maximum(above, 1)).sum(0) / true[-1]


def _drawn(videos: np.ndarray, ends: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Add the ``draws [N, R]`` of the videos up to each of ``ends`` from the one before, ``[len(ends), R]``."""
    between = np.ones(ends[-1], draws.dtype), videos[: ends[-1]], np.append(0, ends)
    return sparse.csr_matrix(between, shape=(len(ends), len(draws))) @ draws
