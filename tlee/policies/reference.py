"""The method in its plainest form: TLEE's inference loop (section III-A) for one video, with nothing shared or hurried.

The kit runs policies by ``inference``, for many videos and policies at once; tests hold it to this loop.
"""

import math

import torch

from tlee.levels import NEVER
from tlee.policies.optimal_stopping import OptimalStopping, Weights
from tlee.policies.thresholds import Thresholds
from tlee.readout import Readout


@torch.inference_mode()
def run_one_video(
    features: torch.Tensor, readout: Readout, policy: Thresholds | OptimalStopping
) -> tuple[list[int], torch.Tensor]:
    """Run ``policy`` on the exit features ``[T, B + 1, D]`` of a video, in visiting order.

    Returns the depth at which each processed frame was left, and the logits ``[C]`` at the last of these exits.
    Each ``z`` is computed anew from the list of features that it is made of, so nothing is cached between exits.
    The rules of ``model.accumulate`` are written out here, and nowhere else besides ``Readout``.
    """
    frames, depths, _ = features.shape
    published = readout.as_published
    accumulated: list[torch.Tensor] = []  # exit features that z is made of
    answers: list[list[float]] = []  # class probabilities at the exits by which frames were left
    exit_depths: list[int] = []
    for t in range(frames):
        before = within = accumulated
        first_ends = published and 0 < t == frames - 1
        for b in range(depths):
            if not policy.uses_exit(t - 1 if first_ends else t, b, frames):
                continue
            base = within if readout.accumulates_visited else before
            if published and t == 0:
                base = []
            past = base if published else before
            within = [*base, features[t, b]]
            z = combine(within, readout)
            logits = readout.classify(z, t)
            probabilities = readout.probabilities(logits)[0].tolist()
            if first_ends:
                break
            if isinstance(policy, OptimalStopping):
                stop, leave = by_values(policy.values[t][b], probabilities, answers[-1] if answers else None)
            else:
                stop, leave = by_confidence(policy, t, b, max(probabilities))
                if 0 < t < frames - 1 and policy.gate[b] < NEVER:
                    stop = stop or readout.gate(z, combine(past, readout), t).sigmoid().item() > policy.gate[b]
            if stop and t < frames - 1:
                return [*exit_depths, b], logits[0]
            if leave or b == depths - 1:
                break
        accumulated = within
        answers.append(probabilities)
        exit_depths.append(b)
    return exit_depths, logits[0]


def by_confidence(policy: Thresholds, t: int, b: int, confidence: float) -> tuple[bool, bool]:
    """Return whether the video may stop, and whether the frame is left, by the confidence at the exit ``(t, b)``."""
    stop = confidence > (policy.first[b] if t == 0 else policy.stop[b])
    return stop, b < len(policy.layer) and confidence > policy.layer[b]


def by_values(
    weights: tuple[Weights, Weights, Weights] | None, now: list[float], before: list[float] | None
) -> tuple[bool, bool]:
    """Return whether the video stops, and whether the frame is left, by the values of the choices at an exit.

    ``now`` are the class probabilities there, ``before`` those at the exit by which the previous frame was left.
    """
    assert weights is not None
    shown = evidence_of(now, before)
    answer, next_frame, deeper = (sum(w * x for w, x in zip(row, shown, strict=True)) for row in weights)
    answer = 1 / (1 + math.exp(-answer))
    return answer > max(next_frame, deeper), max(answer, next_frame) > deeper


def evidence_of(now: list[float], before: list[float] | None) -> list[float]:
    """Return the numbers of ``evidence.evidence`` for one video."""
    second, first = (min(max(p, 1e-5), 1 - 1e-5) for p in sorted(now)[-2:])
    odds = math.log(first / (1 - first))
    entropy = sum(-p * math.log(max(p, 1e-5)) for p in now) / math.log(len(now))
    shown = [1, odds, odds**2 / 10, math.log(first / second), entropy, entropy * odds]
    if before is None:
        return [*shown, 0, 0, 0]
    agreement = before[now.index(max(now))]
    return [*shown, agreement, agreement * odds / 5, sum(abs(p - q) for p, q in zip(now, before, strict=True)) / 2]


def combine(features: list[torch.Tensor], readout: Readout) -> torch.Tensor:
    """Reuse: combine a list of features ``[D]`` one after the other, ``[1, D]``."""
    z = features[0][None]
    for count, feature in enumerate(features[1:], start=1):
        z = readout.reuse(z, feature[None], count)
    return z
