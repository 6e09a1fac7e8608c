"""Sparse labels from dense ones."""

import torch

from tlee.labels import SparseLabels


def sparse(truth: torch.Tensor) -> SparseLabels:
    """Labels of videos whose classes are ``truth``, booleans ``[N, C]``."""
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), truth.sum(1).cumsum(0)])
    return SparseLabels(offsets, truth.nonzero()[:, 1].int(), truth.shape[1])
