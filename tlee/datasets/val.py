"""The cut of ``val`` from the training groups of a manifest."""

import numpy as np
import pandas as pd

from tlee.errors import UserError


def cut_val(manifest: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Move about ``share`` of the training videos from ``train`` to ``val``, whole groups at a time.

    Where each group belongs to one class, ``share`` of the groups of every class move: at least one, not all.
    Where groups span classes, groups are drawn so that the videos of each class come close to ``share``; no class
    leaves ``train``, and every class enters ``val`` if that is possible without. A video with several labels counts
    for its first. The test videos, the order and the index stay.

    Raises ``UserError`` where ``val`` cannot be cut: the groups of a class with single labels are one, or no group
    can move. In data with several labels a video, a class that comes first in one group alone stays in ``train``.
    """
    train = manifest[manifest["split"] == "train"]
    labels = train["labels"].str[0]
    generator = np.random.default_rng(seed)
    if labels.groupby(train["group"]).nunique().eq(1).all():
        chosen = _draw_within_classes(train["group"], labels, share, generator, train["labels"].str.len().max() > 1)
    else:
        chosen = _draw_across_classes(train["group"], labels, share, generator)
    if not chosen:
        raise UserError("no training group can move to `val` without taking a class out of `train`: add groups")
    cut = manifest.copy()
    cut.loc[(cut["split"] == "train") & cut["group"].isin(chosen), "split"] = "val"
    return cut


def _draw_within_classes(
    groups: pd.Series, labels: pd.Series, share: float, generator: np.random.Generator, may_skip: bool
) -> list[str]:
    chosen: list[str] = []
    for _, members in groups.groupby(labels):
        names = sorted(members.unique())
        if len(names) < 2 and not may_skip:
            raise UserError(f"{names[0]} is the only training group of its class: add one, `val` needs it")
        count = min(max(1, round(share * len(names))), len(names) - 1)
        chosen += generator.permutation(names)[:count].tolist()
    return chosen


def _draw_across_classes(
    groups: pd.Series, labels: pd.Series, share: float, generator: np.random.Generator
) -> list[str]:
    """First the groups that bring the classes nearer to their share, then those of classes that are still missing."""
    names, group_codes = np.unique(groups, return_inverse=True)
    classes, label_codes = np.unique(labels, return_inverse=True)
    pairs, videos = np.unique(np.stack([group_codes, label_codes]), axis=1, return_counts=True)
    starts = np.flatnonzero(np.diff(pairs[0])) + 1
    held = list(zip(np.split(pairs[1], starts), np.split(videos, starts), strict=True))  # by group: classes, videos
    total = np.bincount(label_codes)
    wanted = share * total
    taken = np.zeros(len(classes))
    chosen: dict[int, None] = {}

    def can_move(group: int) -> bool:
        held_classes, count = held[group]
        return group not in chosen and bool((taken[held_classes] + count < total[held_classes]).all())

    def added_distance(group: int) -> float:
        held_classes, count = held[group]
        lacking = wanted[held_classes] - taken[held_classes]
        return float((((lacking - count) ** 2 - lacking**2) / total[held_classes]).sum())

    def move(group: int) -> None:
        chosen[group] = None
        taken[held[group][0]] += held[group][1]

    for group in generator.permutation(len(names)):
        if can_move(group) and added_distance(group) < 0:
            move(group)
    for label in np.flatnonzero(taken == 0):
        movable = [group for group in pairs[0, pairs[1] == label] if can_move(group)]
        if not taken[label] and movable:
            move(min(movable, key=added_distance))
    return names[list(chosen)].tolist()
