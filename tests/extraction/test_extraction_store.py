"""Extraction to the frame store: contents, errors, resumption after an interruption."""

import errno
import os
import pickle
import shutil
import sys
import time
from pathlib import Path
from signal import SIGINT, SIGKILL
from subprocess import DEVNULL, Popen
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
from support.clips import encode, seen
from support.refusals import one_line

from tlee.datasets import Dataset
from tlee.extraction import Extraction, decode, extract, sample_indices, shards, space, store
from tlee.extraction.fingerprints import fingerprint
from tlee.extraction.parts import find_parts
from tlee.frame_format import StoredSplit
from tlee.frames import FrameStore
from tlee.params import ExtractParams, load_params
from tlee.paths import FAILED_VIDEOS, LOCK, RUNS
from tlee.resumption import remove_recorded

ROOT = Path(__file__).parents[2]
SPLITS = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
PARAMS = load_params(ROOT / "params.yaml").extract.model_copy(
    update={"frames": 6, "short_side": 32, "max_failed_share": 0.125}
)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Eight clips of two classes, not in alphabetical order, in three splits, below the working folder."""
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
    """A training video of ``dataset`` whose file is overwritten with text."""
    video = dataset.manifest.at[1, "video"]
    (dataset.videos / video).write_bytes(b"not a video")
    return video


def refusal(dataset: Dataset, params: ExtractParams, folder: Path, *expected: object) -> str:
    """Return the error line of the extraction, which must contain ``expected``."""
    return one_line(lambda: extract(dataset, params, folder), *expected)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_store_agrees_with_the_manifest(dataset, tmp_path, split):
    extract(dataset, PARAMS, tmp_path / "frames")
    store = FrameStore(tmp_path / "frames" / split)
    rows = dataset.manifest[dataset.manifest["split"] == split]
    assert len(store) == len(rows)
    assert store.classes == dataset.classes
    assert list(store.videos) == rows["video"].tolist()
    assert list(store.groups) == rows["group"].tolist()
    assert store.labels.tolist() == rows["labels"].str[0].tolist()


def test_the_store_contains_the_sampled_frames_in_temporal_order(dataset, tmp_path):
    extract(dataset, PARAMS, tmp_path / "frames")
    store = FrameStore(tmp_path / "frames" / "train")
    for row in range(len(store)):
        pictures = store.pictures(row, list(range(6)))
        assert seen(pictures) == sample_indices(12 + row, 6)
        assert {picture.size for picture in pictures} == {(48, 32)}


def test_frames_are_accessed_by_their_position_in_time(dataset, tmp_path):
    extract(dataset, PARAMS, tmp_path / "frames")
    store = FrameStore(tmp_path / "frames" / "train")
    assert seen(store.pictures(0, [5, 0, 2])) == [11, 0, 4]


def test_the_example_of_a_class_is_its_first_video(dataset, tmp_path):
    extract(dataset, PARAMS, tmp_path / "frames")
    clips = FrameStore(tmp_path / "frames" / "train").one_of_each_class(at_most=2)
    assert [name for name, _ in clips] == ["Walk", "Bend"]
    assert [seen(pictures) for _, pictures in clips] == [sample_indices(12, 6), sample_indices(13, 6)]


def test_stored_videos_are_counted(dataset, tmp_path):
    extraction = extract(dataset, PARAMS, tmp_path / "frames")
    pd.testing.assert_frame_equal(extraction.stored, dataset.manifest)
    assert extraction.failed.empty
    assert FAILED_VIDEOS.read_text(encoding="utf-8") == "video,split,reason\n"
    assert extraction.metrics() == {"train": 4, "val": 2, "test": 2, "share_read": 1.0}


def test_the_same_videos_give_the_same_bytes_with_any_number_of_processes(dataset, tmp_path):
    for folder, jobs in (("one", 1), ("again", 1), ("two", 2)):
        extract(dataset, PARAMS, tmp_path / folder, jobs)
        record_stage()
    one, again, two = (stored_bytes(tmp_path / name) for name in ("one", "again", "two"))
    assert one == again == two


@pytest.mark.parametrize("tasks", [1, pytest.param(2, marks=pytest.mark.slow), 100])
@pytest.mark.parametrize("frames", [1, 12, 18, 2560])
def test_a_shard_has_as_many_videos_however_they_are_read(dataset, tmp_path, monkeypatch, tasks, frames):
    """Six frames of a video are stored, so 12 are two videos."""
    monkeypatch.setattr(shards, "SHARD_FRAMES", frames)
    monkeypatch.setattr(store, "_TASKS_PER_WORKER", tasks)
    extraction = extract(dataset, PARAMS, tmp_path / "frames")
    size = max(1, frames // 6)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        names = sorted(path.name for path in (tmp_path / "frames" / split).iterdir())
        assert names == [*(f"{number:05}.arrow" for number in range(-(-count // size))), "index.arrow"]
        written = pa.ipc.open_file(tmp_path / "frames" / split / "00000.arrow").read_all()
        assert written.num_rows == min(size, count)
    assert len(extraction.stored) == 8
    frame_store = FrameStore(tmp_path / "frames" / "train")
    assert [seen(frame_store.pictures(row, [0, 5])) for row in range(4)] == [[0, 11 + row] for row in range(4)]


def test_an_unreadable_video_is_listed_and_skipped(dataset, corrupt, tmp_path):
    extraction = extract(dataset, PARAMS, tmp_path / "frames")
    (failed,) = extraction.failed.to_dict("records")
    assert (failed["video"], failed["split"]) == (corrupt, "train")
    assert failed["reason"].startswith("it cannot be decoded")
    assert pd.read_csv(FAILED_VIDEOS).to_dict("records") == [failed]
    assert extraction.stored["video"].tolist() == dataset.manifest["video"].drop(1).tolist()
    assert extraction.metrics() == {"train": 3, "val": 2, "test": 2, "share_read": 7 / 8}
    assert list(FrameStore(tmp_path / "frames" / "train").videos) == dataset.manifest["video"][[0, 2, 3]].tolist()


def test_more_failures_than_allowed_stop_the_stage(dataset, corrupt, tmp_path):
    params = PARAMS.model_copy(update={"max_failed_share": 0.12})
    named = ("1 of 8 videos", "extract.max_failed_share", dataset.videos / corrupt, FAILED_VIDEOS)
    refusal(dataset, params, tmp_path / "frames", *named)
    assert pd.read_csv(FAILED_VIDEOS)["video"].tolist() == [corrupt]


def test_missing_videos_stop_the_stage_and_the_first_is_named(dataset, tmp_path):
    for video in dataset.manifest["video"]:
        (dataset.videos / video).unlink()
    first = dataset.videos / dataset.manifest.at[0, "video"]
    refusal(dataset, PARAMS, tmp_path / "frames", "8 of 8 videos", first, "does not exist")


def test_a_split_without_readable_videos_stops_the_stage(dataset, tmp_path):
    for video in dataset.manifest.loc[dataset.manifest["split"] == "test", "video"]:
        (dataset.videos / video).unlink()
    params = PARAMS.model_copy(update={"max_failed_share": 1.0})
    refusal(dataset, params, tmp_path / "frames", "no readable video", "in: test")


def test_a_split_without_videos_stops_the_stage(dataset, tmp_path):
    without = Dataset(dataset.videos, dataset.classes, dataset.manifest.query("split == 'train'"))
    refusal(without, PARAMS, tmp_path / "frames", "no readable video", "in: val, test")


def test_the_frames_of_a_time_step_are_stored_together(dataset, tmp_path):
    extract(dataset, PARAMS.model_copy(update={"clip_frames": 3, "clip_stride": 2}), tmp_path / "frames")
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "frames" / "train" / "00000.arrow"))).read_all()
    expected = [min(max(centre + offset, 0), 11) for centre in sample_indices(12, 6) for offset in (-2, 0, 2)]
    assert table["indices"][0].as_py() == expected
    assert StoredSplit(tmp_path / "frames" / "train").indices(0) == expected
    assert seen(FrameStore(tmp_path / "frames" / "train").clip(0, list(range(6)))) == expected
    assert table.schema.metadata == {b"classes": b"Walk\nBend", b"clip_frames": b"3"}


def test_the_columns_on_disk_are_those_of_earlier_stores(dataset, tmp_path):
    extract(dataset, PARAMS, tmp_path / "frames")
    schema = pa.ipc.open_file(pa.memory_map(str(tmp_path / "frames" / "train" / "00000.arrow"))).schema
    assert [(field.name, str(field.type)) for field in schema] == [
        ("video", "string"),
        ("labels", "list<item: int32>"),
        ("group", "string"),
        ("indices", "list<item: int32>"),
        ("frames", "list<item: binary>"),
    ]


def test_a_file_may_have_several_parts_that_are_stored_apart(dataset, tmp_path):
    whole = dataset.manifest.iloc[[0, 0, 4, 6]].reset_index(drop=True)
    parts = whole.assign(start=[0.25, 0.5, np.nan, np.nan], end=[0.5, np.nan, np.nan, np.nan])
    extract(Dataset(dataset.videos, dataset.classes, parts), PARAMS, tmp_path / "frames")
    store = FrameStore(tmp_path / "frames" / "train")  # 12 frames, 12 per second
    assert seen(store.pictures(0, list(range(6)))) == [3, 3, 4, 4, 5, 5]
    assert seen(store.pictures(1, list(range(6)))) == [6, 7, 8, 9, 10, 11]


# --- resumption after an interruption ------------------------------------------------------------


def stored_bytes(folder: Path) -> list[bytes]:
    """Return the content of all files of a store."""
    paths = sorted(folder.rglob("*.arrow"))
    assert [path.parent.name for path in paths if path.name == "index.arrow"] == ["test", "train", "val"]
    return [path.read_bytes() for path in paths]


def unfinished() -> list[Path]:
    """Return the folders of unfinished extractions."""
    return sorted(path for path in RUNS.glob("*") if path.suffix != ".finished")


def parts(*ending: str) -> list[Path]:
    """Return the parts of the only unfinished extraction, or their reports."""
    (folder,) = unfinished()
    return sorted(folder.glob(*ending or ["*.arrow"]))


def record_stage() -> None:
    """Do as DVC does when the stage has ended, and the next begins."""
    LOCK.touch()
    remove_recorded()


@pytest.fixture
def whole(dataset: Dataset, tmp_path: Path) -> list[bytes]:
    """The store of ``dataset``, written without interruption."""
    extract(dataset, PARAMS, tmp_path / "whole")
    record_stage()
    return stored_bytes(tmp_path / "whole")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read; extraction is interrupted at the sixth."""
    names = []

    def decode_some(path, *args):
        names.append(path.name)
        if len(names) == 6:
            raise KeyboardInterrupt
        return decode(path, *args)

    monkeypatch.setattr(store, "decode", decode_some)
    return names


