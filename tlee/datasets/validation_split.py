"""Validation split: whole groups moved from ``train`` to ``val``."""

import numpy as np
import pandas as pd

from tlee.errors import UserError


def split_off_val(manifest: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Move about ``share`` of the training videos from ``train`` to ``val``, whole groups at a time.

    If each group belongs to one class, ``share`` of the groups of every class move: at least one, not all.
    If groups span classes, groups are drawn so that the videos of each class come close to ``share``; no class
    leaves ``train``, and every class enters ``val`` if possible. A video with several labels is counted under its
    first. The test videos, the order and the index stay unchanged.

    Raises ``UserError`` if ``val`` cannot be split off: a class of single-label videos has only one group, or no group
    can move. In multi-label data, a class that is the first label in only one group stays in ``train``.
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
    result = manifest.copy()
    result.loc[(result["split"] == "train") & result["group"].isin(chosen), "split"] = "val"
    return result


def _draw_within_classes(
    groups: pd.Series, labels: pd.Series, share: float, generator: np.random.Generator, may_skip: bool
) -> list[str]:
    chosen: list[str] = []
    for _, members in groups.groupby(labels):
        names = sorted(members.unique())
        if len(names) < 2 and not may_skip:
            raise UserError(f"{names[0]} is the only training group of its class: add another one for `val`")
        count = min(max(1, round(share * len(names))), len(names) - 1)
        chosen += generator.permutation(names)[:count].tolist()
    return chosen


def _draw_across_classes(
    groups: pd.Series, labels: pd.Series, share: float, generator: np.random.Generator
) -> list[str]:
    """Choose groups that bring the classes closer to their share, then groups of the classes still missing."""
    names, group_codes = np.unique(groups, return_inverse=True)
    classes, label_codes = np.unique(labels, return_inverse=True)
    pairs, videos = np.unique(np.stack([group_codes, label_codes]), axis=1, return_counts=True)
    starts = np.flatnonzero(np.diff(pairs[0])) + 1
    contents = list(zip(np.split(pairs[1], starts), np.split(videos, starts), strict=True))  # by group: classes, counts
    total = np.bincount(label_codes)
    target = share * total
    moved = np.zeros(len(classes))
    chosen: dict[int, None] = {}

    def can_move(group: int) -> bool:
        codes, counts = contents[group]
        return group not in chosen and bool((moved[codes] + counts < total[codes]).all())

    def added_distance(group: int) -> float:
        codes, counts = contents[group]
        lacking = target[codes] - moved[codes]
        return float((((lacking - counts) ** 2 - lacking**2) / total[codes]).sum())

    def move(group: int) -> None:
        chosen[group] = None
        moved[contents[group][0]] += contents[group][1]

    for group in generator.permutation(len(names)):
        if can_move(group) and added_distance(group) < 0:
            move(group)
    for label in np.flatnonzero(moved == 0):
        movable = [group for group in pairs[0, pairs[1] == label] if can_move(group)]
        if not moved[label] and movable:
            move(min(movable, key=added_distance))
    return names[list(chosen)].tolist()
