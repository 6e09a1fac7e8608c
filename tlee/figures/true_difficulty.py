"""Cost and accuracy by true difficulty, beside a policy that knows it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlee.figures.style import COLORS, HIGHLIGHT, MARKERS, MUTED, headline, percent, styled
from tlee.methods import display_name

_GAP = 0.7  #: between the groups by frames and those by cue, in rows


@styled
def true_difficulty_costs(table: pd.DataFrame, overall: pd.DataFrame, method: str = "tlee") -> Figure:
    """Draw the cost of policies on the left and their accuracy on the right, by informative frames and by cue.

    ``table``: ``by`` (``frames`` or ``cue``), ``group``, ``videos``, ``method`` (``full`` and ``informed`` among
    others), ``share_of_full`` (mean cost) and ``score`` (0..1), the easiest group on top; ``overall`` has the last two
    by policy, on all videos. See ``comparison.TrueDifficulty``. The cost of ``full`` is 100% throughout and left out.
    """
    groups = table.drop_duplicates(["by", "group"])
    places = np.arange(len(groups)) + _GAP * (groups["by"] == "cue").to_numpy()
    names = [f"{row.group} (n = {row.videos})" for row in groups.itertuples()]
    parts = {name: part for name, part in table.groupby("method", sort=False) if name not in ("full", method)}
    parts |= {name: table[table["method"] == name] for name in ("informed", "full", method)}
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.6, 2.0 + 0.42 * len(groups)), sharey=True, width_ratios=(5, 3), layout="constrained"
    )
    _connect(left, places, parts["informed"]["share_of_full"], parts[method]["share_of_full"])
    for name, part in parts.items():
        color, marker = _look_of(name, method)
        look = {"linestyle": "", "marker": marker, "color": color, "mfc": "none" if name == "full" else color}
        label = "informed (knows frames and cue)" if name == "informed" else display_name(name)
        if name != "full" or name == method:
            left.plot(100 * part["share_of_full"], places, markersize=8, **look)
        right.plot(100 * part["score"], places, markersize=10 if name == "full" else 7, label=label, **look)
    left.set(xlabel="cost (% of the full network; numbers: ratio to informed)", xlim=(0, None))
    lowest = min(90.0, 100 * table["score"].min())
    right.set(xlabel="correct videos (%)", xlim=(lowest - 0.05 * (100 - lowest), 100 + 0.05 * (100 - lowest)))
    for axes in (left, right):
        axes.set_ylim(places[-1] + 0.6, -0.7)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
    left.set_yticks(places, names)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower left", ncols=3)
    headline(figure, _cost_of_not_knowing(table, overall, method))
    return figure


def _connect(axes: Axes, places: np.ndarray, informed: pd.Series, own: pd.Series) -> None:
    """Connect the costs of both policies by a line with their ratio."""
    axes.hlines(places, 100 * informed, 100 * own, color=MUTED, linewidth=2.5, alpha=0.6)
    for place, least, cost in zip(places, informed, own, strict=True):
        middle = 50 * (least + cost)
        axes.annotate(
            f"{cost / least:.1f}x", (middle, place), (0, 7), textcoords="offset points", ha="center", fontsize=9
        )


def _look_of(name: str, method: str) -> tuple[str, str]:
    """Return colour and marker of a policy; the informed one takes the place of the oracle."""
    if name == method:
        return HIGHLIGHT, MARKERS["tlee"]
    key = "oracle" if name == "informed" else name
    return COLORS[key], MARKERS[key]


def _cost_of_not_knowing(table: pd.DataFrame, overall: pd.DataFrame, method: str) -> str:
    name, own, informed = display_name(method), overall.loc[method], overall.loc["informed"]
    ratio = own["share_of_full"] / informed["share_of_full"]
    scores = f"{percent(own['score'])} correct against {percent(informed['score'])}"
    rows = table[(table["method"] == method) & (table["by"] == "frames") & ~table["group"].str.startswith("no ")]
    ends = pd.concat([rows[:1], rows[-1:]]).drop_duplicates()
    costs = [f"{percent(row.share_of_full, 0)} of the full network with {row.group}" for row in ends[:1].itertuples()]
    costs += [f"{percent(row.share_of_full, 0)} with {row.group}" for row in ends[1:].itertuples()]
    finding = f"{name} costs {ratio:.1f}x as much as a policy that knows each clip's difficulty ({scores})"
    return f"{finding}: {', '.join(costs)}" if costs else finding
