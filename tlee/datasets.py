"""Annotation files of the benchmarks, read into one manifest.

The manifest is a table with one row a video:

=========  ==================================================================================
``video``  path of the file below the data set's video folder
``labels`` list of class indices
``split``  ``train``, ``val`` or ``test``; ``val`` is cut from the groups of the training list
``group``  clips that share people and place, never found on both sides of a split
``start``  where the part that is meant begins in the file, in seconds; NaN: at its beginning
``end``    likewise where it ends
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
    names: dict[int, str] = {}
    for number, line in _lines(class_file):
        entry = re.fullmatch(r"(\d+)\s+(\S+)", line)
        if not entry or int(entry[1]) in names or entry[2] in names.values():
            raise UserError(f"{class_file} line {number}: `{line}` is not a new number and a new class name")
        names[int(entry[1])] = entry[2]
    if sorted(names) != list(range(1, 1 + len(names))):
        raise UserError(f"{class_file} must number its classes from 1 without gaps")
    classes = [names[1 + index] for index in range(len(names))]
    rows = []
    for side in ("train", "test"):
        file = lists / f"{side}list{split:02d}.txt"
        for number, line in _lines(file):
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
    manifest = pd.DataFrame(rows, columns=["video", "labels", "split", "group"]).assign(start=np.nan, end=np.nan)
    trained = {label for (label,) in manifest.loc[manifest["split"] == "train", "labels"]}
    for (label,) in manifest["labels"]:
        if label not in trained:
            raise UserError(f"{lists}: class `{classes[label]}` has test videos but none to train on")
    return Dataset(root / "UCF-101", classes, cut_val(manifest, val_share, seed))


def cut_val(manifest: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Move about ``share`` of the training groups of every class from ``train`` to ``val``: at least one, not all.

    Raises ``UserError`` if a class has a single training group.
    """
    train = manifest[manifest["split"] == "train"]
    generator = np.random.default_rng(seed)
    chosen: list[str] = []
    for _, groups in train.groupby(train["labels"].str[0])["group"]:
        names = sorted(groups.unique())
        if len(names) < 2:
            raise UserError(f"{names[0]} is the only training group of its class: add one, `val` needs it")
        count = min(max(1, round(share * len(names))), len(names) - 1)
        chosen += generator.permutation(names)[:count].tolist()
    cut = manifest.copy()
    cut.loc[(cut["split"] == "train") & cut["group"].isin(chosen), "split"] = "val"
    return cut


def _lines(file: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"{file} does not exist: correct dataset.root and dataset.split, or bring the demo by `dvc pull data.dvc`"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text (byte {error.start}): save it as such") from None
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
