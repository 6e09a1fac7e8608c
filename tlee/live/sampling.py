"""Sample time steps from decoded frames at a fixed rate."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

_TOLERANCE = 0.05  # of a slot: timestamps in files are rounded, so a frame this early counts for the next slot

Frame = Any  #: an ``av.VideoFrame``; opaque to this module


@dataclass(frozen=True)
class TimeStep:
    """A sampled time step of a source."""

    seconds: float  #: position in a recording; for a live source, time since the stream was started
    frames: list[Any]  #: its preprocessed frames


class Sampler:
    """Select ``fps`` time steps per second from frames in the order in which they arrive.

    The first frame of each slot of ``1 / fps`` seconds is selected. Where a time step is a short clip, it consists of
    frames ``clip_stride`` apart that end with this one; positions before the first frame are filled with the first.
    """

    def __init__(self, fps: float, clip_frames: int = 1, clip_stride: int = 1):
        self._fps, self._clip_frames, self._stride = fps, clip_frames, clip_stride
        self._recent: deque[Frame] = deque(maxlen=(clip_frames - 1) * clip_stride + 1)
        self._slot: int | None = None

    def take(self, seconds: float, frame: Frame) -> list[Frame]:
        """Return the frames of the time step that ends with this frame, or an empty list if it is not sampled.

        ``seconds`` is the frame's timestamp.
        """
        self._recent.append(frame)
        slot = math.floor(seconds * self._fps + _TOLERANCE)
        if slot == self._slot:
            return []
        self._slot = slot
        last = len(self._recent) - 1
        return [self._recent[max(0, last - back * self._stride)] for back in reversed(range(self._clip_frames))]
