"""Analysis of the exits of a policy on the test videos: savings, cost by class and difficulty, changed predictions.

Whatever the metric, everything here refers to top-1: a video is correct if the predicted class is one of its classes.
A video of several classes is listed under the first of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from tlee.explanation.trace import Trace, read_trace
from tlee.explanation.true_difficulty import truth_file
from tlee.params import Params
from tlee.records import save_metrics, save_table

if TYPE_CHECKING:
    from tlee.explanation.comparison import TrueDifficulty

#: Policies of the same cost for every video.
FIXED = ("fixed_frames", "fixed_depth", "full")

EARLY_ERRORS = 3  #: largest number of early errors among the examples

EDGE = 1 + 1e-5  #: tolerance at the upper edge of a difficulty bin, since costs are read with six digits


@dataclass(frozen=True)
class Explanation:
    """Tables behind the figures of stage ``explain``, about the policy ``method``."""

    method: str
    policies: pd.DataFrame  #: see ``by_policy``
    classes: pd.DataFrame  #: see ``by_class``
    difficulty: pd.DataFrame  #: see ``by_difficulty``
    changed_predictions: pd.DataFrame  #: see ``changed_predictions``
    examples: pd.DataFrame  #: see ``pick_examples``
    truth: "TrueDifficulty | None" = None  #: by true difficulty, if it is known

    @property
    def method_row(self) -> pd.Series:
        """Row of ``policies`` for ``method``."""
        return self.policies[self.policies["method"] == self.method].iloc[0]

    @property
    def class_correlation(self) -> float:
        """Rank correlation, over classes, of the policy's cost with the oracle's."""
        return rank_correlation(self.classes["oracle_share_of_full"], self.classes["share_of_full"])

    def early_errors(self) -> str:
        """Return one line with the number of videos that only the policy misclassifies."""
        counts = f"{self.method_row['harmful']} of {self.method_row['videos']} videos"
        line = f"misclassified by the policy but not by the full network: {counts}"
        if "least_confident" not in set(self.examples["name"]):
            return line
        return f"{line}; shown instead: the least confident correct one that exited early"

    def write(self) -> None:
        """Write metrics and tables."""
        names = ["saving", "by_frames", "by_depth", "frames_share", "difficulty_correlation"]
        metrics = self.method_row[names].astype(float).to_dict() | {"class_correlation": self.class_correlation}
        counts = self.method_row[["harmful", "helpful"]].astype(int).to_dict()
        informed = {} if self.truth is None else {"informed": self.truth.metrics()}
        finite = {name: value for name, value in metrics.items() if np.isfinite(value)}
        save_metrics("explain", finite | counts | informed)
        for name in ("policies", "classes", "difficulty", "changed_predictions", "examples"):
            save_table("explain", name, getattr(self, name))
        if self.truth is not None:
            self.truth.write()


def explain(params: Params) -> Explanation:
    """Return the tables about the policy of ``model.method``, from the trace of stage ``evaluate``.

    If the true difficulty of the clips is known, the policies are compared with one that knows it, too.
    """
    method = params.model.method
    trace, path = read_trace(method), truth_file(params)
    return Explanation(
        method,
        by_policy(trace),
        by_class(trace, method),
        by_difficulty(trace, method),
        changed_predictions(trace),
        pick_examples(trace, method),
        None if path is None else _by_truth(path, trace, params),
    )


def _by_truth(path: Path, trace: Trace, params: Params) -> "TrueDifficulty":
    from tlee.explanation.comparison import compare_with_informed  # slow to import

    return compare_with_informed(path, trace, params)


# --- savings ---------------------------------------------------------------------------------------------


def by_policy(trace: Trace) -> pd.DataFrame:
    """Return one row per policy: its saving and the sources of it, and the predictions that it changes.

    The mean cost of a video is the mean number of processed frames times the mean cost of a processed frame, so
    ``saving``, the full network's cost over the policy's, is exactly ``by_frames`` (ratio of the first) times
    ``by_depth`` (ratio of the second); ``frames_share`` is the part of the logarithm of ``saving`` that is due to
    frames. Heads, gate and classifier are counted with the frame at which they run: if they cost more than depth
    saves, ``by_depth`` is below 1. ``difficulty_correlation`` is the rank correlation of a video's cost with its
    difficulty. ``harmful`` and ``helpful`` count the videos that only the full network, and only the policy,
    classifies correctly.
    """
    full, difficulty = trace["full"], difficulty_of(trace)
    rows = []
    for method, part in trace.items():
        frames = full["frames"].mean() / part["frames"].mean()
        saving = full["gmacs"].mean() / part["gmacs"].mean()
        rows.append(
            {
                "method": method,
                "videos": len(part),
                "score": part["correct"].mean(),
                "frames": part["frames"].mean(),
                "gmacs_per_frame": part["gmacs"].sum() / part["frames"].sum(),
                "saving": saving,
                "by_frames": frames,
                "by_depth": saving / frames,
                "frames_share": np.log(frames) / np.log(saving) if saving != 1 else np.nan,
                "difficulty_correlation": rank_correlation(difficulty, part["gmacs"]),
                "harmful": (full["correct"] & ~part["correct"]).sum(),
                "helpful": (part["correct"] & ~full["correct"]).sum(),
            }
        )
    return pd.DataFrame(rows)


# --- cost by class and difficulty ---------------------------------------------------------------------------------


def by_class(trace: Trace, method: str) -> pd.DataFrame:
    """Return one row per class, cheapest first.

    ``share_of_full`` is the mean cost of its videos as a share of the full network's, ``low`` and ``high`` are the
    10th and the 90th percentile over its videos; ``oracle_share_of_full`` is the oracle's mean cost. ``frames`` is the
    mean number of processed frames, ``depth`` the mean depth at which they exit. ``score`` and ``full_score`` are the
    accuracies of the policy and of the full network.
    """
    part, full = trace[method], trace["full"]
    share, frames = part["gmacs"] / full["gmacs"].mean(), part["frames"]
    table = pd.DataFrame(
        {
            "share": share,
            "oracle": trace["oracle"]["gmacs"] / full["gmacs"].mean(),
            "frames": frames,
            "depths": [sum(map(int, path.split())) for path in part["exit_depths"]],
            "correct": part["correct"],
            "full_correct": full["correct"],
        }
    ).groupby(part["truth"].rename("class"))
    return (
        pd.DataFrame(
            {
                "videos": table.size(),
                "share_of_full": table["share"].mean(),
                "low": table["share"].quantile(0.1),
                "high": table["share"].quantile(0.9),
                "oracle_share_of_full": table["oracle"].mean(),
                "frames": table["frames"].mean(),
                "depth": table["depths"].sum() / table["frames"].sum(),
                "score": table["correct"].mean(),
                "full_score": table["full_correct"].mean(),
            }
        )
        .sort_values("share_of_full", kind="stable")
        .reset_index()
    )


def difficulty_of(trace: Trace) -> pd.Series:
    """Return the GMACs of the cheapest correct exit of each video (see ``oracle``), infinite if there is none."""
    oracle = trace["oracle"]
    return oracle["gmacs"].where(oracle["correct"], np.inf)


def by_difficulty(trace: Trace, method: str) -> pd.DataFrame:
    """Return one row per bin of difficulty, from the easiest videos to those that no exit classifies correctly.

    The edges of the bins are the full network's cost times powers of two. ``score`` is the accuracy,
    ``share_of_full`` the mean cost as a share of the full network's, ``low`` and ``high`` are the 10th and the 90th
    percentile over videos. ``fixed`` is the cheapest policy of the same cost for every video, with its
    ``fixed_share_of_full`` and ``fixed_score``.
    """
    full_gmacs, fixed = trace["full"]["gmacs"].mean(), cheapest_fixed(trace)
    part, fixed_part = trace[method], trace[fixed]
    exponents = np.ceil(np.log2(difficulty_of(trace) / full_gmacs / EDGE))
    rows = []
    for exponent, videos in part.groupby(exponents):
        share = videos["gmacs"] / full_gmacs
        rows.append(
            {
                "difficulty": _up_to(exponent),
                "videos": len(videos),
                "share_of_full": share.mean(),
                "low": share.quantile(0.1),
                "high": share.quantile(0.9),
                "frames": videos["frames"].mean(),
                "score": videos["correct"].mean(),
                "fixed": fixed,
                "fixed_share_of_full": fixed_part.loc[videos.index, "gmacs"].mean() / full_gmacs,
                "fixed_score": fixed_part.loc[videos.index, "correct"].mean(),
            }
        )
    return pd.DataFrame(rows)


def cheapest_fixed(trace: Trace) -> str:
    """Return the cheapest policy of the same cost for every video."""
    return min((name for name in FIXED if name in trace), key=lambda name: trace[name]["gmacs"].mean())


def _up_to(exponent: float) -> str:
    if np.isinf(exponent):
        return "never correct"
    return f"up to {2**exponent:g}" if exponent >= 0 else f"up to 1/{2**-exponent:g}"


def rank_correlation(one: pd.Series, other: pd.Series) -> float:
    """Return Spearman's rank correlation, NaN if one of the two is constant."""
    if one.nunique() < 2 or other.nunique() < 2:
        return float("nan")
    return float(spearmanr(one, other).statistic)


