"""Time steps from a source that goes on: a video file, a camera, an address.

A thread reads and decodes, and puts the frames that are sampled into a queue of bounded length. From a live
source it never waits for whoever takes them: where the queue is full the oldest make way, and are counted. What
reads a recording as fast as possible waits instead, so that nothing is lost. A live source that is silent or ends
is connected to again, after pauses that grow.
"""

import math
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from tlee.errors import UserError
from tlee.extraction.videos import sound_frames

_EARLY = 0.05  # of a slot: times are rounded in files, so a frame that comes so early is still meant for the next
_LONGEST_PAUSE = 30.0  # seconds between attempts to connect
_NOT_YET = 0.005  # seconds until a camera that has no frame yet is asked again
_KINDS = "a video file, a camera such as 0 or /dev/video0, or an address such as rtsp://HOST/PATH"

Frame = Any  #: an ``av.VideoFrame``; nothing here looks into it


class LostError(Exception):
    """A connection that came to nothing, with the reason."""


# --- sources ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """What has been connected to."""

    live: bool  #: a camera, or an address that does not tell how long it lasts; else a recording
    frames: Generator[tuple[float, Frame], None, None]  #: with the seconds at which a recording shows them


def open_source(name: str, timeout: float) -> Source:
    """Connect to a video file, a camera (its number or device) or an address.

    Raises ``LostError`` or PyAV's errors if that fails, of an address after ``timeout`` seconds without an answer.
    """
    file, settings = _how_to_open(name)
    container = av.open(file, timeout=timeout, metadata_errors="ignore", **settings)
    if not container.streams.video:
        container.close()
        raise LostError("it holds no video stream")
    return Source("format" in settings or (is_address(name) and container.duration is None), _decode(container))


def is_address(name: str) -> bool:
    """Whether it is something like ``rtsp://...``."""
    return "://" in name


def without_password(address: str) -> str:
    """As it may be shown: ``rtsp://user:secret@host/path`` without ``:secret``; what is no such address as it is."""
    return re.sub(r"(?<=://)([^/:]*):[^/]*@", r"\1@", address)


def is_camera(name: str) -> bool:
    """Whether it is the number or the device of a camera."""
    return name.isdecimal() or name.startswith("/dev/video")


def _how_to_open(name: str) -> tuple[str, dict[str, Any]]:
    if is_camera(name):
        if sys.platform == "darwin":
            return name, {"format": "avfoundation", "options": {"framerate": "30"}}
        return f"/dev/video{name}" if name.isdecimal() else name, {"format": "v4l2"}
    if is_address(name):
        return name, {"options": {"rtsp_transport": "tcp"} if name.startswith("rtsp") else {}}
    if not Path(name).is_file():
        raise LostError("there is no such file")
    return name, {}


def _decode(container: av.container.InputContainer) -> Generator[tuple[float, av.VideoFrame], None, None]:
    stream = container.streams.video[0]
    stream.thread_type = "SLICE"  # threads over frames would hold some back
    rate, number = stream.average_rate or stream.guessed_rate or 25, 0
    with container:
        while True:
            try:
                for frame in sound_frames(container):
                    yield frame.time if frame.time is not None else float(number / rate), frame
                    number += 1
                return
            except av.BlockingIOError:
                time.sleep(_NOT_YET)


# --- sampling --------------------------------------------------------------------------------------------


class Sampler:
    """Chooses time steps among the frames of a source as they come: ``fps`` a second.

    Of each slot of ``1 / fps`` seconds that is the first frame. Where a time step is a short clip, it is made of
    frames ``clip_stride`` apart up to this one; what would lie before the first frame is the first.
    """

    def __init__(self, fps: float, clip_frames: int = 1, clip_stride: int = 1):
        self._fps, self._clip_frames, self._stride = fps, clip_frames, clip_stride
        self._recent: deque[Frame] = deque(maxlen=(clip_frames - 1) * clip_stride + 1)
        self._slot: int | None = None

    def take(self, seconds: float, frame: Frame) -> list[Frame]:
        """The frames of a time step that ends with this frame, shown at ``seconds``; none if it is passed over."""
        self._recent.append(frame)
        slot = math.floor(seconds * self._fps + _EARLY)
        if slot == self._slot:
            return []
        self._slot = slot
        last = len(self._recent) - 1
        return [self._recent[max(0, last - back * self._stride)] for back in reversed(range(self._clip_frames))]


# --- one connection --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A time step of a source."""

    seconds: float  #: into a recording; of a live source: since it was first connected to
    pictures: list[Any]  #: its frames, as they were prepared


