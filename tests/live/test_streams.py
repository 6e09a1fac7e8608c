"""Sources that go on, stall, end and fail: which frames come, which are dropped, when they are given up."""

import sys
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
from tlee.live.streams import Capture, Following, LostError, Reader, Sampler, Step, Stream, open_source, without_password

SHORT = 0.2  # seconds of silence after which a source counts as lost
QUICK = Following(queue=100, timeout=SHORT, retries=2, pause=0.001)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What a source that stalls waits for; at the end of a test nothing waits any more."""
    event = threading.Event()
    yield event
    event.set()


def frames(*numbers: int, then: Callable[[], object] = lambda: None) -> Generator[tuple[float, int], None, None]:
    """Frames that are shown one a second, and what happens after them."""
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


class All(Sampler):
    """Takes every frame."""

    def __init__(self) -> None:
        super().__init__(fps=1)

    def take(self, seconds: float, frame: int) -> list[int]:
        return [frame]


def reader(source: Capture, size: int = 100, realtime: bool = False, sampler: Sampler | None = None) -> Reader:
    return Reader(lambda: source, sampler or All(), lambda frame: frame, size, realtime, time.monotonic())


def numbers(reader: Reader) -> list[int]:
    """Of all frames that come until the source ends."""
    return [step.pictures[0] for step in iter(lambda: reader.next(5.0), None)]


def stream(*sources: Capture | Exception, following: Following = QUICK) -> tuple[Stream, list[str]]:
    """A source that is each of these in turn, or cannot be connected to; and what it tells."""
    turns, told = iter(sources), []

    def connect() -> Capture:
        source = next(turns)
        if isinstance(source, Exception):
            raise source
        return source

    return Stream("camera", connect, All, lambda frame: frame, following, told.append), told


def until_lost(stream: Stream) -> tuple[list[int | None], str]:
    """Numbers of the frames, None where they do not follow on each other, and the line with which it ends."""
    found = []

    def take() -> None:
        found.extend(step and step.pictures[0] for step in stream)

    line = one_line(take)
    return found, line


# --- sampling --------------------------------------------------------------------------------------------


def taken(sampler: Sampler, times: list[float]) -> list[int]:
    return [number for number, seconds in enumerate(times) if sampler.take(seconds, number)]


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(12, list(range(12))), (6, [0, 2, 4, 6, 8, 10]), (5, [0, 3, 5, 8, 10]), (1, [0]), (100, list(range(12)))],
)
def test_of_each_slot_the_first_frame_is_taken(fps, expected):
    assert taken(Sampler(fps), [number / 12 for number in range(12)]) == expected


def test_times_that_a_file_has_rounded_lose_no_frame():
    assert taken(Sampler(30), [round(number / 30, 3) for number in range(300)]) == list(range(300))


def test_times_that_jump_do_not_stop_the_sampling():
    assert taken(Sampler(2), [0, 0.25, 0.5, 100, 100.25, 100.5, 3, 3.25, 3.5]) == [0, 2, 3, 5, 6, 8]


def test_a_time_step_that_is_a_short_clip_ends_with_its_frame_and_begins_no_earlier_than_the_first():
    sampler = Sampler(0.2, clip_frames=3, clip_stride=2)
    steps = [step for second in range(11) if (step := sampler.take(second, second))]
    assert steps == [[0, 0, 0], [1, 3, 5], [6, 8, 10]]


# --- the queue -------------------------------------------------------------------------------------------


def test_old_frames_of_a_live_source_make_way_and_are_counted():
    ended = threading.Event()
    behind = reader(live(*range(10), then=ended.set), size=3)
    assert ended.wait(5)  # nobody has taken one so far
    assert numbers(behind) == [7, 8, 9]
    assert behind.dropped == 7


def test_a_recording_waits_and_loses_none():
    given = []
    source = Capture(False, ((float(number), given.append(number) or number) for number in range(20)))
    slow = reader(source, size=3)
    assert slow.next(5.0) == Step(0.0, [0])
    time.sleep(0.02)
    assert len(given) <= 1 + 3 + 1  # taken, in the queue, in hand
    assert numbers(slow) == list(range(1, 20))
    assert slow.dropped == 0


def test_a_recording_in_real_time_takes_its_time_and_drops_as_a_camera_does():
    ended = threading.Event()

    def shown() -> Generator[tuple[float, int], None, None]:
        for number in range(6):
            yield 7 + number / 50, number
        ended.set()

    begin = time.monotonic()
    played = reader(Capture(False, shown()), size=2, realtime=True)
    assert ended.wait(5)
    assert time.monotonic() - begin >= 0.1
    assert numbers(played) == [4, 5]
    assert played.dropped == 4


def test_seconds_are_those_of_a_recording_and_those_since_watching_began():
    shown = reader(Capture(False, ((20 + number / 4, number) for number in range(3))))
    assert [shown.next(5.0).seconds for _ in range(3)] == [0, 0.25, 0.5]
    step = Reader(lambda: live(7), All(), str, 1, False, began=time.monotonic() - 100).next(5.0)
    assert step.pictures == ["7"]
    assert 100 <= step.seconds < 105


def test_silence_of_a_live_source_is_noticed(released):
    silent = reader(live(1, then=released.wait))
    assert silent.next(SHORT).pictures == [1]
    begin = time.monotonic()
    with pytest.raises(LostError, match=r"nothing has come for 0\.2 s"):
        silent.next(SHORT)
    assert time.monotonic() - begin < 1


def test_a_source_that_cannot_be_reached_is_noticed_too(released):
    def connect() -> Capture:
        released.wait()
        return live()

    with pytest.raises(LostError, match="nothing has come"):
        Reader(connect, All(), str, 1, False, 0.0).next(SHORT)


def test_frames_that_are_not_sampled_are_no_silence():
    def steady() -> Generator[tuple[float, int], None, None]:
        for number in range(15):
            time.sleep(SHORT / 10)
            yield 0.0, number

    busy = reader(Capture(True, steady()), sampler=Sampler(fps=0.01))
    assert [busy.next(SHORT).pictures, busy.next(SHORT)] == [[0], None]


def test_a_recording_is_waited_for():
    slow = reader(recording(1, then=lambda: time.sleep(1.5 * SHORT)))
    assert [slow.next(SHORT).pictures, slow.next(SHORT)] == [[1], None]


def test_a_defect_in_the_thread_is_raised_where_frames_are_taken():
    broken = reader(recording(1, then=fails(KeyError("defect"))))
    assert broken.next(5.0).pictures == [1]
    with pytest.raises(KeyError, match="defect"):
        broken.next(5.0)


# --- connecting again ------------------------------------------------------------------------------------


def test_a_recording_gives_its_frames_once():
    source, told = stream(recording(1, 2, 3), recording(4))
    assert [step and step.pictures[0] for step in source] == [1, 2, 3, None]
    assert not source.live
    assert not told


@pytest.mark.parametrize(
    ("loses", "reason"),
    [
        (lambda released: released.wait, "nothing has come for 0.2 s"),
        (lambda _: lambda: None, "it has ended"),
        (lambda _: fails(ConnectionResetError(104, "Connection reset by peer")), "Connection reset by peer"),
        (lambda _: fails(LostError("it is gone")), "it is gone"),
    ],
    ids=["stalls", "ends", "breaks", "is gone"],
)
def test_a_live_source_that_is_lost_is_connected_to_again(released, loses, reason):
    source, told = stream(live(1, 2, then=loses(released)), OSError(19, "No such device"), live(3, then=released.wait))
    steps = iter(source)
    assert [step and step.pictures[0] for step in (next(steps) for _ in range(5))] == [1, 2, None, None, 3]
    assert source.live
    assert told == [
        f"camera is lost ({reason}); attempt 1 to connect again in 0.001 s",
        "camera is lost (No such device); attempt 2 to connect again in 0.002 s",
    ]
    steps.close()


def test_attempts_are_bounded_and_begin_anew_with_each_frame():
    gone = [OSError(19, "No such device") for _ in range(6)]
    source, told = stream(live(1), gone[0], live(2), gone[1], live(3), *gone[2:])
    found, line = until_lost(source)
    assert [number for number in found if number] == [1, 2, 3]
    assert len(told) == 2 + 2 + QUICK.retries
    assert line == "camera is lost (No such device): see to it, or allow more attempts with --retries"


def test_without_retries_the_first_loss_is_the_last():
    source, told = stream(live(1), live(2), following=replace(QUICK, retries=0))
    found, line = until_lost(source)
    assert (found, told) == ([1, None], [])
    assert line.startswith("camera is lost (it has ended)")


def test_pauses_grow_up_to_a_limit(monkeypatch):
    pauses = []
    monkeypatch.setattr(streams, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append))
    source, _ = stream(live(1), *[OSError("gone")] * 7, following=replace(QUICK, retries=7, pause=1.0))
    until_lost(source)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_what_cannot_be_connected_to_at_first_is_not_tried_again():
    source, told = stream(OSError(2, "No such file or directory"), live(1))
    _, line = until_lost(source)
    assert line.startswith("camera cannot be watched (No such file or directory): name a video file, a camera such as")
    assert not told


def test_a_recording_without_a_frame_and_one_that_breaks_off_are_named():
    assert until_lost(stream(recording())[0])[1].startswith(
        "camera cannot be watched (it holds no frame that can be decoded)"
    )
    found, line = until_lost(stream(recording(1, 2, then=fails(OSError(5, "Input/output error"))))[0])
    assert found == [1, 2, None]
    assert line == "camera breaks off (Input/output error): restore it"


def test_drops_are_counted_over_all_connections():
    first, second = threading.Event(), threading.Event()
    sources = live(*range(5), then=first.set), live(*range(4), then=second.set), OSError("gone")
    source, _ = stream(*sources, following=replace(QUICK, queue=2, retries=1))
    steps, found = iter(source), []
    for given in (first, second):
        found.append(next(steps))
        assert given.wait(5)  # two wait by now, the others were dropped
        found += iter(lambda: next(steps), None)
    assert len(found) + source.dropped == 5 + 4
    assert source.dropped >= (5 - 1 - 2) + (4 - 1 - 2)


def test_a_stream_that_is_left_lets_its_source_go():
    closed = threading.Event()

    def endless() -> Generator[tuple[float, int], None, None]:
        try:
            while True:
                yield 0.0, 0
        finally:
            closed.set()

    steps = iter(stream(Capture(False, endless()))[0])
    next(steps)
    steps.close()
    assert closed.wait(5)


# --- what is connected to --------------------------------------------------------------------------------


def test_a_video_file_is_a_recording(tmp_path):
    source = open_source(str(encode(tmp_path / "grey.mp4", length=20)), timeout=1.0)
    found = list(source.frames)
    assert not source.live
    assert [seconds for seconds, _ in found] == [pytest.approx(number / 12) for number in range(20)]
    assert seen([upright(frame) for _, frame in found]) == list(range(20))


def test_damaged_packets_are_passed_over(tmp_path):
    path = encode(tmp_path / "grey.avi", length=24)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    assert 10 < len(list(open_source(str(path), timeout=1.0).frames)) <= 24


@pytest.mark.parametrize(("name", "reason"), [("none.mp4", "there is no such file"), (".", "there is no such file")])
def test_what_is_no_file_is_refused(name, reason):
    with pytest.raises(LostError, match=reason):
        open_source(name, timeout=1.0)


def test_what_holds_no_video_is_refused(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(path, "w") as file:
        file.add_stream("pcm_s16le", rate=8000)
        file.start_encoding()
    with pytest.raises(LostError, match="it holds no video stream"):
        open_source(str(path), timeout=1.0)


class FakeContainer:
    """What PyAV opens, as far as it is looked at before a frame is decoded."""

    def __init__(self, duration: int | None):
        self.duration = duration
        self.streams = SimpleNamespace(video=[SimpleNamespace()])


@pytest.mark.parametrize(
    ("name", "platform", "duration", "file", "settings", "is_live"),
    [
        ("2", "linux", None, "/dev/video2", {"format": "v4l2"}, True),
        ("/dev/video0", "linux", None, "/dev/video0", {"format": "v4l2"}, True),
        ("0", "darwin", None, "0", {"format": "avfoundation", "options": {"framerate": "30"}}, True),
        ("rtsp://a/b", "linux", None, "rtsp://a/b", {"options": {"rtsp_transport": "tcp"}}, True),
        ("http://a/b.m3u8", "linux", None, "http://a/b.m3u8", {"options": {}}, True),
        ("http://a/b.mp4", "linux", 2_000_000, "http://a/b.mp4", {"options": {}}, False),
    ],
)
def test_cameras_and_addresses_are_recognised(monkeypatch, name, platform, duration, file, settings, is_live):
    opened = []

    def fake_open(file: str, **settings: Any) -> FakeContainer:
        opened.append((file, settings))
        return FakeContainer(duration)

    monkeypatch.setattr(streams.av, "open", fake_open)
    monkeypatch.setattr(sys, "platform", platform)
    assert open_source(name, timeout=3.0).live == is_live
    assert opened == [(file, settings | {"timeout": 3.0, "metadata_errors": "ignore"})]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://user:secret@host:554/path", "rtsp://user@host:554/path"),
        ("rtsp://user:s:cr@t@host/path", "rtsp://user@host/path"),
        ("rtsp://:secret@host", "rtsp://@host"),
        ("rtsp://host:554/a@b:c@d", "rtsp://host:554/a@b:c@d"),
        ("rtsp://user@host/path", "rtsp://user@host/path"),
        ("a:b@c.mp4", "a:b@c.mp4"),
    ],
)
def test_a_password_is_not_shown(address, shown):
    assert without_password(address) == shown


def test_a_camera_that_has_no_frame_yet_is_asked_again(tmp_path, monkeypatch):
    sound_frames, asked = streams.sound_frames, []

    def hesitant(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
        asked.append(container)
        if len(asked) < 3:
            raise av.BlockingIOError(11, "Resource temporarily unavailable")
        yield from sound_frames(container)

    monkeypatch.setattr(streams, "sound_frames", hesitant)
    source = open_source(str(encode(tmp_path / "grey.mp4", length=5)), timeout=1.0)
    assert len(list(source.frames)) == 5
    assert len(asked) == 3


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


def watched(address: str) -> tuple[Stream, list[str]]:
    told: list[str] = []
    following = replace(QUICK, timeout=2.0)

    def prepare(frame: av.VideoFrame) -> int:
        return seen([upright(frame)])[0]

    return Stream(address, lambda: open_source(address, 2.0), All, prepare, following, told.append), told


def test_a_file_at_an_address_is_a_recording(server):
    source, told = watched(f"{server}/clip.mp4")
    assert [step and step.pictures[0] for step in source] == [*range(24), None]
    assert not source.live
    assert not told


def test_a_stream_at_an_address_is_live_and_connected_to_again(server):
    source, told = watched(f"{server}/live")
    steps, found = iter(source), []
    while found.count(None) < 3:
        step = next(steps)
        found.append(step and step.pictures[0])
    steps.close()
    assert source.live
    assert len(told) == 2
    ends = [place for place, number in enumerate(found) if number is None]
    for first, end in zip([0, *(end + 1 for end in ends)], ends, strict=False):
        assert found[first:end] == list(range(end - first)) != []


def test_a_stream_where_nobody_listens_is_refused():
    with pytest.raises(UserError, match=r"^rtsp://127\.0\.0\.1:9/x cannot be watched \(Connection refused\): name"):
        list(watched("rtsp://127.0.0.1:9/x")[0])