# --- changed predictions and examples -----------------------------------------------------------


def changed_predictions(trace: Trace) -> pd.DataFrame:
    """Return the confusions made and avoided by exiting early, one row each, with the number of ``videos``.

    In a ``harmful`` change (``kind``) only the full network is correct and ``prediction`` is that of the policy of
    ``method``; in a ``helpful`` one only the policy is correct and ``prediction`` is that of the full network.
    """
    full, parts = trace["full"], []
    for method, part in trace.items():
        for kind, correct, incorrect in (("harmful", full, part), ("helpful", part, full)):
            pairs = incorrect[correct["correct"] & ~incorrect["correct"]].groupby(["truth", "prediction"]).size()
            pairs = pairs.rename("videos").sort_values(ascending=False, kind="stable").reset_index()
            parts.append(pairs.assign(method=method, kind=kind))
    return pd.concat(parts, ignore_index=True)[["method", "kind", "truth", "prediction", "videos"]]


def pick_examples(trace: Trace, method: str) -> pd.DataFrame:
    """Return example test videos: rows of the trace of ``method``, by position in the split (``row``).

    ``name`` is the role of the example: the cheapest and the most expensive correct video (of all videos if none is
    correct), and of those that the full network classifies correctly the most confident errors, or if there are none
    the least confident that exited early. ``finding`` is the start of its title, ``share_of_full`` its cost as a share
    of the full network's.
    """
    part, full = trace[method], trace["full"]
    by_cost = (part[part["correct"]] if part["correct"].any() else part).sort_values(
        ["gmacs", "confidence"], ascending=[True, False], kind="stable"
    )
    by_confidence = part[full["correct"]].sort_values("confidence", ascending=False, kind="stable")
    errors = by_confidence[~by_confidence["correct"]][:EARLY_ERRORS]
    errors = errors.assign(name=[f"early_error_{number}" for number in range(1, len(errors) + 1)])
    early = by_confidence[by_confidence["exit_depths"] != full["exit_depths"].loc[by_confidence.index]]
    chosen = [
        by_cost.iloc[[0]].assign(name="cheapest_correct"),
        by_cost.iloc[[-1]].assign(name="most_expensive_correct"),
        errors if len(errors) else early[-1:].assign(name="least_confident"),
    ]
    examples = pd.concat(chosen).rename_axis("row").reset_index()
    examples["share_of_full"] = examples["gmacs"] / full["gmacs"].mean()
    examples["finding"] = [
        f"{row.truth}, classified {'correctly' if row.correct else f'as {row.prediction}'}"
        for row in examples.itertuples()
    ]
    return examples[["name", *(column for column in examples if column != "name")]]
