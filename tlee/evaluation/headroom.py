"""Headroom: how much cheaper TLEE would be if one of its parts were perfect, on ``test``."""

from dataclasses import replace

import pandas as pd

from tlee.evaluation.comparison import area_under, chance_level
from tlee.evaluation.evaluate import candidates
from tlee.evaluation.oracle import oracle, oracle_curve
from tlee.evaluation.replay import Split
from tlee.evaluation.search import Candidate, Search, frontier
from tlee.params import Params

#: The cases by name, from the method as it is to the bound of all policies.
CASES = {
    "method": "as it is",
    "choice": "perfect choice: the best of its policies on test",
    "exits": "perfect shallow exits: each as good as full depth",
    "gates": "perfect decisions: the first exit after which no answer is wrong",
    "luck": "the same, with answers that are correct by luck: the oracle",
}


def headroom_curves(val: Split, test: Split, params: Params) -> pd.DataFrame:
    """Curves of top-1 against GMACs on ``test``: columns ``case`` (see ``CASES``), ``gmacs``, ``score``, ``val_gmacs``.

    Perfect shallow exits have the features of the full depth at their own cost, and the policies are fitted anew. The
    oracles give up the most expensive videos first, see ``oracle_curve``.
    """
    tried = candidates(params.model.method, Search(val), params)
    perfect_val, perfect_test = (_as_good_as_full_depth(split) for split in (val, test))
    perfect = candidates(params.model.method, Search(perfect_val), params)
    on_test = [replace(each, error=1 - point["score"], gmacs=point["gmacs"]) for each, point in _points(tried, test)]
    stable, lucky = oracle(test, stays_correct=True), oracle(test)
    curves = {
        "method": _curve(frontier(tried), test),
        "choice": _curve(frontier(on_test), test).assign(val_gmacs=lambda curve: curve["gmacs"]),
        "exits": _curve(frontier(perfect), perfect_test),
        "gates": oracle_curve(test, stable),
        "luck": oracle_curve(test, lucky),
    }
    return pd.concat([curve.assign(case=case) for case, curve in curves.items()], ignore_index=True)


def headroom_table(curves: pd.DataFrame, val: Split, test: Split, max_loss: float) -> pd.DataFrame:
    """One row a case: ``area`` under its curve, and ``share_of_full``.

    The latter is the cost of its cheapest policy that loses at most ``max_loss`` points to the full network on
    ``test``, as a share of the full network's; NaN if there is none.
    """
    full = Search(test).full
    least = test.score(test.run(full.policy)) - max_loss / 100 - 1e-9
    rows = []
    for case in CASES:
        curve = curves[curves["case"] == case]
        cheapest = curve.loc[curve["score"] >= least, "gmacs"].min()
        area = area_under(curve, full.gmacs, chance_level(val.table.truth))
        rows.append({"case": case, "area": area, "share_of_full": cheapest / full.gmacs})
    return pd.DataFrame(rows)


def _as_good_as_full_depth(split: Split) -> Split:
    features = split.table.features
    return replace(split, table=replace(split.table, features=features[:, :, -1:].expand_as(features)))


def _points(tried: list[Candidate], split: Split) -> list[tuple[Candidate, dict]]:
    outcomes = split.sweep([each.policy for each in tried])
    return [(each, split.point("", outcome)) for each, outcome in zip(tried, outcomes, strict=True)]


def _curve(tried: list[Candidate], split: Split) -> pd.DataFrame:
    points = [
        {"gmacs": point["gmacs"], "score": point["score"], "val_gmacs": each.gmacs}
        for each, point in _points(tried, split)
    ]
    return pd.DataFrame(points)
