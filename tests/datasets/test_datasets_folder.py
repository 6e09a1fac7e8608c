"""Your own videos in folders, and the split of val if groups span classes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.dataset_files import OFFICIAL, lay_out, read, refusal, rows
from support.refusals import one_line

from tlee.datasets import split_off_val

CLIPS = OFFICIAL.parent / "clips" / "ut_interaction"


def lay_out_sequences(root: Path, classes: int = 3, sequences: int = 8, clips: int = 1) -> Path:
    """Write empty files of sequences that each show every class ``clips`` times."""
    names = (
        f"class{label}/seq{number}_{clip}.avi"
        for label in range(classes)
        for number in range(sequences)
        for clip in range(clips)
    )
    return lay_out(root, dict.fromkeys(names, ""))


# --- videos and groups ---------------------------------------------------------------------------


def test_a_folder_is_a_class_with_all_videos_below_it(tmp_path):
    videos = ["a/2.mkv", "a/3.mov", "a/deep/er/1.webm", "a/v 4.avi", "b/1.MP4", "b/2.avi", "b/3.mpg", "b/4.avi"]
    others = ["b/notes.txt", "b/.hidden.avi", ".dvc/x.avi", "top.avi", "empty/notes.txt"]
    dataset = read("folder", lay_out(tmp_path, dict.fromkeys(reversed(videos + others), "")))
    assert dataset.videos == tmp_path
    assert dataset.classes == ["a", "b"]
    assert rows(dataset, "video") == [(video,) for video in videos]
    assert dataset.manifest["labels"].tolist() == [[0]] * 4 + [[1]] * 4


def test_without_a_pattern_every_video_is_its_own_group(tmp_path):
    manifest = read("folder", lay_out_sequences(tmp_path)).manifest
    assert manifest["group"].tolist() == manifest["video"].tolist()


@pytest.mark.parametrize("pattern", [r"seq\d+", r"/(seq\d+)_", r"(?<=/)seq\d"])
def test_the_pattern_names_the_group(tmp_path, pattern):
    manifest = read("folder", lay_out_sequences(tmp_path), group=pattern).manifest
    assert manifest["group"].tolist() == [f"seq{number}" for number in range(8)] * 3


def test_a_video_that_the_pattern_does_not_match_is_named(tmp_path):
    lay_out(lay_out_sequences(tmp_path), {"class1/other.avi": ""})
    refusal("folder", tmp_path, "dataset.group", "`class1/other.avi`", group=r"seq\d+")


@pytest.mark.parametrize("files", [{}, {"top.avi": ""}, {"a/notes.txt": ""}])
def test_a_folder_without_videos_is_refused(tmp_path, files):
    refusal("folder", lay_out(tmp_path, files), "no videos", tmp_path, "dataset.root")


# --- the folds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("folds", [2, 4, 8])
def test_the_folds_partition_the_groups(tmp_path, folds, seed):
    lay_out_sequences(tmp_path, clips=2)
    tested = []
    for split in range(1, folds + 1):
        manifest = read(
            "folder", tmp_path, group=r"seq\d+", folds=folds, split=split, seed=seed, val_share=0.3
        ).manifest
        assert manifest.groupby("group")["split"].nunique().eq(1).all()
        for name in ("train", "val", "test"):
            if folds > 2 or name != "val":
                assert set(manifest.loc[manifest["split"] == name, "labels"].str[0]) == {0, 1, 2}
        tested += manifest.loc[manifest["split"] == "test", "video"].tolist()
    assert sorted(tested) == manifest["video"].tolist()


def test_the_same_seed_gives_the_same_manifest_and_another_seed_another(tmp_path):
    lay_out_sequences(tmp_path)
    manifests = [read("folder", tmp_path, group=r"seq\d+", seed=seed).manifest for seed in (1, 1, 2, 3, 4)]
    pd.testing.assert_frame_equal(manifests[0], manifests[1])
    assert len({tuple(manifest["split"]) for manifest in manifests}) > 2


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"folds": 3, "split": 4}, ("dataset.split is 4", "dataset.folds", "1 to 3")),
        ({"folds": 9, "group": r"seq\d+"}, ("dataset.folds is 9", "8 at most", "8 groups", "8 videos")),
    ],
)
def test_impossible_folds_are_refused(tmp_path, params, expected):
    refusal("folder", lay_out_sequences(tmp_path), *expected, **params)


# --- the split of val if groups span classes -----------------------------------------------------


def spanning(seed: int, groups: int = 30, classes: int = 5) -> pd.DataFrame:
    """Return a manifest of groups that show random classes, and one test video."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 4, (groups, classes))
    table = [
        (f"{group}_{label}_{clip}", [label], "train", f"g{group:02d}")
        for group, label in np.ndindex(*counts.shape)
        for clip in range(counts[group, label])
    ]
    return pd.DataFrame([*table, ("t", [0], "test", "g00")], columns=["video", "labels", "split", "group"])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5, 0.7])
