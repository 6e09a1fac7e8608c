"""Results of every family for each test video, by which several runs can be compared (see ``paper.replicates``)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd

from tlee.evaluation.comparison import at_budgets, chance_level
from tlee.evaluation.replay import Split
from tlee.evaluation.search import Candidate, Search, choose, frontier

LIMITS = (1.0, 2.0, 5.0)  #: points that the policies may lose to the full network

#: Confidence with which these are kept: they are compared by the loss expected, not by what few videos can prove.
EXPECTED = 0.5


@dataclass(frozen=True)
class Frontier:
    """The ``P`` policies of a family that no other beats on ``val``, and their results on another split."""

    points: list[dict]  #: ``Split.point`` of each
    correct: np.ndarray  #: booleans ``[P, N]``
    val_gmacs: np.ndarray  #: ``[P]``

    def areas(self, search: Search) -> np.ndarray:
        """See ``video_areas``."""
        return video_areas(self.val_gmacs, self.correct, search)


def run_frontiers(found: Mapping[str, list[Candidate]], split: Split) -> dict[str, Frontier]:
    """Run the frontier of each family of ``found`` on ``split``; what policies have in common is computed once."""
    fronts = {name: frontier(tried) for name, tried in found.items()}
    swept = split.sweep([each.policy for front in fronts.values() for each in front])
    run = {}
    for name, front in fronts.items():
        points, correct = [], []
        for results in islice(swept, len(front)):
            points.append(split.point(name, results))
            correct.append(results.correct.numpy())
        run[name] = Frontier(points, np.stack(correct), np.array([each.gmacs for each in front]))
    return run


def per_video(
    found: Mapping[str, list[Candidate]], fronts: Mapping[str, Frontier], search: Search, test: Split
) -> pd.DataFrame:
    """Return one row for each family of ``found`` and each video of ``test``; ``fronts`` are its ``run_frontiers``.

    Columns: ``method``, ``video``, ``group``, ``full``, true if the full network is correct, and ``area``, see
    ``video_areas``. For each of ``LIMITS``, such as 1, ``correct_1`` and ``share_1``: the result, and the cost as a
    share of the full network's, of the policy that is expected by ``val`` to lose at most this many points.
    """
    chosen = {
        (name, limit): choose(tried, search.full, limit, EXPECTED, search.score).policy
        for name, tried in found.items()
        for limit in LIMITS
    }
    policies = list(dict.fromkeys([search.full.policy, *chosen.values()]))
    results = {
        policy: (each.correct.numpy(), each.gmacs.numpy() / search.full.gmacs)
        for policy, each in zip(policies, test.sweep(policies, scored=False), strict=True)
    }
    videos, tables = pd.DataFrame({"video": test.table.videos, "group": test.table.groups}), []
    for name in found:
        columns = {"full": results[search.full.policy][0], "area": fronts[name].areas(search)}
        for limit in LIMITS:
            columns[f"correct_{limit:g}"], columns[f"share_{limit:g}"] = results[chosen[name, limit]]
        tables.append(videos.assign(method=name, **columns))
    return pd.concat(tables, ignore_index=True)


def video_areas(gmacs: np.ndarray, correct: np.ndarray, search: Search) -> np.ndarray:
    """Return ``comparison.area_under`` in top-1 for each video alone, ``[N]``; their mean is the area.

    ``gmacs [P]`` are the costs of the policies of a frontier on the split of ``search``, and ``correct [P, N]`` their
    results on the videos.
    """
    chance = chance_level(search.split.table.all_labels)
    return at_budgets(gmacs, correct, search.full.gmacs, chance).mean(axis=0)