def interrupt(dataset: Dataset, params: ExtractParams, folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract(dataset, params, folder)


def names_of(dataset: Dataset, rows: list[int]) -> list[str]:
    return [Path(video).name for video in dataset.manifest["video"].iloc[rows]]


def test_the_parts_are_removed_when_the_stage_is_recorded(dataset, whole):
    assert list(RUNS.iterdir()) == []


def test_an_extraction_that_is_not_recorded_reads_nothing_again(dataset, whole, monkeypatch, tmp_path):
    """Its stage may have been killed while it drew its figures, or while DVC stored its outputs."""
    extract(dataset, PARAMS, tmp_path / "frames")
    shutil.rmtree(tmp_path / "frames")  # by DVC
    monkeypatch.setattr(store, "decode", None)
    extraction = extract(dataset, PARAMS, tmp_path / "frames")
    assert stored_bytes(tmp_path / "frames") == whole
    assert extraction.metrics()["share_read"] == 1.0


def test_an_interrupted_extraction_resumes_after_the_last_part(dataset, whole, read, tmp_path):
    interrupt(dataset, PARAMS, tmp_path / "frames")
    assert len(unfinished()) == 1
    extraction = extract(dataset, PARAMS, tmp_path / "frames")
    assert read == names_of(dataset, [0, 1, 2, 3, 4, 5, 5, 6, 7])  # a part of so few videos has one
    assert stored_bytes(tmp_path / "frames") == whole
    assert extraction.metrics() == {"train": 4, "val": 2, "test": 2, "share_read": 1.0}
    assert unfinished() == []


@pytest.mark.slow
def test_an_extraction_resumes_with_another_limit_and_number_of_processes(dataset, whole, read, tmp_path):
    interrupt(dataset, PARAMS, tmp_path / "frames")
    extract(dataset, PARAMS.model_copy(update={"max_failed_share": 0.5}), tmp_path / "frames", jobs=2)
    assert stored_bytes(tmp_path / "frames") == whole
    assert unfinished() == []


def test_an_extraction_with_other_parameters_starts_from_scratch(dataset, read, tmp_path):
    interrupt(dataset, PARAMS.model_copy(update={"short_side": 48}), tmp_path / "frames")
    extract(dataset, PARAMS, tmp_path / "frames")
    assert read[6:] == names_of(dataset, list(range(8)))


def test_a_file_that_has_changed_is_read_again(dataset, read, tmp_path):
    interrupt(dataset, PARAMS, tmp_path / "frames")
    encode(dataset.videos / dataset.manifest.at[1, "video"], length=20)
    extract(dataset, PARAMS, tmp_path / "frames")
    assert read[6:] == names_of(dataset, [1, 5, 6, 7])
    frames = FrameStore(tmp_path / "frames" / "train")
    assert seen(frames.pictures(1, list(range(6)))) == sample_indices(20, 6)


def test_the_fingerprint_of_a_folder_changes_with_its_images(tmp_path):
    before = fingerprint(write_folder(tmp_path / "clip"))
    assert fingerprint(tmp_path / "clip.mp4") == before
    (tmp_path / "clip" / "2.jpg").write_bytes(b"longer")
    assert fingerprint(tmp_path / "clip") != before
    assert fingerprint(tmp_path / "absent") == ""


def write_folder(folder: Path) -> Path:
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"")
    return folder


