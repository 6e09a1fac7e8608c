"""Where a policy exits, and why: what the trace of the test videos says beyond score and cost.

Everything is of the top-1 answer to each video: whatever the metric, a video is right if the answer is one of its
classes, and it stands under the first of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from tlee.errors import UserError
from tlee.methods import NAMES
from tlee.params import Params
from tlee.paths import TRACE
from tlee.records import save_metrics, save_table

#: Columns of the trace, see ``Evaluation.trace``.
COLUMNS = {
    "method": str,
    "video": str,
    "group": str,
    "truth": str,
    "prediction": str,
    "correct": bool,
    "confidence": float,
    "frames": int,
    "gmacs": float,
    "exit_depths": str,
}

#: Policies that spend the same on every video.
FIXED = ("fixed_frames", "fixed_depth", "full")

EARLY_ERRORS = 3  #: at most so many are shown

EDGE = 1 + 1e-5  #: costs are read from six digits: an edge of a bin is not missed by the last of them

Trace = Mapping[str, pd.DataFrame]  #: rows of each policy, the same videos in the same order: that of the frame store


@dataclass(frozen=True)
class Explanation:
    """The tables behind the figures of the stage; ``method`` is the policy that they are about."""

    method: str
    policies: pd.DataFrame  #: see ``by_policy``
    classes: pd.DataFrame  #: see ``by_class``
    difficulty: pd.DataFrame  #: see ``by_difficulty``
    flips: pd.DataFrame  #: see ``flipped``
    examples: pd.DataFrame  #: see ``pick_examples``

    @property
    def row(self) -> pd.Series:
        """What is known of the method."""
        return self.policies[self.policies["method"] == self.method].iloc[0]

    @property
    def class_correlation(self) -> float:
        """Rank correlation of what a class costs with what the oracle needs for it."""
        return rank_correlation(self.classes["oracle_share_of_full"], self.classes["share_of_full"])

    def early_errors(self) -> str:
        """How many videos are wrong only since the policy exits early, in a line."""
        nearest = (
            "; in their place the least sure that left early" if "least_confident" in set(self.examples["name"]) else ""
        )
        return f"wrong where the full network is right: {self.row['harmful']} of {self.row['videos']} videos{nearest}"

    def write(self) -> None:
        """Write metrics and tables."""
        names = ["saving", "by_frames", "by_depth", "frames_share", "difficulty_correlation"]
        metrics = self.row[names].astype(float).to_dict() | {"class_correlation": self.class_correlation}
        counts = self.row[["harmful", "helpful"]].astype(int).to_dict()
        save_metrics("explain", {name: value for name, value in metrics.items() if np.isfinite(value)} | counts)
        for name in ("policies", "classes", "difficulty", "flips", "examples"):
            save_table("explain", name, getattr(self, name))


def explain(params: Params) -> Explanation:
    """All of it for the policy of ``model.method``, from what stage ``evaluate`` has written."""
    method = params.model.method
    trace = read_trace(method)
    return Explanation(
        method,
        by_policy(trace),
        by_class(trace, method),
        by_difficulty(trace, method),
        flipped(trace),
        pick_examples(trace, method),
    )


def read_trace(method: str) -> Trace:
    """The trace of stage ``evaluate``, by policy.

    Raises ``UserError`` if the file is missing or damaged, or lacks ``method``, the full network or the oracle.
    """
    try:
        rows = pd.read_csv(TRACE, dtype=COLUMNS, usecols=list(COLUMNS), keep_default_na=False)
    except (FileNotFoundError, ValueError):
        raise UserError(f"{TRACE} is missing or damaged: run `dvc repro evaluate`") from None
    trace = {name: part.drop(columns="method").reset_index(drop=True) for name, part in rows.groupby("method")}
    lacking = [name for name in ("full", "oracle", method) if name not in trace]
    if lacking:
        raise UserError(f"{TRACE} says nothing of `{lacking[0]}`: run `dvc repro evaluate`")
    if any(
        not part["video"].equals(trace["full"]["video"]) or not part["exit_depths"].all() for part in trace.values()
    ):
        raise UserError(f"{TRACE} is damaged, its policies saw different videos: run `dvc repro evaluate`")
    return {name: trace[name] for name in NAMES if name in trace}


# --- savings ---------------------------------------------------------------------------------------------


def by_policy(trace: Trace) -> pd.DataFrame:
    """One row a policy: what it saves, by what, where it spends, and which answers it changes.

    The mean cost of a video is the mean number of frames times the mean cost of a frame that was looked at, so
    ``saving``, the full network's cost over the policy's, is exactly ``by_frames`` (ratio of the first) times
    ``by_depth`` (ratio of the second); ``frames_share`` is the part of the logarithm of ``saving`` that is due to
    frames. Heads, gate and classifier belong to the frame at which they run: where they cost more than depth
    saves, ``by_depth`` is below 1. ``difficulty_correlation`` is the rank correlation of a video's cost with its
    difficulty. ``harmful`` and ``helpful`` count the videos that only the full network, and only the policy, gets
    right.
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


# --- where the cost goes ---------------------------------------------------------------------------------


