"""Cost and accuracy of policies by true difficulty, beside the informed policy, which knows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tlee.errors import UserError
from tlee.evaluation.evaluate import load_splits
from tlee.evaluation.replay import Split
from tlee.evaluation.results import Results
from tlee.explanation.informed import choose_plans, plans_of, run_informed
from tlee.explanation.trace import Trace
from tlee.explanation.true_difficulty import SplitTruth, split_truth
from tlee.methods import display_name
from tlee.params import Params
from tlee.paths import FEATURES, TRACE
from tlee.policies.inference import Outcomes
from tlee.records import save_table

INFORMED = "informed"  #: key of the informed policy in tables

BESIDE = ("temporal", "confidence")  #: policies that are shown beside the method, if the trace has them

#: Groups of videos by cue, the easiest first.
CUE_GROUPS = {"coarse": "coarse cue", "fine": "fine cue", "none": "no cue"}


@dataclass(frozen=True)
class TrueDifficulty:
    """Results on ``test`` of the policy ``method``, the informed policy and some others."""

    method: str
    table: pd.DataFrame  #: see ``by_true_difficulty``
    overall: pd.DataFrame  #: by policy: ``score`` (top-1), and ``share_of_full``, the mean cost, on all videos
    plans: pd.DataFrame  #: of the informed policy, see ``informed.choose_plans``

    @property
    def cost_ratio(self) -> float:
        """Mean cost of the method's policy over that of the informed policy."""
        return float(self.overall.at[self.method, "share_of_full"] / self.overall.at[INFORMED, "share_of_full"])

    def metrics(self) -> dict[str, Any]:
        """Return score and cost of the informed policy, the method's cost relative to it, and its plan of each cue."""
        plans = {
            f"{plan.cue}_{name}": getattr(plan, name)
            for plan in self.plans.itertuples()
            for name in ("frames", "depth", "confidence")
        }
        return self.overall.loc[INFORMED].to_dict() | {"cost_ratio": self.cost_ratio} | plans

    def sentence(self) -> str:
        """State how far the method's policy is from the informed policy."""
        method, informed = (self.overall.loc[name] for name in (self.method, INFORMED))
        name = display_name(self.method)
        return (
            f"{name} is correct on {method['score']:.1%} of the test videos at {method['share_of_full']:.1%} "
            f"of the full network's GMACs, the informed policy on {informed['score']:.1%} at "
            f"{informed['share_of_full']:.1%}: {name} costs {self.cost_ratio:.2f} times as much."
        )

    def write(self) -> None:
        """Write both tables."""
        save_table("explain", "true_difficulty", self.table)
        save_table("explain", "informed_plans", self.plans)


def compare_with_informed(path: Path, trace: Trace, params: Params) -> TrueDifficulty:
    """Choose the informed policy on ``val``, and compare it on ``test`` with the method's policy and some others.

    ``path`` is the file with the true difficulty. Raises ``UserError`` if it, the frame store, the features or the
    weights are missing or damaged, or are of other videos than the trace.
    """
    method, order, full = params.model.method, params.model.order, trace["full"]
    test_truth = split_truth(path, "test", full["video"].tolist(), order)
    val, test = load_splits(params)
    if test.table.videos != full["video"].tolist():
        raise UserError(f"{FEATURES / 'test.npy'} has other videos than {TRACE}: run `dvc repro evaluate`")
    val_truth = split_truth(path, "val", val.table.videos, order)
    plans = choose_plans(val, val_truth, params.evaluate.max_loss)
    informed = rows_of(test, run_informed(test, test_truth, plans_of(plans)))
    shown = dict.fromkeys(["full", *(name for name in BESIDE if name in trace), method])
    parts = {name: trace[name] for name in shown} | {INFORMED: informed}
    overall = {
        name: {"score": part["correct"].mean(), "share_of_full": part["gmacs"].mean() / full["gmacs"].mean()}
        for name, part in parts.items()
    }
    table = by_true_difficulty(parts, test_truth)
    return TrueDifficulty(method, table, pd.DataFrame(overall).T, plans)


def rows_of(split: Split, outcomes: Outcomes) -> pd.DataFrame:
    """Return the columns of the trace that ``by_true_difficulty`` reads, for a policy that is not in it."""
    results = Results.of(outcomes, split.readout.probabilities(outcomes.logits), split.table.all_labels)
    paths = [" ".join(str(depth) for depth in path if depth >= 0) for path in results.exit_depths.tolist()]
    return pd.DataFrame(
        {
            "correct": results.correct,
            "frames": results.frames,
            "gmacs": results.gmacs,
            "exit_depths": paths,
        }
    )


def by_true_difficulty(parts: Mapping[str, pd.DataFrame], truth: SplitTruth) -> pd.DataFrame:
    """Return one row per group of videos, the easiest first, and policy of ``parts``, which contain ``full``.

    ``by`` is what forms the groups: ``frames``, the number of informative time steps, or ``cue``. ``group`` is the
    group in words, ``videos`` its size. ``share_of_full`` is the mean cost as a share of the full network's, ``low``
    and ``high`` are the 10th and the 90th percentile over videos; ``frames`` is the mean number of processed frames,
    ``depth`` the mean depth at which they exit, ``score`` the accuracy. ``name`` is group and policy in words.
    """
    full_gmacs, steps = parts["full"]["gmacs"].mean(), truth.informative.shape[1]
    counts, cues = truth.counts.numpy(), np.array(truth.cues)
    groups = [
        *(("frames", words, (low <= counts) & (counts <= high)) for low, high, words in count_groups(steps)),
        *(("cue", words, cues == cue) for cue, words in CUE_GROUPS.items()),
    ]
    rows = []
    for by, group, inside in groups:
        for method, part in parts.items() if inside.any() else ():
            videos = part[inside]
            share, depths = videos["gmacs"] / full_gmacs, [each.split() for each in videos["exit_depths"]]
            rows.append(
                {
                    "by": by,
                    "group": group,
                    "videos": len(videos),
                    "method": method,
                    "share_of_full": share.mean(),
                    "low": share.quantile(0.1),
                    "high": share.quantile(0.9),
                    "frames": videos["frames"].mean(),
                    "depth": np.concatenate(depths).astype(int).mean(),
                    "score": videos["correct"].mean(),
                    "name": f"{group}: {display_name(method)}",
                }
            )
    return pd.DataFrame(rows)


def count_groups(steps: int) -> list[tuple[int, int, str]]:
    """Return groups of the number of informative time steps of ``steps``: all, most, up to half, up to a fifth, none.

    The smallest and the largest number of each, and the group in words.
    """
    highest = list(dict.fromkeys([steps, steps - 1, steps // 2, steps // 5, 0]))
    groups = []
    for high, below in zip(highest, [*highest[1:], -1], strict=True):
        low = below + 1
        number = f"{low}" if low == high else f"{low} {'or' if high == low + 1 else 'to'} {high}"
        number = {0: "no", steps: f"all {steps}"}.get(low, number)
        groups.append((low, high, f"{number} informative frame{'' if high == 1 else 's'}"))
    return groups
