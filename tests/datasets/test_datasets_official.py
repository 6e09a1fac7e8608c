"""Official annotation files, if they are available: counts, classes, agreement of their formats."""

import json
import re
import shutil
import zipfile

import pandas as pd
import pytest
from support.dataset_files import OFFICIAL, read

from tlee.datasets import Dataset
from tlee.datasets.files import read_table
from tlee.datasets.lists import read_lists

pytestmark = pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official annotation files are not available")


def counts(manifest: pd.DataFrame) -> tuple[int, int]:
    """Count training videos (with val) and test videos; check that no video is listed twice and no group is split."""
    assert not manifest.duplicated(["video", "start", "end"]).any()
    trained = manifest[manifest["split"] != "test"]
    assert trained.groupby("group")["split"].nunique().eq(1).all()
    return len(trained), len(manifest) - len(trained)


def classes_in(manifest: pd.DataFrame, split: str) -> int:
    return manifest.loc[manifest["split"] == split, "labels"].str[0].nunique()


@pytest.mark.parametrize(("split", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_ucf101(split, train, test):
    dataset = read("ucf101", OFFICIAL / "ucf101", split=split, val_share=0.3)
    manifest = dataset.manifest
    assert counts(manifest) == (train, test)
    assert len(dataset.classes) == 101
    assert (dataset.classes[0], dataset.classes[-1]) == ("ApplyEyeMakeup", "YoYo")
    assert manifest.groupby("group")["split"].nunique().eq(1).all()
    assert manifest.groupby(manifest["labels"].str[0])["group"].nunique().eq(25).all()
    assert {classes_in(manifest, name) for name in ("train", "val", "test")} == {101}
    assert (manifest["split"] == "val").sum() / train == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51(split):
    dataset = read("hmdb51", OFFICIAL / "hmdb51", split=split, val_share=0.3)
    manifest = dataset.manifest
    assert counts(manifest) == (3570, 1530)
    lines = "".join(file.read_text() for file in (OFFICIAL / "hmdb51").glob(f"*_test_split{split}.txt"))
    assert len(re.findall(r" 0 *$", lines, flags=re.M)) == 1666
    assert sorted((OFFICIAL / "hmdb51/class_list.txt").read_text().split()) == dataset.classes
    assert {classes_in(manifest, name) for name in ("train", "val", "test")} == {51}
    assert (manifest["split"] == "val").sum() / 3570 == pytest.approx(0.3, abs=0.04)
    by_class = manifest.assign(is_test=manifest["split"].eq("test"), label=manifest["labels"].str[0])
    assert by_class.groupby(["label", "group"])["is_test"].nunique().eq(1).all()
    assert by_class.groupby("group")["is_test"].nunique().gt(1).any()  # across classes, the official splits leak


@pytest.mark.parametrize(
    ("split", "train", "test", "train_sources", "test_sources"),
    [(1, 660, 268, 241, 119), (2, 658, 270, 240, 118), (3, 663, 265, 248, 113)],
)
def test_jhmdb(split, train, test, train_sources, test_sources):
    dataset = read("jhmdb", OFFICIAL / "jhmdb", split=split, val_share=0.25)
    manifest = dataset.manifest
    assert counts(manifest) == (train, test)
    assert len(dataset.classes) == 21
    assert (dataset.classes[0], dataset.classes[-1]) == ("brush_hair", "wave")
    assert manifest["group"].nunique() == 336
    assert {classes_in(manifest, name) for name in ("train", "val", "test")} == {21}
    assert (manifest["split"] == "val").sum() / train == pytest.approx(0.25, abs=0.05)
    by_class = manifest.assign(is_test=manifest["split"].eq("test"), label=manifest["labels"].str[0])
    assert by_class.groupby(["label", "group"])["is_test"].nunique().eq(1).all()
    sides = by_class.groupby("group")["is_test"].agg(["min", "max"])
    assert ((~sides["min"]).sum(), sides["max"].sum()) == (train_sources, test_sources)  # some are on both sides


@pytest.mark.slow
def test_something_v2_lists_agree_with_the_json(tmp_path):
    official = OFFICIAL / "something_v2"
    validation = json.loads((official / "something-something-v2-validation.json").read_text())
    (tmp_path / "json").mkdir()
    (tmp_path / "lists").mkdir()
    for part in ("labels", "validation"):
        shutil.copy(official / f"something-something-v2-{part}.json", tmp_path / "json")
    renumbered = [video | {"id": f"t{video['id']}"} for video in validation]  # replaces the training set
    (tmp_path / "json/something-something-v2-train.json").write_text(json.dumps(renumbered))
    shutil.copy(official / "val_videofolder.txt", tmp_path / "lists")
    lines = (official / "val_videofolder.txt").read_text()
    (tmp_path / "lists/train_videofolder.txt").write_text(re.sub("^val/", "train/t", lines, flags=re.M))
    datasets = [read("something_v2", tmp_path / name) for name in ("json", "lists")]
    assert [counts(dataset.manifest)[1] for dataset in datasets] == [24_777, 24_777]
    assert [len(dataset.classes) for dataset in datasets] == [174, 174]
    labels = [dataset.manifest.set_index("group")["labels"].str[0].sort_index() for dataset in datasets]
    pd.testing.assert_series_equal(*labels)


@pytest.fixture(scope="module")
def mini_kinetics() -> Dataset:
    return read("mini_kinetics", OFFICIAL / "mini_kinetics", val_share=0.1)


@pytest.mark.slow
def test_mini_kinetics(mini_kinetics):
    manifest = mini_kinetics.manifest
    assert counts(manifest) == (121_070, 9864)
    assert len(mini_kinetics.classes) == 200
    assert classes_in(manifest, "train") == classes_in(manifest, "val") == 200


@pytest.mark.slow
def test_the_formats_of_mini_kinetics_agree(mini_kinetics, tmp_path):
    official = OFFICIAL / "mini_kinetics"
    for source, train, test, before_id in (
        ("mini_val_videofolder.txt", "mini_train_videofolder.txt", "mini_val_videofolder.txt", "images/val/[^/]+/"),
        ("kinetics-400_val.csv", "kinetics-400_train.csv", "kinetics-400_val.csv", "(?!label,)[^,]+,"),
    ):
        root = tmp_path / source
        root.mkdir()
        shutil.copy(official / "minik_classInd.txt", root)
        text = (official / source).read_text()
        (root / test).write_text(text)
        (root / train).write_text(re.sub(f"^({before_id})", r"\1#", text, flags=re.M))  # training set with other ids
    ids = mini_kinetics
    paths, tables = (read("mini_kinetics", root) for root in sorted(tmp_path.iterdir(), reverse=True))
    assert paths.classes == tables.classes == ids.classes
    tested = [dataset.manifest[dataset.manifest["split"] == "test"] for dataset in (ids, paths, tables)]
    assert [len(manifest) for manifest in tested] == [9864, 9867, 9947]
    labels = [manifest.set_index("group")["labels"].str[0] for manifest in tested]
    for fewer, more in ((labels[0], labels[1]), (labels[1], labels[2])):
        assert set(fewer.index) < set(more.index)
        pd.testing.assert_series_equal(fewer, more[fewer.index])


@pytest.mark.slow
def test_activitynet_has_two_class_orders(tmp_path):
    annotated = json.loads((OFFICIAL / "activitynet/anet_anno_action.json").read_text())
    alphabetical = sorted({part["label"] for video in annotated.values() for part in video["annotations"]})
    in_order = {}
    for prefix in ("", "frameexit_"):
        root = tmp_path / f"{prefix}lists"
        root.mkdir()
        for name in ("anet_train_video.txt", "anet_val_video_multi_label.txt"):
            shutil.copy(OFFICIAL / "activitynet" / f"{prefix}{name}", root)
        dataset = read("activitynet", root, labels="multi")
        assert counts(dataset.manifest) == (10_024, 4926)
        assert len(dataset.classes) == classes_in(dataset.manifest, "train") == 200
        assert dataset.manifest["labels"].str.len().value_counts().to_dict() == {1: 14_943, 2: 7}
        tested = dataset.manifest[dataset.manifest["split"] == "test"]
        expected = [
            [alphabetical.index(name) for name in dict.fromkeys(part["label"] for part in video["annotations"])]
            for video in (annotated.get(name) for name in tested["video"])
            if video
        ]
        known = tested["labels"][tested["video"].isin(annotated.keys())].tolist()
        in_order[prefix] = known == expected
    assert in_order == {"": False, "frameexit_": True}


@pytest.mark.slow
def test_activitynet_json_gives_the_order_of_frameexit(tmp_path):
    annotated = json.loads((OFFICIAL / "activitynet/anet_anno_action.json").read_text())
    lists = [OFFICIAL / "activitynet/frameexit_anet_train_video.txt"]
    lists.append(lists[0].with_name("frameexit_anet_val_video_multi_label.txt"))
    subsets = {"train": "training", "test": "validation"}
    entries = [entry for entry in read_lists(*lists, multi_label=True) if entry.path in annotated]
    database = {
        entry.path[2:]: {"subset": subsets[entry.split], "annotations": annotated[entry.path]["annotations"]}
        for entry in entries
    }
    (tmp_path / "activity_net.v1-3.min.json").write_text(json.dumps({"database": database}))
    labels = read("activitynet", tmp_path).manifest["labels"].tolist()
    differing = [entry for entry, label in zip(entries, labels, strict=True) if entry.labels != label]
    assert all(entry.split == "train" for entry in differing)  # the list has one label per training video
    assert len(differing) == 5


@pytest.mark.slow
def test_hvu(tmp_path):
    with zipfile.ZipFile(OFFICIAL / "hvu/HVU_Val_V1.0.zip") as archive:
        archive.extractall(tmp_path)
    shutil.copy(OFFICIAL / "hvu/HVU_Tags_Categories_V1.0.csv", tmp_path)
    table = read_table(tmp_path / "HVU_Val_V1.0.csv", ("Tags", "youtube_id", "time_start", "time_end"))
    replacement = table.assign(youtube_id="#" + table["youtube_id"])
    replacement.to_csv(tmp_path / "HVU_Train_V1.0.csv")
    dataset = read("hvu", tmp_path, labels="multi", val_share=0.3)
    assert counts(dataset.manifest) == (31_171, 31_171)
    assert len(dataset.classes) == 3142
    assert dataset.classes[:2] == ["playing_trombone", "playing_controller"]
    tested = dataset.manifest[dataset.manifest["split"] == "test"]
    assert tested["group"].nunique() == 29_633
    assert tested["labels"].explode().nunique() == 3142  # every tag is in the test split
    assert (dataset.manifest["split"] == "val").sum() / 31_171 == pytest.approx(0.3, abs=0.02)
