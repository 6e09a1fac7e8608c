"""Selection of the frames of a video by its timeline, without access to files."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np

from tlee.params import ExtractParams

_MAX_SLOTS = 2_000_000  # of an extraction at a constant rate: nearly a day at 25 frames per second
_MAX_DENOMINATOR = 1_000_000  # of the fractions to which seconds and rates given as floats are rounded


def sample_indices(length: int, frames: int) -> list[int]:
    """Return the indices of ``frames`` uniformly spaced frames of a video with ``length`` frames.

    ``clip(linspace(0, L, T), 0, L - 1)``, as in both papers.
    """
    return np.clip(np.linspace(0, length, frames), 0, length - 1).astype(int).tolist()


@dataclass(frozen=True)
class Timeline:
    """Presentation times of the frames of a video, relative to the first.

    ``ticks``: one number per frame, strictly increasing from 0, and then the end of the last frame.
    ``tick``: duration of one tick in seconds; None if the video has no frame rate.
    """

    ticks: Sequence[int]
    tick: Fraction | None

    @classmethod
    def constant_rate(cls, length: int, rate: Fraction | None) -> Self:
        """Timeline of ``length`` frames at ``rate`` frames per second."""
        return cls(range(length + 1), 1 / rate if rate else None)

    @property
    def length(self) -> int:
        """Number of frames."""
        return len(self.ticks) - 1

    def frames_between(self, start: float, end: float) -> range:
        """Return the indices of the frames that appear from ``start`` to before ``end``, in seconds; NaN: no limit.

        At least one: if none appears in between, the one that is visible at ``start``.
        Raises ``ValueError`` if the video ends before ``start``, or has no frame rate.
        """
        first, stop, begin = 0, self.length, Fraction(0)
        if not math.isnan(start):
            begin = self._in_ticks(start)
            if begin >= self.ticks[-1]:
                raise ValueError(
                    f"it ends after {float(self.ticks[-1] * self._seconds_per_tick()):.2f} s, before its listed start"
                )
            first = bisect_left(self.ticks, begin, hi=self.length)
        if not math.isnan(end):
            stop = bisect_left(self.ticks, self._in_ticks(end), hi=self.length)
        if stop <= first:
            first = max(0, bisect_right(self.ticks, begin, hi=self.length) - 1)
            stop = first + 1
        return range(first, stop)

    def at_rate(self, fps: float, frames: range) -> list[int]:
        """Return the indices that an extraction of ``frames`` at ``fps`` frames per second would keep, at least one.

        With time relative to the first of ``frames``, a frame shown at ``t`` falls into slot ``floor(t * fps + 1/2)``,
        and slot ``k`` gets the last frame of the slots up to ``k``. The number of slots is the end time, rounded in
        the same way. This is the default behaviour of FFmpeg's filter ``fps``.
        Raises ``ValueError`` if the video has no frame rate, or one so low that the file must be damaged.
        """
        slots_per_tick = self._seconds_per_tick() * _fraction(fps)
        begin = self.ticks[frames.start]
        half, whole = slots_per_tick.denominator, 2 * slots_per_tick.denominator
        slots = [
            (2 * (ticks - begin) * slots_per_tick.numerator + half) // whole
            for ticks in self.ticks[frames.start : frames.stop + 1]
        ]
        last_slot = slots.pop()
        if last_slot > _MAX_SLOTS:
            raise ValueError(f"its {len(slots)} frames last implausibly long, {last_slot} frames at {fps} per second")
        return [frames.start + bisect_right(slots, slot) - 1 for slot in range(max(1, last_slot))]

    def _in_ticks(self, seconds: float) -> Fraction:
        return _fraction(seconds) / self._seconds_per_tick()

    def _seconds_per_tick(self) -> Fraction:
        if self.tick is None:
            raise ValueError("its frame rate is unknown")
        return self.tick


@dataclass(frozen=True)
class Sampling:
    """Sampling of a video's frames: parameters of the stage ``extract``, see params.yaml."""

    frames: int
    fps: float | None = None
    clip_frames: int = 1
    clip_stride: int = 1

    @classmethod
    def of(cls, params: ExtractParams) -> Self:
        """Sampling with the given parameters."""
        return cls(params.frames, params.fps, params.clip_frames, params.clip_stride)

    def pick(self, timeline: Timeline, start: float = math.nan, end: float = math.nan) -> list[int]:
        """Return the ``frames * clip_frames`` indices of the sampled frames between ``start`` and ``end``, in seconds.

        The frames of a time step are adjacent and in temporal order. They are ``clip_stride`` source frames apart,
        centred on the sampled one, and clamped to the first and last frame of the interval.
        Raises ``ValueError`` as ``Timeline`` does.
        """
        interval = timeline.frames_between(start, end)
        kept = interval if self.fps is None else timeline.at_rate(self.fps, interval)
        return [
            min(max(kept[step] + offset, interval.start), interval.stop - 1)
            for step in sample_indices(len(kept), self.frames)
            for offset in self._offsets()
        ]

    def _offsets(self) -> Iterable[int]:
        before = self.clip_frames // 2
        return (self.clip_stride * (frame - before) for frame in range(self.clip_frames))


def _fraction(value: float) -> Fraction:
    return Fraction(value).limit_denominator(_MAX_DENOMINATOR)
