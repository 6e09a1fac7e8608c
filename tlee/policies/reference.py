"""The method in its plainest form: TLEE's inference loop (section III-A) for one video, with nothing shared or hurried.

The kit runs policies by ``inference``, for many videos and policies at once; tests hold it to this loop.
"""

import torch

from tlee.levels import NEVER
from tlee.policies.thresholds import Thresholds
from tlee.readout import Readout


@torch.inference_mode()
def run_one_video(features: torch.Tensor, readout: Readout, policy: Thresholds) -> tuple[list[int], torch.Tensor]:
    """Run ``policy`` on the exit features ``[T, B + 1, D]`` of a video, in visiting order.

    Returns the depth at which each processed frame was left, and the logits ``[C]`` at the last of these exits.
    Each ``z`` is computed anew from the list of features that it is made of, so nothing is cached between exits.
    The rules of ``model.accumulate`` are written out here, and nowhere else besides ``Readout``.
    """
    frames, depths, _ = features.shape
    published = readout.as_published
    accumulated: list[torch.Tensor] = []  # exit features that z is made of
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
            confidence = readout.probabilities(logits).amax()
            if t == 0:
                stop = confidence > policy.first[b]
            else:
                stop = confidence > policy.stop[b]
                if policy.gate[b] < NEVER and t < frames - 1:
                    stop = stop or readout.gate(z, combine(past, readout), t).sigmoid() > policy.gate[b]
            if stop and t < frames - 1:
                return [*exit_depths, b], logits[0]
            if first_ends or b == depths - 1 or confidence > policy.layer[b]:
                break
        accumulated = within
        exit_depths.append(b)
    return exit_depths, logits[0]


def combine(features: list[torch.Tensor], readout: Readout) -> torch.Tensor:
    """Reuse: combine a list of features ``[D]`` one after the other, ``[1, D]``."""
    z = features[0][None]
    for count, feature in enumerate(features[1:], start=1):
        z = readout.reuse(z, feature[None], count)
    return z
