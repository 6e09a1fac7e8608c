"""Style shared by all figures: colours, sizes, titles and saving."""

import textwrap
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Colours of the policies that share axes, from the colour-blind safe palette of Okabe and Ito: TLEE is orange, also
#: with other rules, and its temporal and layer halves are blue. Policies that are not listed have axes of their own.
COLORS = {
    "full": "#222222",
    "frameexit": "#CC79A7",
    "temporal": "#0072B2",
    "layer": "#56B4E9",
    "tlee_gate": "#E69F00",
    "tlee_thresholds": "#8C5A00",
    "tlee": "#D55E00",
    "confidence": "#7B5AA6",
    "random": "#999999",
    "oracle": "#009E73",
}

MARKERS = {
    "full": "s",
    "frameexit": "<",
    "temporal": "^",
    "layer": "v",
    "tlee_gate": "P",
    "tlee_thresholds": "d",
    "tlee": "o",
    "confidence": "p",
    "random": "X",
    "oracle": "D",
}

HIGHLIGHT, BASE, MUTED = COLORS["tlee"], COLORS["temporal"], COLORS["random"]

SHARES = "Blues"  #: colour map of shares; 0 is white

_TITLE_POINTS = 12.0

#: Decorator of a figure function: applies the style of the kit, then restores the caller's settings.
styled = mpl.rc_context(
    {
        "axes.axisbelow": True,
        "axes.grid": False,
        "axes.labelsize": 10,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.titlesize": _TITLE_POINTS,
        "axes.titleweight": "bold",
        "figure.titlesize": _TITLE_POINTS,
        "figure.titleweight": "bold",
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "grid.color": "#E3E3E3",
        "grid.linewidth": 0.8,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
    }
)


def sequence_colors(count: int) -> list[tuple[float, ...]]:
    """Return the colours of ``count`` ordered items, such as depths, from light to dark."""
    colors = mpl.colormaps["viridis_r"]
    return [colors(0.3 + 0.65 * index / max(count - 1, 1)) for index in range(count)]


def ensure_axes(axes: Axes | None, width: float = 7.0, height: float = 4.0) -> Axes:
    """Return ``axes``, or new ones on a figure of ``width`` by ``height`` inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if axes is None else axes


def ensure_class_axes(axes: Axes | None, classes: int) -> Axes:
    """Return ``axes``, or new ones with room for one horizontal bar per class, the first class on top."""
    axes = ensure_axes(axes, height=min(1.4 + 0.3 * classes, 15.0))
    axes.set_ylim(classes - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=9 if classes <= 40 else 7)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    return axes


def figure_of(target: Axes | Figure) -> Figure:
    """Return the whole figure that ``target`` is part of. Raises ``ValueError`` if the axes were removed from it."""
    figure = target.get_figure(root=True)
    if figure is None:
        raise ValueError("these axes were removed from their figure")
    return figure


def headline(target: Axes | Figure, finding: str) -> None:
    """Set ``finding`` as the title, wrapped to the width; leave room for a ``legend_above`` if there is one."""
    if isinstance(target, Figure):
        target.suptitle(_wrapped(finding, target.get_figwidth()), x=0.01, ha="left")
        return
    figure = figure_of(target)
    figure.draw_without_rendering()  # fixes the width of the axes
    legend = target.get_legend()
    pad = 0.0 if legend is None else legend.get_window_extent().height * 72 / figure.dpi
    box, alone = target.get_window_extent(), len(figure.axes) == 1
    inches = (figure.bbox.x1 - box.x0 if alone else box.width) / figure.dpi
    target.set_title(_wrapped(finding, inches), pad=pad + mpl.rcParams["axes.titlepad"])


def _wrapped(text: str, inches: float) -> str:
    """Return ``text`` in as few lines as fit, of about equal length; a dollar sign in a name begins no formula."""
    width = max(20, int(inches * 72 / (0.6 * _TITLE_POINTS)))
    lines = len(textwrap.wrap(text, width))
    while len(textwrap.wrap(text, width - 1)) == lines and width > 20:
        width -= 1
    return textwrap.fill(text, width).replace("$", r"\$")


def legend_above(axes: Axes, columns: int) -> None:
    """Add a legend between title and axes, where it covers no data. Call it before ``headline``."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        borderaxespad=0.2,
        borderpad=0.2,
        columnspacing=1.5,
    )


def percent(share: float, digits: int = 1) -> str:
    """Format a share: ``0.9731`` as ``97.3%``."""
    return f"{share:.{digits}%}"


def ordinal(number: int) -> str:
    """Format an ordinal number: ``1st``, ``2nd``, ``3rd``, ``4th``."""
    teens = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def save(target: Axes | Figure, path: str | Path) -> Path:
    """Write a PNG, the same bytes for the same figure, creating missing parent folders; return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure_of(target).savefig(path, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    return path
