"""Latency per video: systems, parts, machines and precisions."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from tlee.figures.style import (
    COLORS,
    MARKERS,
    MUTED,
    ensure_axes,
    headline,
    legend_above,
    percent,
    sequence_colors,
    styled,
)


@styled
def latency_bars(summary: pd.DataFrame, method: str = "tlee", axes: Axes | None = None) -> Axes:
    """Draw milliseconds per video of the full network, the policy and its ideal.

    ``summary``: ``system`` (name), ``p50``, ``p90``, ``p99``, ``mean``; one row each for the full network, the policy
    of ``method`` and its ideal, in this order. The ideal runs the same computation in one uncut graph per frame.
    """
    axes = ensure_axes(axes, height=1.4 + 0.6 * len(summary))
    places = range(len(summary))
    colors = [COLORS["full"], COLORS[_style_key(method)], MUTED]
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
    (full, policy, ideal), (full_mean, policy_mean, _) = summary["p50"], summary["mean"]
    headline(
        axes,
        f"{summary['system'][1]}: {_relative_speed(full / policy)} than the full network in the median, "
        f"{_relative_speed(full_mean / policy_mean)} in the mean; {policy / ideal:.2f}x the ideal time",
    )
    return axes


def _style_key(method: str) -> str:
    """Return the policy's key of colours and markers: ``full``, run frame by frame, differs from the full network."""
    return "random" if method == "full" else method


def _relative_speed(speedup: float) -> str:
    return f"{speedup:.1f}x faster" if speedup >= 1 else f"{1 / speedup:.1f}x slower"


@styled
def latency_breakdown(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw the shares of the parts in the time of a video, and in that of the network alone.

    ``table``: ``of`` (video, network; in this order), ``part`` (decoding, segment 0, ...), ``milliseconds`` (mean).
    """
    axes = ensure_axes(axes, height=2.8)
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
    axes.set(xlim=(0, 1), xlabel="share of the mean time per video")
    legend_above(axes, columns=3)
    most = table.loc[table.groupby("of", sort=False)["milliseconds"].idxmax()]
    (video, part), (network, inner) = zip(wholes, most["part"], strict=True)
    share, inner_share = (percent(share, 0) for share in most["milliseconds"] / wholes.to_numpy())
    headline(
        axes,
        f"{part.capitalize()} takes {share} of the {video:.3g} ms per video; "
        f"{inner_share} of the network's {network:.2g} ms is spent in {inner}",
    )
    return axes


@styled
def latency_targets(comparison: pd.DataFrame, method: str = "tlee") -> Figure:
    """Draw the same systems on several machines, each on its own scale.

    ``comparison``: ``target``, ``system`` (full network, others, the policy of ``method``, ideal, in this order; a
    target may lack some of the others), ``p50``, ``p90``, ``p99`` (milliseconds per video), and ``low`` and ``high``,
    the range of an estimated ``p50``, NaN where it was measured.
    """
    targets = {name: rows.reset_index() for name, rows in comparison.groupby("target", sort=False)}
    systems = list(comparison["system"].unique())
    colors = dict.fromkeys(systems, MUTED)
    colors[systems[0]], colors[systems[-2]] = COLORS["full"], COLORS[_style_key(method)]
    figure, panels = plt.subplots(
        1,
        len(targets),
        figsize=(1.4 + 3.3 * len(targets), 1.8 + 0.36 * len(systems)),
        sharey=True,
        layout="constrained",
    )
    for axes, (name, rows) in zip(np.atleast_1d(panels), targets.items(), strict=True):
        places = [systems.index(system) for system in rows["system"]]
        _target_panel(axes, name, rows, places, [colors[system] for system in rows["system"]])
    first = np.atleast_1d(panels)[0]
    first.set_yticks(range(len(systems)), [system.replace(", ", ",\n") for system in systems])
    first.set_ylim(len(systems) - 0.5, -0.5)
    headline(
        figure,
        f"{systems[-2]}: {'; '.join(map(_speed_on_target, targets.values()))} than the full network, in the median",
    )
    return figure


def _target_panel(axes: Axes, name: str, rows: pd.DataFrame, places: list[int], colors: list[str]) -> None:
    estimate = rows["low"].notna().all()
    style = {"color": "white", "edgecolor": colors, "hatch": "////"} if estimate else {"color": colors}
    axes.barh(places, rows["p50"], height=0.62, **style)
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
    axes.set_xlabel("ms per video (median; line: range)" if estimate else "ms per video (bar: median; |: p90)")


def _speed_on_target(rows: pd.DataFrame) -> str:
    full, policy = rows["p50"].iloc[0], rows["p50"].iloc[-2]
    return f"{_relative_speed(full / policy)} on {rows['target'].iloc[0]}"


@styled
def latency_precisions(table: pd.DataFrame, method: str = "tlee", axes: Axes | None = None) -> Axes:
    """Draw accuracy against milliseconds in fp32 (filled) and int8 (hollow), joined by a line per system.

    ``table``: ``precision`` (fp32 and int8), ``system`` (full network, the policy of ``method``; in this order),
    ``accuracy`` (0..1) with 95% interval ``low`` to ``high``, ``p50`` (milliseconds per video).
    """
    axes = ensure_axes(axes)
    systems = list(table["system"].unique())
    for system, key in zip(systems, ("full", _style_key(method)), strict=True):
        rows = table[table["system"] == system].set_index("precision")
        color, marker = COLORS[key], MARKERS[key]
        axes.plot(rows["p50"], rows["accuracy"], color=color, linewidth=1, label="_")
        for precision, row in rows.iterrows():
            interval = [[row["accuracy"] - row["low"]], [row["high"] - row["accuracy"]]]
            axes.errorbar(
                row["p50"],
                row["accuracy"],
                yerr=np.abs(interval),
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
    speeds = [f"{row.Index} {_relative_speed(row.fp32 / row.int8)}" for row in times.itertuples()]
    fp32, int8 = table[table["system"] == systems[-1]].set_index("precision").loc[["fp32", "int8"], "accuracy"]
    headline(axes, f"int8: {', '.join(speeds)}; top-1 of {systems[-1]} changes by {100 * (int8 - fp32):+.1f} points")
    return axes
