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

#: Prices of a run of the full network, in correct answers: from conservative to aggressive. The values are estimates,
#: so a policy to which computation is free stops early too; those below zero lead from there to the full network.
PRICES = (
    *(-0.2, -0.1, -0.05, -0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3),
    *(0.4, 0.6, 0.8, 1.2, 1.6, 2.4, 3.2, 5.0, 8.0, 12.0, 20.0),
)

SHRINKAGE = 0.01  #: ridge penalty of the weights of standardised evidence, for values of going on
PENALTY = 3.0  #: the same for the log-odds of a correct answer, in the sum over paths and frames
PROBABILITIES = 2**23  #: class probabilities in memory at once, at most: 32 MiB, and some copies
_CERTAIN = 7.0  #: log-odds of answers that are all correct
PATHS = 8  #: random paths through each video, unless there are many videos
MAX_PATHS = 20_000  #: over all videos

Exits = tuple[tuple[int, ...], ...]  #: depths in use at each frame


@dataclass(frozen=True)
class Paths:
    """Evidence and answers along ``P`` random paths through videos."""

    evidence: list[list[torch.Tensor]]  #: ``[T][B + 1]``, of ``[P, F]`` at each exit of each frame
    correct: torch.Tensor  #: ``[P, T, B + 1]``, one where the answer is correct, else zero
    exit_depths: torch.Tensor  #: ``[P, T]``, depth at which each frame is left

    def leaving(self, t: int, b: int) -> torch.Tensor:
        """Select the paths that leave frame ``t`` at depth ``b``; all, if so few videos have none that does."""
        left = (self.exit_depths[:, t] == b).nonzero()[:, 0]
        return left if len(left) else torch.arange(len(self.exit_depths))


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
        self._leaving = [[self._paths.leaving(t, b) for b in range(self._exits)] for t in range(self._frames - 1)]
        self._regressions_of_leaving = [
            [Regressions(shown[rows]) for shown, rows in zip(frame, leaving, strict=True)]
            for frame, leaving in zip(self._paths.evidence, self._leaving, strict=False)
        ]
        by_depth = [
            logistic([frame[b] for frame in self._paths.evidence], self._paths.correct[:, :, b].unbind(1))
            for b in range(self._exits)
        ]
        self.answers = list(zip(*by_depth, strict=True))
        self._value_of_answers = [
            [estimate(*each).sigmoid()[:, None] for each in zip(*frame, strict=True)]
            for frame in zip(self._paths.evidence, self.answers, strict=True)
        ]

    def policies(self, prices: Sequence[float]) -> list[OptimalStopping]:
        """Fit the values at each of ``prices``; what they have in common is computed once.

        They are fitted with all exits first, and then without those that the resulting policy does not need: a depth at
        which no video of the split leaves the first frame is not used at the first frame, and one at which none leaves
        a later frame is not used at later frames. If all videos stop at the first frame, later frames use all depths.
        """
        exits = tuple(range(self._exits))
        with_all = self._iterate(prices, (exits,) * self._frames)
        used = [self._needed(results.exit_depths) for results in self._split.sweep(with_all, scored=False)]
        fitted: dict[float, OptimalStopping] = {}
        for each in dict.fromkeys(used):
            together = [price for price, needed in zip(prices, used, strict=True) if needed == each]
            fitted |= zip(together, self._iterate(together, each), strict=True)
        return [fitted[price] for price in prices]

    def _needed(self, taken: torch.Tensor) -> Exits:
        """Return the exits that are needed where frames are left at the depths ``taken [N, T]``."""
        first, later = (tuple(sorted({*depths.flatten().tolist()} - {-1})) for depths in (taken[:, :1], taken[:, 1:]))
        return (first, *(later or tuple(range(self._exits)) for _ in range(1, self._frames)))

    def _iterate(self, prices: Sequence[float], used: Exits) -> list[OptimalStopping]:
        """Fit the values backwards, with the exits ``used`` of each frame; those of ``K`` prices at once."""
        price, values = torch.tensor(prices, dtype=torch.double), list[list]()
        ahead = None  # value of the next frame to each path, ``[P, K]``; None at the last
        for t in reversed(range(self._frames)):
            exits = used[t - 1][:1] if self._first_exit_ends(t, self._frames) else used[t]  # as `evaluates` has it
            weights: list[list | None] = [None] * self._exits
            value, next_exit = None, -1  # value of the next exit of the frame; None at its last
            for b in reversed(exits):
                shown, choices = self._paths.evidence[t][b], [self._value_of_answers[t][b].expand(-1, len(prices))]
                next_frame = deeper = [NO_CHOICE] * len(prices)
                if ahead is not None:
                    found = self._regressions_of_leaving[t][b].ridge(ahead[self._leaving[t][b]])
                    choices, next_frame = [*choices, shown @ found], _rows(found)
                if value is not None:
                    found = self._regressions[t][b].ridge(value - price * self._reach(next_exit, b))
                    choices, deeper = [*choices, shown @ found], _rows(found)
                value, next_exit = torch.stack(choices).amax(0), b
                weights[b] = [(self.answers[t][b], *each) for each in zip(next_frame, deeper, strict=True)]
            assert value is not None  # every frame has an exit
            ahead = value - price * self._reach(next_exit)
            values.insert(0, weights)
        return [
            OptimalStopping(each, tuple(tuple(rows and rows[k] for rows in frame) for frame in values))
            for k, each in enumerate(prices)
        ]

    def _reach(self, depth: int, last: int = -1) -> float:
        """Cost of going from the exit ``last`` of a frame to ``depth``, as a share of the full network's."""
        return sum(self._segments[last + 1 : depth + 1]) + self._heads[depth]


