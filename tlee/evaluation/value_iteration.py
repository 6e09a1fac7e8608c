"""Fitted value iteration: what going on is worth at each exit, learned backwards from the last one.

At an exit a video can be answered, the frame left for the next one, or run deeper. The value of an answer is the
chance that it is correct, that of going on is the expected value at the next exit less the price of reaching it. Both
are regressed on the ``evidence`` at the exit, from the last exit of the last frame to the first (Longstaff and
Schwartz, Review of Financial Studies 2001, for American options; Tsitsiklis and Van Roy, IEEE Transactions on Neural
Networks 2001). The price of computation is the only number to choose.
"""

import math
from dataclasses import dataclass

import torch

from tlee.evaluation.replay import Split
from tlee.policies.evidence import NUM_EVIDENCE, evidence
from tlee.policies.optimal_stopping import NO_CHOICE, OptimalStopping, Weights
from tlee.readout import Accumulated

#: Prices of a run of the full network, in correct answers: from conservative to aggressive.
PRICES = (
    *(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3),
    *(0.4, 0.6, 0.8, 1.2, 1.6, 2.4, 3.2, 5.0, 8.0, 12.0, 20.0),
)

SHRINKAGE = 0.01  #: of the weights of standardised evidence, as a share of its variance (ridge regression)
PATHS = 8  #: ways through each video by which the evidence is collected, if there are few videos
OBSERVED = 20_000  #: paths at most


@dataclass(frozen=True)
class Paths:
    """What ``P`` videos show along random layer exits."""

    shown: list[list[torch.Tensor]]  #: ``[T][B + 1]``, evidence at each exit of a frame, ``[P, F]``
    reward: torch.Tensor  #: ``[P, T, B + 1]``, value of answering there
    left: torch.Tensor  #: ``[P, T]``, depth at which each frame was left


class ValueIteration:
    """The policies that a split teaches, one for each price."""

    def __init__(self, split: Split, seed: int):
        self._split, self._paths = split, collect(split, seed)
        self._frames, self._exits = split.num_frames, split.num_exits
        self._first_exit_ends = split.readout.first_exit_ends
        costs = split.costs
        full = costs.full_network(split.num_frames)
        self._segments = [segment / full for segment in costs.segments]
        self._heads = [(head + costs.reuse + costs.classifier + 3 * NUM_EVIDENCE) / full for head in costs.heads]
        self._answers = [
            [regress(shown, self._paths.reward[:, t, b]) for b, shown in enumerate(frame)]
            for t, frame in enumerate(self._paths.shown)
        ]

    def policy(self, price: float) -> OptimalStopping:
        """Fit the values at ``price``.

        A depth at which no video of the split stops or leaves the first frame is not used there, and one at which none
        leaves any later frame is not used there; if none gets so far, all are.
        """
        exits = list(range(self._exits))
        taken = self._split.run(self._iterate(price, [exits] * self._frames)).exit_depths
        first, later = (sorted({*depths.flatten().tolist()} - {-1}) for depths in (taken[:, :1], taken[:, 1:]))
        return self._iterate(price, [first] + [later or exits] * (self._frames - 1))

    def _iterate(self, price: float, used: list[list[int]]) -> OptimalStopping:
        """Fit the values backwards, with the exits ``used`` of each frame."""
        paths, values = self._paths, list[tuple]()
        ahead = torch.empty(0)  # value of going on to the next frame, for each path; none after the last
        for t in reversed(range(self._frames)):
            exits = used[t][:1] if self._first_exit_ends(t, self._frames) else used[t]
            weights: list[tuple[Weights, Weights, Weights] | None] = [None] * self._exits
            value, below = torch.empty(0), -1
            for b in reversed(exits):
                shown, left = paths.shown[t][b], paths.left[:, t] == b
                answer = self._answers[t][b]
                onward = regress(shown[left], ahead[left]) if len(ahead) else NO_CHOICE
                deeper = regress(shown, value - price * self._reach(below, b)) if len(value) else NO_CHOICE
                worth = torch.stack([_of(shown, answer).clamp(0, 1), _of(shown, onward), _of(shown, deeper)])
                value, below, weights[b] = worth.amax(0), b, (answer, onward, deeper)
            ahead = value - price * self._reach(below)
            values.insert(0, tuple(weights))
        return OptimalStopping(price, tuple(values))

    def _reach(self, depth: int, last: int = -1) -> float:
        """Cost of reaching the exit ``depth`` from the exit ``last`` of the same frame, of the full network's."""
        return sum(self._segments[last + 1 : depth + 1]) + self._heads[depth]


def collect(split: Split, seed: int) -> Paths:
    """Take random layer exits of the videos of ``split``; half of the paths keep to one depth."""
    readout, frames, exits = split.readout, split.num_frames, split.num_exits
    generator = torch.Generator().manual_seed(seed)
    copies = max(1, min(PATHS, OBSERVED // split.num_videos))
    rows = torch.arange(split.num_videos).repeat(copies)[:OBSERVED]
    left = torch.randint(exits, (len(rows), frames), generator=generator)
    left[::2] = left[::2, :1]
    temperatures = split.temperatures or (1.0,) * exits
    features, truth = split.table.features, split.table.truth[rows]
    shown, reward = [], torch.zeros(len(rows), frames, exits, dtype=torch.double)
    known, before = Accumulated.nothing(len(rows)), None
    with torch.inference_mode():
        for t in range(frames):
            last, states, answers = known, list[Accumulated](), list[torch.Tensor]()
            for b in range(exits):
                last = readout.accumulate(readout.base(known, last, t), features[rows, t, b])
                states.append(last)
                answers.append(readout.probabilities(readout.classify(last.z, t) / temperatures[b]))
                reward[:, t, b] = truth.gather(1, answers[b].argmax(1, keepdim=True))[:, 0]
            shown.append([evidence(each, before).double() for each in answers])
            for b in range(exits):
                known = known.where((left[:, t] == b)[:, None], states[b])
            before = torch.stack(answers, dim=1)[torch.arange(len(rows)), left[:, t]]
    return Paths(shown, reward, left)


def regress(shown: torch.Tensor, target: torch.Tensor) -> Weights:
    """Fit ``target [P]`` by ridge regression on the evidence ``[P, F]``, whose first column is one."""
    mean, spread = shown.mean(0), shown.std(0)
    constant = spread < math.sqrt(torch.finfo(torch.float).eps)
    scaled = (shown - mean) / spread.masked_fill(constant, 1)
    penalty = SHRINKAGE * torch.eye(shown.shape[1], dtype=shown.dtype)
    slopes = torch.linalg.solve(
        scaled.T @ scaled / len(shown) + penalty, scaled.T @ (target - target.mean()) / len(shown)
    )
    weights = (slopes / spread.masked_fill(constant, 1)).masked_fill(constant, 0)
    weights[0] = target.mean() - weights @ mean
    return tuple(weights.tolist())


def _of(shown: torch.Tensor, weights: Weights) -> torch.Tensor:
    return shown @ torch.tensor(weights, dtype=shown.dtype)
