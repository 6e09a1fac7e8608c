"""The oracle: a policy that knows which exits are correct, a bound for all others."""

import pandas as pd
import torch

from tlee.evaluation.replay import Split
from tlee.evaluation.results import Results
from tlee.metrics import is_correct
from tlee.policies.given import FixedExits
from tlee.policies.inference import Outcomes

STEPS = 20  # points of the curve


def oracle(split: Split, stays_correct: bool = False) -> Outcomes:
    """Take the cheapest correct exit of each video, among those where all frames are left at the same depth.

    A video that no exit classifies correctly costs the full network. An exit may be correct by luck: with
    ``stays_correct`` only one counts after which no later frame and no deeper exit of its frame is wrong.
    """
    readout, frames, depths = split.readout, split.num_frames, split.num_exits
    cost = _costs(split).flatten()
    logits, parts = [], []
    for _, part in split.chunks():
        features = part.table.features
        with torch.inference_mode():
            by_depth = [readout.prefix_logits(features, depth) for depth in range(depths)]
        each = torch.stack(by_depth, dim=2).flatten(1, 2)  # [n, T * (B + 1), C]
        truth = part.table.truth.repeat_interleave(frames * depths, 0)
        correct = is_correct(each.flatten(0, 1), truth).view(len(each), -1)
        if stays_correct:
            correct = correct.flip(1).cumprod(1).flip(1).bool()
        cheapest = torch.where(correct, cost, cost.max() + 1).argmin(1)
        parts.append(torch.where(correct.any(1), cheapest, frames * depths - 1))
        logits.append(each[torch.arange(len(each)), parts[-1]])
    taken = torch.cat(parts)
    step, depth = taken // depths, taken % depths
    exit_depths = torch.where(torch.arange(frames) <= step[:, None], depth[:, None], -1)
    return Outcomes(logits=torch.cat(logits), exit_depths=exit_depths, macs=cost[taken])


def oracle_curve(split: Split, results: Results, steps: int = STEPS) -> pd.DataFrame:
    """Most videos that can be correct at each mean cost, where a video given up takes the cheapest exit.

    The most expensive videos are given up first; the answers of the cheapest exit may be correct by luck. ``steps`` is
    the number of points. Columns as those of ``Evaluation.curves``; the score is top-1.
    """
    correct = results.correct
    at_first_frame = _costs(split)[0]
    cheapest = at_first_frame.min().item()
    by_luck = split.result(FixedExits(1, int(at_first_frame.argmin()))).correct
    order = results.macs.masked_fill(~correct, results.macs.max() + 1).argsort(stable=True)
    macs, frames, by_luck = results.macs[order].double(), results.frames[order].double(), by_luck[order]
    all_correct, free = correct.sum().item(), (macs[: correct.sum()] == cheapest).sum().item()
    points = []
    for kept in sorted({round(free + (all_correct - free) * step / steps) for step in range(steps + 1)}):
        given_up = split.num_videos - kept
        points.append(
            {
                "method": "oracle",
                "score": (kept + by_luck[kept:].sum().item()) / split.num_videos,
                "gmacs": (macs[:kept].sum().item() + given_up * cheapest) / split.num_videos / 1e9,
                "frames": (frames[:kept].sum().item() + given_up) / split.num_videos,
            }
        )
    return pd.DataFrame(points).assign(val_gmacs=lambda curve: curve["gmacs"])


def _costs(split: Split) -> torch.Tensor:
    """MACs of stopping after each frame with all frames left at the same depth, ``[T, B + 1]``."""
    frames = torch.arange(split.num_frames)
    by_depth = [
        split.costs.of_paths(torch.where(frames <= frames[:, None], depth, -1), split.readout.accumulates_passed)
        for depth in range(split.num_exits)
    ]
    return torch.stack(by_depth, dim=1)