@pytest.mark.parametrize("files", ["*.arrow", "*.report"])
@pytest.mark.parametrize("damage", ["cut", "changed", "removed"])
def test_only_the_videos_of_a_damaged_part_are_read_again(dataset, whole, read, tmp_path, files, damage):
    """The first shard is one part with the four videos of train, the second has one of the two of val."""
    interrupt(dataset, PARAMS, tmp_path / "frames")
    assert len(parts()) == len(parts("*.report")) == 2
    path = next(path for path in parts(files) if path.name.startswith("val"))
    content = path.read_bytes()
    damaged = {"cut": content[:-700], "changed": content[:700] + b"?" + content[701:]}
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    extract(dataset, PARAMS, tmp_path / "frames")
    assert read[6:] == names_of(dataset, [4, 5, 6, 7])
    assert stored_bytes(tmp_path / "frames") == whole


def test_one_damaged_video_of_a_shard_is_read_again(dataset, whole, read, tmp_path):
    interrupt(dataset, PARAMS, tmp_path / "frames")
    (part,) = find_parts(unfinished()[0])["train-00000"]
    content = bytearray(part.path.read_bytes())
    content[part.report["offset"][2].as_py() + part.report["size"][2].as_py() - 100] ^= 1
    part.path.write_bytes(content)
    extract(dataset, PARAMS, tmp_path / "frames")
    assert read[6:] == names_of(dataset, [2, 5, 6, 7])
    assert stored_bytes(tmp_path / "frames") == whole


