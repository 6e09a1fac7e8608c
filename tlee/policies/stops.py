"""The simpler policies of the literature: one score, and the video stops where it is above a threshold."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from tlee.levels import ALWAYS, NEVER
from tlee.policies.policy import Observation, Policy

Score = Literal["confidence", "certainty", "agreement", "ensemble"]


@dataclass(frozen=True)
class StopAbove(Policy):
    """Stops the video at the first exit whose score is above the threshold; all frames run to ``depth``.

    ``above[t][b]`` is a threshold for each exit up to ``depth``, and ``NEVER`` where it does not seen. Scores
    are from 0 to 1:

    - ``confidence``: largest probability of a class (Shallow-Deep Networks, ICML 2019)
    - ``certainty``: one minus the entropy, as a share of the largest that it can be (BranchyNet, ICPR 2016)
    - ``agreement``: how many looks in a row have said the same class, as a share of the frames (PABEE, NeurIPS 2020)
    - ``ensemble``: confidence of the product of the probabilities of all exits looked at so far, each to the power of
      its depth's weight; it also gives the answer (Zero Time Waste, NeurIPS 2021, without its cascade connections)
    """

    score: Score
    above: tuple[tuple[float, ...], ...]
    depth: int
    weights: tuple[float, ...] = ()  #: of an ensemble, one a depth

    @classmethod
    def between(
        cls,
        score: Score,
        threshold: float,
        frames: int,
        shallowest: int,
        deepest: int,
        weights: tuple[float, ...] = (),
    ) -> "StopAbove":
        """The same threshold at every exit from one depth to another, at which all frames are left."""
        row = (NEVER,) * shallowest + (threshold,) * (deepest + 1 - shallowest)
        return cls(score, (row,) * frames, deepest, weights)

    def uses_exit(self, t: int, b: int, frames: int) -> bool:
        return b == self.depth or (b < self.depth and self.above[t][b] < NEVER)

    def memory(self, classes: int) -> int:
        return {"agreement": 2, "ensemble": classes}.get(self.score, 0)

    def observe(self, seen: Observation) -> None:
        if self.score == "agreement":
            said, streak = seen.memory.unbind(1)
            says = seen.logits.argmax(1).to(said.dtype)
            seen.memory = torch.stack([says, torch.where((says == said) & (streak > 0), streak + 1, 1.0)], dim=1)
        elif self.score == "ensemble":
            seen.memory = seen.memory + self.weights[seen.b] * log_probabilities(seen)

    def answer(self, seen: Observation) -> torch.Tensor:
        return seen.memory if self.score == "ensemble" else seen.logits

    def stop_video(self, seen: Observation) -> torch.Tensor:
        threshold = self.above[seen.t][seen.b]
        if threshold in (ALWAYS, NEVER):
            return torch.full((seen.num_videos,), threshold == ALWAYS)
        return self._score(seen) > threshold

    def leave_frame(self, seen: Observation) -> torch.Tensor:
        if seen.b == self.depth:
            return torch.ones(seen.num_videos, dtype=torch.bool)
        return self.stop_video(seen)

    def _score(self, seen: Observation) -> torch.Tensor:
        if self.score == "confidence":
            return seen.confidence
        if self.score == "certainty":
            return certainty(seen)
        if self.score == "agreement":
            return seen.memory[:, 1] / seen.num_frames
        return seen.readout.probabilities(self.answer(seen)).amax(1)


def certainty(seen: Observation) -> torch.Tensor:
    """One minus the entropy over the largest entropy, ``[n]``; with several labels the mean over classes."""
    probabilities = seen.probabilities
    if seen.readout.multi_label:
        odds = torch.stack([probabilities, 1 - probabilities])
        return 1 - torch.special.entr(odds).sum(0).mean(1) / math.log(2)
    return 1 - torch.special.entr(probabilities).sum(1) / math.log(probabilities.shape[1])


def log_probabilities(seen: Observation) -> torch.Tensor:
    """Logits ``[n, C]`` whose sum over exits is the product of their probabilities."""
    return seen.logits if seen.readout.multi_label else seen.logits.log_softmax(1)
