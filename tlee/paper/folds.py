"""Cross-validation: what several runs, each with a fold of its own as ``test``, found together."""

import io
from collections.abc import Sequence

import dvc.api
import numpy as np
import pandas as pd
from dvc.exceptions import DvcException

from tlee import intervals
from tlee.errors import UserError
from tlee.methods import NAMES
from tlee.paths import TRACE

RESAMPLES = 10_000


def read_traces(revisions: Sequence[str]) -> list[pd.DataFrame]:
    """The table of test videos of each DVC experiment or git revision (see ``Evaluation.trace``).

    Raises ``UserError`` if a revision has none.
    """
    traces = []
    for revision in revisions:
        try:
            traces.append(pd.read_csv(io.StringIO(dvc.api.read(str(TRACE), rev=revision))))
        except (DvcException, FileNotFoundError):
            raise UserError(f"`{revision}` is no run with a {TRACE}: `dvc exp show` lists them") from None
    return traces


def join_folds(traces: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All traces in one table, with a column ``fold`` from 1.

    Raises ``UserError`` if the test sets of two folds have a video or a group in common.
    """
    videos = pd.concat([trace.assign(fold=fold) for fold, trace in enumerate(traces, start=1)], ignore_index=True)
    for what in ("video", "group"):
        shared = videos.groupby(what)["fold"].nunique()
        if shared.max() > 1:
            raise UserError(f"{what} `{shared.idxmax()}` is tested in two folds: pool runs whose dataset.split differ")
    return videos


def pool_folds(videos: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """All test videos of all folds (see ``join_folds``) together, one row a method.

    ``accuracy`` with ``low`` and ``high``, a 95% interval in which whole groups are resampled; mean ``gmacs``, their
    ``share`` of the full network's, ``frames``; and over how many ``videos`` and ``groups``.
    """
    full = videos.loc[videos["method"] == "full", "gmacs"].mean()
    rows = []
    for method, each in videos.groupby("method"):
        right = each["correct"].to_numpy(np.float64)
        low, high = intervals.of_mean(right, each["group"], RESAMPLES, seed)
        rows.append(
            {
                "method": method,
                "accuracy": right.mean(),
                "low": low,
                "high": high,
                "gmacs": each["gmacs"].mean(),
                "share": each["gmacs"].mean() / full,
                "frames": each["frames"].mean(),
                "videos": len(each),
                "groups": each["group"].nunique(),
            }
        )
    order = [method for method in NAMES if method in set(videos["method"])]
    return pd.DataFrame(rows).set_index("method").loc[order].reset_index()


def markdown(table: pd.DataFrame) -> str:
    """The pooled table as Markdown."""
    lines = [
        f"{table['videos'].iloc[0]} test videos of {table['groups'].iloc[0]} groups; intervals resample groups.",
        "",
        "| policy | top-1 | 95% interval | GMACs a video | of the full network | frames |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {NAMES[row.method]} | {row.accuracy:.1%} | {row.low:.1%} to {row.high:.1%} | {row.gmacs:.3f} "
        f"| {row.share:.0%} | {row.frames:.1f} |"
        for row in table.itertuples()
    ]
    return "\n".join(lines)
