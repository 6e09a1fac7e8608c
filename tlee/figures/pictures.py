"""Video frames side by side on axes, one unit wide each."""

from matplotlib.axes import Axes
from PIL import Image

_GAP = 0.04  # between neighbouring frames


def extent(picture: Image.Image, x: float, y: float) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of ``picture`` centred on ``(x, y)``, with y pointing down."""
    half = (1 - _GAP) / 2
    rise = half * picture.height / picture.width
    return x - half, x + half, y + rise, y - rise


def draw_picture(axes: Axes, picture: Image.Image, x: float, y: float = 0.0) -> None:
    """Draw ``picture`` centred on ``(x, y)``; the caller sets the limits."""
    axes.imshow(picture, extent=extent(picture, x, y), aspect="equal", interpolation="antialiased")
