"""The informed policy: it knows the true difficulty of each clip, which all others must find out."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import torch

from tlee.evaluation.replay import Split
from tlee.evaluation.search import LEVELS, ROUNDING
from tlee.explanation.true_difficulty import CUES, SplitTruth
from tlee.levels import NEVER
from tlee.metrics import top1
from tlee.policies.given import FixedExits
from tlee.policies.inference import Outcomes


class Plan(NamedTuple):
    """Exits of the informed policy in clips of one cue.

    It leaves informative frames at ``depth`` and all others at the shallowest exit. It stops at an informative frame
    once its confidence is above ``confidence``, and at the latest after ``frames`` of them or after the last one that
    the clip has. A clip without any stops at the shallowest exit of its first frame.
    """

    frames: int
    depth: int
    confidence: float


#: Plan of a cue that cannot be seen.
STOP_AT_ONCE = Plan(0, 0, NEVER)


def run_informed(split: Split, truth: SplitTruth, plans: Mapping[str, Plan]) -> Outcomes:
    """Run the informed policy on stored exit features. Its knowledge is free, and so are exits that it passes."""
    logits = torch.zeros(split.num_videos, split.readout.classes)
    exit_depths = torch.full((split.num_videos, split.num_frames), -1)
    macs = torch.zeros(split.num_videos, dtype=torch.long)
    for cue in CUES:
        rows = truth.with_cue(cue)
        if len(rows):
            plan = plans.get(cue, STOP_AT_ONCE)
            outcomes = _look(split.take(rows.numpy()), truth.take(rows), plan.depth).stop(plan)
            logits[rows], exit_depths[rows] = outcomes.logits, outcomes.exit_depths
            macs[rows] = outcomes.macs.long()
    return Outcomes(logits=logits, exit_depths=exit_depths, macs=macs)


def choose_plans(val: Split, truth: SplitTruth, max_loss: float) -> pd.DataFrame:
    """Choose a plan for each cue: the cheapest that loses at most ``max_loss`` points of top-1 to the full network.

    Both are measured on the videos of ``val`` with this cue in at least one sampled frame. If no plan is within the
    limit, the one that loses least is chosen; if there are no such videos, all informative frames run at full depth.
    One row per cue: ``cue``, the fields of ``Plan``, ``val_videos``, ``val_score`` and ``val_full_score``.
    """
    return pd.DataFrame([_choose(val, truth, cue, max_loss) for cue in CUES if cue != "none"])


def plans_of(table: pd.DataFrame) -> dict[str, Plan]:
    """Return the plan of each cue from the table of ``choose_plans``."""
    return {row.cue: Plan(row.frames, row.depth, row.confidence) for row in table.itertuples()}


def _choose(val: Split, truth: SplitTruth, cue: str, max_loss: float) -> dict[str, Any]:
    rows, deepest = truth.with_cue(cue), val.num_exits - 1
    rows = rows[truth.counts[rows] > 0]
    plan, score, full_score = Plan(val.num_frames, deepest, NEVER), math.nan, math.nan
    if len(rows):
        part, known = val.take(rows.numpy()), truth.take(rows)
        full_score = _score(part, part.run(FixedExits(val.num_frames, deepest)))
        tried = []
        for plan, outcomes in _try_all(part, known):
            score = _score(part, outcomes)
            excess = max(full_score - score - max_loss / 100 - ROUNDING, 0)
            tried.append((excess, outcomes.gmacs.mean().item(), plan, score))
        _, _, plan, score = min(tried)
    measured = {"val_videos": len(rows), "val_score": score, "val_full_score": full_score}
    return {"cue": cue, **plan._asdict(), **measured}


def _try_all(split: Split, truth: SplitTruth) -> Iterator[tuple[Plan, Outcomes]]:
    for depth in range(split.num_exits):
        look = _look(split, truth, depth)
        for frames in range(1, int(truth.counts.max()) + 1):
            for confidence in LEVELS[1:] if frames > 1 else (NEVER,):
                plan = Plan(frames, depth, confidence)
                yield plan, look.stop(plan)


def _score(split: Split, outcomes: Outcomes) -> float:
    return top1(split.readout.probabilities(outcomes.logits), split.table.truth)


@dataclass(frozen=True)
class _Look:
    """All ``T`` frames of some videos, informative ones left at one depth: whichever a plan stops at is here."""

    split: Split
    informative: torch.Tensor  #: ``[N, T]``
    exit_depths: torch.Tensor  #: ``[N, T]``
    logits: torch.Tensor  #: ``[N, T, C]``
    confidence: torch.Tensor  #: ``[N, T]``

    def stop(self, plan: Plan) -> Outcomes:
        """Return the outcomes of stopping as planned."""
        seen = self.informative.cumsum(1)
        last = seen[:, -1:].clamp(max=plan.frames)
        stops = self.informative & ((seen == last) | (self.confidence > plan.confidence))
        step = stops.int().argmax(1)  # the first; 0 if there is none
        videos, steps = torch.arange(len(step)), torch.arange(seen.shape[1])
        exit_depths = self.exit_depths.masked_fill(steps > step[:, None], -1)
        macs = self.split.costs.of_paths(exit_depths, self.split.readout.accumulates_passed)
        if plan.confidence < NEVER:  # then every informative frame is classified
            macs = macs + (seen[videos, step] - 1).clamp(min=0) * self.split.costs.classifier
        return Outcomes(logits=self.logits[videos, step], exit_depths=exit_depths, macs=macs)


@torch.inference_mode()
def _look(split: Split, truth: SplitTruth, depth: int) -> _Look:
    readout, exit_depths, parts = split.readout, torch.where(truth.informative, depth, 0), []
    for rows, part in split.chunks():
        z = readout.along(part.table.features, exit_depths[rows])
        parts.append(torch.stack([readout.classify(z[:, t], t) for t in range(z.shape[1])], dim=1))
    logits = torch.cat(parts)
    return _Look(split, truth.informative, exit_depths, logits, readout.probabilities(logits).amax(2))
