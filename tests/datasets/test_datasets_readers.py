"""Manifests from small annotation files in every format except UCF101's own."""

import json

import pytest
from support.dataset_files import lay_out, read, refusal, rows

from tlee.datasets import READERS
from tlee.params import DatasetParams

# --- common to all -------------------------------------------------------------------------------


def test_every_data_set_of_the_parameters_has_a_reader():
    assert set(READERS) == set(DatasetParams.model_fields["name"].annotation.__args__)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ucf101", "trainlist01.txt"),
        ("hmdb51", "<class>_test_split1.txt"),
        ("jhmdb", "<class>_test_split1.txt"),
        ("something_v2", "something-something-v2-labels.json"),
        ("mini_kinetics", "mini_train_videofolder.txt"),
        ("activitynet", "activity_net.v1-3.min.json"),
        ("hvu", "HVU_Train_V1.0.csv"),
    ],
)
def test_missing_annotation_files_are_named_with_their_folders(tmp_path, name, file):
    refusal(name, tmp_path, file, tmp_path / "annotations", "dataset.root")


@pytest.mark.parametrize(
    ("name", "splits"), [("ucf101", 3), ("hmdb51", 3), ("jhmdb", 3), ("something_v2", 1), ("hvu", 1)]
)
def test_a_split_that_does_not_exist_is_refused(tmp_path, name, splits):
    refusal(name, tmp_path, f"dataset.split is {splits + 1}", f"{name} has {splits} split", split=splits + 1)


def anet_lists(train: str, test: str, **more: str) -> dict[str, str]:
    return {"annotations/anet_train_video.txt": train, "annotations/anet_val_video_multi_label.txt": test, **more}


def test_a_class_without_training_videos_is_named(tmp_path):
    lay_out(tmp_path, anet_lists("v_a 9 0\nv_b 9 0\n", "v_c 9 0\nv_d 9 0 1\n", **{"annotations/classes.txt": "X\nY\n"}))
    refusal("activitynet", tmp_path, "class `Y` of activitynet", "no training videos")


def test_a_video_that_is_listed_twice_is_named(tmp_path):
    lay_out(tmp_path, anet_lists("v_a 9 0\nv_b 9 0\n", "v_a 9 0\n"))
    refusal("activitynet", tmp_path, "`v_a` 2 times", "(train, test)")


def test_an_empty_list_is_refused(tmp_path):
    refusal("activitynet", lay_out(tmp_path, anet_lists("v_a 9 0\n", "")), "activitynet has no test videos")


# --- ucf101 as lists of frame folders --------------------------------------------------------------

FRAME_TRAIN = (
    "Walk/v_Walk_g03_c01 120 0\nWalk/v_Walk_g04_c01 99 0\nBend/v_Bend_g03_c01 80 1\nBend/v_Bend_g04_c01 81 1\n"
)
FRAME_TEST = "Walk/v_Walk_g01_c01 120 0\nBend/v_Bend_g01_c01 44 1\n"


@pytest.mark.parametrize("pattern", ["ucf101_rgb_{}_split_1.txt", "annotations/ucf101_{}_split_1_rawframes.txt"])
def test_ucf101_from_frame_lists(tmp_path, pattern):
    (tmp_path / "frames").mkdir()
    dataset = read(
        "ucf101", lay_out(tmp_path, {pattern.format("train"): FRAME_TRAIN, pattern.format("val"): FRAME_TEST})
    )
    assert dataset.classes == ["Walk", "Bend"]
    assert dataset.videos == tmp_path / "frames"
    assert rows(dataset, "video", "labels", "split", "group")[3:5] == [
        ("Bend/v_Bend_g04_c01", [1], "train", "Bend/g04"),
        ("Walk/v_Walk_g01_c01", [0], "test", "Walk/g01"),
    ]


def ucf_lists(train: str, **more: str) -> dict[str, str]:
    return {"ucf101_rgb_train_split_1.txt": train, "ucf101_rgb_val_split_1.txt": FRAME_TEST, **more}


