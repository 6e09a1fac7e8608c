"""Cross-validation: the pooled results of several runs, each with a different fold as ``test``."""

import io
from collections.abc import Sequence

import dvc.api
import numpy as np
import pandas as pd
from dvc.exceptions import DvcException

from tlee import intervals
from tlee.checksums import unsealed_lines
from tlee.errors import UserError
from tlee.methods import display_name, in_order
from tlee.paths import TRACE

RESAMPLES = 10_000


def read_traces(revisions: Sequence[str]) -> list[pd.DataFrame]:
    """Read the trace of the test videos of each DVC experiment or git revision (see ``Evaluation.trace``).

    Raises ``UserError`` if a revision has none.
    """
    traces = []
    for revision in revisions:
        try:
            text = unsealed_lines(dvc.api.read(str(TRACE), rev=revision))
            traces.append(pd.read_csv(io.StringIO(text)))
        except ValueError:
            raise UserError(f"{TRACE} of `{revision}` is damaged or of an older kit: run it again") from None
        except (DvcException, FileNotFoundError):
            raise UserError(f"`{revision}` is not a run with a {TRACE}: `dvc exp show` lists runs") from None
    return traces


def join_folds(traces: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate all traces, with a column ``fold`` that starts at 1.

    Raises ``UserError`` if the test sets of two folds have a video or a group in common.
    """
    videos = pd.concat([trace.assign(fold=fold) for fold, trace in enumerate(traces, start=1)], ignore_index=True)
    for column in ("video", "group"):
        num_folds = videos.groupby(column)["fold"].nunique()
        if num_folds.max() > 1:
            shared = num_folds.idxmax()
            raise UserError(f"{column} `{shared}` is tested in two folds: pool runs with different dataset.split")
    return videos


def pool_folds(videos: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Compute the results over the test videos of all folds (see ``join_folds``), one row per method.

    Columns: ``accuracy`` with ``low`` and ``high``, its 95% bootstrap interval over groups; mean ``gmacs``,
    ``share_of_full`` (the same relative to the full network) and ``frames``; and the numbers of ``videos`` and
    ``groups``.
    """
    full = videos.loc[videos["method"] == "full", "gmacs"].mean()
    rows = []
    for method, trace in videos.groupby("method"):
        correct = trace["correct"].to_numpy(np.float64)
        low, high = intervals.of_mean(correct, trace["group"], RESAMPLES, seed)
        rows.append(
            {
                "method": method,
                "accuracy": correct.mean(),
                "low": low,
                "high": high,
                "gmacs": trace["gmacs"].mean(),
                "share_of_full": trace["gmacs"].mean() / full,
                "frames": trace["frames"].mean(),
                "videos": len(trace),
                "groups": trace["group"].nunique(),
            }
        )
    order = in_order(videos["method"])
    return pd.DataFrame(rows).set_index("method").loc[order].reset_index()


def markdown(table: pd.DataFrame) -> str:
    """Format the pooled table as Markdown."""
    lines = [
        f"{table['videos'].iloc[0]} test videos in {table['groups'].iloc[0]} groups; bootstrap intervals over groups.",
        "",
        "| policy | top-1 | 95% interval | GMACs per video | relative to full network | frames |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {display_name(row.method)} | {row.accuracy:.1%} | {row.low:.1%} to {row.high:.1%} | {row.gmacs:.3f} "
        f"| {row.share_of_full:.0%} | {row.frames:.1f} |"
        for row in table.itertuples()
    ]
    return "\n".join(lines)
