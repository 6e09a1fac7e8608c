"""Sizes of files, as numbers and as text."""

import pytest

from tlee.sizes import size_of, size_text


def test_the_size_of_a_folder_is_that_of_all_files_below_it(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/one").write_bytes(bytes(100))
    (tmp_path / "two").write_bytes(bytes(23))
    assert size_of(tmp_path) == 123


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0.0 MB"), (2_540_000, "2.5 MB"), (999e6, "999.0 MB"), (1e9, "1.0 GB"), (12.04e9, "12.0 GB")]
)
def test_sizes_are_told_in_the_unit_that_fits(size, text):
    assert size_text(size) == text
