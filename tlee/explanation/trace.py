"""The trace of stage ``evaluate``: one row per policy and test video."""

import io
from collections.abc import Mapping

import pandas as pd

from tlee.checksums import unsealed_lines
from tlee.errors import UserError
from tlee.methods import in_order
from tlee.paths import TRACE

#: Columns of the trace and their types, see ``Evaluation.trace``.
COLUMNS = {
    "method": str,
    "video": str,
    "group": str,
    "truth": str,
    "prediction": str,
    "correct": bool,
    "confidence": float,
    "frames": int,
    "gmacs": float,
    "exit_depths": str,
}

Trace = Mapping[str, pd.DataFrame]  #: rows of each policy; the same videos in the same order, that of the frame store


def read_trace(method: str) -> Trace:
    """Read the trace of stage ``evaluate``, by policy.

    Raises ``UserError`` if the file is missing or damaged, or lacks ``method``, the full network or the oracle.
    """
    try:
        text = unsealed_lines(TRACE.read_bytes().decode())
        rows = pd.read_csv(io.StringIO(text), dtype=COLUMNS, usecols=list(COLUMNS), keep_default_na=False)
    except (OSError, ValueError):
        raise UserError(f"{TRACE} is missing or damaged: run `dvc repro evaluate`") from None
    trace = {name: part.drop(columns="method").reset_index(drop=True) for name, part in rows.groupby("method")}
    missing = [name for name in ("full", "oracle", method) if name not in trace]
    if missing:
        raise UserError(f"{TRACE} has no policy `{missing[0]}`: run `dvc repro evaluate`")
    videos = trace["full"]["video"]
    if any(not part["video"].equals(videos) or not part["exit_depths"].all() for part in trace.values()):
        raise UserError(f"{TRACE} is damaged, its policies have different videos: run `dvc repro evaluate`")
    return {name: trace[name] for name in in_order(trace)}
