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
    network's GMACs), one row per variant.
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
    """Name the ablation whose variants differ most in score, with its best and worst variant."""
    parts = table[table["ablation"] != "method"].groupby("ablation", sort=False)["score"]
    ablation = (parts.max() - parts.min()).idxmax()
    rows = table[table["ablation"] == ablation].sort_values("score", kind="stable")
    worst, best = (
        f"{row.variant} {percent(row.score)} at {percent(row.share_of_full, 0)} of the GMACs"
        for row in (rows.iloc[0], rows.iloc[-1])
    )
    return f"The {ablation} makes the largest difference: {best} (best), {worst} (worst)"
