"""The stage that fills the frame store: what it holds, what it refuses, where it goes on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clips import encode, seen

from tlee.datasets import Dataset
from tlee.errors import UserError
from tlee.extraction import Extraction, extract, sample_indices
from tlee.frames import FrameStore
from tlee.params import ExtractParams, load_params
from tlee.paths import FAILED_VIDEOS

ROOT = Path(__file__).parents[1]
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
    manifest = pd.DataFrame(rows, columns=["video", "labels", "split", "group"]).assign(start=np.nan, end=np.nan)
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
