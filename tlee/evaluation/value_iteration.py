"""Fitted value iteration: the values of the choices at each exit, estimated backwards from the last one.

At an exit the video can be answered, the frame left for the next one, or run deeper. The value of an answer is the
probability that it is correct; that of the other two is the expected value at the next exit, less the price of
reaching it. They are regressed on the ``evidence`` at the exit, from the last exit of the last frame to the first exit
of the first (Longstaff and Schwartz, Review of Financial Studies 2001, and Tsitsiklis and Van Roy, IEEE Transactions on
Neural Networks 2001, both for American options). The price of computation is the only number to choose.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tlee.evaluation.replay import Split
from tlee.policies.evidence import evidence
from tlee.policies.optimal_stopping import DECISION_MACS, NO_CHOICE, OptimalStopping, Weights
from tlee.readout import Accumulated
from tlee.subsets import spread

#: Prices of a run of the full network, in correct answers: from conservative to aggressive.
PRICES = (
    *(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3),
    *(0.4, 0.6, 0.8, 1.2, 1.6, 2.4, 3.2, 5.0, 8.0, 12.0, 20.0),
)

SHRINKAGE = 0.01  #: ridge penalty of the weights of standardised evidence, for values of going on
PENALTY = 3.0  #: the same for the log-odds of a correct answer, in the sum over paths and frames
_CERTAIN = 7.0  #: log-odds of answers that are all correct
PATHS = 8  #: random paths through each video, unless there are many videos
MAX_PATHS = 20_000  #: over all videos


@dataclass(frozen=True)
class Paths:
    """Evidence and answers along ``P`` random paths through videos."""

    evidence: list[list[torch.Tensor]]  #: ``[T][B + 1]``, of ``[P, F]`` at each exit of each frame
    correct: torch.Tensor  #: ``[P, T, B + 1]``, one where the answer is correct, else zero
    exit_depths: torch.Tensor  #: ``[P, T]``, depth at which each frame is left

    def leaving(self, t: int, b: int) -> torch.Tensor:
        """Select the paths that leave frame ``t`` at depth ``b``; all, if so few videos have none that does."""
        left = self.exit_depths[:, t] == b
        return left if left.any() else torch.ones_like(left)


class ValueIteration:
    """Fits policies to a split, one for each price of computation.

    ``answers[t][b]`` are the weights of the value of answering at that exit, whatever the price.
    """

    def __init__(self, split: Split, seed: int):
        self._split, self._paths = split, collect(split, seed)
        self._frames, self._exits = split.num_frames, split.num_exits
        self._first_exit_ends = split.readout.first_exit_ends
        costs = split.costs
        full = costs.full_network(split.num_frames)
        self._segments = [segment / full for segment in costs.segments]
        self._heads = [(head + costs.reuse + costs.classifier + DECISION_MACS) / full for head in costs.heads]
        self._regressions = [[Regressions(shown) for shown in frame] for frame in self._paths.evidence]
        self._regressions_of_leaving = [
            [Regressions(shown[self._paths.leaving(t, b)]) for b, shown in enumerate(frame)]
            for t, frame in enumerate(self._paths.evidence[:-1])
        ]
        by_depth = [
            logistic([frame[b] for frame in self._paths.evidence], self._paths.correct[:, :, b].unbind(1))
            for b in range(self._exits)
        ]
        self.answers = list(zip(*by_depth, strict=True))

    def policy(self, price: float) -> OptimalStopping:
        """Fit the values at ``price``.

        They are fitted with all exits first, and then without those that the resulting policy does not need: a depth at
        which no video of the split leaves the first frame is not used at the first frame, and one at which none leaves
        a later frame is not used at later frames. If all videos stop at the first frame, later frames use all depths.
        """
        exits = list(range(self._exits))
        taken = self._split.run(self._iterate(price, [exits] * self._frames)).exit_depths
        first, later = (sorted({*depths.flatten().tolist()} - {-1}) for depths in (taken[:, :1], taken[:, 1:]))
        return self._iterate(price, [first] + [later or exits] * (self._frames - 1))

    def _iterate(self, price: float, used: list[list[int]]) -> OptimalStopping:
        """Fit the values backwards, with the exits ``used`` of each frame."""
        paths, values = self._paths, list[tuple]()
        ahead = torch.empty(0)  # value of the next frame to each path; empty at the last
        for t in reversed(range(self._frames)):
            exits = used[t - 1][:1] if self._first_exit_ends(t, self._frames) else used[t]  # as `evaluates` has it
            weights: list[tuple[Weights, Weights, Weights] | None] = [None] * self._exits
            value, next_exit = torch.empty(0), -1  # value of the next exit of the frame; empty at its last
            for b in reversed(exits):
                shown, answer, next_frame, deeper = paths.evidence[t][b], self.answers[t][b], NO_CHOICE, NO_CHOICE
                if len(ahead):
                    next_frame = self._regressions_of_leaving[t][b].ridge(ahead[paths.leaving(t, b)])
                if len(value):
                    deeper = self._regressions[t][b].ridge(value - price * self._reach(next_exit, b))
                choices = [estimate(shown, answer).sigmoid(), estimate(shown, next_frame), estimate(shown, deeper)]
                value, next_exit, weights[b] = torch.stack(choices).amax(0), b, (answer, next_frame, deeper)
            ahead = value - price * self._reach(next_exit)
            values.insert(0, tuple(weights))
        return OptimalStopping(price, tuple(values))

    def _reach(self, depth: int, last: int = -1) -> float:
        """Cost of going from the exit ``last`` of a frame to ``depth``, as a share of the full network's."""
        return sum(self._segments[last + 1 : depth + 1]) + self._heads[depth]


