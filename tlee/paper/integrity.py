"""Integrity of the run in the work tree: nothing missing, nothing damaged, nothing edited by hand.

Three things are compared: the checksums within the files, the hashes that DVC recorded when each stage ended, and the
metrics with the results of each video.
"""

import hashlib
import io
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tlee.checksums import unsealed_lines
from tlee.methods import display_name
from tlee.paper.run_files import (
    PARAMS,
    Entry,
    Metrics,
    Stage,
    WorkTree,
    changed_parameters,
    flat,
    read_data,
    read_metrics,
    read_stages,
    read_yaml,
)
from tlee.params import load_params
from tlee.paths import EDGE, FIGURES, LOCK, METRICS, NOTEBOOKS, PLOTS, RESULTS, TRACE

VIDEOS = PLOTS / "evaluate" / "videos.csv"

#: Tables with the results of each video: the columns that are read, and their types.
TABLES: dict[Path, dict[str, type]] = {
    TRACE: {"method": str, "video": str, "correct": bool, "gmacs": float, "frames": float},
    VIDEOS: {"full": bool},
}

#: Outputs that may change after their stage: what is opened, saved and run by hand.
CHANGEABLE = (NOTEBOOKS, FIGURES, EDGE)

_LARGE = 1 << 26  # bytes; of larger outputs only the size is compared
_PRECISION = 1e-5  # relative; metrics and tables have six digits


def find_problems(expected: Iterable[str]) -> list[str]:
    """List what is missing, damaged, out of date or contradictory in the run of the work tree, one line each.

    ``expected`` are the names of the metrics that a complete run has. A file is named once, for its first problem, and
    so is a folder.
    """
    tree = WorkTree()
    stages = read_stages(tree)
    metrics, damaged = read_metrics(tree)
    problems = {METRICS / f"{name}.json": "is missing" for name in expected if name not in metrics}
    problems |= dict.fromkeys(damaged, "is damaged: it is not JSON with the checksum of its content")
    if not stages:
        problems[LOCK] = "is missing, in which DVC records the stages that have been run"
    tables = {}
    for path, columns in TABLES.items():
        try:
            text = io.StringIO(unsealed_lines(tree.read(path) or ""))
            tables[path] = pd.read_csv(text, dtype=columns, usecols=list(columns), keep_default_na=False)
        except ValueError:
            problems[path] = "is damaged: a line is not as it was written" if path.exists() else "is missing"
    for path, problem in [*_changed_outputs(stages), *_out_of_date(stages)]:
        if not any(each.is_relative_to(path) for each in problems):
            problems[path] = problem
    lines = [f"{path.as_posix()} {problem}" for path, problem in problems.items()]
    if len(tables) == 2 and "evaluate" in metrics:
        lines += _contradictions(metrics, tables[TRACE], tables[VIDEOS])
    return lines


# --- what DVC recorded -------------------------------------------------------------------------------


def _changed_outputs(stages: dict[str, Stage]) -> Iterator[tuple[Path, str]]:
    """Yield the outputs that are missing, or differ from what DVC recorded when their stage ended."""
    for name, stage in stages.items():
        for out in stage.outs:
            path = Path(out.path)
            if not path.exists():
                yield path, f"is missing, which stage {name} writes"
            elif not path.is_relative_to(RESULTS) or any(path.is_relative_to(each) for each in CHANGEABLE):
                continue
            elif not _is_recorded(path, out):
                yield path, f"is not what stage {name} wrote"


def _is_recorded(path: Path, out: Entry) -> bool:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    if out.size > _LARGE:
        return sum(each.stat().st_size for each in files) == out.size
    return dvc_hash(path) == out.md5


def dvc_hash(path: Path) -> str:
    """Return the hash that DVC gives a file or folder."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    names = sorted(each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file())
    listing = [{"md5": dvc_hash(path / name), "relpath": name} for name in names]
    return f"{hashlib.md5(json.dumps(listing).encode(), usedforsecurity=False).hexdigest()}.dir"


def _out_of_date(stages: dict[str, Stage]) -> Iterator[tuple[Path, str]]:
    """Yield the inputs that have changed since a stage used them; each is named for the first such stage."""
    tree = WorkTree()
    params = flat(read_yaml(tree, PARAMS))
    outs = [*read_data(tree), *(out for stage in stages.values() for out in stage.outs)]
    made = {out.path: out.md5 for out in outs}
    for name, stage in stages.items():
        if name in ("strip", "code"):  # words and saved notebooks run nothing again
            continue
        for key, value in changed_parameters(stage, params).items():
            yield PARAMS, f"has `{key}: {params.get(key)}`, and stage {name} ran with `{value}`"
        for used in stage.deps:
            path = Path(used.path)
            now = made.get(used.path) or (dvc_hash(path) if path.is_file() else used.md5)
            if now != used.md5:
                yield path, f"has changed since stage {name} used it"


# --- metrics against the results of each video -------------------------------------------------------


def _contradictions(metrics: Metrics, trace: pd.DataFrame, videos: pd.DataFrame) -> list[str]:
    """List the metrics that the trace does not confirm, which has a row for each policy and video of test."""
    if set(_policies(metrics)) != set(trace["method"]):
        return [f"{METRICS / 'evaluate.json'} has other policies than {TRACE}"]
    lines = []
    for file, what, stated, found in _recomputed(metrics, trace, videos):
        if not isinstance(stated, int | float) or not math.isclose(stated, found, rel_tol=_PRECISION, abs_tol=1e-6):
            lines.append(f"{file.as_posix()} has {stated} as {what}, and {TRACE.as_posix()} gives {found:.6g}")
    return lines


def _recomputed(metrics: Metrics, trace: pd.DataFrame, videos: pd.DataFrame) -> Iterator[tuple[Path, str, Any, float]]:
    """Yield file, number, its value there, and its value recomputed from the results of each video."""
    evaluate, explain, guarantee = (METRICS / f"{name}.json" for name in ("evaluate", "explain", "guarantee"))
    found, params = trace.groupby("method")[["correct", "gmacs", "frames"]].mean(), load_params()
    full, method, is_top1 = found.loc["full"], params.model.method, params.evaluate.metric == "top1"
    for name, row in _policies(metrics).items():
        title, mean = display_name(name), found.loc[name]
        if is_top1:
            yield evaluate, f"top-1 of {title}", row.get("score"), mean["correct"]
        yield evaluate, f"GMACs of {title}", row.get("gmacs"), mean["gmacs"]
        yield evaluate, f"share of GMACs of {title}", row.get("share_of_full"), mean["gmacs"] / full["gmacs"]
        yield evaluate, f"frames of {title}", row.get("frames"), mean["frames"]
    yield VIDEOS, "top-1 of the full network", videos["full"].mean(), full["correct"]
    if "explain" in metrics and method in found.index:
        correct = {name: set(rows["video"][rows["correct"]]) for name, rows in trace.groupby("method")}
        stated = metrics["explain"]
        yield explain, "saving", stated.get("saving"), full["gmacs"] / found.at[method, "gmacs"]
        yield explain, "number of harmful exits", stated.get("harmful"), len(correct["full"] - correct[method])
        yield explain, "number of helpful exits", stated.get("helpful"), len(correct[method] - correct["full"])
    if "guarantee" in metrics:
        yield (
            guarantee,
            "top-1 of the full network",
            metrics["guarantee"].get("test", {}).get("full_top1"),
            full["correct"],
        )


def _policies(metrics: Metrics) -> dict[str, dict[str, Any]]:
    return {name: row for name, row in metrics["evaluate"].items() if isinstance(row, dict)}
