"""Analysis of the exits: sources of savings, cost by difficulty and class, and changed predictions."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from tlee.figures.style import (
    BASE,
    COLORS,
    HIGHLIGHT,
    ensure_axes,
    ensure_class_axes,
    headline,
    legend_above,
    percent,
    styled,
)
from tlee.methods import display_name

_FULL, _BOUND = COLORS["full"], COLORS["oracle"]


@styled
def savings(table: pd.DataFrame, method: str = "tlee", axes: Axes | None = None) -> Axes:
    """Draw the factor by which each policy is cheaper than the full network, split into frames and depth.

    ``table``: ``method`` (a key of ``NAMES``), ``saving``, ``by_frames``, ``by_depth`` (its factors), ``score``
    (0..1), one row per policy. The title is about ``method``.
    """
    rows = table[table["method"] != "full"].sort_values("saving", ascending=False, kind="stable")
    axes = ensure_axes(axes, width=8.0, height=1.5 + 0.32 * len(rows))
    places, frames, saving = np.arange(len(rows)), rows["by_frames"].to_numpy(), rows["saving"].to_numpy()
    start = np.where(rows["by_depth"] < 1, 1.0, frames)  # a factor below 1 is drawn to the left of 1
    axes.barh(places, frames - 1, left=1, color=BASE, height=0.62, label="fewer frames")
    axes.barh(
        places, start * rows["by_depth"] - start, left=start, color=HIGHLIGHT, height=0.62, label="shallower exits"
    )
    for place, factor in zip(places, np.maximum(saving, frames), strict=True):
        text = f"{saving[place]:.2f}x"
        axes.annotate(text, (factor, place), (6, 0), textcoords="offset points", va="center", fontsize=9)
    axes.axvline(1, color="black", linewidth=1.0)
    axes.set_xscale("log")
    axes.set_xlim(min(0.9, 0.9 * rows["by_depth"].min()), 1.6 * max(2.0, frames.max(), saving.max()))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("GMACs of the full network / the policy (log scale; below 1x: more expensive)")
    axes.grid(axis="x")
    _name_rows(axes, rows["method"], method)
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(places, [f"{percent(score)} correct" for score in rows["score"]])
    beside.tick_params(length=0, labelcolor="#666666")
    beside.spines[:].set_visible(False)
    legend_above(axes, columns=2)
    headline(axes, _sources_of_savings(_row_of(table, method)))
    return axes


def _row_of(table: pd.DataFrame, method: str) -> pd.Series:
    return table[table["method"] == method].iloc[0]


def _name_rows(axes: Axes, methods: pd.Series, method: str) -> None:
    """Label the y axis with the names of policies, the first on top and ``method`` in bold."""
    axes.set_yticks(range(len(methods)), [display_name(name) for name in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for name, label in zip(methods, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if name == method else "normal")


def _sources_of_savings(row: pd.Series) -> str:
    name = display_name(row["method"])
    if row["by_frames"] == row["by_depth"] == 1:
        return f"{name} saves nothing: it processes all frames at full depth"
    cost = f"{row['saving']:.1f}x cheaper" if row["saving"] >= 1 else f"{1 / row['saving']:.2f}x more expensive"
    factors = f"{row['by_frames']:.1f}x from frames, {row['by_depth']:.1f}x from depth"
    return f"{name} is {cost} than the full network: {factors}"


@styled
def class_costs(table: pd.DataFrame, correlation: float, method: str = "tlee") -> Figure:
    """Draw the cost of each class on the left, cheapest on top, and its accuracy on the right.

    ``table``: ``class``, ``share_of_full`` (mean cost of a video) from ``low`` to ``high``,
    ``oracle_share_of_full``, ``score`` and ``full_score`` (0..1), one row per class; see ``explain.by_class``.
    ``correlation`` is the rank correlation of the policy's cost with the oracle's over classes, NaN if undefined.
    """
    places, few = np.arange(len(table)), len(table) <= 40
    figure, panels = plt.subplots(
        1,
        2,
        figsize=(8.0, min(1.8 + 0.3 * len(table), 15.0)),
        sharey=True,
        width_ratios=(5, 3),
        layout="constrained",
    )
    left, right = (ensure_class_axes(axes, len(table)) for axes in panels)
    size, name, full = 8 if few else 5, display_name(method), display_name("full")
    left.hlines(places, 100 * table["low"], 100 * table["high"], color=HIGHLIGHT, alpha=0.3, linewidth=size - 2)
    left.plot(100 * table["share_of_full"], places, "o", color=HIGHLIGHT, markersize=size, label=name)
    left.plot(100 * table["oracle_share_of_full"], places, "D", color=_BOUND, markersize=0.7 * size, label="oracle")
    left.set(xlabel="cost (% of the full network; bar: 10th to 90th percentile)", xlim=(0, None))
    right.plot(100 * table["full_score"], places, "s", color=_FULL, markersize=size, mfc="none", label=full)
    right.plot(100 * table["score"], places, "o", color=HIGHLIGHT, markersize=0.7 * size, label=name)
    right.set(xlabel="correct videos (%)", xlim=_score_limits(table[["score", "full_score"]]))
    left.set_yticks(places, table["class"])
    legend_above(left, columns=2)
    legend_above(right, columns=2)
    headline(figure, _cheapest_and_most_expensive_class(table, correlation, name))
    return figure


def _score_limits(scores: pd.DataFrame) -> tuple[float, float]:
    """Return axis limits for scores in percent, wide enough that a difference of a point or two looks small."""
    low = min(90.0, 100 * scores.min(axis=None))
    return low - 0.04 * (100 - low), 100 + 0.04 * (100 - low)


def _cheapest_and_most_expensive_class(table: pd.DataFrame, correlation: float, name: str) -> str:
    least, most = table.iloc[0], table.iloc[-1]
    if least["share_of_full"] == most["share_of_full"]:
        return f"{name} spends {percent(most['share_of_full'], 0)} of the full network's GMACs on every class"
    costs = f"{most['class']} costs {percent(most['share_of_full'], 0)} of the full network's GMACs, {least['class']}"
    ending = "" if math.isnan(correlation) else f"; rank correlation with the oracle's cost: {correlation:.2f}"
    return f"{costs} {percent(least['share_of_full'], 0)}{ending}"


@styled
def difficulty_costs(table: pd.DataFrame, correlation: float, method: str = "tlee") -> Figure:
    """Draw the cost of a policy on easy and hard videos above, and its accuracy on them below.

    ``table``: ``difficulty``, ``videos``, ``share_of_full`` (mean cost) from ``low`` to ``high``, ``score`` (0..1),
    and a policy of the same cost for all videos: its name ``fixed``, ``fixed_share_of_full`` and ``fixed_score``; the
    easiest videos first, see ``explain.by_difficulty``. ``correlation`` is the rank correlation of a video's cost
    with its difficulty, NaN if all videos cost the same.
    """
    places, name = np.arange(len(table)), display_name(method)
    fixed = f"{display_name(table['fixed'].iloc[0])} (same cost for all)"
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7.5, 5.4), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    for axes, column, fixed_column in ((top, "share_of_full", "fixed_share_of_full"), (bottom, "score", "fixed_score")):
        axes.plot(places, 100 * table[fixed_column], "s--", color=_FULL, mfc="none", markersize=8, label=fixed)
        axes.plot(places, 100 * table[column], "o-", color=HIGHLIGHT, markersize=7, label=name)
        axes.grid(axis="y")
    top.vlines(places, 100 * table["low"], 100 * table["high"], color=HIGHLIGHT, alpha=0.3, linewidth=9)
    top.set_ylim(0, 1.12 * 100 * table[["high", "share_of_full", "fixed_share_of_full"]].max(axis=None))
    for place, share in zip(places, table["share_of_full"], strict=True):
        top.annotate(percent(share, 0), (place, 100 * share), (8, -9), textcoords="offset points", fontsize=9)
    top.set_ylabel("cost (% of the full network;\nbar: 10th to 90th percentile)")
    bottom.set(ylabel="correct videos (%)", ylim=_score_limits(table[["score", "fixed_score"]]))
    bottom.set_xticks(places, [f"{row.difficulty}\n{_videos(row.videos)}" for row in table.itertuples()])
    bottom.set_xlim(-0.5, len(table) - 0.4)
    bottom.set_xlabel("difficulty: cost of the cheapest correct exit (share of the full network)")
    legend_above(top, columns=2)
    headline(figure, _cost_of_easy_and_hard(table, correlation, name))
    return figure


def _videos(count: int) -> str:
    return f"{count} video" if count == 1 else f"{count} videos"


def _cost_of_easy_and_hard(table: pd.DataFrame, correlation: float, name: str) -> str:
    if len(table) == 1 or math.isnan(correlation):
        videos = "all videos, which are of about equal difficulty" if len(table) == 1 else "easy and hard videos alike"
        return f"{name} spends {percent(table['share_of_full'].iloc[0], 0)} of the full network's GMACs on {videos}"
    easy, hard = (percent(table["share_of_full"].iloc[end], 0) for end in (0, -1))
    return (
        f"{name} spends {easy} of the full network's GMACs on the easiest videos, {hard} on the hardest; "
        f"rank correlation of cost and difficulty: {correlation:.2f}"
    )


@styled
def changed_predictions(
    table: pd.DataFrame, pairs: pd.DataFrame, method: str = "tlee", axes: Axes | None = None
) -> Axes:
    """Draw the number of videos harmed by early exits, to the left, and helped, to the right, one row per policy.

    ``table``: ``method``, ``videos``, ``harmful``, ``helpful`` (counts). ``pairs``: ``method``, ``kind``
    (``harmful`` or ``helpful``), ``truth``, ``prediction``, ``videos``, one row per confusion; see
    ``explain.changed_predictions``. The title is about ``method``.
    """
    rows = table[table["method"] != "full"]
    axes = ensure_axes(axes, width=8.0, height=1.5 + 0.32 * len(rows))
    places = np.arange(len(rows))
    largest = max(1, rows[["harmful", "helpful"]].max(axis=None))
    for kind, sign, color in (("harmful", -1, HIGHLIGHT), ("helpful", 1, BASE)):
        label = f"{kind}: only the policy is {'incorrect' if sign < 0 else 'correct'}"
        axes.barh(places, sign * rows[kind], color=color, height=0.62, label=label)
        for place, count in zip(places, rows[kind], strict=True):
            axes.annotate(
                str(count),
                (sign * count, place),
                (4 * sign, 0),
                textcoords="offset points",
                va="center",
                ha="right" if sign < 0 else "left",
                fontsize=9,
                color="black" if count else "#AAAAAA",
            )
    axes.axvline(0, color="black", linewidth=1.0)
    axes.set_xlim(-1.2 * largest, 1.2 * largest)
    axes.xaxis.set_major_locator(plt.MaxNLocator(nbins=8, integer=True))
    axes.xaxis.set_major_formatter(lambda x, _: f"{abs(x):g}")
    axes.set_xlabel(f"videos (of {rows['videos'].iloc[0]})")
    axes.grid(axis="x")
    _name_rows(axes, rows["method"], method)
    legend_above(axes, columns=2)
    headline(axes, _change_counts(_row_of(table, method), pairs[pairs["method"] == method]))
    return axes


def _change_counts(row: pd.Series, pairs: pd.DataFrame) -> str:
    harmful, helpful = row["harmful"], row["helpful"]
    name = display_name(row["method"])
    if not harmful and not helpful:
        return f"{name} classifies the same videos correctly as the full network"
    counts = f"{name}: early exits harm {harmful} of {_videos(row['videos'])} and help {helpful}"
    worst = pairs[pairs["kind"] == "harmful"].nlargest(1, "videos")
    ending = [
        f"; most frequent confusion: {each.truth} as {each.prediction} ({each.videos})" for each in worst.itertuples()
    ]
    return counts + "".join(ending)
