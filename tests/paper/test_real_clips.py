"""docs/real_clips.md quotes the runs on JHMDB that are committed beside it."""

import re
from pathlib import Path

import pandas as pd
import pytest

from tlee.evaluation.headroom import CASES
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


def test_its_numbers_are_those_of_the_runs(page):
    """A line for each run, a line for each case of headroom, and the AUROC of both scores of answers."""
    runs = pd.read_csv(RUNS / "runs.csv")
    for run in runs.itertuples():
        before = "" if pd.isna(run.full_before) else f"{run.full_before:.1%}"
        assert f"| {run.split} | {run.seed} | {run.full:.1%} | {before} |" in page
    means = runs.mean()
    for case in CASES:
        assert re.search(rf"^\| [^|]+ \| {100 * means[case]:.1f} \|$", page, flags=re.MULTILINE)
    assert f"AUROC {means['value_auroc']:.3f} against {means['confidence_auroc']:.3f}" in page
    assert (runs["value_auroc"] > runs["confidence_auroc"]).all()
    areas = Replicates(read_replicates(sorted(RUNS.glob("*.csv.xz")))).areas().set_index("method")["area"]
    sentence = f"an area of {100 * means['value_area']:.1f} instead of {100 * areas['tlee']:.1f}"
    assert sentence in " ".join(page.split())