def test_about_the_share_moves_in_whole_groups_and_every_class_is_in_both_splits(share, seed):
    manifest = spanning(seed)
    result = split_off_val(manifest, share, seed)
    trained = result[manifest["split"] == "train"]
    assert result["split"].iloc[-1] == "test"
    assert trained.groupby("group")["split"].nunique().eq(1).all()
    for split in ("train", "val"):
        assert set(trained.loc[trained["split"] == split, "labels"].str[0]) == set(range(5))
    assert (trained["split"] == "val").mean() == pytest.approx(share, abs=0.07)


def test_the_split_across_classes_depends_only_on_the_seed():
    manifest = spanning(0)
    splits = [split_off_val(manifest, 0.3, seed)["split"] for seed in (1, 2, 3)]
    assert len({tuple(split) for split in splits}) == 3
    shuffled = manifest.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(split_off_val(shuffled, 0.3, 1)["split"].sort_index(), splits[0])


def make(*videos: tuple[list[int], str]) -> pd.DataFrame:
    """Return a manifest of training videos with the given labels and groups."""
    table = [(str(number), labels, "train", group) for number, (labels, group) in enumerate(videos)]
    return pd.DataFrame(table, columns=["video", "labels", "split", "group"])


def test_a_class_of_one_group_stays_in_train_if_groups_span_classes():
    result = split_off_val(make(([0], "a"), ([1], "a"), ([0], "b"), ([2], "b"), ([0], "c"), ([1], "c")), 0.5, seed=0)
    assert result.loc[result["group"] == "b", "split"].tolist() == ["train", "train"]
    assert set(result.loc[result["split"] == "train", "labels"].str[0]) == {0, 1, 2}
    assert set(result.loc[result["split"] == "val", "labels"].str[0]) == {0, 1}


def test_a_first_label_of_one_group_stays_in_train_if_videos_have_several_labels():
    result = split_off_val(make(([0, 1], "a"), ([0], "b"), ([1, 0], "c")), 0.5, seed=0)
    assert result["split"].tolist().count("val") == 1
    assert result["split"].iloc[2] == "train"


def test_groups_that_cannot_move_are_refused():
    manifest = make(([0], "a"), ([1], "a"), ([2], "b"), ([3], "b"))
    one_line(lambda: split_off_val(manifest, 0.5, seed=0), "no training group", "`val`", "add groups")


# --- real clips ----------------------------------------------------------------------------------


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the clips of UT-Interaction are not available")
@pytest.mark.parametrize("split", range(1, 5))
def test_sequences_of_ut_interaction_stay_together(split):
    params = {"group": r"set\d_sequence\d+", "folds": 4, "split": split, "val_share": 0.3}
    manifest = read("folder", CLIPS, **params).manifest
    assert len(manifest) == 120
    assert manifest["group"].nunique() == 20
    assert manifest.groupby("group")["split"].nunique().eq(1).all()
    for name in ("train", "val", "test"):
        assert set(manifest.loc[manifest["split"] == name, "labels"].str[0]) == set(range(6))
