"""Forecast of what a run will cost: a rehearsal of every stage on a few videos, extrapolated to all of them."""

import shutil
import sys
from functools import partial

import pandas as pd

from tlee.datasets import read_dataset
from tlee.figures.planning import duration_text
from tlee.params import load_params
from tlee.paths import RUNS
from tlee.planning.comparison import keep_forecast, with_last_run
from tlee.planning.forecast import forecast
from tlee.planning.rehearsal import rehearse
from tlee.sizes import size_text


def plan_run() -> str:
    """Rehearse a run with ``params.yaml``; keep its forecast, and return it as text.

    Raises ``UserError`` as the stages do, such as for a missing annotation file.
    """
    params = load_params()
    dataset = read_dataset(params.dataset, params.seed)
    measured = rehearse(params, dataset, partial(print, "rehearsing", file=sys.stderr, flush=True))
    table = forecast(params, dataset, measured)
    keep_forecast(params, table)
    return report(with_last_run(params, table))


def report(table: pd.DataFrame) -> str:
    """Format the forecast of ``comparison.with_last_run`` as text: one line a stage, and the sums."""
    total, disk = table["seconds"].sum(), table["bytes"].sum()
    columns = {
        "stage": table["stage"],
        "time": table["seconds"].map(duration_text),
        **{name: _sizes(table[column]) for name, column in (("disk", "bytes"), ("memory", "memory"))},
        "work": table["work"],
    }
    if table["took"].notna().any():
        columns |= {"last run": ["" if pd.isna(took) else duration_text(took) for took in table["took"]]}
    free = shutil.disk_usage(RUNS.parent).free
    lines = [
        pd.DataFrame(columns).to_markdown(index=False, disable_numparse=True),
        f"{duration_text(total)} and {size_text(disk)} in all, by a rehearsal on this machine; "
        f"{size_text(free)} are free.",
        "DVC's cache keeps a link or a copy: twice the space on file systems without links.",
    ]
    if table["memory"].any():
        lines.append(
            "Memory is that of a notebook, besides what its imports take (0.6 GB); that of a GPU is not in it."
        )
    if disk > free:
        lines.append(
            "The disk is too small: make space, lower extract.frames, extract.short_side or branches.train_views, or "
            "set branches.feature_precision to float16."
        )
    return "\n".join(lines)


def _sizes(column: pd.Series) -> list[str]:
    return [size_text(size) if size else "" for size in column]
