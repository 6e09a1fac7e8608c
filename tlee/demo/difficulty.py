"""Difficulty of the demo clips, known by construction on two axes: all tunable parameters in one place.

Time: in how many frames the cue can be seen. Depth: whether it is the pose of the whole body or a small sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cue = Literal["coarse", "fine", "none"]
Moment = Literal["cue", "idle", "hidden", "common", "misleading"]

Range = tuple[float, float]  #: from which a clip's value is drawn


@dataclass(frozen=True)
class Timing:
    """Part of a clip in which its cue can be seen."""

    name: str
    share: float  #: share of the clips that have a cue
    frames: tuple[int, int]  #: frames in which the cue can be seen
    runs: tuple[int, int]  #: runs of adjacent frames among which these are divided, at most


@dataclass(frozen=True)
class Difficulty:
    """Difficulty of one clip; no timing if it has no cue."""

    cue: Cue
    timing: Timing | None


TIMINGS = (
    Timing("always", share=0.30, frames=(24, 24), runs=(1, 1)),
    Timing("often", share=0.30, frames=(12, 17), runs=(1, 3)),
    Timing("seldom", share=0.25, frames=(6, 9), runs=(1, 2)),
    Timing("brief", share=0.15, frames=(3, 4), runs=(1, 1)),
)

#: Shares of the clips. coarse: the pose tells the action. fine: the pose is that of a pair, a sign tells the member.
CUES: dict[Cue, float] = {"coarse": 0.45, "fine": 0.50, "none": 0.05}

#: Shares of what is seen where the cue is not. idle: the figure stands; hidden: a board covers it; common: the movement
#: of the pair, with a disc as the sign; misleading: a hint of an action of another pair.
FILLERS: dict[Moment, float] = {"idle": 0.40, "hidden": 0.25, "common": 0.15, "misleading": 0.20}
FILLER_FRAMES = (3, 6)  #: frames that one of these lasts

MIN_RUN = 3  #: shortest run of frames with the cue: of three adjacent frames, one at least is among ten sampled from 24
MISLEADING: Range = (0.45, 0.6)  #: amplitude of a misleading movement; 1 is all of it
FIDGET = 0.4  #: probability that an arm moves while the figure stands
VIGOUR: Range = (0.92, 1.05)  #: amplitude of the movements that tell the action
SPEED: Range = (0.85, 1.2)  #: 1 is normal
SIGN_RADIUS: Range = (10.0, 12.0)  #: radius of the sign in pixels of the frame
CONTRAST: Range = (0.75, 1.0)  #: contrast between figure and background
CLUTTER = (0, 2)  #: number of objects behind the figure
SHAKE = 1  #: largest movement of the camera between frames, in canvas pixels
NOISE = 2  #: sensor noise, largest change of a pixel's value


def deal(clips: int) -> list[Difficulty]:
    """Return the difficulties of so many clips in a fixed order, in the numbers that their shares give."""
    shares = {Difficulty("none", None): CUES["none"]}
    shares |= {Difficulty(cue, timing): CUES[cue] * timing.share for cue in ("coarse", "fine") for timing in TIMINGS}
    counts = {difficulty: int(clips * share) for difficulty, share in shares.items()}
    largest_remainder = sorted(shares, key=lambda each: counts[each] - clips * shares[each])
    for difficulty in largest_remainder[: clips - sum(counts.values())]:
        counts[difficulty] += 1
    return [difficulty for difficulty, count in counts.items() for _ in range(count)]
