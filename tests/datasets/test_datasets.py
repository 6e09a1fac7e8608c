"""UCF101's list files to the manifest: labels, groups, splits, and the split of `val`."""

from pathlib import Path

import pandas as pd
import pytest
from support.refusals import one_line

from tlee.datasets import Dataset, read_dataset, split_off_val
from tlee.params import load_params

ROOT = Path(__file__).parents[2]

CLASSES = "1 Walk\n2 Bend\n"
TRAIN = (
    "Walk/v_Walk_g03_c01.avi 1\n"
    "Walk/v_Walk_g04_c01.avi 1\n"
    "Walk/v_Walk_g04_c02.avi 1\n"
    "Bend/v_Bend_g03_c01.avi 2\n"
    "Bend/v_Bend_g04_c01.avi 2\n"
)
TEST = "Walk/v_Walk_g01_c01.avi\nBend/v_Bend_g01_c01.avi\nBend/v_Bend_g02_c07.avi\n"


def lay_out(root: Path, classes: str = CLASSES, train: str = TRAIN, test: str = TEST, *, split: int = 1) -> Path:
    """Write the list files of one split, in UCF101's layout."""
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    files = {"classInd.txt": classes, f"trainlist0{split}.txt": train, f"testlist0{split}.txt": test}
    for name, content in files.items():
        (lists / name).write_bytes(content.encode())
    return root


def read(root: Path, *, split: int = 1, val_share: float = 0.5, seed: int = 0) -> Dataset:
    overrides = {"dataset.root": str(root), "dataset.split": split, "dataset.val_share": val_share}
    return read_dataset(load_params(ROOT / "params.yaml", overrides).dataset, seed)


def refusal(root: Path, *expected: object, split: int = 1) -> str:
    """Return the error line of reading the list files, which must contain ``expected``."""
    return one_line(lambda: read(root, split=split), *expected)


def list_file(root: Path, name: str) -> Path:
    return root / "ucfTrainTestlist" / name


# --- the lists -----------------------------------------------------------------------------------


def test_the_manifest_has_one_row_per_listed_video_in_the_order_of_the_lists(tmp_path):
    manifest = read(lay_out(tmp_path)).manifest
    assert list(manifest.columns) == ["video", "labels", "split", "group", "start", "end"]
    assert manifest[["start", "end"]].isna().all(axis=None)
    assert manifest["video"].tolist() == [line.split()[0] for line in (TRAIN + TEST).splitlines()]


def test_labels_are_the_numbers_of_class_ind_counted_from_0(tmp_path):
    dataset = read(lay_out(tmp_path))
    assert dataset.classes == ["Walk", "Bend"]  # in the order of their numbers
    assert dataset.manifest["labels"].tolist() == [[0]] * 3 + [[1]] * 2 + [[0], [1], [1]]


def test_lines_of_class_ind_may_come_in_any_order(tmp_path):
    assert read(lay_out(tmp_path, classes="2 Bend\n1 Walk\n")).classes == ["Walk", "Bend"]


def test_groups_belong_to_a_class(tmp_path):
    groups = read(lay_out(tmp_path)).manifest["group"].tolist()
    assert groups == ["Walk/g03", "Walk/g04", "Walk/g04", "Bend/g03", "Bend/g04", "Walk/g01", "Bend/g01", "Bend/g02"]


def test_the_test_list_is_the_test_split(tmp_path):
    manifest = read(lay_out(tmp_path)).manifest
    assert manifest.loc[manifest["split"] == "test", "video"].tolist() == TEST.splitlines()


def test_videos_are_below_ucf_101(tmp_path):
    assert read(lay_out(tmp_path)).videos == tmp_path / "UCF-101"


def test_line_endings_and_blank_lines_do_not_matter(tmp_path):
    unix = read(lay_out(tmp_path / "unix"))
    windows = [text.replace("\n", "\r\n") + "\r\n" for text in (CLASSES, TRAIN, TEST)]
    dos = read(lay_out(tmp_path / "dos", *windows))
    assert dos.classes == unix.classes
    pd.testing.assert_frame_equal(dos.manifest, unix.manifest)


