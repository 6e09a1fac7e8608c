"""Cross-validation: the test videos of all folds in one table, with bootstrap intervals over groups."""

import numpy as np
import pandas as pd
import pytest

from tlee.errors import UserError
from tlee.paper.folds import join_folds, markdown, pool_folds, read_traces


def fold(groups: str, correct: list[int], gmacs: float = 1.0) -> pd.DataFrame:
    """One video per letter of ``groups``: TLEE is ``correct`` at the cost ``gmacs``, the full network always, at 2."""
    videos = pd.DataFrame({"video": [f"{group}{i}.avi" for i, group in enumerate(groups)], "group": list(groups)})
    tlee = videos.assign(method="tlee", correct=np.array(correct, bool), gmacs=gmacs, frames=3)
    return pd.concat([videos.assign(method="full", correct=True, gmacs=2.0, frames=10), tlee], ignore_index=True)


def test_all_videos_have_the_same_weight():
    table = pool_folds(join_folds([fold("aab", [1, 1, 0]), fold("c", [1], gmacs=0.2)])).set_index("method")
    assert list(table.index) == ["full", "tlee"]
    tlee = table.loc["tlee"]
    assert (tlee["accuracy"], tlee["gmacs"], tlee["share_of_full"]) == (0.75, 0.8, 0.4)
    assert (tlee["videos"], tlee["groups"], tlee["frames"]) == (4, 3, 3)
    assert tlee["low"] <= 0.75 <= tlee["high"]


@pytest.mark.parametrize(("second", "shared"), [("da", "video `a1.avi`|group `a`"), ("ad", "video `a0.avi`")])
def test_overlapping_folds_are_refused(second, shared):
    with pytest.raises(UserError, match=f"({shared}).* two folds.*dataset.split"):
        join_folds([fold("abc", [1, 1, 1]), fold(second, [1, 1])])


def test_the_table_in_markdown():
    text = markdown(pool_folds(join_folds([fold("aab", [1, 1, 0]), fold("c", [1], gmacs=0.2)])))
    assert text.startswith("4 test videos in 3 groups")
    assert "| TLEE | 75.0% |" in text
    assert text.count("\n") == 5


def test_an_unknown_run_is_named(root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match=r"`no-such-run`.*dvc exp show"):
        read_traces(["no-such-run"])


@pytest.mark.parametrize("method", ["tlee", "frameexit"])
def test_the_docs_quote_the_run_on_real_clips(root, method):
    videos = pd.read_csv(root / "docs" / "real_clips" / f"{method}.csv")
    assert markdown(pool_folds(videos)) in (root / "docs" / "real_clips.md").read_text()