def collect(split: Split, seed: int) -> Paths:
    """Take the videos of ``split`` along random paths, each over all frames; half of the paths keep to one depth.

    The answers of every exit of a frame are observed, whichever of them the path leaves it by.
    """
    readout, frames, exits = split.readout, split.num_frames, split.num_exits
    generator = torch.Generator().manual_seed(seed)
    copies = max(1, min(PATHS, MAX_PATHS // split.num_videos))
    rows = torch.tensor(spread(split.num_videos, MAX_PATHS)).repeat(copies)
    exit_depths = torch.randint(exits, (len(rows), frames), generator=generator)
    exit_depths[::2] = exit_depths[::2, :1]
    temperatures = split.temperatures or (1.0,) * exits
    features, truth = split.table.features, split.table.truth[rows]
    shown, correct = list[list[torch.Tensor]](), torch.zeros(len(rows), frames, exits, dtype=torch.double)
    known, before = Accumulated.nothing(len(rows)), None
    with torch.inference_mode():
        for t in range(frames):
            last, states, answers = known, list[Accumulated](), list[torch.Tensor]()
            for b in range(exits):
                last = readout.accumulate(readout.base(known, last, t), features[rows, t, b])
                states.append(last)
                answers.append(readout.probabilities(readout.classify(last.z, t) / temperatures[b]))
                correct[:, t, b] = truth.gather(1, answers[b].argmax(1, keepdim=True))[:, 0]
            shown.append([evidence(each, before).double() for each in answers])
            for b in range(exits):
                known = known.where((exit_depths[:, t] == b)[:, None], states[b])
            before = torch.stack(answers, dim=1)[torch.arange(len(rows)), exit_depths[:, t]]
    return Paths(shown, correct, exit_depths)


class Regressions:
    """Regressions on the evidence ``[P, F]`` at an exit, whose first column is one; a constant column has no weight.

    What they have in common, whatever is fitted, is computed once.
    """

    def __init__(self, shown: torch.Tensor):
        self._scaled, self._mean, self._deviation = _standardised(shown)
        penalty = SHRINKAGE * torch.eye(shown.shape[1], dtype=shown.dtype)
        self._gram = self._scaled.T @ self._scaled / len(shown) + penalty

    def ridge(self, target: torch.Tensor) -> Weights:
        """Fit ``target [P]`` by ridge regression; its mean is not shrunk."""
        products = self._scaled.T @ (target - target.mean()) / len(target)
        weights = torch.linalg.solve(self._gram, products) / self._deviation
        weights[0] = target.mean() - weights @ self._mean
        return tuple(weights.tolist())


def logistic(shown: Sequence[torch.Tensor], correct: Sequence[torch.Tensor]) -> list[Weights]:
    """Fit the log-odds of correct answers at one depth of each frame, by evidence ``[P, F]`` and correctness ``[P]``.

    The frames have the same weights but for the first, a constant of each: few videos could not teach more.
    """
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression  # slow to import

    frames, together = len(shown), torch.cat(list(correct))
    if together.min() == together.max():
        return [(_CERTAIN if together[0] else -_CERTAIN,) + (0.0,) * (shown[0].shape[1] - 1)] * frames
    scaled, mean, deviation = _standardised(torch.cat(list(shown)))
    where = sparse.kron(sparse.identity(frames), np.ones((len(shown[0]), 1)), format="csr")
    columns = sparse.hstack([sparse.csr_matrix(scaled[:, 1:].numpy()), where], format="csr")
    fitted = LogisticRegression(C=1 / PENALTY, tol=1e-6, max_iter=1000).fit(columns, together.numpy())
    slopes, constants = np.split(fitted.coef_[0], [scaled.shape[1] - 1])
    weights = torch.from_numpy(np.concatenate([[0.0], slopes])) / deviation
    first = fitted.intercept_[0] - (weights @ mean).item()
    return [(float(first + constant), *weights[1:].tolist()) for constant in constants]


def _standardised(shown: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return evidence ``[P, F]`` less its mean over its deviation, and both; a constant's deviation is infinite."""
    deviation = shown.std(0) if len(shown) > 1 else torch.zeros_like(shown[0])
    deviation = deviation.masked_fill(deviation < math.sqrt(torch.finfo(torch.float).eps), math.inf)
    mean = shown.mean(0)
    return (shown - mean) / deviation, mean, deviation


def estimate(shown: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Return the value that ``weights`` estimate from evidence ``[P, F]``, ``[P]``."""
    return shown @ torch.tensor(weights, dtype=shown.dtype)
