"""Sources that continue, stall, end and fail: which frames arrive, which are dropped, when a source is given up."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from support.clips import encode, seen
from support.refusals import one_line

from tlee.errors import UserError
from tlee.extraction.videos import upright
from tlee.live import streams
from tlee.live.capture import Capture, CaptureError, open_capture
from tlee.live.sampling import Sampler, TimeStep
from tlee.live.streams import Reader, Stream, StreamOptions

TIMEOUT = 0.2  # seconds without a frame after which a source is considered lost
OPTIONS = StreamOptions(queue_size=100, timeout=TIMEOUT, retries=2, backoff=0.001)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """An event that a stalling source waits for; it is set at the end of a test."""
    event = threading.Event()
    yield event
    event.set()


def frames(*numbers: int, then: Callable[[], object] = lambda: None) -> Generator[tuple[float, int], None, None]:
    """Numbers as frames, one per second; ``then`` is called after the last."""
    for number in numbers:
        yield float(number), number
    then()


def fails(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def recording(*numbers: int, **settings: Any) -> Capture:
    return Capture(False, frames(*numbers, **settings))


def live(*numbers: int, **settings: Any) -> Capture:
    return Capture(True, frames(*numbers, **settings))


class EveryFrame(Sampler):
    """A sampler that takes every frame."""

    def __init__(self) -> None:
        super().__init__(fps=1)

    def take(self, seconds: float, frame: int) -> list[int]:
        return [frame]


def new_reader(capture: Capture, size: int = 100, realtime: bool = False, sampler: Sampler | None = None) -> Reader:
    return Reader(lambda: capture, sampler or EveryFrame(), lambda frame: frame, size, realtime, time.monotonic())


def numbers(reader: Reader) -> list[int]:
    """The frames that arrive until the source ends."""
    return [step.frames[0] for step in iter(lambda: reader.next(5.0), None)]


def new_stream(*captures: Capture | Exception, options: StreamOptions = OPTIONS) -> tuple[Stream, list[str]]:
    """A stream whose connections are these in turn, or fail with an error; and the warnings that it gives."""
    turns, warnings = iter(captures), []

    def connect() -> Capture:
        capture = next(turns)
        if isinstance(capture, Exception):
            raise capture
        return capture

    return Stream("camera", connect, EveryFrame, lambda frame: frame, options, warnings.append), warnings


def until_lost(stream: Stream) -> tuple[list[int | None], str]:
    """The frames that arrive, None at interruptions, and the error line at the end."""
    found = []

    def take() -> None:
        found.extend(step and step.frames[0] for step in stream)

    line = one_line(take)
    return found, line


# --- the queue -------------------------------------------------------------------------------------------


def test_old_frames_of_a_live_source_are_dropped_and_counted():
    ended = threading.Event()
    slow = new_reader(live(*range(10), then=ended.set), size=3)
    assert ended.wait(5)  # before the first is taken
    assert numbers(slow) == [7, 8, 9]
    assert slow.dropped == 7


def test_a_recording_waits_and_drops_none():
    decoded = []
    capture = Capture(False, ((float(number), decoded.append(number) or number) for number in range(20)))
    slow = new_reader(capture, size=3)
    assert slow.next(5.0) == TimeStep(0.0, [0])
    time.sleep(0.02)
    assert len(decoded) <= 1 + 3 + 1  # taken, in the queue, waiting for the queue
    assert numbers(slow) == list(range(1, 20))
    assert slow.dropped == 0


def test_a_recording_in_real_time_is_paced_and_drops_frames_like_a_camera():
    ended = threading.Event()

    def shown() -> Generator[tuple[float, int], None, None]:
        for number in range(6):
            yield 7 + number / 50, number
        ended.set()

    start = time.monotonic()
    played = new_reader(Capture(False, shown()), size=2, realtime=True)
    assert ended.wait(5)
    assert time.monotonic() - start >= 0.1
    assert numbers(played) == [4, 5]
    assert played.dropped == 4


def test_seconds_are_positions_in_a_recording_and_times_since_the_start_of_a_live_source():
    shown = new_reader(Capture(False, ((20 + number / 4, number) for number in range(3))))
    assert [shown.next(5.0).seconds for _ in range(3)] == [0, 0.25, 0.5]
    step = Reader(lambda: live(7), EveryFrame(), str, 1, False, start_time=time.monotonic() - 100).next(5.0)
    assert step.frames == ["7"]
    assert 100 <= step.seconds < 105


def test_a_silent_live_source_is_lost_after_the_timeout(released):
    silent = new_reader(live(1, then=released.wait))
    assert silent.next(TIMEOUT).frames == [1]
    start = time.monotonic()
    with pytest.raises(CaptureError, match=r"no frame for 0\.2 s"):
        silent.next(TIMEOUT)
    assert time.monotonic() - start < 1


def test_a_source_that_does_not_connect_is_lost_after_the_timeout(released):
    def connect() -> Capture:
        released.wait()
        return live()

    with pytest.raises(CaptureError, match=r"no frame for 0\.2 s"):
        Reader(connect, EveryFrame(), str, 1, False, 0.0).next(TIMEOUT)


def test_frames_that_are_not_sampled_prevent_the_timeout():
    def steady() -> Generator[tuple[float, int], None, None]:
        for number in range(15):
            time.sleep(TIMEOUT / 10)
            yield 0.0, number

    busy = new_reader(Capture(True, steady()), sampler=Sampler(fps=0.01))
    assert [busy.next(TIMEOUT).frames, busy.next(TIMEOUT)] == [[0], None]


def test_a_recording_has_no_timeout():
    slow = new_reader(recording(1, then=lambda: time.sleep(1.5 * TIMEOUT)))
    assert [slow.next(TIMEOUT).frames, slow.next(TIMEOUT)] == [[1], None]


def test_a_defect_in_the_thread_is_raised_by_next():
    broken = new_reader(recording(1, then=fails(KeyError("defect"))))
    assert broken.next(5.0).frames == [1]
    with pytest.raises(KeyError, match="defect"):
        broken.next(5.0)


# --- reconnecting ----------------------------------------------------------------------------------------


def test_a_recording_is_read_once():
    stream, warnings = new_stream(recording(1, 2, 3), recording(4))
    assert [step and step.frames[0] for step in stream] == [1, 2, 3, None]
    assert not stream.is_live
    assert not warnings


@pytest.mark.parametrize(
    ("loses", "reason"),
    [
        (lambda released: released.wait, "no frame for 0.2 s"),
        (lambda _: lambda: None, "it has ended"),
        (lambda _: fails(ConnectionResetError(104, "Connection reset by peer")), "Connection reset by peer"),
        (lambda _: fails(CaptureError("it is gone")), "it is gone"),
    ],
    ids=["stalls", "ends", "breaks", "is gone"],
)
def test_a_lost_live_source_is_reconnected_with_a_warning(released, loses, reason):
    stream, warnings = new_stream(
        live(1, 2, then=loses(released)), OSError(19, "No such device"), live(3, then=released.wait)
    )
    steps = iter(stream)
    assert [step and step.frames[0] for step in (next(steps) for _ in range(5))] == [1, 2, None, None, 3]
    assert stream.is_live
    first, second = warnings
    assert all(part in first for part in ("camera", reason, "0.001 s", "attempt 1"))
    assert all(part in second for part in ("camera", "No such device", "0.002 s", "attempt 2"))
    steps.close()


def test_attempts_are_bounded_and_counted_anew_after_each_frame():
    gone = [OSError(19, "No such device") for _ in range(6)]
    stream, warnings = new_stream(live(1), gone[0], live(2), gone[1], live(3), *gone[2:])
    found, line = until_lost(stream)
    assert [number for number in found if number] == [1, 2, 3]
    assert len(warnings) == 2 + 2 + OPTIONS.retries
    assert all(part in line for part in ("camera", "No such device", "--retries"))


def test_without_retries_the_first_loss_is_final():
    stream, warnings = new_stream(live(1), live(2), options=replace(OPTIONS, retries=0))
    found, line = until_lost(stream)
    assert (found, warnings) == ([1, None], [])
    assert all(part in line for part in ("camera", "it has ended", "--retries"))


def test_pauses_double_up_to_a_limit(monkeypatch):
    pauses = []
    monkeypatch.setattr(streams, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append))
    stream, _ = new_stream(live(1), *[OSError("gone")] * 7, options=replace(OPTIONS, retries=7, backoff=1.0))
    until_lost(stream)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_source_that_cannot_be_opened_at_first_is_not_retried():
    stream, warnings = new_stream(OSError(2, "No such file or directory"), live(1))
    _, line = until_lost(stream)
    assert all(part in line for part in ("camera", "No such file or directory", "a video file", "rtsp://"))
    assert not warnings


def test_a_recording_without_a_frame_is_named():
    _, line = until_lost(new_stream(recording())[0])
    assert all(part in line for part in ("camera", "no frame", "name a video file"))


def test_a_recording_that_breaks_off_is_named():
    found, line = until_lost(new_stream(recording(1, 2, then=fails(OSError(5, "Input/output error"))))[0])
    assert found == [1, 2, None]
    assert all(part in line for part in ("camera", "Input/output error", "restore"))


def test_dropped_frames_are_counted_over_all_connections():
    first, second = threading.Event(), threading.Event()
    captures = live(*range(5), then=first.set), live(*range(4), then=second.set), OSError("gone")
    stream, _ = new_stream(*captures, options=replace(OPTIONS, queue_size=2, retries=1))
    steps, found = iter(stream), []
    for ended in (first, second):
        found.append(next(steps))
        assert ended.wait(5)  # by now two are in the queue and the others were dropped
        found += iter(lambda: next(steps), None)
    assert len(found) + stream.dropped == 5 + 4
    assert stream.dropped >= (5 - 1 - 2) + (4 - 1 - 2)


def test_a_stream_that_is_closed_closes_its_source():
    closed = threading.Event()

    def endless() -> Generator[tuple[float, int], None, None]:
        try:
            while True:
                yield 0.0, 0
        finally:
            closed.set()

    steps = iter(new_stream(Capture(False, endless()))[0])
    next(steps)
    steps.close()
    assert closed.wait(5)


# --- addresses -------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An address at which `live` sends a stream that breaks off, and `clip.mp4` a file."""
    path, clip = tmp_path / "stream.ts", encode(tmp_path / "clip.mp4", length=24)
    with av.open(path, "w", format="mpegts") as file, av.open(clip) as frames:
        copy = file.add_stream("libx264", rate=12)
        copy.width, copy.height, copy.pix_fmt = 96, 64, "yuv420p"
        for frame in frames.decode(video=0):
            file.mux(copy.encode(frame.reformat(format="yuv420p")))
        file.mux(copy.encode())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = (path if self.path == "/live" else clip).read_bytes()
            self.send_response(200)
            if self.path != "/live":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def stream_at(address: str) -> tuple[Stream, list[str]]:
    """A stream of the frame numbers of a clip of ``encode``, and its warnings."""
    warnings: list[str] = []
    options = replace(OPTIONS, timeout=2.0)

    def preprocess(frame: av.VideoFrame) -> int:
        return seen([upright(frame)])[0]

    return Stream(
        address, lambda: open_capture(address, 2.0), EveryFrame, preprocess, options, warnings.append
    ), warnings


def test_a_file_at_an_address_is_a_recording(server):
    stream, warnings = stream_at(f"{server}/clip.mp4")
    assert [step and step.frames[0] for step in stream] == [*range(24), None]
    assert not stream.is_live
    assert not warnings


def test_a_stream_at_an_address_is_live_and_reconnected(server):
    stream, warnings = stream_at(f"{server}/live")
    steps, found = iter(stream), []
    while found.count(None) < 3:
        step = next(steps)
        found.append(step and step.frames[0])
    steps.close()
    assert stream.is_live
    assert len(warnings) == 2
    ends = [index for index, number in enumerate(found) if number is None]
    for first, end in zip([0, *(end + 1 for end in ends)], ends, strict=False):
        assert found[first:end] == list(range(end - first)) != []


def test_an_address_without_a_server_is_refused():
    with pytest.raises(UserError, match=r"rtsp://127\.0\.0\.1:9/x \(Connection refused\): name a video file"):
        list(stream_at("rtsp://127.0.0.1:9/x")[0])
