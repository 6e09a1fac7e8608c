"""Policies of the literature that TLEE's is compared with, each with one or two parameters.

Policies with a single threshold also have the shallowest exit in use as a parameter.

Every family is a list of paths: of policies that one number makes cheaper (``Search.judge_path``). Those on its
frontier on ``val`` are its curve, and one of them is chosen on ``val`` by the same rule as TLEE's own.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from tlee.evaluation.replay import Split
from tlee.levels import ALWAYS, NEVER
from tlee.policies.given import FixedExits, GivenExits, RandomExits
from tlee.policies.policy import Observation, Policy
from tlee.policies.stops import Score, StopAbove, log_probabilities

#: Thresholds on confidence from conservative to aggressive; at 1 the full network runs.
LEVELS = (
    *(NEVER, 0.9999, 0.9995, 0.999, 0.998, 0.995, 0.99, 0.98, 0.97, 0.95, 0.92, 0.9, 0.87, 0.83),
    *(0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.3, 0.2, 0.1, 0.0),
)

MIXES = (1.5, 1.3, 1.2, 1.1, 1.05, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)

SAME = 1e-5  #: scores that differ by no more may be ordered differently on another machine

STAY_NEAR_ONE = 1e-3  #: weight of the regulariser: where all of val is correct, larger weights would always be better

PROBABILITIES = 2**23  #: class probabilities that weights are fitted to at most: 32 MiB, and some copies

CHANCES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  #: probabilities of stopping at an exit


def fixed_frames(val: Split, seed: int) -> list[list[FixedExits]]:
    """The first frames at full depth, whatever the confidence."""
    return [[FixedExits(count, val.num_exits - 1) for count in range(1, val.num_frames + 1)]]


def fixed_depth(val: Split, seed: int) -> list[list[FixedExits]]:
    """All frames, left at the same depth."""
    return [[FixedExits(val.num_frames, depth) for depth in range(val.num_exits)]]


def patience(val: Split, seed: int) -> list[list[StopAbove]]:
    """Frames at one depth until several consecutive ones agree on the class; a path for each depth."""
    streaks = [(streak - 0.5) / val.num_frames for streak in range(1, val.num_frames + 1)]
    return [
        [StopAbove.between("agreement", above, val.num_frames, depth, depth) for above in streaks]
        for depth in range(val.num_exits)
    ]


def above_level(val: Split, score: Score) -> list[list[StopAbove]]:
    """A single threshold at all exits from some depth on; a path for each depth."""
    deepest = val.num_exits - 1
    return [
        [StopAbove.between(score, level, val.num_frames, shallowest, deepest) for level in LEVELS]
        for shallowest in range(val.num_exits)
    ]


def ensemble(val: Split, seed: int) -> list[list[StopAbove]]:
    """A single threshold on the product of all exits from some depth on, with weights fitted on ``val``.

    Of more videos than fit in memory with the probabilities of all exits, evenly spread ones are fitted.
    """
    exits, deepest = val.num_frames * val.num_exits, val.num_exits - 1
    fitted = val.thinned(PROBABILITIES // (exits * val.readout.classes))
    seen = _record(fitted, log_probabilities)
    return [
        [StopAbove.between("ensemble", level, val.num_frames, shallowest, deepest, weights) for level in LEVELS]
        for shallowest in range(val.num_exits)
        for weights in [_fit_weights(seen, fitted, shallowest)]
    ]


def _fit_weights(seen: torch.Tensor, val: Split, shallowest: int) -> tuple[float, ...]:
    """Fit weights of the depths from ``shallowest`` on, by the loss after each exit of the full network."""
    used = seen.unflatten(1, (val.num_frames, val.num_exits))[:, :, shallowest:]
    logarithms = torch.zeros(used.shape[2], requires_grad=True)
    targets = val.table.targets(val.readout.multi_label)[:, None]
    targets = targets.expand(-1, used.shape[1] * used.shape[2], *targets.shape[2:])
    optimizer = torch.optim.LBFGS([logarithms], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = (used * logarithms.exp()[:, None]).flatten(1, 2).cumsum(1)
        value = val.readout.loss(logits, targets).mean() + STAY_NEAR_ONE * logarithms.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return (0.0,) * shallowest + tuple(logarithms.exp().tolist())


def random(val: Split, seed: int) -> list[list[RandomExits]]:
    """Exits drawn at random."""
    return [[RandomExits(chance, seed) for chance in CHANCES]]


def budgeted(val: Split, seed: int) -> list[list[StopAbove]]:
    """Thresholds for a target distribution over exits (MSDNet, ICLR 2018, budgeted batch classification).

    Exit ``k``, counted over frames and depths in visiting order, is to take a share proportional to ``q^k`` of the
    videos: the most confident ones of ``val`` among those that reach it.
    """
    confidence = _record(val, lambda seen: seen.confidence).double().numpy()
    exits = confidence.shape[1]
    policies = []
    for mix in MIXES:
        share = mix ** np.arange(exits)
        share /= share.sum()
        above, left = np.full(exits, NEVER), np.arange(val.num_videos)
        for k in range(exits - 1):
            take = round(share[: k + 1].sum() * val.num_videos) - (val.num_videos - len(left))
            above[k] = _threshold(confidence[left, k], take)
            left = left[~(confidence[left, k] > above[k])]
        table = above.reshape(val.num_frames, val.num_exits)
        policies.append(StopAbove("confidence", tuple(map(tuple, table.tolist())), val.num_exits - 1))
    return [list(dict.fromkeys(policies))]


def _threshold(scores: np.ndarray, take: int) -> float:
    """Threshold that about ``take`` of ``scores`` exceed, midway between two that differ by more than ``SAME``."""
    if take <= 0:
        return NEVER
    ordered = np.sort(scores)[::-1]
    ends = np.append(np.flatnonzero(-np.diff(ordered) > SAME) + 1, len(scores))
    nearest = ends[np.abs(ends - take).argmin()]
    return ALWAYS if nearest == len(scores) else float(ordered[nearest - 1 : nearest + 1].mean())


class _ExitRecorder(Policy):
    """Uses every exit, stops at none and records a value at each."""

    def __init__(self, note: Callable[[Observation], torch.Tensor]):
        self.note, self.seen = note, list[torch.Tensor]()

    def uses_exit(self, t: int, b: int, frames: int) -> bool:
        return True

    def stop_video(self, seen: Observation) -> torch.Tensor:
        return torch.zeros(seen.num_videos, dtype=torch.bool)

    leave_frame = stop_video

    def observe(self, seen: Observation) -> None:
        self.seen.append(self.note(seen))


def _record(split: Split, note: Callable[[Observation], torch.Tensor]) -> torch.Tensor:
    """Value of ``note`` at each exit of the full network, ``[N, T * (B + 1), ...]``; zero where none is evaluated."""
    parts = []
    for _, part in split.chunks():
        recorder = _ExitRecorder(note)
        part.run(recorder)
        seen = torch.stack(recorder.seen, dim=1)
        values = seen.new_zeros(len(seen), split.num_frames * split.num_exits, *seen.shape[2:])
        values[:, : seen.shape[1]] = seen
        parts.append(values)
    return torch.cat(parts)


#: Families by name: functions of a ``val`` split and a seed that return the paths of the family.
FAMILIES: dict[str, Callable[[Split, int], Sequence[Sequence[Policy | GivenExits]]]] = {
    "fixed_frames": fixed_frames,
    "fixed_depth": fixed_depth,
    "confidence": lambda val, seed: above_level(val, "confidence"),
    "entropy": lambda val, seed: above_level(val, "certainty"),
    "patience": patience,
    "budgeted": budgeted,
    "ensemble": ensemble,
    "random": random,
}
