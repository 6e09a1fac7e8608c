"""Results of the policies on the test videos."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image, ImageOps

from tlee.figures.pictures import draw_picture, extent
from tlee.figures.style import (
    BASE,
    COLORS,
    HIGHLIGHT,
    MARKERS,
    MUTED,
    SHARES,
    ensure_axes,
    headline,
    legend_above,
    ordinal,
    percent,
    styled,
)
from tlee.methods import display_name, in_order


@styled
def trade_off(
    curves: pd.DataFrame, chosen: pd.DataFrame, method: str = "tlee", metric: str = "top-1", axes: Axes | None = None
) -> Axes:
    """Draw score against cost: the frontier of each policy and its chosen operating point, with 95% intervals.

    Only policies with a colour are drawn; ``policy_panels`` has all of them.

    ``curves``: ``method`` (a key of ``NAMES``), ``gmacs`` (mean per video), ``score`` (0..1), one row per point of a
    frontier. ``chosen``: the same with ``low`` and ``high``, one row per policy, ``full`` and ``method`` among them;
    the title is about ``method``. ``metric`` is the name of the score.
    """
    axes = ensure_axes(axes, height=4.4)
    points = chosen.set_index("method")
    full, best = points.loc["full"], points.loc[method]
    axes.axhline(100 * full["score"], color=COLORS["full"], linestyle="--", linewidth=1.0)
    for name in COLORS:
        curve = curves[curves["method"] == name].sort_values("gmacs")
        axes.plot(curve["gmacs"], 100 * curve["score"], ".-", color=COLORS[name], alpha=0.6, markersize=4)
        if name in points.index:
            point = 100 * points.loc[name, ["score", "low", "high"]].astype(float)
            axes.errorbar(
                points.loc[name, "gmacs"],
                point["score"],
                np.maximum([[point["score"] - point["low"]], [point["high"] - point["score"]]], 0),
                color=COLORS[name],
                marker=MARKERS[name],
                markersize=9,
                markeredgecolor="white",
                capsize=3,
                linestyle="none",
                label=display_name(name),
                zorder=4 if name == method else 3,
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="GMACs per video (log scale)", ylabel=f"{metric} (%)")
    axes.grid()
    legend_above(axes, columns=3)
    headline(
        axes,
        f"{display_name(method)}: {percent(best['score'])} {metric} at {percent(best['gmacs'] / full['gmacs'], 0)} "
        f"of the GMACs; full network: {percent(full['score'])}",
    )
    return axes


@styled
def policy_panels(curves: pd.DataFrame, chosen: pd.DataFrame, method: str = "tlee", metric: str = "top-1") -> Figure:
    """Draw the curve of every policy together with that of ``method``, one panel per policy, axes shared.

    ``curves`` and ``chosen`` as for ``trade_off``; ``area`` in ``chosen`` is the area under a curve (0..1).
    """
    points, full = chosen.set_index("method"), chosen.set_index("method").loc["full"]
    names = in_order(set(curves["method"]) - {"full", method})
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(2.6 * columns, 1.9 * rows + 0.9), sharex=True, sharey=True, layout="constrained"
    )
    panels = list(np.atleast_1d(panels).flat)
    for axes, name in zip(panels, names, strict=False):
        axes.axhline(100 * full["score"], color=COLORS["full"], linestyle="--", linewidth=1.0)
        for each, color in ((method, HIGHLIGHT), (name, BASE)):
            curve = curves[curves["method"] == each].sort_values("gmacs")
            axes.plot(curve["gmacs"] / full["gmacs"], 100 * curve["score"], ".-", color=color, markersize=4)
            at = points.loc[each]
            axes.plot(at["gmacs"] / full["gmacs"], 100 * at["score"], "o", color=color, markeredgecolor="white")
        axes.set_title(f"{display_name(name)}\narea {100 * points.at[name, 'area']:.1f}", fontsize=9, pad=4)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid()
    for axes in panels[len(names) - columns : len(names)]:
        axes.tick_params(labelbottom=True)
    for axes in panels[len(names) :]:
        axes.remove()
    figure.supxlabel("GMACs per video (% of the full network, log scale)", fontsize=10)
    figure.supylabel(f"{metric} (%)", fontsize=10)
    areas = points["area"].drop([method, "oracle"], errors="ignore").dropna()
    best = areas.idxmax()
    headline(
        figure,
        f"{display_name(method)} (orange, area {100 * points.at[method, 'area']:.1f}) "
        f"against each other policy (blue); the best of these is {display_name(best)} (area {100 * areas[best]:.1f})",
    )
    return figure


@styled
def chosen_policies(chosen: pd.DataFrame, method: str = "tlee", metric: str = "top-1") -> Figure:
    """Draw cost and score on test of the policies chosen on val, one row each, with 95% intervals.

    ``chosen``: ``method``, ``share_of_full`` (GMACs), ``score``, ``low``, ``high`` (all 0..1). The cheapest is on top.
    """
    rows = chosen.sort_values("share_of_full", kind="stable").reset_index(drop=True)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.0, 1.3 + 0.3 * len(rows)), sharey=True, width_ratios=(1.4, 1), layout="constrained"
    )
    places = np.arange(len(rows))
    colors = [HIGHLIGHT if name == method else MUTED if name in ("full", "oracle") else BASE for name in rows["method"]]
    left.barh(places, rows["share_of_full"], color=colors, height=0.65)
    for place, share in zip(places, rows["share_of_full"], strict=True):
        left.annotate(
            percent(share, 0), (share, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8
        )
    left.set_yticks(places, [display_name(name) for name in rows["method"]])
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set_xlim(0, 1.12 * rows["share_of_full"].max())
    left.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    left.set_xlabel("GMACs per video (% of the full network)")
    right.hlines(places, 100 * rows["low"], 100 * rows["high"], color=colors, linewidth=2)
    right.scatter(100 * rows["score"], places, color=colors, zorder=3)
    right.axvline(100 * rows.set_index("method").at["full", "score"], color=COLORS["full"], linestyle="--", linewidth=1)
    right.set_xlabel(f"{metric} (%, bar: 95% interval)")
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    own, others = rows.set_index("method").loc[method], rows[~rows["method"].isin([method, "oracle", "full"])]
    other = others.iloc[0] if len(others) else rows.set_index("method", drop=False).loc["full"]
    headline(
        figure,
        f"{display_name(method)} reaches {percent(own['score'])} at {percent(own['share_of_full'], 0)} of the GMACs; "
        f"the cheapest other policy, {display_name(other['method'])}, {percent(other['score'])} at "
        f"{percent(other['share_of_full'], 0)}",
    )
    return figure


@styled
def exit_heat_map(share: np.ndarray, axes: Axes | None = None) -> Axes:
    """Draw the distribution of exits over visited frames and depths.

    ``share`` is ``[T, B + 1]``: the share of all videos whose ``t``-th visited frame exited at depth ``b``.
    """
    share = np.asarray(share, dtype=float)
    frames, depths = share.shape
    axes = ensure_axes(axes, height=1.6 + 0.32 * frames)
    sns.heatmap(
        share,
        annot=np.vectorize(_short_percent, otypes=[object])(share),
        fmt="",
        annot_kws={"fontsize": 9},
        cmap=SHARES,
        vmin=0,
        cbar=False,
        linewidths=1.5,
        xticklabels=[f"depth {depth}" for depth in range(depths)],
        yticklabels=[f"visited frame {frame + 1}" for frame in range(frames)],
        ax=axes,
    )
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)
    axes.set_xlabel("exit taken (% of all videos)")
    reached = share.sum(axis=1)
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(np.arange(frames) + 0.5, [f"reached by {_short_percent(value) or 'none'}" for value in reached])
    beside.tick_params(length=0, labelcolor="#666666")
    beside.spines[:].set_visible(False)
    at_depth = share.sum(axis=0) / share.sum()
    stop = 1 - (reached[1] if frames > 1 else 0) / reached[0]
    most = int(at_depth.argmax())
    headline(
        axes,
        f"{percent(stop, 0)} of videos stop after one frame; {percent(at_depth[most], 0)} of the processed frames "
        f"exit at depth {most}",
    )
    return axes


def _short_percent(share: float) -> str:
    if share == 0:
        return ""
    return "<1%" if share < 0.005 else percent(share, 0)


@styled
def film_strip(
    pictures: Sequence[Image.Image],
    visits: Mapping[int, tuple[int, int]],
    title: str,
    axes: Axes | None = None,
) -> Axes:
    """Draw the frames of one video: processed ones with a border and a label, the others dimmed.

    ``pictures`` are in temporal order; ``visits`` maps the position of each processed frame to its place in the
    visiting order (from 1) and the depth at which it exited.
    """
    shape = max(picture.height / picture.width for picture in pictures)
    axes = ensure_axes(axes, 7.5, 0.8 + 7.3 * shape / len(pictures))
    for position, picture in enumerate(pictures):
        if position not in visits:
            faded = Image.blend(
                ImageOps.grayscale(picture).convert("RGB"), Image.new("RGB", picture.size, "white"), 0.6
            )
            draw_picture(axes, faded, position)
            continue
        draw_picture(axes, picture, position)
        left, right, bottom, top = extent(picture, position, 0)
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=HIGHLIGHT, linewidth=2.5)
        )
        order, depth = visits[position]
        axes.annotate(
            f"{ordinal(order)}\ndepth {depth}",
            (position, bottom),
            xytext=(0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9,
            color=HIGHLIGHT,
            annotation_clip=False,
        )
    axes.set_xlim(-0.54, len(pictures) - 0.46)
    axes.set_ylim(shape / 2, -shape / 2)
    axes.axis("off")
    headline(axes, title)
    return axes