class Reader:
    """One connection to a source, read by a thread of its own into a queue of ``size`` steps.

    ``prepare`` is done to the frames that are sampled, in that thread. A recording is read in real time if
    ``realtime`` says so, and may then lose steps as a live source does. A live source's frames are of the time at
    which they come, counted from ``began``: some cameras give them no other, or one that is not true.
    """

    def __init__(
        self,
        connect: Callable[[], Source],
        sampler: Sampler,
        prepare: Callable[[Frame], Any],
        size: int,
        realtime: bool,
        began: float,
    ):
        self.live: bool | None = None  #: None until it is connected
        self.dropped = 0  #: steps that made way for later ones
        self._connect, self._sampler, self._prepare = connect, sampler, prepare
        self._size, self._realtime, self._began = size, realtime, began
        self._steps: deque[Step] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: Exception | None = None
        self._heard = time.monotonic()
        threading.Thread(target=self._run, name="reader", daemon=True).start()

    def next(self, timeout: float) -> Step | None:
        """The oldest step in the queue, once there is one; None when the source has ended.

        Raises ``LostError`` where it failed, or where nothing has come for ``timeout`` seconds, but of a recording,
        which is waited for.
        """
        with self._changed:
            while not self._steps and not self._ended:
                patience = None if self.live is False else self._heard + timeout - time.monotonic()
                if patience is not None and patience <= 0:
                    raise LostError(f"nothing has come for {timeout:g} s")
                self._changed.wait(patience)
            if self._steps:
                self._changed.notify_all()
                return self._steps.popleft()
            if isinstance(self._error, av.FFmpegError | OSError):
                raise LostError(self._error.strerror or str(self._error))
            if self._error:
                raise self._error
            return None

    def close(self) -> None:
        """Let the thread end, when it is next heard of."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # raised again where the steps are taken
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read(self) -> None:
        source = self._connect()
        self.live = source.live
        first, started = 0.0, None
        with closing(source.frames) as frames:
            for shown, frame in frames:
                self._heard = now = time.monotonic()
                if started is None:
                    first, started = shown, now
                if self._realtime and not self.live:
                    self._wait_until(started + shown - first)
                if self._closed:
                    return
                seconds = now - self._began if self.live else shown - first
                if taken := self._sampler.take(seconds, frame):
                    self._put(Step(seconds, [self._prepare(each) for each in taken]))

    def _wait_until(self, due: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, timeout=max(0.0, due - time.monotonic()))

    def _put(self, step: Step) -> None:
        with self._changed:
            if self.live or self._realtime:
                if len(self._steps) == self._size:
                    self._steps.popleft()
                    self.dropped += 1
            else:
                self._changed.wait_for(lambda: len(self._steps) < self._size or self._closed)
            self._steps.append(step)
            self._changed.notify_all()


# --- a source over all its connections -------------------------------------------------------------------


@dataclass(frozen=True)
class Following:
    """How a source is followed."""

    queue: int  #: time steps that wait at most
    timeout: float  #: seconds of silence after which a live source counts as lost
    retries: int  #: attempts in a row to connect to it again
    realtime: bool = False  #: a recording is read as slowly as it is shown
    pause: float = 1.0  #: seconds before the first attempt; doubled for each further one


class Stream:
    """The time steps of a source in the order in which they come.

    Iterating gives a ``Step``, or None where the next does not follow on the last: the source was lost or has
    ended. A recording gives its steps once. A live source is connected to again; ``tell`` is called with what
    happens. Raises ``UserError`` if it cannot be connected to at first, or not any more, or if it holds nothing.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Source],
        sampler: Callable[[], Sampler],
        prepare: Callable[[Frame], Any],
        following: Following,
        tell: Callable[[str], None],
    ):
        self.live = False  #: known once there is a step
        self._name, self._connect, self._sampler, self._prepare = name, connect, sampler, prepare
        self._following, self._tell = following, tell
        self._dropped = 0
        self._reader: Reader | None = None

    @property
    def dropped(self) -> int:
        """Time steps that have made way for later ones so far."""
        return self._dropped + (self._reader.dropped if self._reader else 0)

    def __iter__(self) -> Generator[Step | None, None, None]:
        following, began = self._following, time.monotonic()
        seen, attempts = False, 0
        while True:
            reader = self._reader = Reader(
                self._connect, self._sampler(), self._prepare, following.queue, following.realtime, began
            )
            try:
                while (step := reader.next(following.timeout)) is not None:
                    self.live, seen, attempts = bool(reader.live), True, 0
                    yield step
                reason = "it has ended" if seen else "it holds no frame that can be decoded"
                lost = reader.live or not seen
            except LostError as error:
                reason, lost = str(error), True
            finally:
                reader.close()
                self._dropped, self._reader = self.dropped, None
            if seen:
                yield None
            if not lost:
                return
            if not seen:
                raise UserError(f"{self._name} cannot be watched ({reason}): name {_KINDS}")
            if not self.live:
                raise UserError(f"{self._name} breaks off ({reason}): restore it")
            if attempts == following.retries:
                raise UserError(f"{self._name} is lost ({reason}): see to it, or allow more attempts with --retries")
            pause = min(following.pause * 2**attempts, _LONGEST_PAUSE)
            attempts += 1
            self._tell(f"{self._name} is lost ({reason}); attempt {attempts} to connect again in {pause:g} s")
            time.sleep(pause)
