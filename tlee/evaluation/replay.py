"""Replay of any policy on the stored exit features of a split."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tlee.costs import Costs
from tlee.features import FeatureTable
from tlee.metrics import METRICS, is_correct
from tlee.policies.given import GivenExits
from tlee.policies.inference import CHUNK, Outcomes, run_any, run_together
from tlee.policies.policy import Policy
from tlee.policies.sources import StoredFeatures
from tlee.readout import Readout

AT_ONCE = 32  #: policies of a sweep whose outcomes are in memory at once


@dataclass(frozen=True)
class Split:
    """Exit features of one split, the readout and costs to run policies on them, and the metric that counts.

    ``temperatures`` calibrate the classifier, one a depth (see ``calibration``).
    """

    table: FeatureTable
    readout: Readout
    costs: Costs
    metric: str
    temperatures: tuple[float, ...] | None = None

    @property
    def source(self) -> StoredFeatures:
        return StoredFeatures(self.table.features)

    @property
    def num_videos(self) -> int:
        return len(self.table.labels)

    @property
    def num_frames(self) -> int:
        """``T``"""
        return self.table.features.shape[1]

    @property
    def num_exits(self) -> int:
        """``B + 1``"""
        return len(self.costs.segments)

    def take(self, rows: np.ndarray) -> "Split":
        """Select the videos ``rows``, by position."""
        return Split(self.table.take(rows), self.readout, self.costs, self.metric, self.temperatures)

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the table in parts: positions of some videos, and their exit features."""
        for start in range(0, self.num_videos, CHUNK):
            rows = slice(start, start + CHUNK)
            yield rows, self.table.features[rows]

    def run(self, policy: Policy | GivenExits) -> Outcomes:
        return run_any(self.source, self.readout, policy, self.costs, self.temperatures)

    def sweep(self, policies: Sequence[Policy | GivenExits]) -> Iterator[Outcomes]:
        """Run policies one after the other; what several have in common is computed once."""
        for start in range(0, len(policies), AT_ONCE):
            batch = policies[start : start + AT_ONCE]
            deciding = [policy for policy in batch if isinstance(policy, Policy)]
            together = iter(run_together(self.source, self.readout, deciding, self.costs, self.temperatures))
            for policy in batch:
                yield next(together) if isinstance(policy, Policy) else self.run(policy)

    def correct(self, outcomes: Outcomes) -> torch.Tensor:
        """True where the top-1 prediction is one of the video's classes, ``[N]``."""
        return is_correct(self.readout.probabilities(outcomes.logits), self.table.truth)

    def score(self, outcomes: Outcomes) -> float:
        """Value of the metric."""
        return METRICS[self.metric](self.readout.probabilities(outcomes.logits), self.table.truth)

    def point(self, method: str, outcomes: Outcomes) -> dict:
        """Point of a policy on the trade-off curve: score, and mean GMACs and frames of a video."""
        return {
            "method": method,
            "score": self.score(outcomes),
            "gmacs": outcomes.gmacs.mean().item(),
            "frames": outcomes.frames.double().mean().item(),
        }
