"""The one table that every reader of annotation files makes, and what must hold in it."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tlee.errors import UserError


class Video(NamedTuple):
    """One row of a manifest; ``start`` and ``end`` in seconds, NaN where the whole file is meant."""

    video: str
    labels: list[int]
    split: str
    group: str
    start: float = nan
    end: float = nan


@dataclass(frozen=True)
class Dataset:
    """What an annotation reader returns: where the videos are, the class names, the manifest."""

    videos: Path
    classes: list[str]
    manifest: pd.DataFrame

    def count_videos(self) -> pd.DataFrame:
        """How many videos each class has in each split: columns ``split``, ``class``, ``videos``.

        A video with several labels counts for its first.
        """
        names = self.manifest["labels"].str[0].map(dict(enumerate(self.classes))).rename("class")
        return self.manifest.groupby(["split", names]).size().rename("videos").reset_index()


def make_manifest(videos: Iterable[Video]) -> pd.DataFrame:
    """The table of ``videos`` in their order."""
    manifest = pd.DataFrame(videos, columns=list(Video._fields))
    return manifest.astype({"start": float, "end": float})


def check(dataset: Dataset, name: str) -> None:
    """Raise ``UserError`` where the annotations of data set ``name`` cannot be trained on and tested fairly.

    That is: no training or no test videos, a class that stands twice, a video that is listed twice, a class
    that is tested but never trained.
    """
    manifest, classes = dataset.manifest, dataset.classes
    for split in ("train", "test"):
        if split not in set(manifest["split"]):
            raise UserError(f"{name} has no {split} videos: its annotation files list none")
    twice = pd.Series(classes)[pd.Series(classes).duplicated()]
    if len(twice):
        raise UserError(f"{name} has two classes named `{twice.iloc[0]}`: correct its class file")
    twice = manifest[manifest.duplicated(["video", "start", "end"])]
    if len(twice):
        video = twice.iloc[0]["video"]
        splits = manifest.loc[manifest["video"] == video, "split"]
        raise UserError(f"{name} lists `{video}` {len(splits)} times ({', '.join(splits)}): keep one of them")
    labels = manifest.set_index("split")["labels"].explode()
    untrained = sorted(set(labels.loc[["test"]]) - set(labels.loc[["train"]]))
    if untrained:
        raise UserError(
            f"class `{classes[untrained[0]]}` of {name} has test videos but none to train on"
            f"{f', nor have {len(untrained) - 1} others' if untrained[1:] else ''}: correct its annotation files"
        )
