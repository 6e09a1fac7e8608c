"""Thresholds within the range of the compared values, but not close to any of them.

Two computations that agree to six digits could otherwise decide differently at a threshold.
"""

from dataclasses import dataclass, replace
from math import inf

import torch
from support.small import between

from tlee.costs import count_costs
from tlee.levels import ALWAYS, NEVER
from tlee.model import TLEE
from tlee.policies.inference import run
from tlee.policies.policy import Observation, Policy
from tlee.policies.sources import LiveFeatures
from tlee.policies.thresholds import Thresholds

WIDE = 1e-4
FIELDS = ("layer", "first", "gate", "stop")


@dataclass
class Margin(Policy):
    """A policy that records the smallest distance of the compared values from its thresholds."""

    policy: Thresholds
    smallest: float = inf

    def uses_exit(self, t: int, b: int, frames: int) -> bool:
        return self.policy.uses_exit(t, b, frames)

    def stop_video(self, seen: Observation) -> torch.Tensor:
        confidence, gate = self.policy.stop_above(seen.t, seen.b, seen.num_frames)
        self._note(seen, "confidence", confidence)
        self._note(seen, "gate_score", gate)
        return self.policy.stop_video(seen)

    def leave_frame(self, seen: Observation) -> torch.Tensor:
        self._note(seen, "confidence", self.policy.layer[seen.b])
        return self.policy.leave_frame(seen)

    def _note(self, seen: Observation, name: str, threshold: float) -> None:
        if ALWAYS < threshold < NEVER:
            self.smallest = min(self.smallest, (getattr(seen, name) - threshold).abs().min().item())


def policy_amid(model: TLEE, clips: torch.Tensor, fields: tuple[str, ...] = FIELDS) -> Thresholds:
    """Return thresholds of ``fields`` that separate the clips with a margin above ``WIDE``; others are ``NEVER``."""
    costs, features, never = count_costs(model), model.exit_features(clips), Thresholds.never(model.num_exits)
    for share in (0.45, 0.4, 0.5, 0.35, 0.55, 0.3, 0.6, 0.25, 0.65):
        found = _thresholds(model, features, share)
        margin = Margin(replace(never, **{field: getattr(found, field) for field in fields}))
        for clip in clips:
            run(LiveFeatures(model, clip), model.readout, margin, costs)
        if margin.smallest > WIDE:
            return margin.policy
    raise AssertionError("every threshold is too close to a value: try other clips")


def _thresholds(model: TLEE, features: torch.Tensor, share: float) -> Thresholds:
    readout, exits = model.readout, range(model.num_exits)
    logits = torch.stack([readout.prefix_logits(features, b) for b in exits])
    confidence = readout.probabilities(logits).amax(-1)  # [B + 1, N, T]
    gate = [NEVER] * model.num_exits
    if readout.gates:
        known = [readout.along(features, torch.full(features.shape[:2], b)) for b in exits]
        steps = range(1, features.shape[1] - 1)
        scores = [torch.stack([readout.gate(z[:, t], z[:, t - 1], t) for t in steps]) for z in known]
        gate = [between(each.sigmoid(), 0.3 + share) for each in scores]
    return Thresholds(
        tuple(between(confidence[b], share) for b in exits[:-1]),
        tuple(between(confidence[b, :, 0], 0.5 + share / 2) for b in exits),
        tuple(gate),
        tuple(between(confidence[b, :, 1:], 0.6 + share / 2) for b in exits),
    )
