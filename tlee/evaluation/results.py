"""Results of policies without the logits that they come from: those of all policies would not fit in memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tlee.labels import SparseLabels
from tlee.metrics import is_correct
from tlee.policies.inference import ExitsTaken, Outcomes

COLUMNS = ("predictions", "correct", "in_top5", "confidence", "likelihood", "exit_depths", "macs")


@dataclass(frozen=True, kw_only=True)
class Results(ExitsTaken):
    """Answers of a policy on ``N`` videos compared with the truth, exits (``int8``) and cost."""

    predictions: torch.Tensor  #: predicted classes, ``[N]``
    correct: torch.Tensor  #: booleans ``[N]``: the prediction is one of the video's classes
    in_top5: torch.Tensor  #: booleans ``[N]``: one of the five most probable classes is
    confidence: torch.Tensor  #: largest class probability, ``[N]``
    likelihood: torch.Tensor  #: sum of the probabilities of the video's classes, ``[N]``
    mean_ap: float = math.nan  #: mean average precision, if it is the metric

    @classmethod
    def of(cls, outcomes: Outcomes, probabilities: torch.Tensor, labels: SparseLabels) -> "Results":
        """Compare the ``outcomes`` of some videos, whose class probabilities are ``[n, C]``, with their ``labels``."""
        truth = labels.dense()
        return cls(
            predictions=outcomes.predictions,
            correct=is_correct(probabilities, truth),
            in_top5=is_correct(probabilities, truth, k=5),
            confidence=probabilities.amax(1),
            likelihood=(probabilities * truth).sum(1),
            exit_depths=outcomes.exit_depths.to(torch.int8),
            macs=outcomes.macs,
        )

    @staticmethod
    def joined(parts: Sequence["Results"], order: torch.Tensor) -> "Results":
        """Join the results of parts of the videos, and put the videos of all of them in ``order``."""
        columns: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts])[order] for name in COLUMNS}
        return replace(parts[0], **columns)