def test_frame_lists_take_class_names_from_class_ind(tmp_path):
    dataset = read("ucf101", lay_out(tmp_path, ucf_lists(FRAME_TRAIN, **{"classInd.txt": "1 walk\n2 bend\n"})))
    assert dataset.classes == ["walk", "bend"]  # case may differ, as in UCF101's own HandstandPushups


def test_frame_lists_that_count_from_1_are_refused(tmp_path):
    train = FRAME_TRAIN.replace(" 1\n", " 2\n").replace(" 0\n", " 1\n")
    lay_out(tmp_path, ucf_lists(train, **{"classInd.txt": "1 Walk\n2 Bend\n"}))
    refusal("ucf101", tmp_path, "ucf101_rgb_train_split_1.txt line 1", "`Walk` has label 1", "`Bend` (from 0)")


def test_lists_without_class_0_are_refused(tmp_path):
    lay_out(tmp_path, anet_lists("v_a 9 1\nv_b 9 1\n", "v_c 9 1\n"))
    refusal("activitynet", tmp_path, "anet_train_video.txt", "label 0", "number the classes from 0")


@pytest.mark.parametrize("line", ["v_a 9", "v_a", "v_a nine 0", "v_a 9 zero"])
def test_a_malformed_line_of_a_list_is_named(tmp_path, line):
    lay_out(tmp_path, anet_lists(f"v_b 9 0\n{line}\n", "v_c 9 0\n"))
    refusal("activitynet", tmp_path, "anet_train_video.txt line 2", f"`{line}`")


# --- hmdb51 --------------------------------------------------------------------------------------

HMDB51 = {
    "testTrainMulti_7030_splits/brush_hair_test_split1.txt": (
        "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \n"
        "April_09_brush_hair_u_nm_np1_ba_goo_1.avi 1 \n"
        "my_brush_hair_film_brush_hair_h_nm_np1_le_med_0.avi 1 \n"
        "Brushing_brush_hair_f_nm_np2_ba_goo_2.avi 2 \n"
        "Unused_brush_hair_f_nm_np2_ba_goo_2.avi 0 \n"
    ),
    "testTrainMulti_7030_splits/brush_test_split1.txt": (
        "April_09_brush_f_cm_np1_ba_bad_0.avi 1 \n"
        "(x)_#2_brush_f_cm_np1_ba_bad_0.avi 1 \n"
        "More_brush_f_cm_np1_ba_bad_3.avi 2 \n"
    ),
}


def test_hmdb51_has_train_and_test_videos_and_omits_the_unused(tmp_path):
    dataset = read("hmdb51", lay_out(tmp_path, HMDB51))
    assert dataset.classes == ["brush", "brush_hair"]
    assert rows(dataset, "video", "labels", "split")[:4] == [
        ("brush/April_09_brush_f_cm_np1_ba_bad_0.avi", [0], "train"),
        ("brush/(x)_#2_brush_f_cm_np1_ba_bad_0.avi", [0], "train"),
        ("brush/More_brush_f_cm_np1_ba_bad_3.avi", [0], "test"),
        ("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi", [1], "train"),
    ]
    assert len(dataset.manifest) == 7


def test_a_source_video_of_hmdb51_is_a_group_across_classes(tmp_path):
    groups = dict(rows(read("hmdb51", lay_out(tmp_path, HMDB51)), "video", "group"))
    assert groups["brush/April_09_brush_f_cm_np1_ba_bad_0.avi"] == "April_09"
    assert groups["brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_1.avi"] == "April_09"
    assert groups["brush_hair/my_brush_hair_film_brush_hair_h_nm_np1_le_med_0.avi"] == "my_brush_hair_film"


