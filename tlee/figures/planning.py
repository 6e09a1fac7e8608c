"""The forecast of a run beside what the run took."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tlee.figures.style import BASE, HIGHLIGHT, ensure_axes, headline, legend_above, styled


def duration_text(seconds: float) -> str:
    """Format a duration: ``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@styled
def forecast_and_taken(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw the forecast time of each stage and the time that its last run took, one stage a row.

    ``table``: ``stage``, ``seconds``, ``took`` (NaN where nothing ran) and ``ratio``, forecast to taken. The title is
    about the sum over the stages that ran, and the stage whose ratio is furthest from 1.
    """
    axes, rows = ensure_axes(axes, height=1.4 + 0.45 * len(table)), np.arange(len(table))
    axes.barh(rows - 0.2, table["seconds"], 0.36, color=BASE, label="forecast")
    axes.barh(rows + 0.2, table["took"], 0.36, color=HIGHLIGHT, label="taken by the last run")
    for row, (seconds, took, ratio) in enumerate(table[["seconds", "took", "ratio"]].to_numpy(float)):
        if np.isfinite(ratio):
            place = max(seconds, took), row
            axes.annotate(f"{ratio:.2f}", place, (4, 0), textcoords="offset points", va="center")
    axes.set(xlabel="time (s), and the ratio of forecast to taken", xscale="log", ylim=(len(table) - 0.4, -0.6))
    axes.set_yticks(rows, table["stage"])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    legend_above(axes, 2)
    headline(axes, _finding(table))
    return axes


def _finding(table: pd.DataFrame) -> str:
    ran = table.dropna(subset="took").reset_index(drop=True)
    if ran.empty:
        return f"Forecast: {duration_text(table['seconds'].sum())}; nothing has run yet"
    forecast, taken = ran["seconds"].sum(), ran["took"].sum()
    worst = ran.loc[np.log(ran["ratio"]).abs().idxmax()]
    return (
        f"Forecast: {duration_text(forecast)}, taken: {duration_text(taken)}, a ratio of {forecast / taken:.2f}; "
        f"{worst['stage']} is furthest off, at {worst['ratio']:.2f}"
    )
