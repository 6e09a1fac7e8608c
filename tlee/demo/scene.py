"""Scene of the demo clips: backgrounds, and objects that stand or drift behind and in front of the performer.

Everything is drawn at integer coordinates on a canvas with ``OVERSAMPLING`` times the resolution of the frame, and
with a margin for camera shake.
"""

from __future__ import annotations

from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.ImageDraw import ImageDraw

from tlee.demo.figure import Colour

SIZE = 96  #: width and height of a frame in pixels
OVERSAMPLING = 4  #: canvas pixels per frame pixel, along each side
MARGIN = 6 * OVERSAMPLING  #: margin around the frame on each side, in canvas pixels
CANVAS = SIZE * OVERSAMPLING + 2 * MARGIN  #: width and height of the canvas in canvas pixels

BACKGROUNDS = ("gradient", "stripes", "checker", "blobs", "horizon")


@dataclass(frozen=True)
class Place:
    """Place shared by the clips of a group."""

    background: str  #: one of ``BACKGROUNDS``
    colours: tuple[Colour, Colour]  #: colours of the background
    clutter: Colour  #: colour of the objects
    ground: int  #: vertical position of the ground, in canvas pixels
    grain: int  #: size of the background pattern, in canvas pixels

    @property
    def tone(self) -> Colour:
        """Mean colour of the background."""
        return mix(*self.colours, 0.5)

    def paint(self, rng: np.random.Generator) -> Image.Image:
        """Paint the empty background, an RGB image of ``CANVAS`` x ``CANVAS`` pixels."""
        mask = Image.fromarray(self._pattern(rng).astype(np.uint8))
        first, second = (Image.new("RGB", (CANVAS, CANVAS), colour) for colour in self.colours)
        return Image.composite(second, first, mask)

    def _pattern(self, rng: np.random.Generator) -> np.ndarray:
        """Return the weight of the second colour at each pixel, 0 to 255."""
        y, x = np.mgrid[:CANVAS, :CANVAS]
        if self.background == "gradient":
            return 255 * y // CANVAS
        if self.background == "stripes":
            slant = rng.integers(-1, 2)
            return (2 * x + slant * y) // (2 * self.grain) % 2 * 255
        if self.background == "checker":
            return (x // self.grain + y // self.grain) % 2 * 255
        if self.background == "blobs":
            cells = rng.integers(0, 256, (CANVAS // self.grain,) * 2, dtype=np.uint8)
            return np.asarray(Image.fromarray(cells).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC))
        wall = 90 * y // CANVAS
        return np.where(y < self.ground - self.grain, wall, 255)


@dataclass(frozen=True)
class Prop:
    """Object in the scene: a box or a ball that stands still or drifts sideways; in canvas pixels."""

    is_round: bool
    left: int
    top: int
    width: int
    height: int
    drift: int  #: movement to the right per frame
    colour: Colour

    def draw(self, canvas: ImageDraw, frame: int) -> None:
        """Draw the object at its position in a frame; if it drifts out on one side, it reappears on the other."""
        left = (self.left + self.drift * frame + self.width) % (CANVAS + self.width) - self.width
        shape = canvas.ellipse if self.is_round else canvas.rectangle
        shape((left, self.top, left + self.width, self.top + self.height), fill=self.colour)


def distractor(place: Place, rng: np.random.Generator) -> Prop:
    """Return a random object that stands or drifts behind the figure."""
    width, height = (int(side) for side in OVERSAMPLING * rng.integers(5, 24, 2))
    return Prop(
        is_round=rng.random() < 0.5,
        left=int(rng.integers(0, CANVAS)),
        top=int(rng.integers(0, place.ground - height)),
        width=width,
        height=height,
        drift=int(rng.integers(-6, 7)) if rng.random() < 0.4 else 0,
        colour=mix(place.tone, place.clutter, rng.uniform(0.15, 0.45)),
    )


def board(place: Place, x: int, rng: np.random.Generator) -> Prop:
    """Return a board that covers a figure around ``x``, from above its head to below its feet."""
    width = OVERSAMPLING * int(rng.integers(62, 74))
    return Prop(
        is_round=False,
        left=x - width // 2,
        top=place.ground - OVERSAMPLING * int(rng.integers(72, 78)),
        width=width,
        height=CANVAS,
        drift=0,
        colour=place.clutter,
    )


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Interpolate between the first colour (share 0) and the second (share 1)."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
    return red, green, blue


def shade(hue: float, saturation: float, value: float) -> Colour:
    """Return the colour of a hue, saturation and value, each 0 to 1."""
    red, green, blue = (round(255 * channel) for channel in hsv_to_rgb(hue % 1, saturation, value))
    return red, green, blue
