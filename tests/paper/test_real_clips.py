"""docs/real_clips.md quotes the runs on JHMDB that are committed beside it."""

from pathlib import Path

import pandas as pd
import pytest

from tlee.paper.replicates import Replicates, markdown, read_replicates

DOCS = Path(__file__).parents[2] / "docs"
RUNS = DOCS / "real_clips" / "jhmdb"


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "real_clips.md").read_text(encoding="utf-8")


def test_its_tables_are_those_of_the_runs(page):
    videos = read_replicates(sorted(RUNS.glob("*.csv.xz")))
    assert len(videos[["split", "seed"]].drop_duplicates()) == 9
    assert markdown(Replicates(videos)) in page


def test_each_run_has_a_line_whose_full_network_is_that_of_its_videos():
    runs = pd.read_csv(RUNS / "runs.csv").set_index(["split", "seed"])
    videos = read_replicates(sorted(RUNS.glob("*.csv.xz")))
    full = videos[videos["method"] == "full"].groupby(["split", "seed"])["full"].mean()
    assert full.to_dict() == pytest.approx(runs["full"].to_dict(), abs=1e-6)


def test_its_numbers_of_the_runs_are_means(page):
    """One row each: the full network now and before, both scores of answers, and the cases of headroom."""
    runs = pd.read_csv(RUNS / "runs.csv")
    both = runs.dropna(subset="full_before")
    rows = [
        f"| this recipe | {both['full']:.1%} |",
    ]
    assert all(row in page for row in rows)
