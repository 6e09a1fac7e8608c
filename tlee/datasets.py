"""Annotation files of the benchmarks, read into one manifest.

The manifest is a table with one row a video:

=========  ==================================================================================
``video``  path of the file below the data set's video folder
``labels`` list of class indices
``split``  ``train``, ``val`` or ``test``; ``val`` is cut from the groups of the training list
``group``  clips that share people and place, never found on both sides of a split
=========  ==================================================================================
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tlee.errors import UserError
from tlee.params import DatasetParams


@dataclass(frozen=True)
class Dataset:
    """What an annotation reader returns: where the videos are, the class names, the manifest."""

    videos: Path
    classes: list[str]
    manifest: pd.DataFrame

    def count_videos(self) -> pd.DataFrame:
        """How many videos each class has in each split: columns ``split``, ``class``, ``videos``."""
        names = self.manifest["labels"].str[0].map(dict(enumerate(self.classes))).rename("class")
        return self.manifest.groupby(["split", names]).size().rename("videos").reset_index()


def read_dataset(params: DatasetParams, seed: int) -> Dataset:
    """Read the data set that ``params`` names; ``seed`` decides which training groups become ``val``.

    Raises ``UserError`` where an annotation file is missing or contradicts itself.
    """
    return {"ucf101": read_ucf101}[params.name](Path(params.root), params.split, params.val_share, seed)


def read_ucf101(root: Path, split: int, val_share: float, seed: int) -> Dataset:
    """UCF101 as its authors pack it: ``UCF-101/<class>/v_<class>_gGG_cCC.avi`` and three list files.

    Source: https://www.crcv.ucf.edu/data/UCF101.php, archives UCF101.rar and
    UCF101TrainTestSplits-RecognitionTask.zip.
    """
    lists = root / "ucfTrainTestlist"
    class_file = lists / "classInd.txt"
    names = dict(line.split(maxsplit=1) for line in _lines(class_file))
    if sorted(names, key=int) != [str(1 + index) for index in range(len(names))]:
        raise UserError(f"{class_file} must number its classes from 1 without gaps")
    classes = [names[str(1 + index)] for index in range(len(names))]
    rows = []
    for side in ("train", "test"):
        file = lists / f"{side}list{split:02d}.txt"
        for number, line in enumerate(_lines(file), start=1):
            video, *label = line.split()
            name = video.split("/")[0]
            where = f"{file} line {number}"
            if name not in classes:
                raise UserError(f"{where}: class `{name}` is not in {class_file.name}; correct either file")
            if label and label != [str(1 + classes.index(name))]:
                raise UserError(f"{where}: label {label[0]} is not the number of `{name}` in {class_file.name}")
            group = re.search(r"_(g\d+)_c\d+\.", video)
            if not group:
                raise UserError(f"{where}: `{video}` has no group (_gNN_cNN) in its name")
            rows.append((video, [classes.index(name)], side, f"{name}/{group[1]}"))
    manifest = pd.DataFrame(rows, columns=["video", "labels", "split", "group"])
    return Dataset(root / "UCF-101", classes, cut_val(manifest, val_share, seed))


def cut_val(manifest: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Move about ``share`` of the training groups of every class, at least one, from ``train`` to ``val``."""
    train = manifest[manifest["split"] == "train"]
    generator = np.random.default_rng(seed)
    chosen: list[str] = []
    for _, groups in train.groupby(train["labels"].str[0])["group"]:
        names = sorted(groups.unique())
        count = max(1, round(share * len(names)))
        chosen += generator.permutation(names)[:count].tolist()
    cut = manifest.copy()
    cut.loc[(cut["split"] == "train") & cut["group"].isin(chosen), "split"] = "val"
    return cut


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"{file} does not exist: `dvc pull` brings the demo's, `dataset.root` names yours") from None