def test_a_byte_order_mark_does_not_matter(tmp_path):
    plain = read(lay_out(tmp_path / "plain"))
    marked = read(lay_out(tmp_path / "marked", *("\ufeff" + text for text in (CLASSES, TRAIN, TEST))))
    assert marked.classes == plain.classes
    pd.testing.assert_frame_equal(marked.manifest, plain.manifest)


def test_labels_in_the_training_list_are_optional(tmp_path):
    plain = read(lay_out(tmp_path / "plain", train=TRAIN.replace(" 1\n", "\n").replace(" 2\n", "\n")))
    pd.testing.assert_frame_equal(plain.manifest, read(lay_out(tmp_path / "labelled")).manifest)


def test_the_split_number_chooses_the_files(tmp_path):
    lay_out(tmp_path, split=3)
    assert len(read(tmp_path, split=3).manifest) == 8
    refusal(tmp_path, list_file(tmp_path, "trainlist01.txt"), split=1)


def test_the_parameters_choose_root_split_and_share(tmp_path):
    lay_out(tmp_path, split=2)
    overrides = {"dataset.root": str(tmp_path), "dataset.split": 2, "dataset.val_share": 0.5}
    dataset = read_dataset(load_params(ROOT / "params.yaml", overrides).dataset, seed=3)
    expected = read(tmp_path, split=2, val_share=0.5, seed=3)
    assert dataset.videos == expected.videos
    pd.testing.assert_frame_equal(dataset.manifest, expected.manifest)


def test_videos_are_counted_by_split_and_class(tmp_path):
    counts = read(lay_out(tmp_path)).count_videos().set_index(["split", "class"])["videos"]
    assert counts["test"].to_dict() == {"Walk": 1, "Bend": 2}
    assert counts.sum() == 8


# --- the split of val ----------------------------------------------------------------------------


def manifest_of(groups: dict[int, int], clips: int = 3, split: str = "train") -> pd.DataFrame:
    """Return a manifest with ``groups[label]`` groups per class and ``clips`` videos per group."""
    rows = [
        (f"{label}/g{group:02d}_c{clip}", [label], split, f"{label}/g{group:02d}")
        for label, count in groups.items()
        for group in range(count)
        for clip in range(clips)
    ]
    return pd.DataFrame(rows, columns=["video", "labels", "split", "group"])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5, 0.7])
def test_no_group_is_in_both_train_and_val(share, seed):
    result = split_off_val(manifest_of({0: 4, 1: 10, 2: 18}), share, seed)
    assert set(result["split"]) == {"train", "val"}
    assert result.groupby("group")["split"].nunique().eq(1).all()


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5, 0.7])
def test_about_the_share_of_the_groups_of_every_class_moves_and_at_least_one(share):
    sizes = {0: 4, 1: 10, 2: 18}
    result = split_off_val(manifest_of(sizes), share, seed=0)
    val = result[result["split"] == "val"]
    for label, size in sizes.items():
        count = val.loc[val["labels"].str[0] == label, "group"].nunique()
        assert count >= 1
        assert abs(count - share * size) <= 0.5 or count == 1


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_train_and_val_both_keep_a_group_of_every_class(share):
    result = split_off_val(manifest_of({0: 2, 1: 4, 2: 25}), share, seed=0)
    for split in ("train", "val"):
        assert set(result.loc[result["split"] == split, "labels"].str[0]) == {0, 1, 2}


def test_the_same_seed_gives_the_same_split():
    manifest = manifest_of({0: 10, 1: 10})
    pd.testing.assert_frame_equal(split_off_val(manifest, 0.3, seed=1), split_off_val(manifest, 0.3, seed=1))


def test_another_seed_gives_another_split():
    splits = [tuple(split_off_val(manifest_of({0: 10, 1: 10}), 0.3, seed)["split"]) for seed in range(5)]
    assert len(set(splits)) == 5


def test_the_split_does_not_depend_on_the_order_of_the_lists():
    manifest = manifest_of({0: 10, 1: 10})
    shuffled = manifest.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        split_off_val(shuffled, 0.3, seed=1).sort_index(), split_off_val(manifest, 0.3, seed=1)
    )


