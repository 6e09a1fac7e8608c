"""Results of each test video: their means are the numbers of the comparison."""

import pandas as pd
import pytest
from support.small import identity_readout, small_params
from support.splits import noisy

from tlee.evaluation.candidates import candidates
from tlee.evaluation.comparison import area_under, chance_level
from tlee.evaluation.per_video import EXPECTED, LIMITS, per_video, run_frontiers
from tlee.evaluation.search import Search, choose, frontier

PARAMS = small_params({"evaluate.folds": 3}, num_branches=1, gate="confidence")
FAMILIES = ("full", "tlee", "fixed_depth", "confidence")


@pytest.fixture(scope="module")
def results():
    readout = identity_readout(num_branches=1, gate="confidence")
    val, test = noisy((1.0, 4.0), readout, videos=400), noisy((1.0, 4.0), readout, videos=60, seed=1)
    search = Search(val)
    found = {name: candidates(name, search, PARAMS) for name in FAMILIES}
    return found, search, test, per_video(found, run_frontiers(found, test), search, test)


def test_there_is_a_row_for_each_policy_and_video(results):
    *_, test, table = results
    assert list(table["method"].unique()) == list(FAMILIES)
    for _, rows in table.groupby("method"):
        assert rows["video"].tolist() == test.table.videos
        assert rows["group"].tolist() == test.table.groups


def test_the_mean_area_is_the_area_under_the_curve(results):
    found, search, test, table = results
    chance, fronts = chance_level(search.split.table.all_labels), run_frontiers(found, test)
    for name, tried in found.items():
        points = [test.point(name, test.result(each.policy)) | {"val_gmacs": each.gmacs} for each in frontier(tried)]
        area = area_under(pd.DataFrame(points), search.full.gmacs, chance)
        assert table.loc[table["method"] == name, "area"].mean() == pytest.approx(area)
        assert fronts[name].areas(search).tolist() == table.loc[table["method"] == name, "area"].tolist()


def test_a_frontier_is_run_as_each_of_its_policies_alone(results):
    found, _, test, _ = results
    fronts = run_frontiers(found, test)
    for name, tried in found.items():
        alone = [test.result(each.policy) for each in frontier(tried)]
        assert fronts[name].points == [test.point(name, each) for each in alone]
        assert fronts[name].correct.tolist() == [each.correct.tolist() for each in alone]
        assert fronts[name].val_gmacs.tolist() == [each.gmacs for each in frontier(tried)]


def test_results_and_costs_are_those_of_the_chosen_policies(results):
    found, search, test, table = results
    shares = set()
    for name, tried in found.items():
        rows = table[table["method"] == name]
        assert rows["full"].tolist() == test.result(search.full.policy).correct.tolist()
        for limit in LIMITS:
            chosen = choose(tried, search.full, limit, EXPECTED, search.score)
            results = test.result(chosen.policy)
            assert rows[f"correct_{limit:g}"].tolist() == results.correct.tolist()
            assert rows[f"share_{limit:g}"].tolist() == pytest.approx((results.gmacs / search.full.gmacs).tolist())
            shares.add(rows[f"share_{limit:g}"].mean())
    assert len(shares) > 2  # the policies differ
