"""Manifest of a data set: the table that every annotation reader returns, and its consistency check."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from tlee.errors import UserError, breaks_lines


class Video(NamedTuple):
    """One row of a manifest; ``start`` and ``end`` in seconds, NaN for the whole file."""

    video: str
    labels: list[int]
    split: str
    group: str
    start: float = nan
    end: float = nan


@dataclass(frozen=True)
class Dataset:
    """Result of an annotation reader: the folder of the videos, the class names, the manifest."""

    videos: Path
    classes: list[str]
    manifest: pd.DataFrame

    def count_videos(self) -> pd.DataFrame:
        """Count the videos of each class in each split: columns ``split``, ``class``, ``videos``.

        A video with several labels is counted under its first.
        """
        names = self.manifest["labels"].str[0].map(dict(enumerate(self.classes))).rename("class")
        return self.manifest.groupby(["split", names]).size().rename("videos").reset_index()


def make_manifest(videos: Iterable[Video]) -> pd.DataFrame:
    """Return the table of ``videos`` in their order.

    Raises ``UserError`` if a name has a line break or is not text: no list or table could contain it.
    """
    rows = list(videos)
    _check_text("video", (row.video for row in rows))
    manifest = pd.DataFrame(rows, columns=list(Video._fields))
    return manifest.astype({"start": float, "end": float})


def check_dataset(dataset: Dataset, name: str) -> None:
    """Raise ``UserError`` if the annotations of data set ``name`` do not allow training and a fair test.

    Checked are: class names with line breaks, paths that leave the folder of the videos, no training or no test videos,
    duplicate classes, duplicate videos, and classes with test videos but no training videos.
    """
    manifest, classes = dataset.manifest, dataset.classes
    _check_text("class", classes)
    _check_inside(manifest["video"], name)
    for split in ("train", "test"):
        if split not in set(manifest["split"]):
            raise UserError(f"{name} has no {split} videos: its annotation files list none")
    duplicates = pd.Series(classes)[pd.Series(classes).duplicated()]
    if len(duplicates):
        raise UserError(f"{name} has two classes named `{duplicates.iloc[0]}`: correct its class file")
    duplicates = manifest[manifest.duplicated(["video", "start", "end"])]
    if len(duplicates):
        video = duplicates.iloc[0]["video"]
        splits = manifest.loc[manifest["video"] == video, "split"]
        raise UserError(f"{name} lists `{video}` {len(splits)} times ({', '.join(splits)}): keep one of them")
    labels = manifest.set_index("split")["labels"].explode()
    untrained = sorted(set(labels.loc[["test"]]) - set(labels.loc[["train"]]))
    if untrained:
        raise UserError(
            f"class `{classes[untrained[0]]}` of {name} has test videos but no training videos"
            f"{f', like {len(untrained) - 1} more' if untrained[1:] else ''}: correct its annotation files"
        )


def _check_text(kind: str, names: Iterable[str]) -> None:
    broken = next(filter(breaks_lines, names), None)
    if broken is not None:
        raise UserError(f"a {kind} is named {broken!a}, with a line break or a character that is not text: rename it")


def _check_inside(videos: Iterable[str], name: str) -> None:
    for video in videos:
        path = PurePosixPath(video)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise UserError(f"{name} lists `{video}`, which is outside the folder of its videos: correct the list")
