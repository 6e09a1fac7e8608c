"""Headroom: how much cheaper TLEE would be if one of its parts were perfect, on ``test``."""

from dataclasses import dataclass, replace

import pandas as pd

from tlee.evaluation.comparison import area_under, chance_level
from tlee.evaluation.evaluate import candidates
from tlee.evaluation.oracle import oracle, oracle_curve
from tlee.evaluation.replay import Split
from tlee.evaluation.search import ROUNDING, Candidate, Search, frontier
from tlee.params import Params
from tlee.records import save_table

#: The cases by name, from the method as it is to the bound of all policies.
CASES = {
    "method": "as it is",
    "choice": "perfect choice: its best policies on test",
    "exits": "perfect shallow exits: each as good as full depth",
    "gates": "perfect decisions: the first exit from which on all answers are correct",
    "luck": "oracle: the first correct answer, even by luck",
}


@dataclass(frozen=True)
class Headroom:
    """Curves of the cases on ``test``, and what they cost."""

    curves: pd.DataFrame  #: ``case``, ``gmacs``, ``score`` (top-1), ``val_gmacs``: one row a point
    table: pd.DataFrame  #: one row a case: ``case``, ``area``, ``share_of_full``, see ``measure_headroom``
    max_loss: float  #: points

    def write(self) -> None:
        """Write both tables."""
        save_table("evaluate", "headroom_curves", self.curves)
        save_table("evaluate", "headroom", self.table)


def measure_headroom(val: Split, test: Split, params: Params) -> Headroom:
    """Compare the method on ``test`` with itself where one of its parts is perfect, see ``CASES``.

    Perfect shallow exits have the features of the full depth at their own cost, and the policies are fitted anew. The
    oracles give up the most expensive videos first, see ``oracle_curve``. ``share_of_full`` is the cost of the
    cheapest point of a curve that loses at most ``evaluate.max_loss`` points to the full network, as a share of its
    cost.
    """
    search, max_loss = Search(val), params.evaluate.max_loss
    curves = pd.concat(
        [curve.assign(case=case) for case, curve in _curves(search, test, params).items()], ignore_index=True
    )
    full, chance = search.full.gmacs, chance_level(val.table.truth)
    least = test.score(test.run(search.full.policy)) - max_loss / 100 - ROUNDING
    rows = []
    for case in CASES:
        curve = curves[curves["case"] == case]
        cheapest = curve.loc[curve["score"] >= least, "gmacs"].min()
        rows.append({"case": case, "area": area_under(curve, full, chance), "share_of_full": cheapest / full})
    return Headroom(curves, pd.DataFrame(rows), max_loss)


def _curves(search: Search, test: Split, params: Params) -> dict[str, pd.DataFrame]:
    method, val = params.model.method, search.split
    tried = candidates(method, search, params)
    perfect_val, perfect_test = (_as_good_as_full_depth(split) for split in (val, test))
    perfect = candidates(method, Search(perfect_val), params)
    on_test = [replace(each, error=1 - point["score"], gmacs=point["gmacs"]) for each, point in _points(tried, test)]
    stable, lucky = oracle(test, stays_correct=True), oracle(test)
    return {
        "method": _curve(frontier(tried), test),
        "choice": _curve(frontier(on_test), test).assign(val_gmacs=lambda curve: curve["gmacs"]),
        "exits": _curve(frontier(perfect), perfect_test),
        "gates": oracle_curve(test, stable),
        "luck": oracle_curve(test, lucky),
    }


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
