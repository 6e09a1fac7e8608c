"""Video frames side by side on axes, one unit wide each."""

from matplotlib.axes import Axes
from PIL import Image

_GAP = 0.04  # between neighbours


def extent(picture: Image.Image, x: float, y: float) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of ``picture`` centred on ``(x, y)``, y downwards."""
    half = (1 - _GAP) / 2
    rise = half * picture.height / picture.width
    return x - half, x + half, y + rise, y - rise


def pave(axes: Axes, picture: Image.Image, x: float, y: float = 0.0) -> None:
    """Draw ``picture`` centred on ``(x, y)``; the caller sets the limits."""
    axes.imshow(picture, extent=extent(picture, x, y), aspect="equal", interpolation="antialiased")
