"""Decoding of videos and folders of frames: sampled frames, and reasons of failures."""

import io
import math
import re
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support.clips import CODECS, REAL_CLIPS, STEP, encode, seen, truncate
from support.refusals import one_line

from tlee.extraction import Sampling, decode, sample_indices, to_jpeg, videos

TEN = Sampling(10)


def reason(path: Path, *expected: object) -> str:
    """Return the reason, one line, for which a file cannot be decoded; it must contain ``expected``."""
    return one_line(lambda: decode(path, TEN), *expected, error=ValueError)


# --- sampled frames ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize(("length", "frames"), [(24, 10), (24, 24), (24, 2), (7, 10), (1, 4)])
def test_the_sampled_frames_are_decoded(tmp_path, suffix, length, frames):
    indices, images = decode(encode(tmp_path / f"clip{suffix}", length), Sampling(frames))
    assert indices == sample_indices(length, frames)
    assert seen(images) == indices


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("size", [(97, 63), (33, 95), (96, 64)])
def test_images_are_rgb_of_the_size_of_the_video_even_if_it_is_odd(tmp_path, suffix, size):
    indices, images = decode(encode(tmp_path / f"clip{suffix}", size=size), Sampling(5))
    assert {(image.size, image.mode) for image in images} == {(size, "RGB")}
    assert seen(images) == indices


# --- damaged files -------------------------------------------------------------------------------


def test_the_remaining_part_of_a_truncated_file_is_sampled(tmp_path):
    path = truncate(encode(tmp_path / "clip.avi", 24, (320, 240)), 0.6)
    indices, images = decode(path, TEN)
    remaining = indices[-1] + 1
    assert 1 < remaining < 24
    assert indices == sample_indices(remaining, 10)
    assert seen(images)[:-1] == indices[:-1]  # the last frame is incomplete


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("suffix", CODECS)
def test_a_truncated_file_is_sampled_or_refused_with_a_reason(tmp_path, suffix, share):
    path = truncate(encode(tmp_path / f"clip{suffix}"), share)
    try:
        indices, images = decode(path, TEN)
    except ValueError:
        assert reason(path)
    else:
        assert indices == sample_indices(indices[-1] + 1, 10)
        assert seen(images)[:-1] == indices[:-1]


@pytest.mark.parametrize("damaged", [0, 11, 23])
def test_damaged_packets_are_skipped(tmp_path, damaged):
    path = encode(tmp_path / "clip.avi")
    with av.open(path) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        assert all(packet.is_keyframe for packet in packets)  # no frame depends on the damaged one
        start, size = packets[damaged].pos + 8, packets[damaged].size  # AVI has 8 bytes before each
    content = path.read_bytes()
    path.write_bytes(content[:start] + bytes(size) + content[start + size :])
    indices, images = decode(path, TEN)
    lost = {damaged, min(damaged + 1, 23)}  # FFmpeg's decoder drops the next frame too
    remaining = [index for index in range(24) if index not in lost]
    assert indices == sample_indices(len(remaining), 10)
    assert seen(images) == [remaining[index] for index in indices]


def test_an_mp4_without_its_end_lacks_its_index_and_is_refused(tmp_path):
    assert re.search("video stream|decoded", reason(truncate(encode(tmp_path / "clip.mp4"), 0.6)))


@pytest.mark.parametrize("content", [b"", b"not a video\n" * 100, bytes(5000)])
def test_a_file_that_is_not_a_video_is_refused(tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    reason(path, "cannot be decoded")


def test_a_missing_file_is_refused(tmp_path):
    reason(tmp_path / "clip.mp4", "does not exist")


def test_a_file_without_video_stream_is_refused(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(path, "w") as file:
        stream = file.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        file.mux(stream.encode(sound))
        file.mux(stream.encode())
    reason(path, "no video stream")


def test_a_stream_without_frames_is_refused(tmp_path):
    path = tmp_path / "clip.mkv"
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        file.start_encoding()
    assert re.search("decoded|no decodable frame", reason(path))


def test_metadata_that_is_not_utf_8_is_ignored(tmp_path):
    path = encode(tmp_path / "clip.avi", title="caf_")
    path.write_bytes(path.read_bytes().replace(b"caf_", "café".encode("latin-1")))
    with pytest.raises(UnicodeDecodeError):
        av.open(path)
    indices, images = decode(path, TEN)
    assert seen(images) == indices == sample_indices(24, 10)


# --- times and rotation --------------------------------------------------------------------------


def test_only_the_given_part_of_a_file_is_sampled(tmp_path):
    path = encode(tmp_path / "clip.mp4")  # 12 frames a second
    indices, images = decode(path, Sampling(3), start=0.5, end=1.5)
    assert seen(images) == indices == [6, 12, 17]


def test_a_part_after_the_end_of_a_file_is_refused(tmp_path):
    path = encode(tmp_path / "clip.mp4")
    one_line(lambda: decode(path, TEN, start=2.5, end=3), "2.00 s", error=ValueError)


@pytest.mark.parametrize("suffix", CODECS)
def test_with_a_rate_frames_of_an_extraction_at_this_rate_are_sampled(tmp_path, suffix):
    indices, images = decode(encode(tmp_path / f"clip{suffix}"), Sampling(4, fps=2))
    assert seen(images) == indices == [2, 8, 14, 20]  # the last of each half second's slot


def test_a_time_step_may_be_a_short_clip(tmp_path):
    indices, images = decode(encode(tmp_path / "clip.mp4"), Sampling(3, clip_frames=3, clip_stride=2))
    assert seen(images) == indices == [0, 0, 2, 10, 12, 14, 21, 23, 23]


@pytest.mark.parametrize(("suffix", "clock"), [(".mp4", Fraction(1, 600)), (".mkv", Fraction(1, 1000))])
def test_frames_of_a_variable_rate_are_found_by_their_times(tmp_path, suffix, clock):
    path = tmp_path / f"clip{suffix}"
    times = [Fraction(index, 10) if index < 10 else Fraction(index - 9) for index in range(15)]  # 10 a second, then 1
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.time_base = 96, 64, clock
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 10 * (1 + index), np.uint8))
            frame.time_base, frame.pts = clock, int(time / clock)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    indices, images = decode(path, Sampling(3), start=1, end=4)
    assert seen(images) == indices == [10, 11, 12]
    indices, images = decode(path, Sampling(5, fps=1), start=0, end=5)
    assert seen(images) == indices == [4, 10, 11, 12, 13]
    indices, images = decode(path, Sampling(5))
    assert seen(images) == indices == sample_indices(15, 5)  # without a rate, times do not matter


