"""Results of trainings with several seeds: the workspace's run, and those in ``results/seeds/``.

Each folder ``results/seeds/seed<K>/`` has the metrics and curves of a run, its results for each test video (see
``paper.replicates``), and what went into it, so that only runs of the same code, clips and parameters are compared.
"""

import json
import lzma
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import yaml

from tlee.checksums import load_sealed, save_sealed, unsealed
from tlee.errors import UserError
from tlee.evaluation.per_video import LIMITS
from tlee.figures.seeds import trade_off_of_seeds
from tlee.figures.style import save
from tlee.methods import display_name
from tlee.paper.replicates import Replicates, areas_table, cells, read_replicates
from tlee.paper.run_files import flat
from tlee.paper.seed_runs import find_experiment, git
from tlee.paper.tables import IRRELEVANT
from tlee.paths import FIGURES, LOCK, PLOTS, RESULTS, SEEDS

#: Stages whose results are collected: all but those of the latency, which seeds have no part in.
STAGES = ("extract", "pretrain", "branches", "gates", "evaluate", "guarantee", "explain")

#: Points that policies may be expected to lose in the README's table and in the figure; one of ``per_video.LIMITS``.
LIMIT = 1.0

#: Policies with which the text compares TLEE.
REFERENCES = ("temporal", "layer", "confidence", "tlee_thresholds")

_VIDEOS, _CURVES = PLOTS / "evaluate" / "videos.csv", PLOTS / "evaluate" / "trade_off.csv"
_BUDGETS = 200  # of a mean curve


# --- collecting ----------------------------------------------------------------------------------------


def collect(seed: int, to: Path = SEEDS) -> Path:
    """Copy the results of the experiment ``seed<seed>`` of the last commit to ``to/seed<seed>/``; return that folder.

    ``metrics.json``: the metrics of each of ``STAGES``; ``videos.csv.xz`` and ``trade_off.csv``: tables of stage
    ``evaluate``; ``inputs.json``: see ``inputs``. Raises ``UserError`` if there is no such experiment.
    """
    revision = find_experiment(seed)
    if revision is None:
        raise UserError(f"the last commit has no experiment `seed{seed}`: run `python -m tlee seeds {seed}`")

    def read(path: str | Path) -> str:
        return git("show", f"{revision}:{Path(path).as_posix()}")

    metrics = {stage: unsealed(json.loads(read(RESULTS / "metrics" / f"{stage}.json"))) for stage in STAGES}
    folder = to / f"seed{seed}"
    save_sealed(folder / "metrics.json", metrics)
    save_sealed(folder / "inputs.json", inputs(yaml.safe_load(read(LOCK))))
    (folder / "trade_off.csv").write_text(read(_CURVES), encoding="utf-8", newline="")
    (folder / "videos.csv.xz").write_bytes(lzma.compress(read(_VIDEOS).encode(), preset=9))
    return folder


