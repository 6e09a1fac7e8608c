"""Results of every family for each test video, by which several runs can be compared (see ``paper.replicates``)."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tlee.evaluation.comparison import at_budgets, chance_level
from tlee.evaluation.replay import Split
from tlee.evaluation.search import Candidate, Search, choose, frontier

LIMITS = (1.0, 2.0, 5.0)  #: points that the policies may lose to the full network

#: Confidence with which these are kept: they are compared by the loss expected, not by what few videos can prove.
EXPECTED = 0.5


def per_video(found: Mapping[str, list[Candidate]], search: Search, test: Split) -> pd.DataFrame:
    """Return one row for each family of ``found`` and each video of ``test``.

    Columns: ``method``, ``video``, ``group``, ``full``, true if the full network is correct, and ``area``, see
    ``video_areas``. For each of ``LIMITS``, such as 1, ``correct_1`` and ``share_1``: the result, and the cost as a
    share of the full network's, of the policy that is expected by ``val`` to lose at most this many points.
    """
    videos = pd.DataFrame({"video": test.table.videos, "group": test.table.groups})
    full = test.run(search.full.policy)
    tables = []
    for name, tried in found.items():
        columns = {"full": test.correct(full).numpy(), "area": video_areas(frontier(tried), search, test)}
        for limit in LIMITS:
            chosen = choose(tried, search.full, limit, EXPECTED, search.score)
            outcomes = test.run(chosen.policy)
            columns[f"correct_{limit:g}"] = test.correct(outcomes).numpy()
            columns[f"share_{limit:g}"] = outcomes.gmacs.numpy() / search.full.gmacs
        tables.append(videos.assign(method=name, **columns))
    return pd.concat(tables, ignore_index=True)


def video_areas(curve: list[Candidate], search: Search, test: Split) -> np.ndarray:
    """Return ``comparison.area_under`` in top-1 for each test video alone, ``[N]``; their mean is the area."""
    outcomes = test.sweep([each.policy for each in curve])
    correct = np.stack([test.correct(each) for each in outcomes])
    gmacs = np.array([each.gmacs for each in curve])
    chance = chance_level(search.split.table.truth)
    return at_budgets(gmacs, correct, search.full.gmacs, chance).mean(axis=0)
