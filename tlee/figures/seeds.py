"""Results of several trainings."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from tlee.figures.style import COLORS, MARKERS, ensure_axes, headline, legend_above, styled
from tlee.methods import display_name

#: Policies that are drawn: the full network, and TLEE beside each of its halves and one threshold.
DRAWN = ("full", "temporal", "layer", "confidence", "tlee")


@styled
def trade_off_of_seeds(
    curves: pd.DataFrame, means: pd.DataFrame, points: pd.DataFrame, finding: str, axes: Axes | None = None
) -> Axes:
    """Draw top-1 against cost: the curves of each run thin, their mean bold with its interval as a band.

    ``curves``: ``run``, ``method``, ``share`` (of the full network's GMACs) and ``score``, one row per point of a
    curve; ``means``: ``method``, ``share``, ``score``, ``low`` and ``high``; ``points``: the same of the policies that
    were chosen, with ``share_low`` and ``share_high``, one row per method. Shares and scores are from 0 to 1. The title
    is ``finding``. Only methods of ``DRAWN`` are drawn.
    """
    axes = ensure_axes(axes, height=4.6)
    chosen = points.set_index("method")
    axes.axhline(100 * chosen.at["full", "score"], color=COLORS["full"], linestyle="--", linewidth=1.0)
    for name in (name for name in DRAWN if name in chosen.index):
        color, level = COLORS[name], 3 + DRAWN.index(name)
        for _, run in curves[curves["method"] == name].groupby("run"):
            run = run.sort_values("share")
            axes.plot(100 * run["share"], 100 * run["score"], color=color, linewidth=0.7, alpha=0.45, zorder=2)
        mean = means[means["method"] == name]
        axes.fill_between(100 * mean["share"], 100 * mean["low"], 100 * mean["high"], color=color, alpha=0.18, lw=0)
        axes.plot(100 * mean["share"], 100 * mean["score"], color=color, linewidth=2.4, zorder=level)
        at = 100 * chosen.loc[name].astype(float)
        axes.errorbar(
            at["share"],
            at["score"],
            xerr=np.maximum([[at["share"] - at["share_low"]], [at["share_high"] - at["share"]]], 0),
            yerr=np.maximum([[at["score"] - at["low"]], [at["high"] - at["score"]]], 0),
            color=color,
            elinewidth=1.2,
            capsize=3,
            linestyle="none",
            zorder=level + len(DRAWN),
        )
        axes.plot(
            at["share"],
            at["score"],
            color=color,
            marker=MARKERS[name],
            markersize=9,
            markeredgecolor="white",
            linestyle="none",
            label=display_name(name),
            zorder=level + 2 * len(DRAWN),
        )
    axes.annotate(
        "thin: each training; bold: their mean, with 95% band;\nmarks: chosen on val, with 95% intervals",
        (0.99, 0.03),
        xycoords="axes fraction",
        ha="right",
        fontsize=8,
        color="#666666",
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}%")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="GMACs per video (% of the full network, log scale)", ylabel="top-1 (%)")
    axes.grid()
    legend_above(axes, columns=3)
    headline(axes, finding)
    return axes
