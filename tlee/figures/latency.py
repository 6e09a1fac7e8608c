"""What a video costs in time."""

import pandas as pd
from matplotlib.axes import Axes

from tlee.figures.style import COLORS, canvas, headline, legend_above, percent, sequence_colors, styled
from tlee.methods import NAMES

_SYSTEM_COLORS = {NAMES[method]: color for method, color in COLORS.items()}


@styled
def latency_bars(summary: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Milliseconds per video. ``summary``: ``system`` (full network, that of the policy, ideal), ``p50``, ``p90``,
    ``p99``, in this order. ``ideal`` is what the policy would take if time went with what it computes.
    """
    axes = canvas(axes, height=1.4 + 0.6 * len(summary))
    places = range(len(summary))
    colors = [_SYSTEM_COLORS.get(system, COLORS["random"]) for system in summary["system"]]
    axes.barh(places, summary["p50"], color=colors, height=0.6, label="_")
    for name, marker, size in (("p90", "|", 14), ("p99", "D", 5)):
        axes.plot(summary[name], places, marker, color="black", markersize=size, label=name)
    axes.set_yticks(places, [f"{row.system}\n{row.p50:.3g} ms" for row in summary.itertuples()], linespacing=1.3)
    axes.set_ylim(len(summary) - 0.5, -0.5)
    axes.set_xlim(0, None)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("milliseconds per video (bar: median)")
    axes.grid(axis="x")
    legend_above(axes, columns=2)
    full, real, ideal = summary["p50"]
    headline(
        axes,
        f"{summary['system'][1]}: {_against(full / real)} than the full network, {real / ideal:.2f}x its ideal",
    )
    return axes


def _against(speedup: float) -> str:
    return f"{speedup:.1f}x faster" if speedup >= 1 else f"{1 / speedup:.1f}x slower"


@styled
def latency_breakdown(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Where the time of a video goes. ``table``: ``part`` (decoding, network, …), ``milliseconds``."""
    axes = canvas(axes, height=2.0)
    total = table["milliseconds"].sum()
    left = 0.0
    for row, color in zip(table.itertuples(), sequence_colors(len(table)), strict=True):
        label = f"{row.part} {row.milliseconds:.3g} ms"
        axes.barh(0, row.milliseconds, left=left, color=color, edgecolor="white", label=label)
        left += row.milliseconds
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set(xlim=(0, total), xlabel="milliseconds per video")
    legend_above(axes, columns=3)
    longest = table.loc[table["milliseconds"].idxmax()]
    headline(
        axes,
        f"{longest['part'].capitalize()} takes {percent(longest['milliseconds'] / total, 0)} "
        f"of the {total:.3g} ms of a video",
    )
    return axes
