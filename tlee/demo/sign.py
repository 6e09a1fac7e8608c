"""Sign in the hand of the performer: a bright ring, a cross, or a disc, which stands for nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL.ImageDraw import ImageDraw

from tlee.demo.figure import Colour, Pixel

Symbol = Literal["ring", "cross", "disc"]

COLOUR: Colour = (236, 232, 220)


@dataclass(frozen=True)
class Sign:
    """Sign of a radius in canvas pixels."""

    radius: int

    def draw(self, canvas: ImageDraw, centre: Pixel, symbol: Symbol) -> None:
        """Draw the sign around a pixel."""
        (x, y), width = centre, max(1, self.radius * 2 // 5)
        if symbol == "cross":
            reach = self.radius * 4 // 5
            for slope in (-1, 1):
                canvas.line((x - reach, y - slope * reach, x + reach, y + slope * reach), fill=COLOUR, width=width)
        else:
            box = (x - self.radius, y - self.radius, x + self.radius, y + self.radius)
            canvas.ellipse(box, outline=COLOUR, width=width, fill=COLOUR if symbol == "disc" else None)
