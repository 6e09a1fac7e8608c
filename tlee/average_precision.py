"""Average precision of many classes, also on bootstrap resamples, from one sort of the scores of each class."""

import numpy as np
import torch
from scipy import sparse

from tlee.labels import SparseLabels

CLASSES = 64  #: number of classes whose scores are in memory in another order at once


def average_precisions(scores: torch.Tensor, labels: SparseLabels, draws: np.ndarray | None = None) -> np.ndarray:
    """Return the area under the precision-recall curve of each class, ``[C, R]``, not interpolated.

    ``scores`` are ``[N, C]``. ``draws [N, R]`` are numbers of times that each video counts in each of ``R`` resamples,
    by default one in which each counts once. NaN where no video of a class counts.
    """
    draws = np.ones((len(scores), 1), np.int32) if draws is None else draws
    videos, found = labels.videos_of_classes(), np.full((scores.shape[1], draws.shape[1]), np.nan)
    for start in range(0, scores.shape[1], CLASSES):
        for label, column in enumerate(scores[:, start : start + CLASSES].T.numpy(force=True).copy(), start):
            if len(videos[label]):
                found[label] = _average_precision(column, videos[label], draws)
    return found


def _average_precision(scores: np.ndarray, positive: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return ``[R]`` from the ``scores [N]`` of one class and the videos that have it."""
    descending = np.argsort(scores)[::-1]
    thresholds, places = np.unique(-scores[positive], return_inverse=True)  # of equal scores, one
    above = np.searchsorted(-scores[descending], thresholds, "right")  # number of videos at or above each
    all_between = _sums(descending[: above[-1]], np.append(0, above), draws)
    order = np.argsort(places, kind="stable")
    found = _sums(positive[order], np.append(0, np.bincount(places).cumsum()), draws)
    true, drawn = found.cumsum(0), all_between.cumsum(0)
    with np.errstate(invalid="ignore"):
        return (found * true / np.maximum(drawn, 1)).sum(0) / true[-1]


def _sums(videos: np.ndarray, bounds: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Add ``draws [N, R]`` of the videos between each two ``bounds``, ``[len(bounds) - 1, R]``."""
    ones = np.ones(len(videos), draws.dtype)
    return sparse.csr_matrix((ones, videos, bounds), shape=(len(bounds) - 1, len(draws))) @ draws
