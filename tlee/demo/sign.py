"""Sign in the hand of the performer: a bright disc with a ring or a cross on it, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL.ImageDraw import ImageDraw

from tlee.demo.figure import Colour, Pixel

Symbol = Literal["ring", "cross", "empty"]

PAPER: Colour = (236, 232, 220)
INK: Colour = (40, 36, 48)


@dataclass(frozen=True)
class Sign:
    """Disc of a radius in canvas pixels; the symbol fills two thirds of it."""

    radius: int

    def draw(self, canvas: ImageDraw, centre: Pixel, symbol: Symbol) -> None:
        """Draw the sign around a pixel."""
        (x, y), size, width = centre, self.radius * 2 // 3, max(1, self.radius // 4)
        canvas.ellipse((x - self.radius, y - self.radius, x + self.radius, y + self.radius), fill=PAPER)
        if symbol == "ring":
            canvas.ellipse((x - size, y - size, x + size, y + size), outline=INK, width=width)
        elif symbol == "cross":
            reach = size * 5 // 6
            for slope in (-1, 1):
                canvas.line((x - reach, y - slope * reach, x + reach, y + slope * reach), fill=INK, width=width)