def test_what_a_killed_worker_left_is_removed(dataset, whole, read, tmp_path):
    interrupt(dataset, PARAMS, tmp_path / "frames")
    (folder,) = unfinished()
    for name in ("test-00000.0123.arrow", "test-00000.4567.report", "test-00000.89.report.tmp"):
        (folder / name).write_bytes(bytes(1000))
    extract(dataset, PARAMS, tmp_path / "frames")
    assert read[6:] == names_of(dataset, [5, 6, 7])
    assert stored_bytes(tmp_path / "frames") == whole


def on_disk(*folders: Path) -> set[int]:
    """Return the shards below ``folders``; those with two names are one."""
    return {path.stat().st_ino for folder in folders for path in folder.rglob("*.arrow") if path.name != "index.arrow"}


def test_frames_are_on_disk_once(dataset, tmp_path):
    for _ in range(2):
        extract(dataset, PARAMS, tmp_path / "frames")
        assert on_disk(tmp_path / "frames") == on_disk(RUNS)
        assert len(on_disk(tmp_path / "frames")) == 3


def test_frames_are_on_disk_once_where_files_cannot_have_two_names(dataset, whole, tmp_path, monkeypatch):
    """``runs/`` may also be on another file system."""

    def fail(*_: object) -> None:
        raise OSError(errno.EXDEV, "no links")

    monkeypatch.setattr(Path, "hardlink_to", fail)
    extract(dataset, PARAMS, tmp_path / "frames")
    assert stored_bytes(tmp_path / "frames") == whole
    assert on_disk(RUNS) == set()


