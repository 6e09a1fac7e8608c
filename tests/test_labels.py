"""Sparse labels against the dense ones."""

import pytest
import torch

from tlee.labels import SparseLabels

LABELS = SparseLabels(torch.tensor([0, 2, 3, 3, 6]), torch.tensor([4, 1, 0, 2, 0, 4], dtype=torch.int32), 5)
DENSE = [[0, 1, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 1, 0, 1]]


def test_all_rows():
    assert len(LABELS) == 4
    assert LABELS.dense().int().tolist() == DENSE
    assert LABELS.dense().dtype == torch.bool


@pytest.mark.parametrize("rows", [[], [2], [3, 0], [1, 1, 2, 3, 3], torch.tensor([0, 3])])
def test_some_rows_in_any_order(rows):
    assert LABELS.dense(rows).int().tolist() == [DENSE[row] for row in rows]


def test_the_first_class_is_the_first_that_is_listed():
    labels = SparseLabels(torch.tensor([0, 2, 3]), torch.tensor([4, 1, 0], dtype=torch.int32), 5)
    assert labels.first.tolist() == [4, 0]
    assert labels.first.dtype == torch.int64


def test_videos_are_selected_in_any_order():
    taken = LABELS.take([3, 0, 3])
    assert taken.dense().int().tolist() == [DENSE[3], DENSE[0], DENSE[3]]
    assert taken.first.tolist() == [2, 4, 2]
    assert taken.counts.tolist() == [3, 2, 3]
    assert LABELS.take([]).dense().shape == (0, 5)


def test_videos_are_repeated_one_copy_after_the_other():
    labels = SparseLabels(torch.tensor([0, 2, 3]), torch.tensor([4, 1, 0], dtype=torch.int32), 5)
    repeated = labels.repeat(3)
    assert repeated.first.tolist() == [4, 0] * 3
    assert torch.equal(repeated.dense(), labels.dense().repeat(3, 1))


def test_the_videos_of_each_class_are_in_order():
    assert [each.tolist() for each in LABELS.videos_of_classes()] == [[1, 3], [0], [3], [], [0, 3]]
