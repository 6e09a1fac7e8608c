"""What a video costs in time."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from tlee.figures.style import COLORS, MARKERS, canvas, headline, legend_above, percent, sequence_colors, styled
from tlee.methods import NAMES

_SYSTEM_COLORS = {NAMES[method]: color for method, color in COLORS.items()}


@styled
def latency_bars(summary: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Milliseconds per video. ``summary``: ``system`` (full network, that of the policy, ideal), ``p50``, ``p90``,
    ``p99``, ``mean``, in this order. ``ideal`` is what the policy would take if time went with what it computes.
    """
    axes = canvas(axes, height=1.4 + 0.6 * len(summary))
    places = range(len(summary))
    colors = [_SYSTEM_COLORS.get(system, COLORS["random"]) for system in summary["system"]]
    axes.barh(places, summary["p50"], color=colors, height=0.6, label="_")
    for name, marker, size in (("mean", "o", 7), ("p90", "|", 14), ("p99", "D", 5)):
        face = "white" if name == "mean" else "black"
        axes.plot(summary[name], places, marker, color="black", markerfacecolor=face, markersize=size, label=name)
    axes.set_yticks(places, [f"{row.system}\n{row.p50:.3g} ms" for row in summary.itertuples()], linespacing=1.3)
    axes.set_ylim(len(summary) - 0.5, -0.5)
    axes.set_xlim(0, None)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("milliseconds per video (bar: median)")
    axes.grid(axis="x")
    legend_above(axes, columns=3)
    (full, real, ideal), (full_mean, mean, _) = summary["p50"], summary["mean"]
    headline(
        axes,
        f"{summary['system'][1]}: {_against(full / real)} than the full network in the median, "
        f"{_against(full_mean / mean)} in the mean; {real / ideal:.2f}x its ideal",
    )
    return axes


def _against(speedup: float) -> str:
    return f"{speedup:.1f}x faster" if speedup >= 1 else f"{1 / speedup:.1f}x slower"


