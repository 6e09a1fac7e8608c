"""How hard the demo clips are: every knob that is worth tuning, in one table.

In an easy clip nearly every frame shows the action. In a hard one the figure stands idle for half of the
time: many a frame tells nothing, and several must be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difficulty:
    """How clips of one level are made; a pair is the range that a clip's value is drawn from."""

    name: str
    share: float  #: of all clips
    idle: tuple[float, float]  #: part of the clip in which the figure only stands
    both_ends: float  #: chance that the idle part is split into a lead-in and a tail
    lead_in: float  #: chance that an unsplit idle part comes first
    fidget: float  #: chance that the arms move while standing
    vigour: tuple[float, float]  #: 1 performs the whole movement
    speed: tuple[float, float]  #: 1 is normal
    contrast: tuple[float, float]  #: of the figure with the background
    clutter: tuple[int, int]  #: number of things behind the figure
    occluder: float  #: chance of a thing before the figure
    shake: int  #: of the camera, in canvas pixels from a frame to the next
    noise: int  #: of the sensor, largest change of a pixel's value


DIFFICULTIES = (
    Difficulty(
        name="easy",
        share=0.40,
        idle=(0.0, 0.0),
        both_ends=0.0,
        lead_in=1.0,
        fidget=0.0,
        vigour=(0.95, 1.05),
        speed=(0.9, 1.1),
        contrast=(0.9, 1.0),
        clutter=(0, 0),
        occluder=0.0,
        shake=1,
        noise=2,
    ),
    Difficulty(
        name="medium",
        share=0.32,
        idle=(0.2, 0.45),
        both_ends=0.3,
        lead_in=0.6,
        fidget=0.3,
        vigour=(0.9, 1.05),
        speed=(0.85, 1.25),
        contrast=(0.65, 0.9),
        clutter=(1, 3),
        occluder=0.1,
        shake=1,
        noise=3,
    ),
    Difficulty(
        name="hard",
        share=0.28,
        idle=(0.5, 0.68),
        both_ends=0.25,
        lead_in=0.9,
        fidget=0.6,
        vigour=(0.9, 1.0),
        speed=(0.9, 1.3),
        contrast=(0.45, 0.7),
        clutter=(2, 5),
        occluder=0.2,
        shake=2,
        noise=4,
    ),
)
