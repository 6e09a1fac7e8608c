"""Extracted frames and the number of videos in each split."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

from tlee.figures.pictures import draw_picture
from tlee.figures.style import ensure_axes, ensure_class_axes, headline, legend_above, styled

_SPLIT_COLORS = {"train": "#9DB4C8", "val": "#E69F00", "test": "#0072B2"}


@styled
def sample_clips(rows: Sequence[tuple[str, Sequence[Image.Image]]], axes: Axes | None = None) -> Axes:
    """Draw a contact sheet with one clip per row.

    ``rows``: ``(title, frames in temporal order)`` of each clip.
    """
    frames = max(len(pictures) for _, pictures in rows)
    shape = max(picture.height / picture.width for _, pictures in rows for picture in pictures)
    axes = ensure_axes(axes, 8.0, 0.8 + len(rows) * shape * 6.8 / frames)
    step = shape + 0.06
    for row, (_, pictures) in enumerate(rows):
        for column, picture in enumerate(pictures):
            draw_picture(axes, picture, column, row * step)
    axes.set_xlim(-0.54, frames - 0.46)
    axes.set_ylim((len(rows) - 1) * step + shape / 2, -shape / 2)
    axes.set_yticks([row * step for row in range(len(rows))], [title for title, _ in rows])
    axes.set_xticks(range(frames), [str(column + 1) for column in range(frames)])
    axes.set_xlabel("frame, in temporal order")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    headline(axes, f"Extracted frames: {len(rows)} clips, {frames} frames each")
    return axes


@styled
def split_counts(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw the number of videos by class and split.

    ``table``: ``split`` (train, val or test), ``class``, ``videos`` (count).
    """
    counts = table.pivot_table(index="class", columns="split", values="videos", aggfunc="sum", fill_value=0, sort=False)
    counts = counts[[split for split in _SPLIT_COLORS if split in counts]]
    axes = ensure_class_axes(axes, len(counts))
    left = counts.cumsum(axis=1) - counts
    for split in counts:
        axes.barh(
            range(len(counts)),
            counts[split],
            left=left[split],
            color=_SPLIT_COLORS[split],
            label=split,
            height=0.72,
        )
    axes.set_yticks(range(len(counts)), counts.index)
    axes.set_xlabel("videos")
    legend_above(axes, columns=3)
    parts = ", ".join(f"{counts[split].sum()} {split}" for split in counts)
    headline(axes, f"{counts.to_numpy().sum()} videos of {len(counts)} classes: {parts}")
    return axes
