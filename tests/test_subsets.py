"""Subsets of videos: evenly spaced, or disjoint in their groups."""

import pytest

from tlee.subsets import folds, halves, spread

GROUPS = [f"g{row // 3}" for row in range(30)]


@pytest.mark.parametrize(
    ("videos", "at_most", "rows"),
    [(10, 3, [0, 4, 9]), (9, 9, [*range(9)]), (2, 50, [0, 1]), (256, 256, [*range(256)]), (5, 1, [0])],
)
def test_videos_are_evenly_spaced_over_the_split(videos, at_most, rows):
    assert spread(videos, at_most) == rows


def groups_of(rows) -> set[str]:
    return {GROUPS[row] for row in rows}


def test_halves_share_no_group():
    first, second = halves(GROUPS, seed=0)
    assert sorted([*first, *second]) == [*range(30)]
    assert len(groups_of(first)) == len(groups_of(second)) == 5
    assert not groups_of(first) & groups_of(second)
    assert [*first] == [*halves(GROUPS, seed=0)[0]] != [*halves(GROUPS, seed=1)[0]]


def test_each_video_is_in_one_fold():
    splits = list(folds(GROUPS, 4, seed=0))
    assert sorted(row for _, fold in splits for row in fold) == [*range(30)]
    for others, fold in splits:
        assert not groups_of(others) & groups_of(fold)
        assert len(others) + len(fold) == 30


def test_there_are_no_more_folds_than_groups():
    assert len(list(folds(["a", "a", "b", "b", "c"], 4, seed=0))) == 3