@pytest.mark.parametrize(("turn", "size"), [(90, (64, 96)), (-90, (64, 96)), (180, (96, 64))])
def test_a_rotated_video_is_decoded_upright(tmp_path, turn, size):
    path = tmp_path / "clip.mp4"
    filmed = np.zeros((64, 96, 3), np.uint8)
    filmed[:32, :48] = 240  # bright at the top left
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=12)
        stream.width, stream.height = 96, 64
        stream.set_display_rotation(turn)
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(filmed)))
        file.mux(stream.encode())
    with av.open(path) as file:
        rotation = next(file.decode(video=0)).rotation
    _, (image, *_) = decode(path, Sampling(2))
    assert abs(rotation) == abs(turn)
    assert image.size == size
    upright = np.rot90(filmed, rotation // 90)
    assert np.abs(np.asarray(image).astype(int) - upright).mean() < 5


# --- seeking to keyframes ------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["mp4", "mkv", "open.mp4", "late.mkv", "vp9.webm"])
def long_clip(request, tmp_path_factory) -> Path:
    """A clip of 900 frames of moving noise: keyframes every 60 frames or more often, B-frames (VP9: hidden frames)."""
    path = tmp_path_factory.mktemp("long") / f"clip.{request.param}"
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    vp9 = request.param.startswith("vp9")
    with av.open(path, "w") as file:
        stream = file.add_stream("libvpx-vp9" if vp9 else "libx264", rate=30)
        stream.width, stream.height = 64, 48
        stream.options = {"g": "60"} | ({"cpu-used": "8", "deadline": "realtime"} if vp9 else {"bf": "3"})
        if request.param.startswith("open"):
            stream.options |= {"x264-params": "open-gop=1:b-pyramid=2"}
        for index in range(900):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, (index, 3 * index), (0, 1)))
            frame.pts = index + 45 * request.param.startswith("late")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


SAMPLINGS = {
    "few": (Sampling(5), math.nan, math.nan),
    "clips": (Sampling(3, clip_frames=5, clip_stride=2), math.nan, math.nan),
    "rate": (Sampling(6, fps=1), math.nan, math.nan),
    "part": (Sampling(10), 21.3, 24.0),
    "end": (Sampling(4), 29.9, math.nan),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLINGS)
def test_seeking_gives_the_same_images(long_clip, name, monkeypatch):
    expected = decode_without_seeking(long_clip, name)
    monkeypatch.setattr(videos, "_decode_all", None)  # must not be called
    indices, images = decode(long_clip, *SAMPLINGS[name])
    assert (indices, [image.tobytes() for image in images]) == expected


