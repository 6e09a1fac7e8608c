"""Visiting order, errors of the frame store, and clips."""

import pickle
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.refusals import one_line
from support.small import small_params
from support.stores import grey, write_rows, write_store

from tlee.clips import ClipDataset, load_clips
from tlee.frame_format import ABOUT, PLACE, StoredSplit, VideoRow, open_shard, shard_file, write_index
from tlee.frames import FrameStore, visiting_order
from tlee.loading import Key, Loader
from tlee.params import Params, load_params
from tlee.sealed_batches import save_sealed_batch
from tlee.views import CentreView

T, STEP = 10, 20
LABELS = [1, 0, 1]


def written(path: Path, labels: list = LABELS, **settings: int) -> Path:
    """Write a store in which frame ``t`` of every video is grey, of level ``STEP * t``."""
    return write_store(path, labels, T, lambda row, t: grey(STEP * t), "Walk\nBend", **settings)


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return FrameStore(written(tmp_path / "train"))


def unchanged(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return frames, torch.empty(0, 3)


def positions(clip: torch.Tensor) -> list[int]:
    """Return the positions in time of the frames of an unchanged clip of ``written``."""
    return [round(frame.mean().item() * 255 / STEP) for frame in clip]


# --- the visiting order --------------------------------------------------------------------------


def test_ten_frames_are_visited_in_the_order_of_the_papers():
    assert visiting_order(10, "coarse_to_fine") == [5, 0, 9, 2, 7, 4, 6, 3, 8, 1]


@pytest.mark.parametrize(
    ("frames", "order"),
    [(1, [0]), (2, [1, 0]), (3, [1, 0, 2]), (4, [2, 0, 3, 1]), (5, [2, 0, 4, 1, 3]), (9, [4, 0, 8, 2, 6, 1, 3, 5, 7])],
)
def test_the_order_of_few_frames_by_hand(frames, order):
    assert visiting_order(frames, "coarse_to_fine") == order


@pytest.mark.parametrize("order", ["coarse_to_fine", "sequential"])
@pytest.mark.parametrize("frames", range(2, 33))
def test_every_frame_is_visited_once(frames, order):
    assert sorted(visiting_order(frames, order)) == list(range(frames))


@pytest.mark.parametrize("frames", range(3, 33))
def test_middle_and_ends_come_first(frames):
    assert visiting_order(frames, "coarse_to_fine")[:3] == [frames // 2, 0, frames - 1]


@pytest.mark.parametrize("frames", [4, 7, 8, 16, 25, 32])
def test_the_frames_visited_so_far_are_evenly_spaced(frames):
    """At every stop, no gap is more than about double another, and the widest gap never grows."""
    order = visiting_order(frames, "coarse_to_fine")
    widest = []
    for visited in range(3, frames + 1):
        gaps = [after - before for before, after in pairwise(sorted(order[:visited]))]
        assert max(gaps) <= 2 * min(gaps) + 1
        widest.append(max(gaps))
    assert widest == sorted(widest, reverse=True)


@pytest.mark.parametrize("frames", [1, 2, 10, 17])
def test_sequential_is_temporal_order(frames):
    assert visiting_order(frames, "sequential") == list(range(frames))


# --- the store -----------------------------------------------------------------------------------


def test_a_store_is_read(store):
    assert len(store) == 3
    assert list(store.videos) == ["0.mp4", "1.mp4", "2.mp4"]
    assert store.classes == ["Walk", "Bend"]
    assert store.labels.tolist() == LABELS
    assert store.truth().tolist() == [[False, True], [True, False], [False, True]]
    assert (store.num_steps, store.clip_frames) == (T, 1)


def test_videos_may_have_several_labels(tmp_path):
    store = FrameStore(written(tmp_path / "train", labels=[[1, 0], [0], [1]]))
    assert store.truth().tolist() == [[True, True], [True, False], [False, True]]
    assert store.labels.tolist() == [1, 0, 1]  # the first of each
    assert store.targets([2, 1], multi_label=False).tolist() == [1, 0]
    targets = store.targets([2, 0], multi_label=True)
    assert (targets.tolist(), targets.dtype) == ([[0, 1], [1, 1]], torch.float32)


def test_a_time_step_may_be_a_short_clip(tmp_path):
    """Ten frames are two time steps of five; the middle frame of each is displayed."""
    store = FrameStore(written(tmp_path / "train", clip_frames=5))
    assert (store.num_steps, store.clip_frames) == (2, 5)
    shown = [round(np.asarray(image).mean() / STEP) for image in store.pictures(0, [1, 0])]
    assert shown == [7, 2]
    clip = ClipDataset(store, [1, 0], unchanged).clip(0)
    assert clip.shape == (2, 3, 5, 72, 96)
    assert positions(clip.transpose(1, 2).flatten(0, 1)) == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


def test_classes_without_a_video_have_no_example(tmp_path):
    store = FrameStore(written(tmp_path / "train", labels=[1, 1]))
    assert [(name, len(images)) for name, images in store.one_of_each_class(at_most=2)] == [("Bend", T)]


def assert_refused(path: Path) -> None:
    """The store of the file ``path`` is refused in a line that names it."""
    one_line(lambda: FrameStore(path.parent), path, "`dvc repro extract`")


def test_a_missing_store_is_named_with_the_stage_that_writes_it(tmp_path):
    assert_refused(tmp_path / "train" / "index.arrow")


@pytest.mark.parametrize("name", ["index.arrow", "00000.arrow", "00001.arrow"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.6, 0.999])
def test_a_truncated_store_is_named_with_the_stage_that_writes_it(tmp_path, name, share):
    path = written(tmp_path / "train") / name
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(path)


def test_a_missing_shard_is_named_with_the_stage_that_writes_it(tmp_path):
    path = written(tmp_path / "train") / "00001.arrow"
    path.unlink()
    assert_refused(path)


def test_only_damaged_frames_are_refused(tmp_path):
    """Two videos are in the first shard, one is in the second."""
    folder = written(tmp_path / "train")
    damaged = folder / "00001.arrow"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    store = FrameStore(folder)
    for row in (1, 0):
        assert len(store.clip(row, [3, 4])) == 2
    one_line(lambda: store.clip(2, [0]), damaged, "`dvc repro extract`")


def test_frames_do_not_depend_on_the_size_of_shards(tmp_path):
    rows = [VideoRow(f"{row}.mp4", [row % 2], "g", [row, 3], [b"%d" % row, b"x"]) for row in range(7)]
    for size in (1, 2, 3, 7, 100):
        folder = write_rows(tmp_path / str(size), rows, ["Walk", "Bend"], size=size)
        assert len(list(folder.glob("0*.arrow"))) == -(-7 // size)
        stored = StoredSplit(folder)
        for row in (6, 0, 3, 5, 1, 4, 2):
            assert stored.frames(row).as_py() == rows[row].frames
            assert stored.indices(row) == rows[row].indices


def test_another_process_gets_the_path_of_a_store_not_its_content(store):
    content = pickle.dumps(store)
    assert len(content) < 1000
    assert list(pickle.loads(content).videos) == list(store.videos)


def test_names_are_a_sequence(store):
    assert (len(store.videos), store.videos[1], store.videos[-1], store.videos[1:]) == (
        3,
        "1.mp4",
        "2.mp4",
        ["1.mp4", "2.mp4"],
    )
    with pytest.raises(IndexError):
        store.videos[3]


@pytest.mark.slow
def test_a_store_is_opened_in_memory_that_grows_with_its_labels_not_with_objects_per_row(tmp_path):
    """A Python string, list or number for each of 50,000 videos would be several times as much."""
    videos = 50_000
    about = {
        "video": [f"class/video-{row:06}.mp4" for row in range(videos)],
        "labels": [[row % 3000, 3001, 3002] for row in range(videos)],
        "group": [f"group-{row:06}" for row in range(videos)],
        "indices": [list(range(10))] * videos,
        **dict.fromkeys(PLACE, [0] * videos),
    }
    batch = pa.RecordBatch.from_pydict(about, pa.schema(ABOUT | PLACE))
    with open_shard(shard_file(tmp_path, 0), [], 1):
        pass
    write_index(tmp_path, [str(number) for number in range(3142)], 1, [batch])
    tracemalloc.start()
    store = FrameStore(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < videos * 20
    assert store.videos[40_000] == "class/video-040000.mp4"
    assert store.truth([40_000]).nonzero()[:, 1].tolist() == [1000, 3001, 3002]


@pytest.mark.parametrize(
    "metadata", [None, {"a": "b"}, {"classes": "Walk\nBend"}, {"classes": "Walk", "clip_frames": "1"}]
)
def test_another_arrow_file_is_named_with_the_stage_that_writes_the_store(tmp_path, metadata):
    path, table = tmp_path / "index.arrow", pa.table({"a": [1]}).replace_schema_metadata(metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    assert_refused(path)
    save_sealed_batch(path, table.to_batches()[0])
    assert_refused(path)


# --- clips ---------------------------------------------------------------------------------------


def test_a_batch_has_clips_with_their_labels_and_rows(store):
    clips = ClipDataset(store, list(range(T)), CentreView(32))
    assert len(clips) == 3
    with Loader(clips, 2, torch.device("cpu")) as loader:
        batches = list(loader.epoch())
    assert [batch[0].shape for batch in batches] == [(2, T, 3, 32, 32), (1, T, 3, 32, 32)]
    assert batches[0][0].dtype == torch.float32
    assert torch.cat([labels for _, labels, _ in batches]).tolist() == LABELS
    assert torch.cat([rows for _, _, rows in batches]).tolist() == [0, 1, 2]
    assert torch.equal(batches[0][0][1], clips.clip(1))


def test_clips_are_loaded_as_bytes(store):
    clip = ClipDataset(store, [0, 1], CentreView(32))[Key(0, 0, 1)]
    assert (clip.frames.shape, clip.frames.dtype) == ((2, 32, 32, 3), torch.uint8)


def test_frames_come_in_visiting_order(store):
    order = visiting_order(T, "coarse_to_fine")
    clip = ClipDataset(store, order, unchanged).clip(0)
    assert (clip.shape, clip.dtype) == ((T, 3, 72, 96), torch.float32)
    assert positions(clip) == order


def test_a_shorter_order_selects_fewer_frames(store):
    clip = ClipDataset(store, [9, 3], unchanged).clip(0)
    assert positions(clip) == [9, 3]


def test_drawn_frames_are_distinct_and_vary_between_epochs(store):
    clips = ClipDataset(store, list(range(T)), unchanged, draw=4)
    draws = [positions(clips.clip(0, epoch)) for epoch in range(20)]
    assert all(len(set(draw)) == 4 for draw in draws)
    assert set().union(*draws) == set(range(T))
    assert len({tuple(draw) for draw in draws}) > 10
    assert any(draw != sorted(draw) for draw in draws)


def test_draws_depend_on_seed_epoch_and_row_alone(store):
    clips = ClipDataset(store, list(range(T)), unchanged, draw=4)
    keys = [Key(seed, epoch, row) for seed in range(3) for epoch in range(3) for row in range(3)]
    drawn = {key: clips[key].frames.numpy().tobytes() for key in keys}
    assert len(set(drawn.values())) > 20
    torch.manual_seed(7)
    assert {key: clips[key].frames.numpy().tobytes() for key in reversed(keys)} == drawn


def test_only_frames_of_the_order_are_drawn(store):
    clips = ClipDataset(store, [8, 1, 6], unchanged, draw=2)
    assert set().union(*(positions(clips.clip(0, epoch)) for epoch in range(20))) == {1, 6, 8}


def test_clips_of_a_split_follow_the_parameters(root, tmp_path, monkeypatch):
    written(tmp_path / "results" / "frames" / "val")
    monkeypatch.chdir(tmp_path)
    overrides = {"extract.frames": T, "model.input_size": 48, "model.order": "sequential"}
    params = load_params(root / "params.yaml", overrides)
    clip = load_clips("val", params).clip(0)
    assert clip.shape == (T, 3, 48, 48)
    brightness = clip.mean(dim=(1, 2, 3)).tolist()
    assert brightness == sorted(brightness)

    drawn = load_clips("val", params, augment=True, draw=2).clip(0)
    assert drawn.shape == (2, 3, 48, 48)


def test_targets_are_class_indices_or_zeros_and_ones(tmp_path, monkeypatch):
    written(tmp_path / "results" / "frames" / "val", labels=[[1, 0], [0], [1]])
    monkeypatch.chdir(tmp_path)
    single, multi = (
        [load_clips("val", all_frames(labels=labels))[Key(0, 0, row)].target.tolist() for row in range(3)]
        for labels in ("single", "multi")
    )
    assert single == [1, 0, 1]
    assert multi == [[1, 1], [1, 0], [0, 1]]


def all_frames(labels: str = "single", **model: str) -> Params:
    return small_params({"extract.frames": T, "dataset.labels": labels}, **model)


def brightness(clip: torch.Tensor) -> list[float]:
    return clip.flatten(1).mean(1).tolist()


def test_a_readout_per_step_is_trained_on_all_steps_in_order(tmp_path, monkeypatch):
    written(tmp_path / "results" / "frames" / "train")
    monkeypatch.chdir(tmp_path)
    clip = load_clips("train", all_frames(readout="per_step", order="sequential"), draw=2).clip(0)
    assert len(clip) == T
    assert brightness(clip) == sorted(brightness(clip))


def test_a_temporal_shift_is_trained_on_steps_in_order(tmp_path, monkeypatch):
    written(tmp_path / "results" / "frames" / "train")
    monkeypatch.chdir(tmp_path)
    for backbone, ordered in (("mobilenet_v2_tsm", True), ("mobilenet_v2", False)):
        clips = load_clips("train", all_frames(backbone=backbone, order="sequential"), draw=4)
        drawn = [brightness(clips.clip(0, epoch)) for epoch in range(20)]
        assert {len(each) for each in drawn} == {4}
        assert len({tuple(each) for each in drawn}) > 10
        assert all(each == sorted(each) for each in drawn) == ordered


def test_clips_of_a_missing_split_are_refused(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = load_params(root / "params.yaml")
    one_line(lambda: load_clips("test", params), "results/frames/test", "`dvc repro extract`")