@pytest.mark.parametrize("line", ["April_brush_u_0.avi 3", "April_brush_u_0.avi", "April_wave_u_0.avi 1"])
def test_a_malformed_line_of_hmdb51_is_named(tmp_path, line):
    lay_out(tmp_path, {"brush_test_split2.txt": f"A_brush_u_0.avi 1\n\n{line}\n"})
    where = f"{tmp_path / 'brush_test_split2.txt'} line 3"
    refusal("hmdb51", tmp_path, where, f"`{line}`", "`brush` and 0, 1 or 2", split=2)


# --- jhmdb ---------------------------------------------------------------------------------------

JHMDB = {
    "splits/run_test_split2.txt": (
        "IamLegend_run_f_cm_np1_ba_med_0.avi 1\n"
        "IamLegend_run_f_cm_np1_ba_med_4.avi 1\n"
        "Juno_run_f_cm_np1_le_med_2.avi 1\n"
        "RATRACE_run_f_nm_np1_ri_bad_1.avi 2\n"
    ),
    "splits/shoot_ball_test_split2.txt": (
        "PlayingBasketball_shoot_ball_u_nm_np1_ba_goo_0.avi 1\n"
        "IamLegend_shoot_ball_u_nm_np1_fr_med_0.avi 1\n"
        "Juno_shoot_ball_f_nm_np1_ba_med_3.avi 2\n"
    ),
    "splits/run_test_split1.txt": "Another_split_run_f_cm_np1_ba_med_0.avi 1\n",
}


