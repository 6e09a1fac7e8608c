"""Open a video file, a camera or a network address, and decode its frames."""

import re
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from tlee.extraction.limits import check_frame_size
from tlee.extraction.videos import refuse_playlist, undamaged_frames

SOURCES = "a video file, a camera such as 0 or /dev/video0, or an address such as rtsp://HOST/PATH"

_POLL_INTERVAL = 0.005  # seconds until a camera without a new frame is polled again


class CaptureError(Exception):
    """A source that cannot be opened or has stopped delivering frames, with the reason."""


@dataclass(frozen=True)
class Capture:
    """An open source and its decoded frames."""

    is_live: bool  #: a camera, or an address without a duration; otherwise a recording
    frames: Generator[tuple[float, av.VideoFrame], None, None]  #: presentation time in seconds, and the frame


def open_capture(source: str, timeout: float) -> Capture:
    """Open a video file, a camera (number or device) or an address.

    Raises ``CaptureError`` or PyAV's errors on failure, for an address after ``timeout`` seconds without a response.
    A file that is a playlist is refused: it could name any other file.
    """
    file, settings = _open_arguments(source)
    container = av.open(file, timeout=timeout, metadata_errors="ignore", **settings)
    if not container.streams.video:
        container.close()
        raise CaptureError("it contains no video stream")
    try:
        check_frame_size(container.streams.video[0].width, container.streams.video[0].height)
        if not (is_camera(source) or is_address(source)):
            refuse_playlist(container)
    except ValueError as error:
        container.close()
        raise CaptureError(str(error)) from None
    is_live = "format" in settings or (is_address(source) and container.duration is None)
    return Capture(is_live, _decode(container))


def is_address(source: str) -> bool:
    """Return True for URLs such as ``rtsp://...``."""
    return re.match(r"[A-Za-z][\w+.-]*://", source) is not None


def is_camera(source: str) -> bool:
    """Return True for the number or the device of a camera."""
    return source.isdecimal() or source.startswith("/dev/video")


def without_password(source: str) -> str:
    """Remove the password from an address: ``rtsp://user:secret@host/path`` without ``:secret``."""
    return re.sub(r"(?<=://)([^/:]*):[^/]*@", r"\1@", source)


def _open_arguments(source: str) -> tuple[str, dict[str, Any]]:
    if is_camera(source):
        if sys.platform == "darwin":
            return source, {"format": "avfoundation", "options": {"framerate": "30"}}
        return f"/dev/video{source}" if source.isdecimal() else source, {"format": "v4l2"}
    if is_address(source):
        return source, {"options": {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}}
    if not Path(source).is_file():
        raise CaptureError("the file does not exist")
    return source, {}


def _decode(container: av.container.InputContainer) -> Generator[tuple[float, av.VideoFrame], None, None]:
    stream = container.streams.video[0]
    stream.thread_type = "SLICE"  # frame threading would delay frames
    rate, count = stream.average_rate or stream.guessed_rate or 25, 0
    with container:
        while True:
            try:
                for frame in undamaged_frames(container):
                    yield frame.time if frame.time is not None else float(count / rate), frame
                    count += 1
                return
            except av.BlockingIOError:
                time.sleep(_POLL_INTERVAL)