def by_class(trace: Trace, method: str) -> pd.DataFrame:
    """One row a class, cheapest first.

    ``share_of_full`` is the mean cost of its videos as a share of the full network's, from ``low`` to ``high`` for
    the 10th to the 90th percentile of its videos; ``oracle_share_of_full`` what the oracle needs. ``frames`` are
    looked at, and left at the mean ``depth``. ``score`` and ``full_score`` are the shares of videos that the
    policy and the full network get right.
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
    """For each video the GMACs of the cheapest exit that is right, see ``oracle``; infinite where none is."""
    oracle = trace["oracle"]
    return oracle["gmacs"].where(oracle["correct"], np.inf)


def by_difficulty(trace: Trace, method: str) -> pd.DataFrame:
    """One row a class of difficulty, from the easiest videos to those that no exit gets right.

    Videos belong together whose difficulty lies between two halvings of the full network's cost. ``score`` is the
    share that is right, ``share_of_full`` the mean cost as a share of the full network's, from ``low`` to ``high``
    for the 10th to the 90th percentile of videos. ``fixed`` names the cheapest policy that spends the same on
    every video, and ``fixed_share_of_full`` and ``fixed_score`` are its.
    """
    whole, fixed = trace["full"]["gmacs"].mean(), cheapest_fixed(trace)
    part, even = trace[method], trace[fixed]
    halvings = np.ceil(np.log2(difficulty_of(trace) / whole / EDGE))
    rows = []
    for halving, videos in part.groupby(halvings):
        share = videos["gmacs"] / whole
        rows.append(
            {
                "difficulty": _up_to(halving),
                "videos": len(videos),
                "share_of_full": share.mean(),
                "low": share.quantile(0.1),
                "high": share.quantile(0.9),
                "frames": videos["frames"].mean(),
                "score": videos["correct"].mean(),
                "fixed": fixed,
                "fixed_share_of_full": even.loc[videos.index, "gmacs"].mean() / whole,
                "fixed_score": even.loc[videos.index, "right"].mean(),
            }
        )
    return pd.DataFrame(rows)


def cheapest_fixed(trace: Trace) -> str:
    """The cheapest of the policies that spend the same on every video."""
    return min((name for name in FIXED if name in trace), key=lambda name: trace[name]["gmacs"].mean())


def _up_to(halving: float) -> str:
    if np.isinf(halving):
        return "never right"
    return f"up to {2**halving:g}" if halving >= 0 else f"up to 1/{2**-halving:g}"


def rank_correlation(one: pd.Series, other: pd.Series) -> float:
    """Spearman's; NaN where one of them is the same for all."""
    if one.nunique() < 2 or other.nunique() < 2:
        return float("nan")
    return float(spearmanr(one, other).statistic)


# --- which answers change, and on which videos -----------------------------------------------------------


def flipped(trace: Trace) -> pd.DataFrame:
    """The confusions made, and avoided, by exiting early: one row each, with the number of ``videos``.

    Of a ``harmful`` flip (``kind``) the full network is right and ``prediction`` is what the policy of ``method``
    says in place of the ``truth``; of a ``helpful`` one it is what the full network had said.
    """
    full, parts = trace["full"], []
    for method, part in trace.items():
        for kind, right, wrong in (("harmful", full, part), ("helpful", part, full)):
            pairs = wrong[right["correct"] & ~wrong["correct"]].groupby(["truth", "prediction"]).size()
            pairs = pairs.rename("videos").sort_values(ascending=False, kind="stable").reset_index()
            parts.append(pairs.assign(method=method, kind=kind))
    return pd.concat(parts, ignore_index=True)[["method", "kind", "truth", "prediction", "videos"]]


def pick_examples(trace: Trace, method: str) -> pd.DataFrame:
    """Test videos that are worth a look: rows of the trace of ``method``, by position in the split.

    ``name`` says what for: the cheapest and the dearest that are right (of all, where none is), and the
    most surely wrong of those that the full network gets right, or if there are none the least sure of those that
    left early.
    ``finding`` is what a title says, ``share_of_full`` the cost as a share of the full network's.
    """
    part, full = trace[method], trace["full"]
    right = (part[part["correct"]] if part["correct"].any() else part).sort_values(
        ["gmacs", "confidence"], ascending=[True, False], kind="stable"
    )
    sure = part[full["correct"]].sort_values("confidence", ascending=False, kind="stable")
    wrong = sure[~sure["correct"]][:EARLY_ERRORS]
    wrong = wrong.assign(name=[f"early_error_{number}" for number in range(1, len(wrong) + 1)])
    early = sure[sure["exit_depths"] != full["exit_depths"].loc[sure.index]]
    last = wrong if len(wrong) else early[-1:].assign(name="least_confident")
    chosen = [
        right.iloc[[0]].assign(name="cheapest_correct"),
        right.iloc[[-1]].assign(name="most_expensive_correct"),
        last,
    ]
    examples = pd.concat(chosen).rename_axis("row").reset_index()
    examples["share_of_full"] = examples["gmacs"] / full["gmacs"].mean()
    examples["finding"] = [
        f"{row.truth}: right" if row.correct else f"{row.truth}: taken for {row.prediction}"
        for row in examples.itertuples()
    ]
    return examples[["name", *(column for column in examples if column != "name")]]
