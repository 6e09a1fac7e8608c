"""Opening sources: files, cameras and addresses."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import av
import pytest
from support.clips import encode, seen

from tlee.extraction.videos import upright
from tlee.live import capture
from tlee.live.capture import CaptureError, open_capture, without_password


def test_a_video_file_is_a_recording(tmp_path):
    opened = open_capture(str(encode(tmp_path / "grey.mp4", length=20)), timeout=1.0)
    found = list(opened.frames)
    assert not opened.is_live
    assert [seconds for seconds, _ in found] == [pytest.approx(index / 12) for index in range(20)]
    assert seen([upright(frame) for _, frame in found]) == list(range(20))


def test_damaged_packets_are_skipped(tmp_path):
    path = encode(tmp_path / "grey.avi", length=24)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    assert 10 < len(list(open_capture(str(path), timeout=1.0).frames)) <= 24


@pytest.mark.parametrize("name", ["none.mp4", "."])
def test_a_path_that_is_not_a_file_is_refused(name):
    with pytest.raises(CaptureError, match="the file does not exist"):
        open_capture(name, timeout=1.0)


def test_a_file_without_video_is_refused(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(path, "w") as file:
        file.add_stream("pcm_s16le", rate=8000)
        file.start_encoding()
    with pytest.raises(CaptureError, match="no video stream"):
        open_capture(str(path), timeout=1.0)


class FakeContainer:
    """The part of PyAV's container that is used before a frame is decoded."""

    def __init__(self, duration: int | None):
        self.duration = duration
        self.streams = SimpleNamespace(video=[SimpleNamespace(width=320, height=240)])


@pytest.mark.parametrize(
    ("source", "platform", "duration", "file", "settings", "is_live"),
    [
        ("2", "linux", None, "/dev/video2", {"format": "v4l2"}, True),
        ("/dev/video0", "linux", None, "/dev/video0", {"format": "v4l2"}, True),
        ("0", "darwin", None, "0", {"format": "avfoundation", "options": {"framerate": "30"}}, True),
        ("rtsp://a/b", "linux", None, "rtsp://a/b", {"options": {"rtsp_transport": "tcp"}}, True),
        ("http://a/b.m3u8", "linux", None, "http://a/b.m3u8", {"options": {}}, True),
        ("http://a/b.mp4", "linux", 2_000_000, "http://a/b.mp4", {"options": {}}, False),
    ],
)
def test_cameras_and_addresses_are_recognised(monkeypatch, source, platform, duration, file, settings, is_live):
    opened = []

    def fake_open(file: str, **settings: Any) -> FakeContainer:
        opened.append((file, settings))
        return FakeContainer(duration)

    monkeypatch.setattr(capture.av, "open", fake_open)
    monkeypatch.setattr(sys, "platform", platform)
    assert open_capture(source, timeout=3.0).is_live == is_live
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


def test_a_camera_without_a_new_frame_is_polled_again(tmp_path, monkeypatch):
    undamaged_frames, polls = capture.undamaged_frames, []

    def hesitant(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
        polls.append(container)
        if len(polls) < 3:
            raise av.BlockingIOError(11, "Resource temporarily unavailable")
        yield from undamaged_frames(container)

    monkeypatch.setattr(capture, "undamaged_frames", hesitant)
    opened = open_capture(str(encode(tmp_path / "grey.mp4", length=5)), timeout=1.0)
    assert len(list(opened.frames)) == 5
    assert len(polls) == 3