def inputs(lock: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return for each of ``STAGES`` its code, notebook, data and parameters, from the content of ``dvc.lock``.

    Left out are what an earlier stage made, the seed, and parameters that do not affect policies.
    """
    stages = {name: lock["stages"][name] for name in STAGES}
    made = {out["path"] for stage in stages.values() for out in stage["outs"]}
    found = {}
    for name, stage in stages.items():
        params = flat(stage.get("params", {}).get("params.yaml", {}))
        decisive = {key: value for key, value in params.items() if key != "seed" and not key.startswith(IRRELEVANT)}
        given = {each["path"]: each["md5"] for each in stage["deps"] if each["path"] not in made}
        found[name] = {key: str(value) for key, value in (given | decisive).items()}
    return found


# --- reading -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trainings:
    """Runs that differ only in the seed."""

    all: Replicates
    own: Replicates  #: of the workspace's run alone
    curves: pd.DataFrame  #: see ``read_curves``


def load_trainings(folder: Path = SEEDS) -> Trainings:
    """Read the workspace's run and all runs in ``folder``.

    Raises ``UserError`` if there are none, or one of them has other ``inputs`` than the workspace's.
    """
    runs = sorted(folder.glob("seed*/"), key=lambda run: (len(run.name), run.name))
    if not runs:
        raise UserError(f"{folder} has no runs: `make seeds` trains with seeds 1 to 4")
    try:
        own = inputs(yaml.safe_load(LOCK.read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        raise UserError(f"{LOCK} has no complete run: run `dvc repro`") from None
    for run in runs:
        recorded = load_sealed(run / "inputs.json", "run `make seeds` again")
        if changed := [stage for stage in STAGES if recorded.get(stage) != own[stage]]:
            remedy = "run `dvc repro`, commit its results, and run `make seeds`"
            raise UserError(f"{run} was run with other code, data or parameters of stage {changed[0]}: {remedy}")
    return read_trainings(runs)


def read_trainings(runs: Sequence[Path]) -> Trainings:
    """Read the workspace's run and those in the folders ``runs``, whatever their inputs."""
    videos, own_videos = (read_replicates([_VIDEOS, *(run / "videos.csv.xz" for run in each)]) for each in (runs, []))
    curves = read_curves([_CURVES, *(run / "trade_off.csv" for run in runs)])
    return Trainings(Replicates(videos), Replicates(own_videos), curves)


def read_curves(paths: Sequence[Path]) -> pd.DataFrame:
    """Read the curves of several runs: ``run``, ``method``, ``score`` and ``share`` of the full network's GMACs."""
    tables = []
    for run, path in enumerate(paths):
        try:
            table = pd.read_csv(path)
            full = table.loc[table["method"] == "full", "gmacs"].iloc[0]
            tables.append(table[["method", "score"]].assign(run=run, share=table["gmacs"] / full))
        except (OSError, ValueError, LookupError):
            raise UserError(f"{path} is missing or damaged: run `dvc repro evaluate`, or `make seeds`") from None
    return pd.concat(tables, ignore_index=True)


def mean_curves(table: pd.DataFrame) -> pd.DataFrame:
    """Average the curves of each method over runs: ``method``, ``share``, ``score``, ``low`` and ``high``.

    Curves (see ``read_curves``) are interpolated in the logarithm of the cost, where all runs have one. The interval is
    Student's t, 95%, of the mean over runs, from 0 to 1; a single run has none.
    """
    means = []
    for method, rows in table.groupby("method"):
        runs = [run.groupby("share")["score"].mean() for _, run in rows.groupby("run")]
        ends = max(run.index[0] for run in runs), min(run.index[-1] for run in runs)
        if ends[0] >= ends[1]:
            continue
        share = np.geomspace(*ends, _BUDGETS)
        scores = np.stack([np.interp(np.log(share), np.log(run.index), run) for run in runs])
        margin = scipy.stats.t.ppf(0.975, len(runs) - 1) * scipy.stats.sem(scores) if len(runs) > 1 else 0.0
        mean = scores.mean(axis=0)
        low, high = (np.clip(mean + sign * margin, 0, 1) for sign in (-1, 1))
        means.append(pd.DataFrame({"method": method, "share": share, "score": mean, "low": low, "high": high}))
    return pd.concat(means, ignore_index=True)


# --- text and figure -----------------------------------------------------------------------------------


def draw(trainings: Trainings) -> Path:
    """Write the figure of all curves, ``results/figures/seeds/trade_off.png``; return its path."""
    title = finding(trainings.all, ("temporal", "confidence")).rstrip(".")
    curves, points = trainings.curves, trainings.all.scores(LIMIT)
    return save(trade_off_of_seeds(curves, mean_curves(curves), points, title), FIGURES / "seeds" / "trade_off.png")


def report(trainings: Trainings) -> str:
    """Return what README.md and docs/results.md quote, as Markdown."""
    parts = [
        "README.md:",
        scores_table(trainings),
        f"{finding(trainings.all)} {costs(trainings.all)}",
        "docs/results.md:",
        areas_table(trainings.all),
        limits_table(trainings.all),
    ]
    return "\n\n".join(parts)


def finding(runs: Replicates, references: Sequence[str] = REFERENCES) -> str:
    """State the gains of ``runs.own`` at equal cost on ``references``, with intervals, in one sentence."""
    areas = 100 * runs.areas().set_index("method")
    listed = _listed(
        f"{row['gain']:.1f} ({row['gain_low']:.1f} to {row['gain_high']:.1f}) on {_short(name)}"
        for name, row in areas.loc[_references(runs, references)].iterrows()
    )
    return (
        f"At equal cost, on average over budgets, the gain of {display_name(runs.own)} in points of top-1 is {listed} "
        f"({runs.num_runs} trainings, 95% intervals)."
    )


def costs(runs: Replicates) -> str:
    """State the cost of ``runs.own`` relative to ``REFERENCES``, with intervals, in one sentence."""
    losses = runs.losses(LIMIT).set_index("method").loc[_references(runs, REFERENCES)]
    listed = _listed(f"{_ratio(row)} of those of {_short(name)}" for name, row in losses.iterrows())
    return (
        f"Expected to lose {LIMIT:g} {'point' if LIMIT == 1 else 'points'} at most, it needs "
        f"{listed.replace('those', 'the GMACs', 1)}."
    )


def scores_table(trainings: Trainings) -> str:
    """Format ``Replicates.scores`` of all runs as a Markdown table, with the workspace's run in the last column."""
    own = trainings.own.scores(LIMIT).set_index("method")
    lines = [
        "| policy | top-1 | 95% interval | GMACs | 95% interval | this run |",
        "|---|---|---|---|---|---|",
    ]
    for row in trainings.all.scores(LIMIT).itertuples():
        score = cells(row.score, row.low, row.high, ".1f", "%")
        share = cells(row.share, row.share_low, row.share_high, ".0f", "%")
        alone = f"{own.at[row.method, 'score']:.1%} at {own.at[row.method, 'share']:.0%}"
        lines.append(f"| {display_name(row.method)} | {score} | {share} | {alone} |")
    return "\n".join(lines)


def limits_table(runs: Replicates) -> str:
    """Format, for each of ``LIMITS``, loss and cost of ``runs.own`` and its cost relative to ``REFERENCES``."""
    names = _references(runs, REFERENCES)
    ratios = [f"of those of {_short(name)}" for name in names]
    heads = ["expected to lose at most", "points lost", "interval", "GMACs", *ratios]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for limit in LIMITS:
        losses = runs.losses(limit).set_index("method")
        own = losses.loc[runs.own]
        lost = cells(own["loss"] / 100, own["loss_low"] / 100, own["loss_high"] / 100, ".1f")
        relative = " | ".join(_ratio(losses.loc[name]) for name in names)
        lines.append(f"| {limit:g} | {lost} | {own['share']:.1%} | {relative} |")
    return "\n".join(lines)


def _references(runs: Replicates, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in runs.methods] or ["full"]


def _listed(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _ratio(row: pd.Series) -> str:
    return f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"


def _short(method: str) -> str:
    return display_name(method).partition(" (")[0]
