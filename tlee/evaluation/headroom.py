"""Headroom: how much cheaper TLEE would be if one of its parts were perfect, on ``test``."""

from dataclasses import dataclass, replace

import pandas as pd

from tlee.evaluation.candidates import candidates
from tlee.evaluation.comparison import area_under, chance_level
from tlee.evaluation.evaluate import Evaluation
from tlee.evaluation.oracle import oracle, oracle_curve
from tlee.evaluation.replay import Split
from tlee.evaluation.search import ROUNDING, Candidate, Search, frontier
from tlee.params import Params
from tlee.records import save_table

#: The cases by name, from the method as it is to the bound of all policies.
CASES = {
    "method": "method as it is",
    "choice": "perfect choice of policies, on test",
    "exits": "perfect shallow exits, as good as full depth",
    "gates": "perfect decisions: cheapest exit after which all are correct",
    "luck": "oracle: cheapest correct exit, even by luck",
}

STEPS = 200  # points of the curve of an oracle


@dataclass(frozen=True)
class Headroom:
    """Curves of the cases on ``test``, and what they cost."""

    curves: pd.DataFrame  #: ``case``, ``share_of_full`` (GMACs), ``score`` (top-1): one row a point
    table: pd.DataFrame  #: one row a case: ``case``, ``meaning``, ``area``, ``share_of_full``, see ``measure_headroom``
    full_score: float  #: top-1 of the full network
    max_loss: float  #: points

    def write(self) -> None:
        """Write both tables."""
        save_table("evaluate", "headroom_curves", self.curves)
        save_table("evaluate", "headroom", self.table)


def measure_headroom(evaluation: Evaluation, params: Params) -> Headroom:
    """Compare the method on ``test`` with itself where one of its parts is perfect, see ``CASES``.

    Perfect shallow exits have the features of the full depth at their own cost, and the policies are fitted anew. The
    oracles give up the most expensive videos first, see ``oracle_curve``. ``area`` is that of ``area_under``, but with
    the costs on ``test``, so that no choice has more than the perfect one. ``share_of_full`` is the cost of the
    cheapest point of a curve that loses at most ``evaluate.max_loss`` points to the full network, as a share of its
    cost; NaN if none does.
    """
    search, test, max_loss = evaluation.search, evaluation.test, params.evaluate.max_loss
    chance = chance_level(search.split.table.all_labels)
    full_score = test.score(test.result(search.full.policy))
    least = full_score - max_loss / 100 - ROUNDING
    curves, rows = [], []
    for case, curve in _curves(evaluation, params).items():
        shares = curve["gmacs"] / search.full.gmacs
        area = area_under(pd.DataFrame({"val_gmacs": shares, "score": curve["score"]}), 1.0, chance)
        cheapest = shares[curve["score"] >= least].min()
        rows.append({"case": case, "meaning": CASES[case], "area": area, "share_of_full": cheapest})
        curves.append(pd.DataFrame({"case": case, "share_of_full": shares, "score": curve["score"]}))
    return Headroom(pd.concat(curves, ignore_index=True), pd.DataFrame(rows), full_score, max_loss)


def _curves(evaluation: Evaluation, params: Params) -> dict[str, pd.DataFrame]:
    tried, test = evaluation.tried, evaluation.test
    perfect_val, perfect_test = (_as_good_as_full_depth(split) for split in (evaluation.search.split, test))
    perfect = candidates(evaluation.method, Search(perfect_val), params)
    on_test = [replace(each, error=1 - point["score"], gmacs=point["gmacs"]) for each, point in _points(tried, test)]
    return {
        "method": evaluation.curves[evaluation.curves["method"] == evaluation.method].reset_index(drop=True),
        "choice": _curve(frontier(on_test), test),
        "exits": _curve(frontier(perfect), perfect_test),
        "gates": oracle_curve(test, test.judge(oracle(test, stays_correct=True)), STEPS),
        "luck": oracle_curve(test, test.judge(oracle(test)), STEPS),
    }


def _as_good_as_full_depth(split: Split) -> Split:
    stored = split.table.stored
    return replace(split, table=replace(split.table, stored=stored[:, :, -1:].expand_as(stored)))


def _points(tried: list[Candidate], split: Split) -> list[tuple[Candidate, dict]]:
    swept = split.sweep([each.policy for each in tried])
    return [(each, split.point("", results)) for each, results in zip(tried, swept, strict=True)]


def _curve(tried: list[Candidate], split: Split) -> pd.DataFrame:
    return pd.DataFrame([point for _, point in _points(tried, split)])
