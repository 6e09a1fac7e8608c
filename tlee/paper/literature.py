"""Published results of papers on efficient video recognition, for comparison with your own.

``published/results.csv`` has one row per published number, with its source. The GFLOPs of the papers are
multiply-accumulates. ``curve`` marks the points of FrameExit's curves on ActivityNet, whose numbers are in its README;
at their ends no video stops early, and the paper's table lists the same two networks again.

``pretraining`` is as stated in the source or in the authors' repository: FrameExit's networks on ActivityNet start from
ImageNet (its issue 3), OCSampler uses the same classifier (its README), and both of Uni-AdaFocus's networks start from
ImageNet in its code. All others are ``not stated``, which does not mean that there was no pretraining.
"""

from pathlib import Path

import pandas as pd

from tlee.errors import UserError
from tlee.metrics import METRIC_NAMES

FILE = Path(__file__).parent / "published" / "results.csv"
COLUMNS = ["dataset", "metric", "method", "backbone", "pretraining", "gmacs", "score", "curve", "source"]
NOT_STATED = "not stated"


def load_published(path: Path = FILE) -> pd.DataFrame:
    """Read all rows: ``dataset`` and ``metric`` as in ``params.yaml``, ``gmacs`` per video, ``score`` in 0..1.

    Raises ``UserError`` with the line of a row that is incomplete, invalid or duplicated.
    """
    try:
        table = pd.read_csv(path, dtype={"curve": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): restore it") from None
    if list(table) != COLUMNS:
        raise UserError(f"{path} has the columns {', '.join(table)}: they should be {', '.join(COLUMNS)}")
    numbers = table[["gmacs", "score"]].apply(pd.to_numeric, errors="coerce")
    faults = {
        "a field is empty": (table == "").any(axis=1),
        f"`metric` should be one of {', '.join(METRIC_NAMES)}": ~table["metric"].isin(METRIC_NAMES),
        "`gmacs` should be a number above 0": ~(numbers["gmacs"] > 0),
        "`score` should be a number from 0 to 1": ~numbers["score"].between(0, 1),
        "`curve` should be true or false": ~table["curve"].isin(["true", "false"]),
        "this row appears twice": table.duplicated([name for name in COLUMNS if name not in ("pretraining", "source")]),
    }
    for fault, rows in faults.items():
        if rows.any():
            raise UserError(f"{path}, line {rows.idxmax() + 2}: {fault}")
    return table.assign(**numbers, curve=table["curve"] == "true")
