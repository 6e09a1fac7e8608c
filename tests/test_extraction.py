"""Videos and folders of frames to pictures: which are taken, what is refused and why."""

import io
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from clips import CODECS, REAL_CLIPS, encode, seen, truncate
from PIL import Image

from tlee.extraction import Sampling, decode, sample_indices, to_jpeg

TEN = Sampling(10)


def reason(path: Path) -> str:
    """Why a file is refused, in one line."""
    with pytest.raises(ValueError, match=r"^it |^the file ") as caught:
        decode(path, TEN)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- which frames --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "frames", "indices"),
    [
        (24, 10, [0, 2, 5, 8, 10, 13, 16, 18, 21, 23]),  # 24 / 9 apart, rounded down, the end clipped
        (90, 10, [0, 10, 20, 30, 40, 50, 60, 70, 80, 89]),
        (10, 10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (100, 3, [0, 50, 99]),
        (7, 2, [0, 6]),
        (3, 10, [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]),
        (1, 4, [0, 0, 0, 0]),
    ],
)
def test_indices_by_hand(length, frames, indices):
    assert sample_indices(length, frames) == indices


def test_indices_span_the_video_in_order_at_equal_distances():
    for length in range(1, 60):
        for frames in range(2, 20):
            indices = sample_indices(length, frames)
            gaps = [after - before for before, after in pairwise(indices)]
            assert len(indices) == frames
            assert (indices[0], indices[-1]) == (0, length - 1)
            assert min(gaps) >= 0
            assert all(abs(gap - length / (frames - 1)) <= 1 for gap in gaps)


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize(("length", "frames"), [(24, 10), (24, 24), (24, 2), (7, 10), (1, 4)])
def test_the_sampled_frames_are_the_ones_decoded(tmp_path, suffix, length, frames):
    indices, pictures = decode(encode(tmp_path / f"clip{suffix}", length), Sampling(frames))
    assert indices == sample_indices(length, frames)
    assert seen(pictures) == indices


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("size", [(97, 63), (33, 95), (96, 64)])
def test_pictures_are_rgb_of_the_video_s_size_even_an_odd_one(tmp_path, suffix, size):
    indices, pictures = decode(encode(tmp_path / f"clip{suffix}", size=size), Sampling(5))
    assert {(picture.size, picture.mode) for picture in pictures} == {(size, "RGB")}
    assert seen(pictures) == indices


# --- damaged files -------------------------------------------------------------------------------


def test_of_a_truncated_file_the_part_that_is_left_is_sampled(tmp_path):
    path = truncate(encode(tmp_path / "clip.avi", 24, (320, 240)), 0.6)
    indices, pictures = decode(path, TEN)
    left = indices[-1] + 1
    assert 1 < left < 24
    assert indices == sample_indices(left, 10)
    assert seen(pictures)[:-1] == indices[:-1]  # the cut goes through the last frame


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("suffix", CODECS)
def test_a_truncated_file_is_sampled_or_refused_with_a_reason(tmp_path, suffix, share):
    path = truncate(encode(tmp_path / f"clip{suffix}"), share)
    try:
        indices, pictures = decode(path, TEN)
    except ValueError:
        assert reason(path)
    else:
        assert indices == sample_indices(indices[-1] + 1, 10)
        assert seen(pictures)[:-1] == indices[:-1]


@pytest.mark.parametrize("damaged", [0, 11, 23])
def test_damaged_packets_are_skipped(tmp_path, damaged):
    path = encode(tmp_path / "clip.avi")
    with av.open(path) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        assert all(packet.is_keyframe for packet in packets)  # no frame builds on the damaged one
        start, size = packets[damaged].pos + 8, packets[damaged].size  # AVI has 8 bytes ahead of each
    content = path.read_bytes()
    path.write_bytes(content[:start] + bytes(size) + content[start + size :])
    indices, pictures = decode(path, TEN)
    lost = {damaged, min(damaged + 1, 23)}  # FFmpeg's decoder drops the next frame too
    left = [index for index in range(24) if index not in lost]
    assert indices == sample_indices(len(left), 10)
    assert seen(pictures) == [left[index] for index in indices]


def test_an_mp4_without_its_end_has_lost_its_index_and_is_refused(tmp_path):
    message = reason(truncate(encode(tmp_path / "clip.mp4"), 0.6))
    assert message.startswith(("it holds no video stream", "it cannot be decoded ("))


@pytest.mark.parametrize("content", [b"", b"not a video\n" * 100, bytes(5000)])
def test_what_is_no_video_is_refused(tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert reason(path).startswith("it cannot be decoded (")


def test_a_missing_file_is_refused(tmp_path):
    assert reason(tmp_path / "clip.mp4") == "the file does not exist"


def test_sound_alone_is_refused(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(path, "w") as file:
        stream = file.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        file.mux(stream.encode(sound))
        file.mux(stream.encode())
    assert reason(path) == "it holds no video stream"


def test_metadata_that_is_not_utf_8_is_no_obstacle(tmp_path):
    path = encode(tmp_path / "clip.avi", title="caf_")
    path.write_bytes(path.read_bytes().replace(b"caf_", "café".encode("latin-1")))
    with pytest.raises(UnicodeDecodeError):
        av.open(path)
    indices, pictures = decode(path, TEN)
    assert seen(pictures) == indices == sample_indices(24, 10)


# --- JPEG ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((340, 256), 72, (96, 72)),
        ((240, 320), 72, (72, 96)),
        ((320, 240), 240, (320, 240)),
        ((100, 50), 100, (200, 100)),  # a smaller picture is enlarged
        ((97, 63), 21, (32, 21)),
        ((500, 5), 1, (100, 1)),
    ],
)
def test_the_short_side_is_given_and_the_shape_kept(size, short_side, expected):
    jpeg = Image.open(io.BytesIO(to_jpeg(Image.new("RGB", size, "red"), short_side, 95)))
    assert (jpeg.format, jpeg.mode, jpeg.size) == ("JPEG", "RGB", expected)
    assert np.asarray(jpeg)[0, 0] == pytest.approx((255, 0, 0), abs=3)


def test_a_lower_quality_takes_fewer_bytes():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (72, 96, 3), np.uint8))
    sizes = [len(to_jpeg(noise, 72, quality)) for quality in (20, 60, 95)]
    assert sizes == sorted(set(sizes))


# --- real clips ----------------------------------------------------------------------------------

REAL = sorted(path for path in REAL_CLIPS.rglob("*") if path.suffix in {".avi", ".mp4"})


@pytest.mark.skipif(not REAL, reason="the real clips are not here")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_clips_are_decoded(path):
    indices, pictures = decode(path, TEN)
    assert indices == sample_indices(indices[-1] + 1, 10)
    assert len({picture.tobytes() for picture in pictures}) == 10
    with av.open(path, metadata_errors="ignore") as file:
        stream = file.streams.video[0]
        assert {picture.size for picture in pictures} == {(stream.width, stream.height)}
