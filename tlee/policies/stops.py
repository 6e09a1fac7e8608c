"""Early-exit policies of the literature with a single score: the video stops where it is above a threshold."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from tlee.levels import ALWAYS, NEVER
from tlee.policies.policy import Observation, Policy

Score = Literal["confidence", "certainty", "agreement", "ensemble"]


@dataclass(frozen=True)
class StopAbove(Policy):
    """Stop the video at the first exit whose score is above the threshold; all frames run to ``depth``.

    ``above[t][b]`` is a threshold for each exit up to ``depth``, ``NEVER`` where the exit is not used. Scores
    are from 0 to 1:

    - ``confidence``: largest class probability (Shallow-Deep Networks, ICML 2019)
    - ``certainty``: one minus the normalised entropy (BranchyNet, ICPR 2016)
    - ``agreement``: number of consecutive exits with the same class, as a share of the frames (PABEE, NeurIPS 2020)
    - ``ensemble``: confidence of the product of the probabilities of all exits used so far, each to the power of its
      depth's weight; the product is also the answer (Zero Time Waste, NeurIPS 2021, without its cascade connections)
    """

    score: Score
    above: tuple[tuple[float, ...], ...]
    depth: int
    weights: tuple[float, ...] = ()  #: one a depth, of an ensemble

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
        """Use one threshold at all exits from ``shallowest`` to ``deepest``, at which all frames are left."""
        row = (NEVER,) * shallowest + (threshold,) * (deepest + 1 - shallowest)
        return cls(score, (row,) * frames, deepest, weights)

    def uses_exit(self, t: int, b: int, frames: int) -> bool:
        return b == self.depth or (b < self.depth and self.above[t][b] < NEVER)

    def memory(self, classes: int) -> int:
        return {"agreement": 2, "ensemble": classes}.get(self.score, 0)

    def observe(self, seen: Observation) -> None:
        if self.score == "agreement":
            previous, streak = seen.memory.unbind(1)
            predicted = seen.logits.argmax(1).to(previous.dtype)
            agrees = (predicted == previous) & (streak > 0)
            seen.memory = torch.stack([predicted, torch.where(agrees, streak + 1, 1.0)], dim=1)
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
    """One minus the entropy divided by its maximum, ``[n]``; with several labels the mean over classes."""
    probabilities = seen.probabilities
    if seen.readout.multi_label:
        odds = torch.stack([probabilities, 1 - probabilities])
        return 1 - torch.special.entr(odds).sum(0).mean(1) / math.log(2)
    return 1 - torch.special.entr(probabilities).sum(1) / math.log(probabilities.shape[1])


def log_probabilities(seen: Observation) -> torch.Tensor:
    """Logits ``[n, C]`` whose sum over exits is the product of their probabilities."""
    return seen.logits if seen.readout.multi_label else seen.logits.log_softmax(1)