def test_parts_are_joined_without_more_space_than_one_of_them(dataset, read, tmp_path, monkeypatch):
    """A part is removed when its last video is in the shard; here, each has one."""
    written, left = shards.write_part, []

    def watch(folder, name, records, *args):
        def watched():
            for record in records:
                yield record
                left.append(len(list(folder.glob(f"{name}.*.report"))))

        return written(folder, name, watched(), *args)

    monkeypatch.setattr(shards, "write_part", watch)
    interrupt(dataset, PARAMS, tmp_path / "frames")
    assert left == [4, 3, 2, 1]


def test_a_disk_that_is_too_small_is_one_line_with_the_estimate(dataset, whole, read, tmp_path, monkeypatch):
    """A video is three kilobytes; seven are left when the first has been read."""
    free = SimpleNamespace(free=10_000)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: free)
    refusal(
        dataset, PARAMS, tmp_path / "frames", "remaining 7 videos", "0.0 MB are free", "make space", "extract.frames"
    )
    free.free = 10**9
    monkeypatch.setattr(store, "decode", decode)
    extract(dataset, PARAMS, tmp_path / "frames")
    assert stored_bytes(tmp_path / "frames") == whole


def test_videos_already_read_are_kept_after_too_many_failures(dataset, corrupt, read, tmp_path):
    strict = PARAMS.model_copy(update={"max_failed_share": 0.0})
    interrupt(dataset, strict, tmp_path / "frames")
    refusal(dataset, strict, tmp_path / "frames")
    encode(dataset.videos / corrupt, 13)
    extract(dataset, strict, tmp_path / "frames")
    assert read[9:] == names_of(dataset, [1])
    assert unfinished() == []


EXTRACT = """
import pickle, signal, sys
from pathlib import Path
from tlee.extraction import extract

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs of a shell
extract(*pickle.loads(Path(sys.argv[1]).read_bytes()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("signal", [SIGKILL, SIGINT])
def test_a_killed_extraction_resumes(dataset, tmp_path, signal):
    manifest = pd.concat([dataset.manifest] * 15, ignore_index=True)  # takes long enough to be killed
    longer = Dataset(dataset.videos, dataset.classes, manifest)
    arguments = tmp_path / "arguments.pickle"
    arguments.write_bytes(pickle.dumps((longer, PARAMS, Path("frames"), 2)))
    command, environment = [sys.executable, "-c", EXTRACT, str(arguments)], os.environ | {"PYTHONPATH": str(ROOT)}
    process = Popen(command, env=environment, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True)
    while process.poll() is None and not any(RUNS.glob("*/*.report")):
        time.sleep(0.005)
    os.killpg(process.pid, signal)  # with its workers, like a terminal
    assert process.wait(60) != 0
    assert parts("*.report")
    extract(longer, PARAMS, Path("frames"))
    assert unfinished() == []
    record_stage()
    extract(longer, PARAMS, tmp_path / "whole")
    assert stored_bytes(Path("frames")) == stored_bytes(tmp_path / "whole")


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
    code = f"""
import os, time
from joblib import Parallel, delayed
from tlee.extraction.workers import end_with

def note(number):
    open(f"{tmp_path}/{{os.getpid()}}", "w").close()
    time.sleep(60)

Parallel(2, initializer=end_with, initargs=[os.getpid()])(delayed(note)(number) for number in range(2))
"""
    process = Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
    while process.poll() is None and len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.05)
    workers = [psutil.Process(int(path.name)) for path in tmp_path.iterdir()]
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


def test_an_absent_split_counts_zero_videos():
    stored = pd.DataFrame({"split": ["train"]})
    failed = pd.DataFrame({"split": ["test"]})
    assert Extraction(stored, failed).metrics() == {"train": 1, "val": 0, "test": 0, "share_read": 0.5}