def test_jhmdb_has_every_clip_of_the_chosen_split_in_train_or_test(tmp_path):
    dataset = read("jhmdb", lay_out(tmp_path, JHMDB | {"ReCompress_Videos/run/.keep": ""}), split=2)
    assert dataset.videos == tmp_path / "ReCompress_Videos"
    assert dataset.classes == ["run", "shoot_ball"]
    assert rows(dataset, "video", "labels", "split", "group") == [
        ("run/IamLegend_run_f_cm_np1_ba_med_0.avi", [0], "train", "IamLegend"),
        ("run/IamLegend_run_f_cm_np1_ba_med_4.avi", [0], "train", "IamLegend"),
        ("run/Juno_run_f_cm_np1_le_med_2.avi", [0], "train", "Juno"),
        ("run/RATRACE_run_f_nm_np1_ri_bad_1.avi", [0], "test", "RATRACE"),
        ("shoot_ball/PlayingBasketball_shoot_ball_u_nm_np1_ba_goo_0.avi", [1], "train", "PlayingBasketball"),
        ("shoot_ball/IamLegend_shoot_ball_u_nm_np1_fr_med_0.avi", [1], "train", "IamLegend"),
        ("shoot_ball/Juno_shoot_ball_f_nm_np1_ba_med_3.avi", [1], "test", "Juno"),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_val_of_jhmdb_shares_no_source_with_train(tmp_path, seed):
    manifest = read("jhmdb", lay_out(tmp_path, JHMDB), split=2, seed=seed).manifest
    split_of = manifest[manifest["split"] != "test"].groupby("group")["split"].unique()
    assert split_of.str.len().eq(1).all()
    assert set(split_of.str[0]) == {"train", "val"}


@pytest.mark.parametrize(("folder", "videos"), [("splits", "ReCompress_Videos"), ("annotations", "videos"), (".", ".")])
def test_the_files_of_jhmdb_are_in_their_customary_or_the_common_folders(tmp_path, folder, videos):
    files = {name.replace("splits", folder): text for name, text in JHMDB.items()}
    (tmp_path / videos).mkdir(exist_ok=True)
    dataset = read("jhmdb", lay_out(tmp_path, files), split=2)
    assert len(dataset.manifest) == 7
    assert dataset.videos == tmp_path / videos


def test_a_split_of_jhmdb_without_files_is_named_with_all_folders(tmp_path):
    places = [tmp_path / folder for folder in ("splits", "annotations", ".")]
    refusal("jhmdb", lay_out(tmp_path, JHMDB), "<class>_test_split3.txt", *places, "dataset.split", split=3)


@pytest.mark.parametrize(
    "line", ["A_run_f_0.avi 0", "A_run_f_0.avi 3", "A_run_f_0.avi", "A_run_f_0.avi train", "A_walk_f_0.avi 1", "1"]
)
def test_a_malformed_line_of_jhmdb_is_named(tmp_path, line):
    lay_out(tmp_path, {"splits/run_test_split1.txt": f"A_run_f_1.avi 1\n\n{line}\n"})
    refusal("jhmdb", tmp_path, f"{tmp_path / 'splits/run_test_split1.txt'} line 3", f"`{line}`", "`run` and 1 or 2")


def test_a_class_of_jhmdb_with_test_clips_alone_is_named(tmp_path):
    lay_out(tmp_path, JHMDB | {"splits/wave_test_split2.txt": "Juno_wave_f_nm_np1_ba_med_3.avi 2\n"})
    refusal("jhmdb", tmp_path, "class `wave` of jhmdb", "no training videos", split=2)


# --- something_v2 --------------------------------------------------------------------------------

LABELS = {"Closing something": "0", "Putting something onto something": "1"}


def something(*videos: tuple[str, str]) -> str:
    return json.dumps([{"id": number, "label": "x", "template": template} for number, template in videos])


TRAINED = something(
    ("1", "Closing [something]"),
    ("2", "Closing [something]"),
    ("3", "Putting [something] onto [something]"),
    ("4", "Putting [something] onto [something]"),
)


@pytest.mark.parametrize("pattern", ["annotations/something-something-v2-{}.json", "labels/{}.json"])
def test_something_v2_from_json(tmp_path, pattern):
    files = {"labels": json.dumps(LABELS), "train": TRAINED, "validation": something(("9", "Closing [something]"))}
    lay_out(tmp_path, {pattern.format(name): text for name, text in files.items()})
    lay_out(tmp_path, {"20bn-something-something-v2/2.mp4": "", "20bn-something-something-v2/3/1.jpg": ""})
    dataset = read("something_v2", tmp_path)
    assert dataset.classes == list(LABELS)
    assert dataset.videos == tmp_path / "20bn-something-something-v2"
    assert rows(dataset, "video", "labels", "split", "group") == [
        ("1.webm", [0], "train", "1"),  # missing: its official name
        ("2.mp4", [0], "train", "2"),
        ("3", [1], "train", "3"),
        ("4.webm", [1], "train", "4"),
        ("9.webm", [0], "test", "9"),
    ]


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (something(("1", "Opening [something]")), ("train.json", "`Opening something`", "video 1", "labels.json")),
        ('[{"id": "1"}]', ("train.json", "`id` and `template`", "KeyError: 'template'", "download it again")),
        ("[", ("train.json line 1", "not valid JSON", "download it again")),
    ],
)
def test_a_malformed_json_of_something_v2_is_named(tmp_path, train, expected):
    lay_out(tmp_path, {"labels.json": json.dumps(LABELS), "train.json": train, "validation.json": "[]"})
    refusal("something_v2", tmp_path, *expected)


def test_something_v2_from_frame_lists(tmp_path):
    lists = {"train_videofolder.txt": "train/1 30 0\ntrain/2 31 0\n", "val_videofolder.txt": "val/9 32 0\n"}
    dataset = read("something_v2", lay_out(tmp_path, lists))
    assert dataset.classes == ["0"]
    assert rows(dataset, "video", "split", "group")[1:] == [("train/2", "train", "2"), ("val/9", "test", "9")]
    lay_out(tmp_path, {"something-something-v2-labels.json": json.dumps(LABELS)})
    assert read("something_v2", tmp_path).classes == list(LABELS)


# --- mini_kinetics -------------------------------------------------------------------------------