def test_only_the_split_of_training_videos_changes():
    both = pd.concat(
        [manifest_of({0: 4, 1: 4}), manifest_of({0: 4, 1: 4}, split="test").replace(r"/g", "/t", regex=True)],
        ignore_index=True,
    )
    before = both.copy()
    result = split_off_val(both, 0.5, seed=0)
    pd.testing.assert_frame_equal(both, before)  # the input is unchanged
    pd.testing.assert_frame_equal(result.drop(columns="split"), both.drop(columns="split"))
    assert (result["split"] == "test").tolist() == (both["split"] == "test").tolist()


# --- errors in the lists -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classInd.txt", "trainlist01.txt", "testlist01.txt"])
def test_a_missing_list_is_named_with_both_remedies(tmp_path, name):
    file = list_file(lay_out(tmp_path), name)
    file.unlink()
    refusal(tmp_path, file, "`dvc pull data.dvc`", "dataset.root", "dataset.split")


def test_an_unknown_class_is_named_with_its_line(tmp_path):
    lay_out(tmp_path, test=TEST + "Jump/v_Jump_g01_c01.avi\n")
    refusal(tmp_path, f"{list_file(tmp_path, 'testlist01.txt')} line 4", "`Jump`", "classInd.txt")


def test_line_numbers_count_blank_lines(tmp_path):
    lay_out(tmp_path, train=TRAIN + "\n  \nJump/v_Jump_g01_c01.avi 1\n")
    refusal(tmp_path, f"{list_file(tmp_path, 'trainlist01.txt')} line 8")


@pytest.mark.parametrize("label", ["1", "0", "3", "two", "2 1"])
def test_a_wrong_label_number_is_named_with_its_line(tmp_path, label):
    lines = TRAIN.splitlines()
    lines[3] = f"Bend/v_Bend_g03_c01.avi {label}"
    lay_out(tmp_path, train="\n".join(lines))
    where = f"{list_file(tmp_path, 'trainlist01.txt')} line 4"
    refusal(tmp_path, where, f"label {label.split()[0]}", "`Bend`", "classInd.txt")


@pytest.mark.parametrize("video", ["v_Walk.avi", "v_Walk_c01.avi", "v_Walk_g03.avi", "v_Walk_g03_c01"])
def test_a_name_without_a_group_is_named_with_its_line(tmp_path, video):
    lay_out(tmp_path, train=f"{TRAIN}Walk/{video} 1\n")
    refusal(tmp_path, f"{list_file(tmp_path, 'trainlist01.txt')} line 6", f"`Walk/{video}`")


@pytest.mark.parametrize("classes", ["1 Walk\n3 Bend\n", "0 Walk\n1 Bend\n", "2 Walk\n3 Bend\n"])
def test_gaps_in_class_ind_are_refused(tmp_path, classes):
    refusal(lay_out(tmp_path, classes=classes), list_file(tmp_path, "classInd.txt"), "from 1 without gaps")


@pytest.mark.parametrize(
    ("classes", "number"),
    [
        ("Walk 1\nBend 2\n", 1),
        ("Walk\nBend\n", 1),
        ("1 Walk\n2\n", 2),
        ("1 Walk\n2 Bend over\n", 2),
        ("1 Walk\n-2 Bend\n", 2),
        ("1 Walk\n\n1 Bend\n", 3),
    ],
)
def test_a_malformed_line_of_class_ind_is_named_with_its_number(tmp_path, classes, number):
    lay_out(tmp_path, classes=classes)
    line = classes.splitlines()[number - 1]
    refusal(tmp_path, f"{list_file(tmp_path, 'classInd.txt')} line {number}: ", f"`{line}`")


@pytest.mark.parametrize("name", ["classInd.txt", "trainlist01.txt", "testlist01.txt"])
def test_a_list_that_is_not_utf_8_is_named(tmp_path, name):
    file = list_file(lay_out(tmp_path), name)
    file.write_bytes(b"\xff\n")
    refusal(tmp_path, file, "UTF-8")


def test_a_class_with_one_training_group_is_named(tmp_path):
    train = "".join(line for line in TRAIN.splitlines(keepends=True) if "v_Walk_g04" not in line)
    refusal(lay_out(tmp_path, train=train), "Walk/g03", "only training group")
