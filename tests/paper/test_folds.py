"""Cross-validation: the test videos of all folds in one table, with whole groups resampled."""

import numpy as np
import pandas as pd
import pytest

from tlee.errors import UserError
from tlee.paper.folds import join_folds, markdown, pool_folds, read_traces


def fold(groups: str, right: list[int], gmacs: float = 1.0) -> pd.DataFrame:
    """A video for each letter of ``groups``; TLEE is right at the cost ``gmacs``, the full network always, at 2."""
    videos = pd.DataFrame({"video": [f"{group}{i}.avi" for i, group in enumerate(groups)], "group": list(groups)})
    tlee = videos.assign(method="tlee", correct=np.array(right, bool), gmacs=gmacs, frames=3)
    return pd.concat([videos.assign(method="full", correct=True, gmacs=2.0, frames=10), tlee], ignore_index=True)


def test_all_videos_count_alike():
    table = pool_folds(join_folds([fold("aab", [1, 1, 0]), fold("c", [1], gmacs=0.2)])).set_index("method")
    assert list(table.index) == ["full", "tlee"]
    tlee = table.loc["tlee"]
    assert (tlee["accuracy"], tlee["gmacs"], tlee["share"]) == (0.75, 0.8, 0.4)
    assert (tlee["videos"], tlee["groups"], tlee["frames"]) == (4, 3, 3)
    assert tlee["low"] <= 0.75 <= tlee["high"]


@pytest.mark.parametrize(("second", "what"), [("da", "video `a1.avi`|group `a`"), ("ad", "video `a0.avi`")])
def test_folds_that_overlap_are_refused(second, what):
    with pytest.raises(UserError, match=f"({what}).* is tested in two folds.*dataset.split"):
        join_folds([fold("abc", [1, 1, 1]), fold(second, [1, 1])])


def test_the_table_in_markdown():
    text = markdown(pool_folds(join_folds([fold("aab", [1, 1, 0]), fold("c", [1], gmacs=0.2)])))
    assert text.startswith("4 test videos of 3 groups")
    assert "| TLEE | 75.0% |" in text
    assert text.count("\n") == 5


def test_a_run_that_does_not_exist_is_named(root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match="`no-such-run` is no run with a"):
        read_traces(["no-such-run"])


@pytest.mark.parametrize("method", ["tlee", "frameexit"])
def test_the_run_on_real_clips_is_quoted_as_it_was(root, method):
    videos = pd.read_csv(root / "docs" / "real_clips" / f"{method}.csv")
    assert markdown(pool_folds(videos)) in (root / "docs" / "real_clips.md").read_text()
