"""Runs policies on exit features, and counts what they cost.

The loop is TLEE's inference (section III-A), as ``reference`` states it for one video. It requests exit features from
a *source*: a table of stored ones (many videos at once), or the network itself (one video, each segment run only when
it is needed).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tlee.costs import GIGA, Costs
from tlee.policies.given import GivenExits
from tlee.policies.policy import Policy
from tlee.policies.sources import FeatureSource
from tlee.policies.walking import Walk, comparable, walk_together
from tlee.readout import Accumulated, Readout

CHUNK = 512  #: videos whose features are in memory at once


@dataclass(frozen=True, kw_only=True)
class ExitsTaken:
    """Exits and cost of ``N`` videos."""

    exit_depths: torch.Tensor  #: ``[N, T]``, depth at which each frame was left; -1: not processed
    macs: torch.Tensor  #: ``[N]``, everything that ran

    @property
    def frames(self) -> torch.Tensor:
        """Number of frames processed, ``[N]``."""
        return (self.exit_depths >= 0).sum(1)

    @property
    def gmacs(self) -> torch.Tensor:
        """Cost in GMACs, ``[N]``."""
        return self.macs.double() / GIGA


@dataclass(frozen=True, kw_only=True)
class Outcomes(ExitsTaken):
    """Answers, exits and cost of a policy on ``N`` videos."""

    logits: torch.Tensor  #: ``[N, C]``, at the exit where the video stopped

    @property
    def predictions(self) -> torch.Tensor:
        """Predicted classes, ``[N]``."""
        return self.logits.argmax(1)


def run_any(
    source: FeatureSource,
    readout: Readout,
    policy: Policy | GivenExits,
    costs: Costs,
    temperatures: Sequence[float] | None = None,
) -> Outcomes:
    """Run a policy that decides by what it observes, or one whose exits are given."""
    if isinstance(policy, Policy):
        return run(source, readout, policy, costs, temperatures)
    exit_depths = policy.exit_depths(source.num_videos, source.num_frames, len(costs.segments))
    return follow(source, readout, exit_depths, costs)


def run(
    source: FeatureSource, readout: Readout, policy: Policy, costs: Costs, temperatures: Sequence[float] | None = None
) -> Outcomes:
    """Run ``policy`` on all videos of ``source``; every part that runs is counted.

    ``temperatures``, one a depth, calibrate the probabilities that it observes (see ``guarantee.calibration``).
    """
    return run_together(source, readout, [policy], costs, temperatures)[0]


@torch.inference_mode()
def run_together(
    source: FeatureSource,
    readout: Readout,
    policies: Sequence[Policy],
    costs: Costs,
    temperatures: Sequence[float] | None = None,
) -> list[Outcomes]:
    """Run several policies at once; where they have taken the same exits of a video, it is computed once."""
    walks = [Walk(policy, source, readout) for policy in policies]
    groups = comparable(walks, readout, source.num_frames, costs)
    temperatures = temperatures or (1.0,) * len(costs.segments)
    for rows in torch.arange(source.num_videos).split(CHUNK):
        for group in groups:
            walk_together(group, source, readout, rows, costs, temperatures)
    return [Outcomes(logits=walk.logits, exit_depths=walk.exit_depths, macs=walk.macs) for walk in walks]


@torch.inference_mode()
def follow(source: FeatureSource, readout: Readout, exit_depths: torch.Tensor, costs: Costs) -> Outcomes:
    """Take the exits ``exit_depths [N, T]``: a depth for each frame, -1 after the last.

    Nothing is decided on the way, so other heads run only where their features are accumulated too.
    """
    videos, frames = exit_depths.shape
    logits, known = torch.zeros(videos, readout.classes), Accumulated.nothing(videos)
    for t in range(frames):
        before, depths = known, exit_depths[:, t]
        for b in range(int(depths.max()) + 1):
            runs = depths >= b if readout.accumulates_passed(t) else depths == b
            rows = runs.nonzero().squeeze(1)
            if len(rows):
                base = readout.base(before, known, t).take(rows)
                known = known.put(rows, readout.accumulate(base, source.feature(rows, t, b)))
        ends = depths >= 0
        if t + 1 < frames:
            ends = ends & (exit_depths[:, t + 1] < 0)
        if ends.any():
            logits[ends] = readout.classify(known.z[ends], t)
    macs = costs.of_paths(exit_depths, readout.accumulates_passed)
    return Outcomes(logits=logits, exit_depths=exit_depths, macs=macs)