def test_mini_kinetics_by_paths_takes_class_names_from_folders(tmp_path):
    train = "".join(f"images/train/air drumming/-a_{n}_00000000_000001_000011 60 0\n" for n in range(2))
    test = "images/val/air drumming/7LSJ2Ryv1a8_000000_000010 60 0\n"
    lists = {"annotations/mini_train_videofolder.txt": train, "annotations/mini_val_videofolder.txt": test}
    dataset = read("mini_kinetics", lay_out(tmp_path, lists))
    assert dataset.classes == ["air drumming"]
    assert dataset.videos / "images" == tmp_path / "images"
    assert rows(dataset, "video", "group")[0] == (train.split(" 60")[0], "-a_0_00000000")
    assert rows(dataset, "group", "split")[2] == ("7LSJ2Ryv1a8", "test")
    lay_out(tmp_path, {"annotations/minik_classInd.txt": "applauding\nair drumming\n"})
    refusal("mini_kinetics", tmp_path, "`air drumming` has label 0", "`applauding`")


def test_mini_kinetics_by_ids_takes_class_names_from_the_class_file(tmp_path):
    lists = {"mini_kinetics_train.txt": "-a 9 0\nb 9 0\nc 9 1\nd 9 1\n", "mini_kinetics_val.txt": "e 9 1\n"}
    lay_out(tmp_path, lists)
    assert read("mini_kinetics", tmp_path).classes == ["0", "1"]
    lay_out(tmp_path, {"minik_classInd.txt": "air drumming\napplauding\n"})
    dataset = read("mini_kinetics", tmp_path)
    assert dataset.classes == ["air drumming", "applauding"]
    assert rows(dataset, "video", "labels", "group")[2] == ("c", [1], "c")
    lay_out(tmp_path, {"minik_classInd.txt": "air drumming\n"})
    refusal("mini_kinetics", tmp_path, "mini_kinetics_train.txt line 3", "no class 1")


HEAD = "label,youtube_id,time_start,time_end,split,is_cc\n"
KINETICS = {
    "annotations/kinetics-400_train.csv": HEAD
    + "applauding,-trimmed001,1,11,train,0\napplauding,untrimmed02,2,12,train,0\n"
    + "juggling,not_of_ours,3,13,train,0\napplauding,missing0003,100,110,train,1\n",
    "annotations/kinetics-400_val.csv": HEAD + "applauding,both0000004,7,17,val,0\n",
    "annotations/minik_classInd.txt": "applauding\n",
    "videos/train/applauding/-trimmed001_000001_000011.mp4": "",
    "videos/untrimmed02.mkv": "",
    "videos/both0000004.mp4": "",
    "videos/both0000004_000007_000017.webm": "",
    "videos/missing0003.part": "",
}


def test_mini_kinetics_from_csv_finds_the_existing_files(tmp_path):
    manifest = read("mini_kinetics", lay_out(tmp_path, KINETICS)).manifest
    assert manifest["video"].tolist() == [
        "train/applauding/-trimmed001_000001_000011.mp4",
        "untrimmed02.mkv",
        "missing0003_000100_000110.mp4",
        "both0000004_000007_000017.webm",
    ]
    assert manifest["group"].tolist() == ["-trimmed001", "untrimmed02", "missing0003", "both0000004"]
    assert manifest["start"].dropna().to_dict() == {1: 2.0}
    assert manifest["end"].dropna().to_dict() == {1: 12.0}


def test_a_class_file_with_other_classes_than_kinetics_is_refused(tmp_path):
    lay_out(tmp_path, KINETICS | {"annotations/minik_classInd.txt": "applauding\nApplause\n"})
    refusal("mini_kinetics", tmp_path, "kinetics-400_train.csv", "`Applause`", "minik_classInd.txt")


@pytest.mark.parametrize(
    ("table", "problem"),
    [("label,id\n", "no column youtube_id"), (HEAD + "applauding,a,soon,2,train,0\n", "time_start is `soon`")],
)
def test_a_malformed_table_is_named(tmp_path, table, problem):
    lay_out(tmp_path, KINETICS | {"annotations/kinetics-400_train.csv": table})
    refusal("mini_kinetics", tmp_path, "kinetics-400_train.csv", problem)


# --- activitynet ---------------------------------------------------------------------------------


