"""Which frames of a video are taken. No file is touched here."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np

from tlee.params import ExtractParams

_FINEST = 1_000_000  # seconds and rates given as floats are taken as the nearest fraction of at most this denominator


def sample_indices(length: int, frames: int) -> list[int]:
    """Indices of ``frames`` uniformly spaced frames of a video with ``length`` frames.

    ``clip(linspace(0, L, T), 0, L - 1)``, as both papers sample.
    """
    return np.clip(np.linspace(0, length, frames), 0, length - 1).astype(int).tolist()


@dataclass(frozen=True)
class Timeline:
    """When each frame of a video is shown, counted from its first.

    ``ticks``: one number a frame, strictly increasing from 0, and last the end of the last frame.
    ``tick``: seconds in one of them; None where the video does not tell.
    """

    ticks: Sequence[int]
    tick: Fraction | None

    @classmethod
    def steady(cls, length: int, rate: Fraction | None) -> Self:
        """``length`` frames at ``rate`` frames a second."""
        return cls(range(length + 1), 1 / rate if rate else None)

    @property
    def length(self) -> int:
        """How many frames there are."""
        return len(self.ticks) - 1

    def part(self, start: float, end: float) -> range:
        """Indices of the frames that appear from ``start`` to before ``end``, in seconds; NaN: no limit.

        At least one: where none appears in between, the one that is on show at ``start``.
        Raises ``ValueError`` if the video is over by then, or does not tell times.
        """
        first, stop, begin = 0, self.length, Fraction(0)
        if not math.isnan(start):
            begin = self._in_ticks(start)
            if begin >= self.ticks[-1]:
                raise ValueError(f"it is over after {float(self.ticks[-1] * self._seconds()):.2f} s, before its part")
            first = bisect_left(self.ticks, begin, hi=self.length)
        if not math.isnan(end):
            stop = bisect_left(self.ticks, self._in_ticks(end), hi=self.length)
        if stop <= first:
            first = max(0, bisect_right(self.ticks, begin, hi=self.length) - 1)
            stop = first + 1
        return range(first, stop)

    def at_rate(self, fps: float, part: range) -> list[int]:
        """Indices that an extraction of ``part`` at ``fps`` frames a second would keep, at least one.

        With time counted from the first frame of the part, a frame shown at ``t`` falls into slot
        ``floor(t * fps + 1/2)``, and slot ``k`` gets the last frame of the slots up to ``k``. There are as
        many slots as the end of the part is rounded to. That is what FFmpeg's filter ``fps`` does by default.
        Raises ``ValueError`` if the video does not tell times.
        """
        slots_per_tick = self._seconds() * _fraction(fps)
        begin = self.ticks[part.start]
        half, whole = slots_per_tick.denominator, 2 * slots_per_tick.denominator
        slots = [
            (2 * (ticks - begin) * slots_per_tick.numerator + half) // whole
            for ticks in self.ticks[part.start : part.stop + 1]
        ]
        last_slot = slots.pop()
        return [part.start + bisect_right(slots, slot) - 1 for slot in range(max(1, last_slot))]

    def _in_ticks(self, seconds: float) -> Fraction:
        return _fraction(seconds) / self._seconds()

    def _seconds(self) -> Fraction:
        if self.tick is None:
            raise ValueError("it does not tell how many frames a second it has")
        return self.tick


@dataclass(frozen=True)
class Sampling:
    """How frames are taken from a video: parameters of the stage ``extract``, see params.yaml."""

    frames: int
    fps: float | None = None
    clip_frames: int = 1
    clip_stride: int = 1

    @classmethod
    def of(cls, params: ExtractParams) -> Self:
        """As the parameters say."""
        return cls(params.frames, params.fps, params.clip_frames, params.clip_stride)

    def pick(self, timeline: Timeline, start: float = math.nan, end: float = math.nan) -> list[int]:
        """Indices of the frames to take between ``start`` and ``end``, in seconds: ``frames * clip_frames``.

        All frames of a time step stand together, in temporal order. They are ``clip_stride`` source frames
        apart and around the sampled one; what would lie outside the part is its first or last frame.
        Raises ``ValueError`` as ``Timeline`` does.
        """
        part = timeline.part(start, end)
        kept = part if self.fps is None else timeline.at_rate(self.fps, part)
        return [
            min(max(kept[step] + offset, part.start), part.stop - 1)
            for step in sample_indices(len(kept), self.frames)
            for offset in self._offsets()
        ]

    def _offsets(self) -> Iterable[int]:
        before = self.clip_frames // 2
        return (self.clip_stride * (frame - before) for frame in range(self.clip_frames))


def _fraction(value: float) -> Fraction:
    return Fraction(value).limit_denominator(_FINEST)
