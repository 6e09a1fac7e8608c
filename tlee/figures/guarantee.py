"""Whether confidences mean what they say, and how much exits may be trusted."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tlee.figures.style import CALM, COLORS, HIGHLIGHT, MUTED, canvas, headline, legend_above, percent, styled

SMALLEST, LARGEST = 8, 250  # of a marker, for none and for all looks at a depth, in square points

_STATES = {"as trained": MUTED, "calibrated": CALM}


@styled
def reliability_diagrams(bins: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Accuracy against confidence, one panel a depth, as trained and calibrated; the more common, the larger.

    ``bins``, one row a bin: ``depth``, ``state`` (``as trained`` or ``calibrated``), and from 0 to 1 ``confidence``,
    ``accuracy`` and ``share`` of the looks at this depth. ``errors``, one row a depth, which is the index: the expected
    calibration error ``as_trained`` and ``calibrated`` (0..1).
    """
    size = (1.0 + 2.4 * max(len(errors), 2), 4.0)
    figure, panels = plt.subplots(1, len(errors), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, (depth, error) in zip(panels[0], errors.iterrows(), strict=True):
        axes.axline((0, 0), slope=1, color=COLORS["full"], linestyle="--", linewidth=1.0)
        for state, color in _STATES.items():
            rows = bins[(bins["depth"] == depth) & (bins["state"] == state)]
            points = 100 * rows["confidence"], 100 * rows["accuracy"]
            axes.plot(*points, color=color, linewidth=1.0, alpha=0.6)
            axes.scatter(*points, SMALLEST + LARGEST * rows["share"], color=color, alpha=0.8, linewidths=0, label=state)
        before, after = 100 * error[["as_trained", "calibrated"]]
        title = f"depth {depth}: off by {before:.1f} points,\n{after:.1f} once calibrated"
        axes.set_title(title, fontsize=9, fontweight="normal")
        axes.set(xlabel="confidence (%)", xlim=(0, 107), ylim=(-4, 107))
        axes.grid()
    panels[0, 0].set_ylabel("right on test (%)")
    handles, names = panels[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, names, loc="outside lower left", ncols=2)
    for handle in legend.legend_handles:
        handle.set_sizes([40])
    headline(figure, _worst_depth(bins, errors))
    return figure


def _worst_depth(bins: pd.DataFrame, errors: pd.DataFrame) -> str:
    worst = errors["as_trained"].idxmax()
    rows = bins[(bins["depth"] == worst) & (bins["state"] == "as trained")]
    surplus = ((rows["confidence"] - rows["accuracy"]) * rows["share"]).sum()
    before, after = 100 * errors.loc[worst, ["as_trained", "calibrated"]]
    direction = "surer than it is right" if surplus > 0 else "right more often than it is sure"
    return f"Depth {worst} is {direction}: off by {before:.1f} points, {after:.1f} once calibrated"


@styled
def path_of_tests(tests: pd.DataFrame, max_loss: float, confidence: float, axes: Axes | None = None) -> Axes:
    """The policies in the order of their tests: videos harmed, with the exact upper bound, against cost.

    ``tests``, one row a policy from careful to thrifty: ``harmful`` of ``videos``, ``bound`` and ``share_of_full``
    (0..1), ``passed``. ``max_loss`` is the limit in percent of all videos, ``confidence`` (0..1) that of bound and
    promise. The last that passed is chosen; what comes after the first that failed was not tested any more.
    """
    axes = canvas(axes, height=4.4)
    passed = int(tests["passed"].sum())
    full = pd.DataFrame({"harmful": [0], "videos": 1, "bound": 0.0, "share_of_full": 1.0})
    path = pd.concat([full, tests])
    parts = {
        "never exit": (full, {"color": COLORS["full"], "marker": "s"}),
        "passed": (path[1:passed], {"color": CALM}),
        "chosen": (path[passed : passed + 1], {"color": HIGHLIGHT, "markersize": 10}),
        "failed": (path[passed + 1 : passed + 2], {"color": COLORS["full"], "marker": "X", "markersize": 9}),
        "not tested any more": (path[passed + 2 :], {"color": MUTED, "markerfacecolor": "white"}),
    }
    axes.set_yscale("symlog", linthresh=max_loss)
    axes.axhline(max_loss, color=COLORS["full"], linestyle="--", linewidth=1.0, label=f"limit: {max_loss:g}%")
    for name, (rows, look) in parts.items():
        if len(rows):
            harm = 100 * rows["harmful"] / rows["videos"]
            above = [0 * harm, 100 * rows["bound"] - harm]
            style = {"marker": "o", "linestyle": "none", "capsize": 2, "elinewidth": 1.0} | look
            axes.errorbar(100 * rows["share_of_full"], harm, above, label=name, **style)
    axes.set_xscale("log")
    axes.set_yticks(*_ticks(max_loss))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(
        xlabel="GMACs (% of the full network, log scale)",
        ylabel=f"videos harmed (%, bar: bound at {confidence:.4g})",
        xlim=(None, 120),
        ylim=(-0.06 * max_loss, 105),
    )
    axes.grid()
    legend_above(axes, columns=3)
    headline(axes, _promise(tests, passed, max_loss, confidence))
    return axes


def _ticks(max_loss: float) -> tuple[list[float], list[str]]:
    """Zero, half the limit, the limit, and round numbers well above it."""
    values = [0, max_loss / 2, max_loss, *(value for value in (1, 2, 5, 10, 20, 50, 100) if value > 1.4 * max_loss)]
    return values, [f"{value:g}" for value in values]


def _promise(tests: pd.DataFrame, passed: int, max_loss: float, confidence: float) -> str:
    if tests.empty:
        return "There are no exits to test: never exit"
    chosen = tests.iloc[max(passed - 1, 0)]
    harmful, videos = int(chosen["harmful"]), int(chosen["videos"])
    if passed:
        return (
            f"{100 * confidence:.4g}% sure that exits harm at most {max_loss:g}% of videos, at "
            f"{percent(chosen['share_of_full'], 0)} of the GMACs: {harmful} of {videos} were harmed"
        )
    if harmful == 0:
        return f"{videos} videos are too few to promise {max_loss:g}%: never exit"
    return f"The most careful policy harms {harmful} of {videos} videos, too many for {max_loss:g}%: never exit"
