"""Difficulty levels of the demo clips: all tunable parameters in one table.

In an easy clip nearly every frame shows the action. In a hard one the figure stands idle for half of the time: many
frames are uninformative, and several must be processed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difficulty:
    """Parameters of the clips of one level; a pair is the range from which a clip's value is drawn."""

    name: str
    share: float  #: share of all clips
    idle: tuple[float, float]  #: share of the clip in which the figure only stands
    both_ends: float  #: probability that the idle time is split into a lead-in and a tail
    lead_in: float  #: probability that unsplit idle time comes first
    fidget: float  #: probability that an arm moves while standing
    vigour: tuple[float, float]  #: amplitude of the movement; 1 is all of it
    speed: tuple[float, float]  #: speed of the movement; 1 is normal
    contrast: tuple[float, float]  #: contrast between figure and background
    clutter: tuple[int, int]  #: number of objects behind the figure
    occluder: float  #: probability of an object in front of the figure
    shake: int  #: largest movement of the camera between frames, in canvas pixels
    noise: int  #: sensor noise, largest change of a pixel's value


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