def collect(split: Split, seed: int) -> Paths:
    """Take the videos of ``split`` along random paths, each over all frames; half of the paths keep to one depth.

    The answers of every exit of a frame are observed, whichever of them the path leaves it by.
    """
    frames, exits = split.num_frames, split.num_exits
    generator = torch.Generator().manual_seed(seed)
    copies = max(1, min(PATHS, MAX_PATHS // split.num_videos))
    rows = torch.tensor(spread(split.num_videos, MAX_PATHS)).repeat(copies)
    exit_depths = torch.randint(exits, (len(rows), frames), generator=generator)
    exit_depths[::2] = exit_depths[::2, :1]
    at_once = max(1, PROBABILITIES // (exits * split.readout.classes))
    parts = [_along(split, *part) for part in zip(rows.split(at_once), exit_depths.split(at_once), strict=True)]
    shown = [[torch.cat([part.evidence[t][b] for part in parts]) for b in range(exits)] for t in range(frames)]
    return Paths(shown, torch.cat([part.correct for part in parts]), exit_depths)


def _along(split: Split, rows: torch.Tensor, exit_depths: torch.Tensor) -> Paths:
    """Take the videos ``rows [P]`` along the paths ``exit_depths [P, T]``."""
    readout, frames, exits = split.readout, split.num_frames, split.num_exits
    temperatures = split.temperatures or (1.0,) * exits
    stored, truth = split.source, split.table.all_labels.dense(rows)
    shown, correct = list[list[torch.Tensor]](), torch.zeros(len(rows), frames, exits, dtype=torch.double)
    known, before = Accumulated.nothing(len(rows)), None
    with torch.inference_mode():
        for t in range(frames):
            left = Accumulated(torch.empty(len(rows), readout.width), torch.empty(len(rows), 1))
            last, answers = known, list[torch.Tensor]()
            for b in range(exits):
                last = readout.accumulate(readout.base(known, last, t), stored.feature(rows, t, b))
                answers.append(readout.probabilities(readout.classify(last.z, t) / temperatures[b]))
                correct[:, t, b] = truth.gather(1, answers[b].argmax(1, keepdim=True))[:, 0]
                leaving = (exit_depths[:, t] == b).nonzero()[:, 0]
                for target, source in ((left.z, last.z), (left.count, last.count)):
                    target[leaving] = source[leaving]
            shown.append([evidence(each, before).double() for each in answers])
            before = torch.stack(answers, dim=1)[torch.arange(len(rows)), exit_depths[:, t]]
            known = left
    return Paths(shown, correct, exit_depths)


class Regressions:
    """Regressions on the evidence ``[P, F]`` at an exit, whose first column is one; a constant column has no weight.

    What they have in common, whatever is fitted, is computed once.
    """

    def __init__(self, shown: torch.Tensor):
        self._scaled, self._mean, self._deviation = _standardised(shown)
        penalty = SHRINKAGE * torch.eye(shown.shape[1], dtype=shown.dtype)
        self._gram = self._scaled.T @ self._scaled / len(shown) + penalty

    def ridge(self, targets: torch.Tensor) -> torch.Tensor:
        """Fit each of ``targets [P, K]`` by ridge regression, to weights ``[F, K]``; its mean is not shrunk."""
        means = targets.mean(0)
        products = self._scaled.T @ (targets - means) / len(targets)
        weights = torch.linalg.solve(self._gram, products) / self._deviation[:, None]
        weights[0] = means - self._mean @ weights
        return weights


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
    fitted = LogisticRegression(C=1 / PENALTY, solver="newton-cholesky").fit(columns, together.numpy())
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


def _rows(weights: torch.Tensor) -> list[Weights]:
    """Return the columns of ``weights [F, K]``."""
    return [tuple(each) for each in weights.T.tolist()]
