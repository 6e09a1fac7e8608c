"""Training: curves of a stage, comparison of training strategies, scores of the gate."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlee.figures.style import (
    BASE,
    HIGHLIGHT,
    MUTED,
    ensure_axes,
    headline,
    legend_above,
    percent,
    sequence_colors,
    styled,
)


@styled
def training_curves(history: pd.DataFrame) -> Figure:
    """Draw the loss on the left and the accuracies on the right.

    ``history``: ``epoch``, ``loss`` and any number of accuracies (0..1) under names such as
    ``val top-1, 3 frames``, known at some epochs and at the last. If all names have the same part before the comma,
    it labels the axis.
    """
    names = [name for name in history if name not in ("epoch", "loss")]
    figure, panels = plt.subplots(1, 2, figsize=(7.5, 3.6), layout="constrained")
    left, right = panels
    left.plot(history["epoch"], history["loss"], color=BASE, marker=".")
    left.set(ylabel="training loss", ylim=(0, None))
    prefixes = {name.rpartition(", ")[0] for name in names}
    accuracy = (prefixes.pop() if len(prefixes) == 1 else "") or "accuracy"
    final = history[names].iloc[-1]
    for name, color in zip(names, sequence_colors(len(names)), strict=True):
        known = history.dropna(subset=name)
        right.plot(known["epoch"], 100 * known[name], color=color, marker=".")
    right.set_ylabel(f"{accuracy} (%)")
    labels = [f"{name.removeprefix(f'{accuracy}, ')}\n{percent(final[name])}" for name in names]
    _label_ends(right, history["epoch"].iloc[-1], 100 * final.to_numpy(), labels)
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(axis="y")
    best = final.idxmax()
    headline(figure, f"{best[0].upper()}{best[1:]}: {percent(final[best])} after {len(history)} epochs")
    return figure


@styled
def no_training(reason: str, axes: Axes | None = None) -> Axes:
    """Draw a placeholder that gives the ``reason`` why a stage trained nothing."""
    axes = ensure_axes(axes, height=0.6)
    axes.axis("off")
    headline(axes, f"No training in this stage: {reason}")
    return axes


def _label_ends(axes: Axes, x: float, heights: np.ndarray, labels: Sequence[str]) -> None:
    """Label the ends of the curves on the right, in their colours, moved down where they would overlap."""
    bottom, top = axes.get_ylim()
    gap, below = 0.12 * (top - bottom), np.inf
    for index in np.argsort(-heights):
        height = min(heights[index], below - gap)
        axes.annotate(
            labels[index],
            (x, height),
            xytext=(8, 0),
            textcoords="offset points",
            color=axes.lines[index].get_color(),
            fontsize=8.5,
            va="center",
            annotation_clip=False,
        )
        below = height
    axes.set_ylim(min(bottom, below), top)


@styled
def strategy_comparison(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw the accuracy at each exit for each strategy of training the branches.

    ``table``: ``strategy``, ``depths`` (``depth 0`` … and ``mixed depths``), ``accuracy`` (0..1), ``kept`` (true for
    the strategy whose branches are kept). With one strategy, nothing is compared.
    """
    axes = ensure_axes(axes)
    accuracy = table.pivot_table(index="depths", columns="strategy", values="accuracy", sort=False)
    kept = table.loc[table["kept"], "strategy"].iloc[0]
    others = [strategy for strategy in accuracy if strategy != kept]
    places = np.arange(len(accuracy))
    offsets = np.linspace(-0.24, 0.12, len(accuracy.columns)) if others else [0.0]
    for strategy, offset, marker in zip([*others, kept], offsets, "^sovD", strict=False):
        axes.plot(
            places + offset,
            100 * accuracy[strategy],
            marker,
            color=HIGHLIGHT if strategy == kept else MUTED,
            markersize=8,
            label=strategy.replace("_", " ") + (" (kept)" if strategy == kept else ""),
        )
    for place, value in zip(places, 100 * accuracy[kept], strict=True):
        axes.annotate(
            f"{value:.1f}",
            (place + offsets[-1], value),
            xytext=(7, 0),
            textcoords="offset points",
            color=HIGHLIGHT,
            fontsize=8.5,
            va="center",
        )
    axes.set_xticks(places, accuracy.index)
    axes.set_xlim(-0.5, len(accuracy) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("top-1 accuracy (%)")
    axes.grid(axis="y")
    if others:
        legend_above(axes, columns=len(accuracy.columns))
    headline(axes, _reason_kept(accuracy, kept))
    return axes


def _reason_kept(accuracy: pd.DataFrame, kept: str) -> str:
    """State the measure by which ``kept`` leads, and the next best strategy's value."""
    measures = {"over all exits": accuracy.mean()}
    if "mixed depths" in accuracy.index:
        measures = {"at mixed depths": accuracy.loc["mixed depths"], **measures}
    name = kept.replace("_", " ").capitalize()
    for measure, values in measures.items():
        others = values.drop(kept)
        if len(others) and values[kept] >= others.max():
            best = percent(others.max())
            return f"{name} is kept: {percent(values[kept])} {measure}, next best {best}"
    measure, values = next(iter(measures.items()))
    if len(values) == 1:
        return f"The branches classify {percent(values[kept])} of videos correctly {measure}"
    return f"{name} is kept: {percent(values[kept])} {measure}"


@styled
def gate_scores(table: pd.DataFrame, auroc: float, axes: Axes | None = None) -> Axes:
    """Draw histograms of the gate's scores where stopping gives a correct prediction and where it does not.

    ``table``, one row per decision: ``score`` (0..1), ``correct`` (true if the prediction is correct when stopping
    there). ``auroc`` is that of the score for ``correct``.
    """
    axes = ensure_axes(axes)
    bins = np.linspace(0, 1, 26).tolist()
    highest = []
    for correct, color, label in ((True, BASE, "correct"), (False, HIGHLIGHT, "incorrect")):
        scores = table.loc[table["correct"] == correct, "score"]
        counts, _, _ = axes.hist(
            scores,
            bins,
            histtype="stepfilled",
            color=color,
            alpha=0.3,
            label=f"prediction at the stop is {label} ({len(scores)})",
        )
        axes.hist(scores, bins, histtype="step", color=color, linewidth=1.8)
        highest.append(np.max(counts))
    log = max(highest) > 10 * min(highest) > 0
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="score of the gate", ylabel=f"decisions{' (log scale)' if log else ''}", xlim=(0, 1))
    axes.grid(axis="y")
    legend_above(axes, columns=2)
    headline(axes, f"A correct stop scores above an incorrect one in {percent(auroc)} of pairs (AUROC {auroc:.3f})")
    return axes
