"""Margins: how far a decision is from turning out otherwise, in log-odds of the probabilities that it is made by."""

import math

import torch

from tlee.edge.graphs import Deciding
from tlee.levels import ALWAYS, NEVER
from tlee.policies.evidence import evidence
from tlee.policies.optimal_stopping import OptimalStopping, Weights, decision_scores
from tlee.policies.policy import Observation, Policy
from tlee.policies.thresholds import Thresholds

MAX_MARGIN = 99.0  #: larger margins are not distinguished

_ROUNDING = 2.0**-23  #: relative error of probabilities in ``float32``
_SMALLEST_SLOPE = 1e-6  #: of a score that does not change at all


def threshold_margin(scores: torch.Tensor, threshold: float) -> float:
    """Smallest distance in log-odds of ``scores [n]``, probabilities, from a ``threshold`` that decides something."""
    distance = scores.double().logit() - math.log(threshold / (1 - threshold))
    return distance.abs().min().item()


def value_margins(
    probabilities: torch.Tensor, before: torch.Tensor | None, values: tuple[Weights, Weights, Weights]
) -> tuple[float, float]:
    """Smallest margins of the two ``decision_scores`` over ``n`` videos, whose evidence is of ``probabilities [n, C]``.

    Scores are in units of accuracy, of which the same amount is much where an answer is in doubt and little where it is
    certain. So the distance of a score from zero is divided by its slope there: its largest change if no log-odds of
    these probabilities change by more than one. The change by rounding the probabilities is deducted before. A margin
    is at most the distance to another predicted class, with which the evidence jumps if it compares two frames.
    """
    with torch.inference_mode(False), torch.enable_grad():
        given = [each.clone().requires_grad_() for each in (probabilities, before) if each is not None]
        scores = decision_scores(evidence(given[0], given[1] if len(given) > 1 else None), torch.tensor(values))
        leave, stop = (_margin(each, given) for each in scores.unbind(1))
    if before is None:
        return leave, stop
    first, second = probabilities.topk(2, dim=1).values.log().unbind(1)
    same_class = (first - second).min().item()
    return min(leave, same_class), min(stop, same_class)


def _margin(score: torch.Tensor, probabilities: list[torch.Tensor]) -> float:
    gradients = torch.autograd.grad(score.sum(), probabilities, retain_graph=True)
    pairs = [(gradient.abs() * each, each) for gradient, each in zip(gradients, probabilities, strict=True)]
    slope = sum((change * (1 - each)).sum(1) for change, each in pairs)
    rounding = _ROUNDING * sum(change.sum(1) for change, _ in pairs)
    distance = (score.detach().abs() - rounding).clamp(min=0)
    return (distance / (slope + _SMALLEST_SLOPE)).clamp(max=MAX_MARGIN).min().item()


class Watched(Policy):
    """A policy that records the smallest ``margin`` of the decisions that it takes."""

    def __init__(self, policy: Deciding):
        self.policy, self.margin = policy, MAX_MARGIN
        self._margins = _ValueMargins(policy) if isinstance(policy, OptimalStopping) else _ThresholdMargins(policy)

    def uses_exit(self, t: int, b: int, frames: int) -> bool:
        return self.policy.uses_exit(t, b, frames)

    def memory(self, classes: int) -> int:
        return self.policy.memory(classes)

    def observe(self, seen: Observation) -> None:
        self.policy.observe(seen)

    def macs(self, seen: Observation) -> float:
        return self.policy.macs(seen)

    def answer(self, seen: Observation) -> torch.Tensor:
        return self.policy.answer(seen)

    def stop_video(self, seen: Observation) -> torch.Tensor:
        self.margin = min(self.margin, self._margins.of_stopping(seen))
        return self.policy.stop_video(seen)

    def leave_frame(self, seen: Observation) -> torch.Tensor:
        self.margin = min(self.margin, self._margins.of_leaving(seen))
        return self.policy.leave_frame(seen)


class _ThresholdMargins:
    """Margins of the two decisions by thresholds at an exit; a score that decides nothing is not requested."""

    def __init__(self, policy: Thresholds):
        self._policy = policy

    def of_stopping(self, seen: Observation) -> float:
        confidence, gate = self._policy.stop_above(seen.t, seen.b, seen.num_frames)
        return min(self._margin(seen, "confidence", confidence), self._margin(seen, "gate_score", gate))

    def of_leaving(self, seen: Observation) -> float:
        return self._margin(seen, "confidence", self._policy.layer[seen.b])

    def _margin(self, seen: Observation, score: str, threshold: float) -> float:
        return threshold_margin(getattr(seen, score), threshold) if ALWAYS < threshold < NEVER else MAX_MARGIN


class _ValueMargins:
    """Margins of the two decisions by values, which are computed together at an exit."""

    def __init__(self, policy: OptimalStopping):
        self._policy, self._both = policy, (MAX_MARGIN, MAX_MARGIN)
        self._seen: Observation | None = None

    def of_stopping(self, seen: Observation) -> float:
        return self._at(seen)[1]

    def of_leaving(self, seen: Observation) -> float:
        return self._at(seen)[0]

    def _at(self, seen: Observation) -> tuple[float, float]:
        if seen is not self._seen:
            values = self._policy.values[seen.t][seen.b]
            assert values is not None  # it is an exit in use
            self._seen, self._both = seen, value_margins(seen.probabilities, self._policy.before(seen), values)
        return self._both