@styled
def latency_breakdown(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Where the time of a video goes, and that of the network in it, as shares.

    ``table``: ``of`` (video, network; in this order), ``part`` (decoding, segment 0, ...), ``milliseconds``.
    """
    axes = canvas(axes, height=2.8)
    wholes = table.groupby("of", sort=False)["milliseconds"].sum()
    rows = {name: place for place, name in enumerate(wholes.index)}
    left = dict.fromkeys(rows, 0.0)
    for row, color in zip(table.itertuples(), sequence_colors(len(table)), strict=True):
        share = row.milliseconds / wholes[row.of]
        label = f"{row.part}: {row.milliseconds:.2g} ms"
        axes.barh(rows[row.of], share, left=left[row.of], color=color, edgecolor="white", height=0.7, label=label)
        left[row.of] += share
    axes.set_yticks(range(len(rows)), [f"{name}\n{wholes[name]:.3g} ms" for name in rows], linespacing=1.3)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(lambda share, _: percent(share, 0))
    axes.set(xlim=(0, 1), xlabel="share of the time (means of a video)")
    legend_above(axes, columns=3)
    most = table.loc[table.groupby("of", sort=False)["milliseconds"].idxmax()]
    (video, part), (network, inner) = zip(wholes, most["part"], strict=True)
    share, inner_share = (percent(share, 0) for share in most["milliseconds"] / wholes.to_numpy())
    headline(
        axes,
        f"{part.capitalize()} takes {share} of the {video:.3g} ms of a video; "
        f"of the network's {network:.2g} ms {inner_share} are in {inner}",
    )
    return axes


@styled
def latency_targets(comparison: pd.DataFrame) -> Figure:
    """The same systems on several machines, each on its own scale.

    ``comparison``: ``target``, ``system`` (full network, others, that of the policy, ideal, in this order; a target
    may lack some of the others), ``p50``, ``p90``, ``p99`` (milliseconds a video), and ``low`` and ``high``, between
    which ``p50`` lies where it is an estimate.
    """
    targets = {name: rows.reset_index() for name, rows in comparison.groupby("target", sort=False)}
    systems = comparison["system"].unique()
    figure, panels = plt.subplots(
        1,
        len(targets),
        figsize=(1.4 + 3.3 * len(targets), 1.8 + 0.36 * len(systems)),
        sharey=True,
        layout="constrained",
    )
    for axes, (name, rows) in zip(np.atleast_1d(panels), targets.items(), strict=True):
        _target_panel(axes, name, rows, [list(systems).index(system) for system in rows["system"]])
    first = np.atleast_1d(panels)[0]
    first.set_yticks(range(len(systems)), [system.replace(", ", ",\n") for system in systems])
    first.set_ylim(len(systems) - 0.5, -0.5)
    headline(figure, f"{systems[-2]}: {'; '.join(map(_gain, targets.values()))} than the full network, in the median")
    return figure


def _target_panel(axes: Axes, name: str, rows: pd.DataFrame, places: list[int]) -> None:
    estimate = rows["low"].notna().all()
    colors = [_SYSTEM_COLORS.get(system, COLORS["random"]) for system in rows["system"]]
    looks = {"color": "white", "edgecolor": colors, "hatch": "////"} if estimate else {"color": colors}
    axes.barh(places, rows["p50"], height=0.62, **looks)
    if estimate:
        spread = [rows["p50"] - rows["low"], rows["high"] - rows["p50"]]
        axes.errorbar(rows["p50"], places, xerr=spread, fmt="none", ecolor="black", capsize=3, linewidth=1)
    else:
        axes.plot(rows["p90"], places, "|", color="black", markersize=11)
    reach = rows["high"] if estimate else rows["p90"]
    for place, end, row in zip(places, reach, rows.itertuples(), strict=True):
        text = f"{row.p50:.3g} ({row.low:.2g} to {row.high:.2g})" if estimate else f"{row.p50:.3g}"
        axes.annotate(
            text,
            (max(end, row.p50), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xlim(0, 1.45 * reach.max())
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_title(textwrap.fill(name, 34), fontsize=10)
    axes.set_xlabel("ms per video (median; line: spread)" if estimate else "ms per video (bar: median; |: p90)")


def _gain(rows: pd.DataFrame) -> str:
    full, real = rows["p50"].iloc[0], rows["p50"].iloc[-2]
    return f"{_against(full / real)} on {rows['target'].iloc[0]}"


@styled
def latency_precisions(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Accuracy against milliseconds in single precision (filled) and in eight bits (hollow), joined by system.

    ``table``: ``precision`` (fp32 and int8), ``system`` (full network, that of the policy; in this order), ``accuracy``
    with 95% interval ``low`` to ``high``, ``p50`` (milliseconds a video).
    """
    axes = canvas(axes)
    systems = list(table["system"].unique())
    for system in systems:
        rows = table[table["system"] == system].set_index("precision")
        method = next((key for key, name in NAMES.items() if name == system), "random")
        color, marker = COLORS.get(method, COLORS["random"]), MARKERS.get(method, MARKERS["random"])
        axes.plot(rows["p50"], rows["accuracy"], color=color, linewidth=1, label="_")
        for precision, row in rows.iterrows():
            spread = [[row["accuracy"] - row["low"]], [row["high"] - row["accuracy"]]]
            axes.errorbar(
                row["p50"],
                row["accuracy"],
                yerr=np.abs(spread),
                fmt=marker,
                color=color,
                markerfacecolor=color if precision == "fp32" else "white",
                markersize=9,
                capsize=3,
                linewidth=1,
                label=f"{system}, {precision}",
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:.3g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda share, _: percent(share))
    axes.set(xlabel="milliseconds per video (median)", ylabel="top-1 accuracy (line: 95% interval)")
    axes.grid()
    legend_above(axes, columns=2)
    times = table.pivot(index="system", columns="precision", values="p50").loc[systems]
    speedups = [f"{_against(row.fp32 / row.int8)} for {row.Index}" for row in times.itertuples()]
    single, eight = table[table["system"] == systems[-1]].set_index("precision").loc[["fp32", "int8"], "accuracy"]
    change = 100 * (eight - single)
    headline(axes, f"int8: {', '.join(speedups)}, whose top-1 changes by {change:+.1f} points")
    return axes
