"""Comparison of the ablated variants of the network."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tlee.figures.style import BASE, HIGHLIGHT, headline, percent, styled


@styled
def ablation_rows(table: pd.DataFrame) -> Figure:
    """Draw the score of each variant with its interval, and its cost, one row per variant, grouped by ablation.

    ``table``: ``ablation``, ``variant``, ``score``, ``low``, ``high`` (0..1), ``share_of_full`` (of the full
    network's GMACs), one row per variant; beside the default on the same videos ``points`` and ``cost_ratio``, with
    their intervals ``_low`` and ``_high``. The title is about the largest ``points``.
    """
    places = np.arange(len(table)) + 0.7 * (table["ablation"] != table["ablation"].shift()).cumsum().to_numpy()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.0, 1.2 + 0.3 * len(table)), sharey=True, width_ratios=(3, 2), layout="constrained"
    )
    scores = 100 * table[["score", "low", "high"]]
    margins = np.maximum([scores["score"] - scores["low"], scores["high"] - scores["score"]], 0)
    left.errorbar(scores["score"], places, xerr=margins, fmt="o", color=BASE, capsize=2)
    left.set(xlabel="score on test (%, bar: 95% interval)", ylim=(places[-1] + 0.7, places[0] - 1.1))
    right.barh(places, 100 * table["share_of_full"], color=BASE, height=0.6)
    right.set(xlabel="GMACs (% of the full network)", xlim=(0, None))
    for place, share in zip(places, table["share_of_full"], strict=True):
        right.annotate(percent(share, 0), (100 * share, place), (3, 0), textcoords="offset points", va="center")
    left.set_yticks(places, table["variant"])
    for name, rows in table.groupby("ablation", sort=False):
        left.annotate(
            name,
            (0, places[table.index.get_loc(rows.index[0])] - 0.75),
            xycoords=("axes fraction", "data"),
            xytext=(-74, 0),
            textcoords="offset points",
            fontweight="bold",
            color=HIGHLIGHT,
            va="center",
            annotation_clip=False,
        )
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    headline(figure, _largest_difference(table))
    return figure


def _largest_difference(table: pd.DataFrame) -> str:
    """Name the variant of a part whose score differs most from the default's on the same videos, with intervals."""
    parts = table[(table["ablation"] != "method") & table["points"].notna()].reset_index(drop=True)
    if parts.empty:
        return "Every part as in the default"
    row = parts.loc[parts["points"].abs().idxmax()]
    return (
        f"Of all parts, {row['ablation']} {row['variant']} changes the score most: {row['points']:+.1f} points "
        f"({row['points_low']:+.1f} to {row['points_high']:+.1f}), at {row['cost_ratio']:.2f} of the default's GMACs "
        f"({row['cost_ratio_low']:.2f} to {row['cost_ratio_high']:.2f})"
    )
