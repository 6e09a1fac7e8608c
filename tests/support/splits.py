"""Splits of planted features, whose classes the depths and frames show more or less clearly."""

import torch
from support.labels import sparse
from support.small import T

from tlee.costs import Costs
from tlee.evaluation.replay import Split
from tlee.features import FeatureTable
from tlee.readout import Readout

COSTS = Costs(segments=(10_000, 20_000), heads=(1000, 0), reuse=0, classifier=500, gate=700)


def planted(features: torch.Tensor, labels: torch.Tensor, readout: Readout, costs: Costs = COSTS) -> Split:
    """A split of these features ``[N, T, B + 1, D]``, each video a group of its own."""
    names = [f"video {row}" for row in range(len(features))]
    truth = torch.eye(readout.classes, dtype=torch.bool)[labels]
    classes = list("abcdef")[: readout.classes]
    return Split(FeatureTable(features, sparse(truth), names, names, classes), readout, costs, "top1")


def noisy(skill: tuple[float, ...], readout: Readout, videos: int = 80, seed: int = 0) -> Split:
    """Videos of two classes, which stand out from noise by the ``skill`` of each depth."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (videos,), generator=generator)
    signal = torch.eye(2)[labels][:, None, None] * torch.tensor(skill)[:, None]
    return planted(signal + torch.randn(videos, T, len(skill), 2, generator=generator), labels, readout)