@cache
def decode_without_seeking(path: Path, name: str) -> tuple[list[int], list[bytes]]:
    """Decode the whole file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(videos, "_SEEK_COST", math.inf)
        indices, images = decode(path, *SAMPLINGS[name])
    return indices, [image.tobytes() for image in images]


@pytest.mark.slow
def test_seeking_decodes_fewer_frames(long_clip, monkeypatch):
    decoded = []
    frames_from = videos._frames_from
    monkeypatch.setattr(videos, "_frames_from", lambda *where: (decoded.append(1) or f for f in frames_from(*where)))
    decode(long_clip, Sampling(5))
    assert 5 <= len(decoded) < 450


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["lands_late", "no_times", "no_seeking"])
def test_if_seeking_fails_everything_is_decoded(long_clip, trouble, monkeypatch):
    expected = decode_without_seeking(long_clip, "few")
    frames_from = videos._frames_from

    def failing(container, keyframe):
        if trouble == "no_seeking":
            raise av.error.PermissionError(1, "no")
        for frame in frames_from(container, keyframe):
            if trouble == "no_times":
                frame.pts = 0
            if trouble == "lands_late" and frame.pts <= keyframe:
                continue
            yield frame

    monkeypatch.setattr(videos, "_frames_from", failing)
    indices, images = decode(long_clip, *SAMPLINGS["few"])
    assert (indices, [image.tobytes() for image in images]) == expected


# --- folders of frames ---------------------------------------------------------------------------


def write_frames(folder: Path, pattern: str, count: int = 12) -> Path:
    """Write a folder of images numbered from 1, frame ``i`` as in ``encode``."""
    folder.mkdir(parents=True)
    for index in range(count):
        grey = STEP * (1 + index)
        Image.new("RGB", (96, 64), (grey, grey, grey)).save(folder / pattern.format(index + 1))
    return folder


@pytest.mark.parametrize("pattern", ["img_{:05d}.jpg", "{:06d}.jpg", "frame_name_{:04d}.jpeg", "7_{}.png", "x{}.JPG"])
def test_frames_of_a_folder_are_in_the_order_of_their_numbers(tmp_path, pattern):
    indices, images = decode(write_frames(tmp_path / "clip", pattern), Sampling(5, clip_frames=2))
    assert seen(images) == indices == [0, 0, 2, 3, 5, 6, 8, 9, 10, 11]
    assert {(image.size, image.mode) for image in images} == {((96, 64), "RGB")}


def test_all_frames_of_a_folder_are_sampled_as_if_extracted_at_the_rate(tmp_path):
    indices, _ = decode(write_frames(tmp_path / "clip", "{}.jpg"), Sampling(3, fps=1), start=2, end=3)
    assert indices == [0, 6, 11]


def test_files_that_are_not_frames_are_skipped(tmp_path):
    folder = write_frames(tmp_path / "clip", "img_{:05d}.jpg")
    for name in ("flow_x_00001.jpg", "flow_y_00001.jpg", "cover.jpg", "._img_00001.jpg", "times_1.txt"):
        (folder / name).write_bytes(b"")
    assert decode(folder, TEN)[0] == sample_indices(12, 10)


def test_unreadable_folders_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    reason(tmp_path / "empty", "folder without numbered images")
    double = write_frames(tmp_path / "double", "img_{}.jpg")
    (double / "7.jpg").touch()
    reason(double, "7.jpg and img_7.jpg")
    damaged = truncate(write_frames(tmp_path / "damaged", "{}.jpg") / "12.jpg", 0.5).parent
    reason(damaged, "12.jpg cannot be read")
    (damaged / "12.jpg").write_bytes(b"text")
    reason(damaged, "12.jpg cannot be read", "not an image")


@pytest.mark.parametrize(("listed", "there"), [("a.avi", "a.mp4"), ("a", "a.avi"), ("a.1", "a.1.mkv"), ("a.mp4", "a")])
def test_a_video_is_found_under_another_suffix_or_as_a_folder(tmp_path, listed, there):
    if "." in there:
        encode(tmp_path / there, 12)
    else:
        write_frames(tmp_path / there, "{}.jpg")
    indices, images = decode(tmp_path / listed, TEN)
    assert seen(images) == indices == sample_indices(12, 10)


# --- JPEG ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((340, 256), 72, (96, 72)),
        ((240, 320), 72, (72, 96)),
        ((320, 240), 240, (320, 240)),
        ((100, 50), 100, (200, 100)),  # a smaller image is enlarged
        ((97, 63), 21, (32, 21)),
        ((500, 5), 1, (100, 1)),
    ],
)
def test_the_short_side_is_resized_and_the_aspect_ratio_kept(size, short_side, expected):
    jpeg = Image.open(io.BytesIO(to_jpeg(Image.new("RGB", size, "red"), short_side, 95)))
    assert (jpeg.format, jpeg.mode, jpeg.size) == ("JPEG", "RGB", expected)
    assert np.asarray(jpeg)[0, 0] == pytest.approx((255, 0, 0), abs=3)


def test_a_lower_quality_takes_fewer_bytes():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (72, 96, 3), np.uint8))
    sizes = [len(to_jpeg(noise, 72, quality)) for quality in (20, 60, 95)]
    assert sizes == sorted(set(sizes))


# --- real clips ----------------------------------------------------------------------------------

REAL = sorted(path for path in REAL_CLIPS.rglob("*") if path.suffix in {".avi", ".mp4"})[::4]


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="the real clips are not available")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_clips_are_decoded(path):
    indices, images = decode(path, TEN)
    assert indices == sample_indices(indices[-1] + 1, 10)
    assert len({image.tobytes() for image in images}) == 10
    with av.open(path, metadata_errors="ignore") as file:
        stream = file.streams.video[0]
        assert {image.size for image in images} == {(stream.width, stream.height)}
