"""Helpers for tests of data sets: reading one by its parameters, annotation files, tiny data sets."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from support.clips import encode
from support.refusals import one_line

from tlee.datasets import Dataset, read_dataset
from tlee.params import DatasetParams

#: Official annotation files, in a folder next to the project on some machines.
OFFICIAL = next(
    (folder for folder in (place / "shared/annotations" for place in Path(__file__).parents) if folder.is_dir()),
    Path("absent"),
)


def read(name: str, root: Path, *, seed: int = 0, **params) -> Dataset:
    """Read the data set ``name`` below ``root``, by default with half of the training groups in ``val``."""
    defaults = {"split": 1, "folds": 2, "group": None, "val_share": 0.5, "labels": "single"}
    return read_dataset(DatasetParams(name=name, root=str(root), **(defaults | params)), seed)


def refusal(name: str, root: Path, *expected: object, **params) -> str:
    """Return the error line of reading the data set, which must contain ``expected``."""
    return one_line(lambda: read(name, root, **params), *expected)


def lay_out(root: Path, files: dict[str, str]) -> Path:
    """Write ``files``, text by path, below ``root``."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def rows(dataset: Dataset, *columns: str) -> list[tuple]:
    """Return columns of the manifest, with ``val`` merged into ``train``."""
    manifest = dataset.manifest.assign(split=dataset.manifest["split"].replace("val", "train"))
    return list(manifest[list(columns)].itertuples(index=False, name=None))


# --- tiny data sets in their own layouts: two classes, each with three training videos and a test video --


class TinyVideo(NamedTuple):
    """Video of a tiny data set, named by its class and a number."""

    label: str
    number: str
    split: str

    @property
    def id(self) -> str:
        """Identifier of eleven characters, like YouTube's."""
        return f"{self.label:_<9}{self.number}"


TINY_CLASSES = ("jump", "run")
TINY_VIDEOS = [
    TinyVideo(label, f"{number:02d}", "test" if number == 4 else "train")
    for label in TINY_CLASSES
    for number in (1, 2, 3, 4)
]

Files = dict[str, str]


def _listed(line: Callable[[TinyVideo], str], split: str) -> str:
    return "".join(f"{line(video)}\n" for video in TINY_VIDEOS if video.split == split)


def _ucf101() -> tuple[Files, list[str]]:
    def path(video: TinyVideo) -> str:
        return f"{video.label}/v_{video.label}_g{video.number}_c01.avi"

    lists = {f"ucfTrainTestlist/{split}list01.txt": _listed(path, split) for split in ("train", "test")}
    lists["ucfTrainTestlist/classInd.txt"] = "1 jump\n2 run\n"
    return lists, [f"UCF-101/{path(video)}" for video in TINY_VIDEOS]


def _class_lists(annotations: str, videos: str) -> tuple[Files, list[str]]:
    lists, paths = dict.fromkeys(TINY_CLASSES, ""), []
    for video in TINY_VIDEOS:
        name = f"{video.id}_{video.label}_f_cm_np1_ba_bad_0.avi"
        lists[video.label] += f"{name} {2 if video.split == 'test' else 1} \n"
        paths.append(f"{videos}/{video.label}/{name}")
    return {f"{annotations}/{label}_test_split1.txt": text for label, text in lists.items()}, paths


def _something_v2() -> tuple[Files, list[str]]:
    parts = {"labels": {"jump": "0", "run": "1"}, "train": [], "validation": []}
    for video in TINY_VIDEOS:
        part = parts["validation" if video.split == "test" else "train"]
        part.append({"id": video.id, "template": f"[{video.label}]"})
    files = {f"annotations/something-something-v2-{part}.json": json.dumps(value) for part, value in parts.items()}
    return files, [f"20bn-something-something-v2/{video.id}.mp4" for video in TINY_VIDEOS]


def _mini_kinetics() -> tuple[Files, list[str]]:
    head = "label,youtube_id,time_start,time_end,split,is_cc\n"
    files = {
        f"annotations/kinetics-400_{name}.csv": head
        + _listed(lambda video: f"{video.label},{video.id},1,11,{video.split},0", split)
        for name, split in (("train", "train"), ("val", "test"))
    }
    files["annotations/minik_classInd.txt"] = "jump\nrun\n"
    return files, [f"videos/{video.label}/{video.id}_000001_000011.mp4" for video in TINY_VIDEOS]


def _activitynet() -> tuple[Files, list[str]]:
    database = {
        video.id: {
            "subset": "validation" if video.split == "test" else "training",
            "annotations": [{"segment": [0, 1], "label": video.label}],
        }
        for video in TINY_VIDEOS
    }
    database[TINY_VIDEOS[-1].id]["annotations"].append({"segment": [1, 2], "label": "jump"})  # a second class
    files = {"annotations/activity_net.v1-3.min.json": json.dumps({"database": database})}
    return files, [f"videos/v_{video.id}.mp4" for video in TINY_VIDEOS]


def _hvu() -> tuple[Files, list[str]]:
    head = "Tags,youtube_id,time_start,time_end\n"
    files = {
        f"annotations/HVU_{name}_V1.0.csv": head + _listed(lambda video: f"{video.label}|sky,{video.id},0.5,1.5", split)
        for name, split in (("Train", "train"), ("Val", "test"))
    }
    files["annotations/HVU_Tags_Categories_V1.0.csv"] = "Tag,Category\njump,action\nrun,action\nsky,scene\n"
    return files, [f"videos/{video.id}.mp4" for video in TINY_VIDEOS]  # untrimmed videos, of which one second is listed


def _folder() -> tuple[Files, list[str]]:
    return {}, [f"{video.label}/{video.id}.mp4" for video in TINY_VIDEOS]


TINY: dict[str, Callable[[], tuple[Files, list[str]]]] = {
    "ucf101": _ucf101,
    "hmdb51": partial(_class_lists, "testTrainMulti_7030_splits", "hmdb51_org"),
    "jhmdb": partial(_class_lists, "splits", "ReCompress_Videos"),
    "something_v2": _something_v2,
    "mini_kinetics": _mini_kinetics,
    "activitynet": _activitynet,
    "hvu": _hvu,
    "folder": _folder,
}


def make_tiny(name: str, root: Path) -> Path:
    """Write a tiny version of the data set ``name``: annotation files in its formats, and videos of two seconds."""
    files, videos = TINY[name]()
    for path in videos:
        encode(root / path)
    return lay_out(root, files)
