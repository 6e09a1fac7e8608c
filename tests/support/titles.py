"""What figures say above."""

from matplotlib.axes import Axes


def title(axes: Axes) -> str:
    """In one line."""
    return axes.get_title(loc="left").replace("\n", " ")
