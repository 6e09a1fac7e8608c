"""Headroom: the method beside itself with one perfect part."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from tlee.figures.style import COLORS, HIGHLIGHT, ensure_axes, headline, legend_above, percent, styled
from tlee.methods import display_name

#: Colour and line of each case.
_LINES = {
    "method": (HIGHLIGHT, "-"),
    "choice": (COLORS["frameexit"], "--"),
    "exits": (COLORS["temporal"], "-"),
    "gates": (COLORS["oracle"], "-"),
    "luck": (COLORS["random"], ":"),
}
_PARTS = {"choice": "choice", "exits": "shallow exits", "gates": "decisions"}


@styled
def headroom(
    curves: pd.DataFrame,
    table: pd.DataFrame,
    full_score: float,
    max_loss: float,
    method: str = "tlee",
    axes: Axes | None = None,
) -> Axes:
    """Draw top-1 against cost of each case, and a dot at the cheapest point within ``max_loss`` points.

    ``curves``: ``case`` (a key of ``evaluation.headroom.CASES``), ``share_of_full`` (GMACs) and ``score``, both 0..1.
    ``table``: one row a case, with its ``meaning``, ``area`` and the ``share_of_full`` of that point, NaN if there is
    none.
    ``full_score`` is the top-1 of the full network.
    """
    axes = ensure_axes(axes, height=4.8)
    cases = table.set_index("case")
    axes.axhline(100 * full_score, color=COLORS["full"], linewidth=1.0, linestyle="--")
    axes.axhspan(100 * full_score - max_loss, 100 * full_score, color="#EEEEEE", linewidth=0)
    for case, (color, line) in _LINES.items():
        layer = 3 if case == "method" else 2
        curve = curves[curves["case"] == case].sort_values("share_of_full", kind="stable")
        label = display_name(method) if case == "method" else cases.at[case, "meaning"]
        axes.plot(curve["share_of_full"], 100 * curve["score"], line, color=color, label=label, zorder=layer)
        at = curve[curve["share_of_full"] == cases.at[case, "share_of_full"]]
        axes.plot(
            at["share_of_full"],
            100 * at["score"],
            "o",
            color=color,
            markeredgecolor="white",
            markersize=8,
            zorder=layer,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="GMACs per video (% of the full network, log scale)", ylabel="top-1 (%)")
    axes.grid()
    legend_above(axes, columns=1)
    headline(axes, _finding(cases, max_loss, display_name(method)))
    return axes


def _finding(cases: pd.DataFrame, max_loss: float, name: str) -> str:
    own, perfect = cases["share_of_full"].loc[["method", "gates"]]
    gains = 100 * (cases.loc[list(_PARTS), "area"] - cases.at["method", "area"])
    best = gains.idxmax()
    limit = f"Within {max_loss:g} {'point' if max_loss == 1 else 'points'}"
    return (
        f"{limit} {name} takes {_cost(own)} of the GMACs, with perfect decisions {_cost(perfect)}; "
        f"perfect {_PARTS[best]} would add most area ({gains[best]:+.1f})"
    )


def _cost(share: float) -> str:
    return "no share (it loses more)" if pd.isna(share) else percent(share)
