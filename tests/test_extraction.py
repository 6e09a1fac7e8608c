"""Videos to the frame store: which frames are taken, what is refused and why, what the store holds."""

import io
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tlee.datasets import Dataset
from tlee.errors import UserError
from tlee.extraction import Extraction, decode, extract, sample_indices, to_jpeg
from tlee.frames import FrameStore
from tlee.params import ExtractParams, load_params
from tlee.paths import FAILED_VIDEOS

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT.parent / "shared" / "clips" / "fixtures"

STEP = 10  # between the grey levels of one frame and the next
CODECS = {".mp4": "libx264", ".avi": "mpeg4", ".mkv": "libx264"}


def encode(path: Path, length: int = 24, size: tuple[int, int] = (96, 64), title: str = "") -> Path:
    """A clip whose frame ``i`` is grey, of level ``STEP * (1 + i)`` in 0..240, beginning anew where that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as file:
        file.metadata["title"] = title
        stream = file.add_stream(CODECS[path.suffix], rate=12)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv444p" if path.suffix == ".mp4" else "yuv420p"  # odd sizes in H.264 need the first
        for index in range(length):
            picture = np.full((size[1], size[0], 3), STEP * (1 + index % 24), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        file.mux(stream.encode())
    return path


def truncate(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def seen(pictures: list[Image.Image]) -> list[int]:
    """Which frames of a clip of ``encode`` these are."""
    return [round(np.asarray(picture).mean() / STEP) - 1 for picture in pictures]


def reason(path: Path) -> str:
    """Why a file is refused, in one line."""
    with pytest.raises(ValueError, match=r"^it |^the file ") as caught:
        decode(path, 10)
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
    indices, pictures = decode(encode(tmp_path / f"clip{suffix}", length), frames)
    assert indices == sample_indices(length, frames)
    assert seen(pictures) == indices


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("size", [(97, 63), (33, 95), (96, 64)])
def test_pictures_are_rgb_of_the_video_s_size_even_an_odd_one(tmp_path, suffix, size):
    indices, pictures = decode(encode(tmp_path / f"clip{suffix}", size=size), 5)
    assert {(picture.size, picture.mode) for picture in pictures} == {(size, "RGB")}
    assert seen(pictures) == indices


# --- damaged files -------------------------------------------------------------------------------


def test_of_a_truncated_file_the_part_that_is_left_is_sampled(tmp_path):
    path = truncate(encode(tmp_path / "clip.avi", 24, (320, 240)), 0.6)
    indices, pictures = decode(path, 10)
    left = indices[-1] + 1
    assert 1 < left < 24
    assert indices == sample_indices(left, 10)
    assert seen(pictures)[:-1] == indices[:-1]  # the cut goes through the last frame


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("suffix", CODECS)
def test_a_truncated_file_is_sampled_or_refused_with_a_reason(tmp_path, suffix, share):
    path = truncate(encode(tmp_path / f"clip{suffix}"), share)
    try:
        indices, pictures = decode(path, 10)
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
    indices, pictures = decode(path, 10)
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
    indices, pictures = decode(path, 10)
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


# --- the store -----------------------------------------------------------------------------------

SPLITS = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
PARAMS = load_params(ROOT / "params.yaml").extract.model_copy(
    update={"frames": 6, "short_side": 32, "max_failed_share": 0.125, "jobs": 1}
)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Eight clips of two classes, numbered against the alphabet, in three splits; the working folder is theirs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    rows = []
    for number, split in enumerate(SPLITS):
        name = ("Walk", "Bend")[number % 2]
        video = f"{name}/v_{name}_g{number:02d}_c01.avi"
        encode(tmp_path / "UCF-101" / video, length=12 + number)
        rows.append((video, [number % 2], split, f"{name}/g{number:02d}"))
    manifest = pd.DataFrame(rows, columns=["video", "labels", "split", "group"])
    return Dataset(tmp_path / "UCF-101", ["Walk", "Bend"], manifest)


@pytest.fixture
def corrupt(dataset: Dataset) -> str:
    """A training video of ``dataset`` that is no video any more."""
    video = dataset.manifest.at[1, "video"]
    (dataset.videos / video).write_bytes(b"not a video")
    return video


def refusal(dataset: Dataset, params: ExtractParams, folder: Path) -> str:
    """The one line with which extraction stops."""
    with pytest.raises(UserError) as caught:
        extract(dataset, params, folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_store_holds_what_the_manifest_says(dataset, tmp_path, split):
    extract(dataset, PARAMS, tmp_path / "frames")
    store = FrameStore(tmp_path / "frames" / f"{split}.arrow")
    rows = dataset.manifest[dataset.manifest["split"] == split]
    assert len(store) == len(rows)
    assert store.classes == dataset.classes
    assert store.videos == rows["video"].tolist()
    assert store.groups == rows["group"].tolist()
    assert store.labels.tolist() == rows["labels"].str[0].tolist()


def test_the_store_holds_the_sampled_frames_in_temporal_order(dataset, tmp_path):
    extract(dataset, PARAMS, tmp_path / "frames")
    store = FrameStore(tmp_path / "frames" / "train.arrow")
    for row in range(len(store)):
        pictures = store.pictures(row, list(range(6)))
        assert seen(pictures) == sample_indices(12 + row, 6)
        assert {picture.size for picture in pictures} == {(48, 32)}


def test_frames_are_found_by_their_position_in_time(dataset, tmp_path):
    extract(dataset, PARAMS, tmp_path / "frames")
    store = FrameStore(tmp_path / "frames" / "train.arrow")
    assert seen(store.pictures(0, [5, 0, 2])) == [11, 0, 4]


def test_one_clip_of_each_class_is_its_first(dataset, tmp_path):
    extract(dataset, PARAMS, tmp_path / "frames")
    clips = FrameStore(tmp_path / "frames" / "train.arrow").one_of_each_class()
    assert [name for name, _ in clips] == ["Walk", "Bend"]
    assert [seen(pictures) for _, pictures in clips] == [sample_indices(12, 6), sample_indices(13, 6)]


def test_what_was_stored_is_counted(dataset, tmp_path):
    extraction = extract(dataset, PARAMS, tmp_path / "frames")
    pd.testing.assert_frame_equal(extraction.stored, dataset.manifest)
    assert extraction.failed.empty
    assert FAILED_VIDEOS.read_text(encoding="utf-8") == "video,split,reason\n"
    assert extraction.metrics() == {"train": 4, "val": 2, "test": 2, "share_read": 1.0}


def test_the_same_videos_give_the_same_bytes_however_many_processes(dataset, tmp_path):
    for folder, jobs in (("one", 1), ("again", 1), ("two", 2)):
        extract(dataset, PARAMS.model_copy(update={"jobs": jobs}), tmp_path / folder)
    for split in ("train", "val", "test"):
        one, again, two = ((tmp_path / name / f"{split}.arrow").read_bytes() for name in ("one", "again", "two"))
        assert one == again == two


def test_an_unreadable_video_is_listed_and_skipped(dataset, corrupt, tmp_path):
    extraction = extract(dataset, PARAMS, tmp_path / "frames")
    (failed,) = extraction.failed.to_dict("records")
    assert (failed["video"], failed["split"]) == (corrupt, "train")
    assert failed["reason"].startswith("it cannot be decoded")
    assert pd.read_csv(FAILED_VIDEOS).to_dict("records") == [failed]
    assert extraction.stored["video"].tolist() == dataset.manifest["video"].drop(1).tolist()
    assert extraction.metrics() == {"train": 3, "val": 2, "test": 2, "share_read": 7 / 8}
    assert FrameStore(tmp_path / "frames" / "train.arrow").videos == dataset.manifest["video"][[0, 2, 3]].tolist()


def test_more_failures_than_allowed_stop_the_stage(dataset, corrupt, tmp_path):
    message = refusal(dataset, PARAMS.model_copy(update={"max_failed_share": 0.12}), tmp_path / "frames")
    assert message.startswith("1 of 8 videos cannot be read")
    assert "extract.max_failed_share" in message
    assert f"{dataset.videos / corrupt}: it cannot be decoded" in message
    assert f"{FAILED_VIDEOS} lists them" in message
    assert pd.read_csv(FAILED_VIDEOS)["video"].tolist() == [corrupt]


def test_missing_videos_stop_the_stage_with_the_first_of_them(dataset, tmp_path):
    for video in dataset.manifest["video"]:
        (dataset.videos / video).unlink()
    message = refusal(dataset, PARAMS, tmp_path / "frames")
    assert message.startswith("8 of 8 videos cannot be read")
    assert f"{dataset.videos / dataset.manifest.at[0, 'video']}: the file does not exist" in message


def test_a_split_with_no_readable_video_stops_the_stage(dataset, tmp_path):
    for video in dataset.manifest.loc[dataset.manifest["split"] == "test", "video"]:
        (dataset.videos / video).unlink()
    message = refusal(dataset, PARAMS.model_copy(update={"max_failed_share": 1.0}), tmp_path / "frames")
    assert "no readable video is left in: test" in message


def test_a_split_with_no_video_stops_the_stage(dataset, tmp_path):
    without = Dataset(dataset.videos, dataset.classes, dataset.manifest.query("split == 'train'"))
    assert "no readable video is left in: val, test" in refusal(without, PARAMS, tmp_path / "frames")


def test_metrics_count_an_absent_split_as_none():
    stored = pd.DataFrame({"split": ["train"]})
    failed = pd.DataFrame({"split": ["test"]})
    assert Extraction(stored, failed).metrics() == {"train": 1, "val": 0, "test": 0, "share_read": 0.5}


# --- real clips ----------------------------------------------------------------------------------

REAL = sorted(path for path in FIXTURES.rglob("*") if path.suffix in {".avi", ".mp4"})


@pytest.mark.skipif(not REAL, reason="the real clips are not here")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_clips_are_decoded(path):
    indices, pictures = decode(path, 10)
    assert indices == sample_indices(indices[-1] + 1, 10)
    assert len({picture.tobytes() for picture in pictures}) == 10
    with av.open(path, metadata_errors="ignore") as file:
        stream = file.streams.video[0]
        assert {picture.size for picture in pictures} == {(stream.width, stream.height)}
