"""Forecast of what a run will cost: a rehearsal of every stage on a few videos, extrapolated to all of them."""

import shutil
import sys
from functools import partial

import pandas as pd

from tlee.datasets import read_dataset
from tlee.params import load_params
from tlee.paths import RUNS
from tlee.planning.forecast import forecast, with_last_run
from tlee.planning.rehearsal import rehearse


def plan_run() -> str:
    """Rehearse a run with ``params.yaml``; return its forecast as text.

    Raises ``UserError`` as the stages do, such as for a missing annotation file.
    """
    params = load_params()
    dataset = read_dataset(params.dataset, params.seed)
    measured = rehearse(params, dataset, partial(print, "rehearsing", file=sys.stderr, flush=True))
    return report(with_last_run(forecast(params, dataset, measured)))


def report(table: pd.DataFrame) -> str:
    """Format the forecast of ``forecast.with_last_run`` as text: one line a stage, and the sums."""
    total, disk = table["seconds"].sum(), table["gigabytes"].sum()
    columns = {
        "stage": table["stage"],
        "time": table["seconds"].map(_duration),
        "disk": table["gigabytes"].map(_size),
        "work": table["work"],
    }
    if table["took"].notna().any():
        columns |= {"last run": table["took"].map(_duration)}
    free = shutil.disk_usage(RUNS.parent).free / 1e9
    lines = [
        pd.DataFrame(columns).to_markdown(index=False, disable_numparse=True),
        f"{_duration(total)} and {_size(disk)} in all, by a rehearsal on this machine; {_size(free)} are free.",
        "DVC's cache keeps a link or a copy: twice the space on file systems without links.",
    ]
    if disk > free:
        lines.append("The disk is too small: make space, or lower extract.frames or extract.short_side.")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if pd.isna(seconds):
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _size(gigabytes: float) -> str:
    if not gigabytes:
        return ""
    return f"{1000 * gigabytes:.1f} MB" if gigabytes < 1 else f"{gigabytes:.1f} GB"
