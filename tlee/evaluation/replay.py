"""The replay engine: any policy on a split's stored exit features."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tlee.costs import Costs
from tlee.features import FeatureTable
from tlee.metrics import METRICS
from tlee.policies.given import GivenExits
from tlee.policies.inference import CHUNK, Outcomes, run_any, run_together
from tlee.policies.policy import Policy
from tlee.policies.sources import StoredFeatures
from tlee.readout import Readout

AT_ONCE = 32  #: policies of a sweep whose outcomes are in memory at once


@dataclass(frozen=True)
class Split:
    """One split's exit features with what it takes to run policies on them, and the metric that counts.

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
        """The videos ``rows``, by position."""
        return Split(self.table.take(rows), self.readout, self.costs, self.metric, self.temperatures)

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Positions of some videos and their exit features, one part of the table after the other."""
        for start in range(0, self.num_videos, CHUNK):
            rows = slice(start, start + CHUNK)
            yield rows, self.table.features[rows]

    def run(self, policy: Policy | GivenExits) -> Outcomes:
        return run_any(self.source, self.readout, policy, self.costs, self.temperatures)

    def sweep(self, policies: Sequence[Policy | GivenExits]) -> Iterator[Outcomes]:
        """Run one after the other; what several have in common is computed once."""
        for start in range(0, len(policies), AT_ONCE):
            batch = policies[start : start + AT_ONCE]
            looking = [policy for policy in batch if isinstance(policy, Policy)]
            together = iter(run_together(self.source, self.readout, looking, self.costs, self.temperatures))
            for policy in batch:
                yield next(together) if isinstance(policy, Policy) else self.run(policy)

    def score(self, outcomes: Outcomes) -> float:
        return METRICS[self.metric](self.readout.probabilities(outcomes.logits), self.table.truth)

    def point(self, method: str, outcomes: Outcomes) -> dict:
        """Where a policy lies: score, mean GMACs and mean frames of a video."""
        return {
            "method": method,
            "score": self.score(outcomes),
            "gmacs": outcomes.gmacs.mean().item(),
            "frames": outcomes.frames.double().mean().item(),
        }
