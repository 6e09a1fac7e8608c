"""Your own videos: one folder per class."""

import re
from collections import Counter
from pathlib import Path

from tlee.datasets.files import VIDEO_SUFFIXES
from tlee.datasets.manifest import Dataset, Video, make_manifest
from tlee.errors import UserError
from tlee.params import DatasetParams


def read_folder(params: DatasetParams, seed: int) -> Dataset:
    """Read the videos in ``root/<class>/``, at any depth; hidden files and files other than videos are skipped.

    ``params.group`` is a regular expression: its match in the path below the root (its first capture group, if it has
    one) is the group of a video; without it every video is its own group. The groups are distributed over
    ``params.folds`` stratified folds, shuffled by ``seed``; fold ``params.split`` (from 1) is ``test``. Classes are in
    alphabetical order. Raises ``UserError`` if there are no videos, a path does not match, or there are too few groups.
    """
    if params.split > params.folds:
        raise UserError(
            f"dataset.split is {params.split}, but dataset.folds is {params.folds}: choose 1 to {params.folds}"
        )
    root = Path(params.root)
    paths = sorted(
        path
        for path in (file.relative_to(root) for file in root.glob("*/**/*") if file.is_file())
        if path.suffix.lower() in VIDEO_SUFFIXES and not any(part.startswith(".") for part in path.parts)
    )
    if not paths:
        raise UserError(f"no videos in {root}: dataset.root should contain one folder of videos per class")
    names = [path.as_posix() for path in paths]
    classes = sorted({path.parts[0] for path in paths})
    labels = [classes.index(path.parts[0]) for path in paths]
    groups = [_group(name, params.group) for name in names]
    test = _draw_fold(labels, groups, params, seed)
    videos = [
        Video(name, [label], "test" if number in test else "train", group)
        for number, (name, label, group) in enumerate(zip(names, labels, groups, strict=True))
    ]
    return Dataset(root, classes, make_manifest(videos))


def _group(name: str, pattern: str | None) -> str:
    if pattern is None:
        return name
    match = re.search(pattern, name)
    group = match and match[1 if match.re.groups else 0]
    if not group:
        raise UserError(
            f"dataset.group, `{pattern}`, matches nothing in `{name}`: it should match the group of each video"
        )
    return group


def _draw_fold(labels: list[int], groups: list[str], params: DatasetParams, seed: int) -> set[int]:
    largest = max(Counter(labels).values())
    possible = min(len(set(groups)), largest)
    if possible < params.folds:
        raise UserError(
            f"dataset.folds is {params.folds}, but {params.root} allows {possible} at most "
            f"({len(set(groups))} groups, {largest} videos of the largest class): lower it"
        )
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import, and needed for this data set alone

    folds = StratifiedGroupKFold(params.folds, shuffle=True, random_state=seed).split(labels, labels, groups)
    return set(list(folds)[params.split - 1][1].tolist())
