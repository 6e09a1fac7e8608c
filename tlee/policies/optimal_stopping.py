"""A policy that compares the value of answering now with that of processing another frame or more layers."""

from dataclasses import dataclass

import torch

from tlee.policies.evidence import NUM_EVIDENCE, evidence
from tlee.policies.policy import Observation, Policy

NO_CHOICE = (-1e3,) + (0.0,) * (NUM_EVIDENCE - 1)  #: weights of a choice that an exit does not have

DECISION_MACS = 3 * NUM_EVIDENCE  #: multiply-accumulates of the values at an exit

Weights = tuple[float, ...]  #: ``[F]``, of a value that is linear in the evidence at an exit


@dataclass(frozen=True)
class OptimalStopping(Policy):
    """Stop the video, leave the frame or go deeper, whichever has the highest estimated value at the exit.

    ``values[t][b]`` has three rows of ``F`` weights, whose products with the ``evidence`` at the exit estimate the
    values of answering now, of leaving for the next frame and of going deeper: the probability of a correct answer,
    less the computation still needed for it, at ``price`` correct answers for a run of the full network; the first is
    in log-odds. It is None where the exit is not used. ``evaluation.value_iteration`` fits the weights.
    """

    price: float
    values: tuple[tuple[tuple[Weights, Weights, Weights] | None, ...], ...]

    def uses_exit(self, t: int, b: int, frames: int) -> bool:
        return self.values[t][b] is not None

    def num_exits_used(self) -> int:
        return sum(each is not None for frame in self.values[:2] for each in frame)

    def memory(self, classes: int) -> int:
        return 2 * classes  # probabilities at the exit by which the previous frame was left, and at the last exit used

    def observe(self, seen: Observation) -> None:
        before, last = seen.memory.tensor_split(2, dim=1)
        if seen.b == self._first_exit(seen.t):
            before = last
        seen.memory = torch.cat([before, seen.probabilities], dim=1)

    def stop_video(self, seen: Observation) -> torch.Tensor:
        return self.scores(seen)[:, 1] > 0

    def leave_frame(self, seen: Observation) -> torch.Tensor:
        return self.scores(seen)[:, 0] > 0

    def macs(self, seen: Observation) -> float:
        return DECISION_MACS

    def scores(self, seen: Observation) -> torch.Tensor:
        """See ``decision_scores``; ``[n, 2]``."""
        if seen.decisions is None:
            weights = torch.tensor(self.values[seen.t][seen.b])
            seen.decisions = decision_scores(evidence(seen.probabilities, self.before(seen)), weights)
        return seen.decisions

    def before(self, seen: Observation) -> torch.Tensor | None:
        """Class probabilities ``[n, C]`` at the exit by which the previous frame was left; None at the first frame."""
        return seen.memory.tensor_split(2, dim=1)[0] if seen.t else None

    def _first_exit(self, t: int) -> int:
        return next(b for b, weights in enumerate(self.values[t]) if weights is not None)


def decision_scores(shown: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Turn the evidence ``[n, F]`` at an exit and its ``weights [3, F]`` into two scores ``[n, 2]``.

    The frame is left where the first is positive, and the video stops where the second is.
    """
    answer, next_frame, deeper = (shown @ weights.T).unbind(1)
    answer = answer.sigmoid()
    leave = torch.maximum(answer, next_frame) - deeper
    stop = answer - torch.maximum(next_frame, deeper)
    return torch.stack([leave, stop], dim=1)
