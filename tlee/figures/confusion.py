"""Confusions: the whole matrix of few classes, the most frequent ones of many."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tlee.figures.style import BASE, SHARES, ensure_axes, ensure_class_axes, headline, percent, styled

MATRIX_CLASSES = 60  #: more classes have no matrix: its names, and the few videos beside its diagonal, are not readable
MOST_FREQUENT = 20  #: confusions that are drawn instead


@styled
def confusion(pairs: pd.DataFrame, classes: Sequence[str], axes: Axes | None = None) -> Axes:
    """Draw the confusion matrix: true classes in rows, predicted classes in columns; shades are shares of a row.

    Of more than ``MATRIX_CLASSES`` classes the most frequent confusions are drawn, one row each. ``pairs`` has one row
    for each pair of ``truth`` and ``prediction``, by index, that occurs, with its number of ``videos``.
    """
    errors = pairs[pairs["truth"] != pairs["prediction"]]
    errors = errors.sort_values(["videos", "truth", "prediction"], ascending=[False, True, True])
    totals = pairs.groupby("truth")["videos"].sum()
    if len(classes) <= MATRIX_CLASSES:
        axes = _matrix(pairs, classes, axes)
    else:
        axes = _bars(errors.head(MOST_FREQUENT), totals, classes, axes)
    headline(axes, _finding(errors, totals, classes))
    return axes


def _matrix(pairs: pd.DataFrame, classes: Sequence[str], axes: Axes | None) -> Axes:
    matrix = np.zeros((len(classes), len(classes)), dtype=int)
    matrix[pairs["truth"], pairs["prediction"]] = pairs["videos"]
    few = len(classes) <= 20
    side = min(2.5 + 0.45 * len(classes), 10.0)
    axes = ensure_axes(axes, max(side + 0.8, 6.0), side)
    sns.heatmap(
        pd.DataFrame(matrix / np.maximum(matrix.sum(axis=1), 1)[:, None], index=classes, columns=classes),
        annot=np.where(matrix > 0, matrix.astype(str), "") if few else None,
        fmt="",
        cmap=SHARES,
        vmin=0,
        vmax=1,
        cbar=False,
        linewidths=1.5 if few else 0,
        ax=axes,
    )
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)
    axes.set(xlabel="predicted class", ylabel="true class")
    return axes


def _bars(errors: pd.DataFrame, totals: pd.Series, classes: Sequence[str], axes: Axes | None) -> Axes:
    axes = ensure_class_axes(axes, max(len(errors), 1))
    places = np.arange(len(errors))
    axes.barh(places, errors["videos"], color=BASE, height=0.65)
    for place, row in zip(places, errors.itertuples(), strict=True):
        of_class = f"{percent(row.videos / totals[row.truth], 0)} of the class"
        axes.annotate(of_class, (row.videos, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [f"{classes[row.truth]} as {classes[row.prediction]}" for row in errors.itertuples()])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="videos", xlim=(0, 1.25 * errors["videos"].max() if len(errors) else 1))
    return axes


def _finding(errors: pd.DataFrame, totals: pd.Series, classes: Sequence[str]) -> str:
    if errors.empty:
        return f"No confusion: all {totals.sum()} videos are classified correctly"
    truth, predicted, videos = errors.iloc[0][["truth", "prediction", "videos"]]
    correct = (totals.sum() - errors["videos"].sum()) / totals.sum()
    return (
        f"{percent(correct)} correct; most frequent confusion: {classes[truth]} as "
        f"{classes[predicted]} ({videos} of {totals[truth]})"
    )
