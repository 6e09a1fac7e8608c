"""Calibration of the confidences, and the tests behind the certified policy."""

from typing import TypedDict, cast

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tlee.figures.style import BASE, COLORS, HIGHLIGHT, MUTED, ensure_axes, headline, legend_above, percent, styled

MARKER_SIZE, MARKER_GROWTH = 8, 250  # in square points: for an empty bin, and added for all predictions of a depth

_STATES = {"uncalibrated": MUTED, "calibrated": BASE}


class _Marker(TypedDict, total=False):
    """Appearance of the markers of some policies."""

    color: str
    marker: str
    markersize: float
    markerfacecolor: str


@styled
def reliability_diagrams(bins: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Draw accuracy against confidence, one panel per depth, uncalibrated and calibrated; marker area is the share.

    ``bins``, one row per bin: ``depth``, ``state`` (``uncalibrated`` or ``calibrated``), ``confidence``, ``accuracy``
    and ``share`` of the predictions at this depth (0..1). ``errors``, indexed by depth: the expected calibration error
    ``uncalibrated`` and ``calibrated`` (0..1).
    """
    size = (1.0 + 2.4 * max(len(errors), 2), 4.0)
    figure, panels = plt.subplots(1, len(errors), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, (depth, error) in zip(panels[0], errors.iterrows(), strict=True):
        axes.axline((0, 0), slope=1, color=COLORS["full"], linestyle="--", linewidth=1.0)
        for state, color in _STATES.items():
            rows = bins[(bins["depth"] == depth) & (bins["state"] == state)]
            points = 100 * rows["confidence"], 100 * rows["accuracy"]
            sizes = MARKER_SIZE + MARKER_GROWTH * rows["share"]
            axes.plot(*points, color=color, linewidth=1.0, alpha=0.6)
            axes.scatter(*points, sizes, color=color, alpha=0.8, linewidths=0, label=state)
        before, after = 100 * error[["uncalibrated", "calibrated"]]
        title = f"depth {depth}: error {before:.1f} points,\n{after:.1f} calibrated"
        axes.set_title(title, fontsize=9, fontweight="normal")
        axes.set(xlabel="confidence (%)", xlim=(0, 107), ylim=(-4, 107))
        axes.grid()
    panels[0, 0].set_ylabel("accuracy on test (%)")
    handles, names = panels[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, names, loc="outside lower left", ncols=2)
    for handle in legend.legend_handles:
        cast(PathCollection, handle).set_sizes([40])
    headline(figure, _worst_depth(bins, errors))
    return figure


def _worst_depth(bins: pd.DataFrame, errors: pd.DataFrame) -> str:
    worst = errors["uncalibrated"].idxmax()
    rows = bins[(bins["depth"] == worst) & (bins["state"] == "uncalibrated")]
    surplus = ((rows["confidence"] - rows["accuracy"]) * rows["share"]).sum()
    before, after = 100 * errors.loc[worst, ["uncalibrated", "calibrated"]]
    direction = "overconfident" if surplus > 0 else "underconfident"
    return f"Depth {worst} is {direction}: calibration error {before:.1f} points, {after:.1f} after calibration"


@styled
def policy_path(tests: pd.DataFrame, max_harm: float, confidence: float, axes: Axes | None = None) -> Axes:
    """Draw harmed videos, with the exact upper bound, against cost, for each policy of the tested path.

    ``tests``, one row per policy from conservative to aggressive: ``harmful`` of ``videos``, ``bound`` and
    ``share_of_full`` (0..1), ``passed``. ``max_harm`` is the limit in percent of all videos, ``confidence`` (0..1) that
    of the bound and the guarantee. The last policy that passes is chosen; none is tested after the first failure.
    """
    axes = ensure_axes(axes, height=4.4)
    passed = int(tests["passed"].sum())
    full = pd.DataFrame({"harmful": [0], "videos": 1, "bound": 0.0, "share_of_full": 1.0})
    path = pd.concat([full, tests])
    parts: dict[str, tuple[pd.DataFrame, _Marker]] = {
        "never exit": (full, {"color": COLORS["full"], "marker": "s"}),
        "passed": (path[1:passed], {"color": BASE, "marker": "o"}),
        "chosen": (path[passed : passed + 1], {"color": HIGHLIGHT, "marker": "o", "markersize": 10}),
        "failed": (path[passed + 1 : passed + 2], {"color": COLORS["full"], "marker": "X", "markersize": 9}),
        "not tested": (path[passed + 2 :], {"color": MUTED, "marker": "o", "markerfacecolor": "white"}),
    }
    axes.set_yscale("symlog", linthresh=max_harm)
    axes.axhline(max_harm, color=COLORS["full"], linestyle="--", linewidth=1.0, label=f"limit: {max_harm:g}%")
    for name, (rows, marker) in parts.items():
        if len(rows):
            harm = 100 * rows["harmful"] / rows["videos"]
            above = [0 * harm, 100 * rows["bound"] - harm]
            axes.errorbar(
                100 * rows["share_of_full"],
                harm,
                above,
                label=name,
                linestyle="none",
                capsize=2,
                elinewidth=1.0,
                **marker,
            )
    axes.set_xscale("log")
    axes.set_yticks(*_ticks(max_harm))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(
        xlabel="GMACs (% of the full network, log scale)",
        ylabel=f"harmed videos (%, bar: {100 * confidence:.4g}% upper bound)",
        xlim=(None, 120),
        ylim=(-0.06 * max_harm, 105),
    )
    axes.grid()
    legend_above(axes, columns=3)
    headline(axes, _guarantee(tests, passed, max_harm, confidence))
    return axes


def _ticks(max_harm: float) -> tuple[list[float], list[str]]:
    """Return ticks and labels: zero, half the limit, the limit, and round numbers well above it."""
    values = [0, max_harm / 2, max_harm, *(value for value in (1, 2, 5, 10, 20, 50, 100) if value > 1.4 * max_harm)]
    return values, [f"{value:g}" for value in values]


def _guarantee(tests: pd.DataFrame, passed: int, max_harm: float, confidence: float) -> str:
    if tests.empty:
        return "There are no exits to test: never exit"
    chosen = tests.iloc[max(passed - 1, 0)]
    harmful, videos = int(chosen["harmful"]), int(chosen["videos"])
    if passed:
        return (
            f"With {100 * confidence:.4g}% confidence, exits harm at most {max_harm:g}% of videos, at "
            f"{percent(chosen['share_of_full'], 0)} of the GMACs: {harmful} of {videos} were harmed"
        )
    if harmful == 0:
        return f"{videos} videos are too few to guarantee {max_harm:g}%: never exit"
    return f"The most conservative policy harms {harmful} of {videos} videos, too many for {max_harm:g}%: never exit"
