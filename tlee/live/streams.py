"""Time steps from a continuous source: a video file, a camera or a network address.

A thread reads and decodes, and puts sampled time steps into a bounded queue. For a live source it never blocks: when
the queue is full, the oldest time step is dropped and counted. For a recording that is read as fast as possible it
waits instead, so that nothing is lost. A live source that falls silent or ends is reconnected with exponential backoff.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import av

from tlee.errors import UserError
from tlee.extraction.limits import FrameSizeError
from tlee.live.capture import SOURCES, Capture, CaptureError
from tlee.live.sampling import Frame, Sampler, TimeStep

_MAX_BACKOFF = 30.0  # seconds between attempts to reconnect


# --- one connection --------------------------------------------------------------------------------------


class Reader:
    """One connection to a source, read by its own thread into a queue of at most ``queue_size`` time steps.

    ``preprocess`` is applied to sampled frames in that thread. With ``realtime`` a recording is read at playback speed
    and may drop time steps like a live source. Frames of a live source are timestamped on arrival, relative to
    ``start_time``: some cameras provide no timestamps, or wrong ones.
    """

    def __init__(
        self,
        connect: Callable[[], Capture],
        sampler: Sampler,
        preprocess: Callable[[Frame], Any],
        queue_size: int,
        realtime: bool,
        start_time: float,
    ):
        self.is_live: bool | None = None  #: None until connected
        self.dropped = 0  #: number of time steps dropped from a full queue
        self._connect, self._sampler, self._preprocess = connect, sampler, preprocess
        self._queue_size, self._realtime, self._start_time = queue_size, realtime, start_time
        self._queue: deque[TimeStep] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: Exception | None = None
        self._last_arrival = time.monotonic()
        threading.Thread(target=self._run, name="reader", daemon=True).start()

    def next(self, timeout: float) -> TimeStep | None:
        """Return the oldest time step in the queue, waiting for one if necessary; None at the end of the source.

        Raises ``CaptureError`` if the source failed, or if no frame of a live source arrived for ``timeout`` seconds.
        """
        with self._changed:
            while not self._queue and not self._ended:
                patience = None if self.is_live is False else self._last_arrival + timeout - time.monotonic()
                if patience is not None and patience <= 0:
                    raise CaptureError(f"no frame for {timeout:g} s")
                self._changed.wait(patience)
            if self._queue:
                self._changed.notify_all()
                return self._queue.popleft()
            if isinstance(self._error, av.FFmpegError | OSError):
                raise CaptureError(self._error.strerror or str(self._error))
            if isinstance(self._error, FrameSizeError):
                raise CaptureError(str(self._error))
            if self._error:
                raise self._error
            return None

    def close(self) -> None:
        """Stop the thread at its next frame."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # raised again by `next`
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read(self) -> None:
        capture = self._connect()
        self.is_live = capture.is_live
        first_timestamp, playback_start = 0.0, None
        with closing(capture.frames) as frames:
            for timestamp, frame in frames:
                self._last_arrival = now = time.monotonic()
                if playback_start is None:
                    first_timestamp, playback_start = timestamp, now
                if self._realtime and not self.is_live:
                    self._wait_until(playback_start + timestamp - first_timestamp)
                if self._closed:
                    return
                seconds = now - self._start_time if self.is_live else timestamp - first_timestamp
                if sampled := self._sampler.take(seconds, frame):
                    self._put(TimeStep(seconds, [self._preprocess(each) for each in sampled]))

    def _wait_until(self, due: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, timeout=max(0.0, due - time.monotonic()))

    def _put(self, step: TimeStep) -> None:
        with self._changed:
            if self.is_live or self._realtime:
                if len(self._queue) == self._queue_size:
                    self._queue.popleft()
                    self.dropped += 1
            else:
                self._changed.wait_for(lambda: len(self._queue) < self._queue_size or self._closed)
            self._queue.append(step)
            self._changed.notify_all()


# --- a source across reconnections -----------------------------------------------------------------------


@dataclass(frozen=True)
class StreamOptions:
    """Buffering, playback and reconnection of a stream."""

    queue_size: int  #: maximum number of time steps in the queue
    timeout: float  #: seconds without a frame after which a live source is considered lost
    retries: int  #: consecutive attempts to reconnect
    realtime: bool = False  #: read a recording at playback speed
    backoff: float = 1.0  #: seconds before the first attempt to reconnect, doubled for each further one


class Stream:
    """The time steps of a source in order of arrival, across reconnections.

    Iterating yields ``TimeStep`` objects, and None where the sequence is interrupted: the source was lost or has
    ended. A recording is read once. A live source is reconnected, and ``warn`` is called with a message each time.
    Raises ``UserError`` if the source cannot be opened, cannot be reconnected, or contains no frame.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Capture],
        new_sampler: Callable[[], Sampler],
        preprocess: Callable[[Frame], Any],
        options: StreamOptions,
        warn: Callable[[str], None],
    ):
        self.is_live = False  #: known after the first time step
        self._name, self._connect, self._new_sampler, self._preprocess = name, connect, new_sampler, preprocess
        self._options, self._warn = options, warn
        self._dropped = 0
        self._reader: Reader | None = None

    @property
    def dropped(self) -> int:
        """Number of time steps dropped so far."""
        return self._dropped + (self._reader.dropped if self._reader else 0)

    def __iter__(self) -> Generator[TimeStep | None, None, None]:
        options, start_time = self._options, time.monotonic()
        has_frames, attempts = False, 0
        while True:
            reader = self._reader = Reader(
                self._connect, self._new_sampler(), self._preprocess, options.queue_size, options.realtime, start_time
            )
            try:
                while (step := reader.next(options.timeout)) is not None:
                    self.is_live, has_frames, attempts = bool(reader.is_live), True, 0
                    yield step
                reason = "it has ended" if has_frames else "it contains no frame that can be decoded"
                is_lost = reader.is_live or not has_frames
            except CaptureError as error:
                reason, is_lost = str(error), True
            finally:
                reader.close()
                self._dropped, self._reader = self.dropped, None
            if has_frames:
                yield None
            if not is_lost:
                return
            if not has_frames:
                raise UserError(f"cannot open {self._name} ({reason}): name {SOURCES}")
            if not self.is_live:
                raise UserError(f"cannot read {self._name} to the end ({reason}): restore the file")
            if attempts == options.retries:
                raise UserError(f"lost {self._name} ({reason}): check it, or allow more attempts with --retries")
            pause = min(options.backoff * 2**attempts, _MAX_BACKOFF)
            attempts += 1
            self._warn(f"lost {self._name} ({reason}); reconnecting in {pause:g} s, attempt {attempts}")
            time.sleep(pause)
