"""Timeline of a demo clip: what can be seen in each frame, at random places in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlee.demo.difficulty import FILLER_FRAMES, FILLERS, MIN_RUN, Difficulty, Moment


def draw_timeline(difficulty: Difficulty, frames: int, rng: np.random.Generator) -> list[Moment]:
    """Draw what is seen in each of ``frames`` frames; ``cue`` is where the cue of the clip can be seen.

    Time is circular while the runs of frames are placed, and then cut anywhere: no place in time is preferred.
    """
    if difficulty.timing is None:
        return _fill(frames, [name for name in FILLERS if name != "common"], rng)
    cue = int(rng.integers(*difficulty.timing.frames, endpoint=True))
    runs = min(int(rng.integers(*difficulty.timing.runs, endpoint=True)), cue // MIN_RUN)
    lengths = MIN_RUN + _divide(cue - MIN_RUN * runs, runs, rng)
    moments: list[Moment] = []
    for length, gap in zip(lengths.tolist(), _divide(frames - cue, runs, rng).tolist(), strict=True):
        moments += ["cue"] * length
        moments += _fill(gap, list(FILLERS), rng)
    cut = int(rng.integers(frames))
    return moments[cut:] + moments[:cut]


def _divide(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """Divide a number of frames at random into so many parts, which may be empty."""
    cuts = np.sort(rng.integers(0, total, parts - 1, endpoint=True))
    return np.diff(cuts, prepend=0, append=total)


def _fill(frames: int, names: Sequence[Moment], rng: np.random.Generator) -> list[Moment]:
    """Fill frames in which the cue cannot be seen."""
    shares = np.array([FILLERS[name] for name in names])
    moments: list[Moment] = []
    while len(moments) < frames:
        name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
        moments += [name] * int(rng.integers(*FILLER_FRAMES, endpoint=True))
    return moments[:frames]
