"""The forecast of a run beside what the run then took."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from tlee.environment import ENVIRONMENT, environment
from tlee.errors import UserError
from tlee.paper.run_files import WorkTree, changed_parameters, flat, read_stages
from tlee.params import Params
from tlee.paths import NOTEBOOKS, RUNS
from tlee.planning.forecast import STAGES

_MACHINE = ("processor", "cores", "accelerator")  # parts of an environment


def keep_forecast(params: Params, table: pd.DataFrame) -> Path:
    """Keep the forecast of ``forecast.forecast`` for a run with these parameters; return its file."""
    path = _file(params)
    RUNS.mkdir(exist_ok=True)
    table.to_csv(path, index=False, lineterminator="\n")
    return path


def load_forecast(params: Params) -> pd.DataFrame:
    """Return the last forecast for a run with these parameters; raise ``UserError`` if there is none."""
    path = _file(params)
    if not path.exists():
        raise UserError("there is no forecast for these parameters: run `python -m tlee plan`")
    return pd.read_csv(path)


def with_last_run(params: Params, table: pd.DataFrame) -> pd.DataFrame:
    """Add ``took``, the seconds of each stage's last run, by its executed notebook, and ``ratio``, forecast to taken.

    Both are NaN where there was no run, or one with other parameters or on another machine.
    """
    recorded, settings = read_stages(WorkTree()), flat(params.model_dump(mode="json"))
    here = _machine(environment())
    took = [
        _duration(notebook)
        if name in recorded and not changed_parameters(recorded[name], settings) and _ran_on(notebook) == here
        else float("nan")
        for name, notebook in ((name, STAGES[name]) for name in table["stage"])
    ]
    return table.assign(took=took, ratio=table["seconds"] / took)


def _file(params: Params) -> Path:
    digest = hashlib.sha256(params.model_dump_json().encode()).hexdigest()
    return RUNS / f"plan-{digest[:16]}.csv"


def _ran_on(notebook: str) -> tuple | None:
    try:
        return _machine(json.loads((ENVIRONMENT / f"{notebook}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return None


def _machine(environment: dict[str, Any]) -> tuple:
    return tuple(environment.get(part) for part in _MACHINE)


def _duration(notebook: str) -> float:
    try:
        content = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))
        return float(content["metadata"]["papermill"]["duration"])
    except (OSError, ValueError, KeyError, TypeError):
        return float("nan")