def activitynet(**videos: tuple[str, list[str]]) -> str:
    database = {
        name: {"subset": subset, "annotations": [{"segment": [0, 1], "label": label} for label in labels]}
        for name, (subset, labels) in videos.items()
    }
    return json.dumps({"database": database, "version": "VERSION 1.3"})


def test_activitynet_from_json(tmp_path):
    file = activitynet(
        a=("training", ["Ballet"] * 2),
        b=("training", ["Ballet", "BMX", "Ballet"]),
        c=("training", ["BMX"]),
        d=("validation", ["BMX"]),
        e=("testing", []),
    )
    lay_out(tmp_path, {"activity_net.v1-3.min.json": file, "videos/v1-3/train_val/v_a.mkv": "", "videos/v_c/1.jpg": ""})
    dataset = read("activitynet", tmp_path, labels="multi")
    assert dataset.classes == ["BMX", "Ballet"]
    assert rows(dataset, "video", "labels", "split", "group") == [
        ("v1-3/train_val/v_a.mkv", [1], "train", "a"),
        ("v_b.mp4", [1, 0], "train", "b"),
        ("v_c", [0], "train", "c"),
        ("v_d.mp4", [0], "test", "d"),
    ]


def test_another_json_is_refused(tmp_path):
    lay_out(tmp_path, {"activity_net.v1-3.min.json": '{"v_a": {"annotations": []}}'})
    refusal("activitynet", tmp_path, "activity_net.v1-3.min.json", "`database`", "download it again")


def test_activitynet_from_lists_keeps_class_numbers_and_all_labels(tmp_path):
    lay_out(tmp_path, anet_lists("v_a 511 1\nv_-b 9 1\nv_c 9 0\nv_d 9 0\n", "v_e 9 1 0\n"))
    dataset = read("activitynet", tmp_path)
    assert dataset.classes == ["0", "1"]
    assert rows(dataset, "video", "labels", "group")[-1] == ("v_e", [1, 0], "e")
    lay_out(tmp_path, {"annotations/classes.txt": "BMX\nBallet\n"})
    assert read("activitynet", tmp_path).classes == ["BMX", "Ballet"]


# --- hvu -----------------------------------------------------------------------------------------

TIMES = "Tags,youtube_id,time_start,time_end\n"
HVU = {
    "annotations/HVU_Tags_Categories_V1.0.csv": "Tag,Category\nrun,action\nsky,scene\nball,object\n",
    "annotations/HVU_Train_V1.0.csv": TIMES + "ball|run,a0,101.5,103.5\nrun|sky,b0,2,12\nrun,a0,5,7\nrun,d0,1,3\n",
    "annotations/HVU_Val_V1.0.csv": TIMES + "sky|run|sky,c0,0.5,10.5\n",
}


def test_hvu_has_all_tags_as_classes(tmp_path):
    dataset = read(
        "hvu", lay_out(tmp_path, HVU | {"videos/a0_000101_000103.mp4": "", "videos/c0.mp4": ""}), labels="multi"
    )
    assert dataset.classes == ["run", "sky", "ball"]
    assert rows(dataset, "video", "labels", "split", "group") == [
        ("a0_000101_000103.mp4", [2, 0], "train", "a0"),
        ("b0_000002_000012.mp4", [0, 1], "train", "b0"),
        ("a0_000005_000007.mp4", [0], "train", "a0"),
        ("d0_000001_000003.mp4", [0], "train", "d0"),
        ("c0.mp4", [1, 0], "test", "c0"),
    ]
    assert dataset.manifest.loc[4, ["start", "end"]].tolist() == [0.5, 10.5]


def test_an_unknown_tag_is_named(tmp_path):
    lay_out(tmp_path, HVU | {"annotations/HVU_Val_V1.0.csv": TIMES + "moon,c0,0,1\n"})
    refusal("hvu", tmp_path, "HVU_Val_V1.0.csv row 1", "`moon`", "HVU_Tags_Categories_V1.0.csv")
