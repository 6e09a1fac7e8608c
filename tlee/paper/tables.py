"""Tables in the papers' layout from your own runs: the workspace and the DVC experiments, averaged over seeds.

Each run keeps its parameters and its results on the test videos in git, so that runs can be compared afterwards:
``dvc exp run -S seed=1``, or several with ``--queue`` and then ``dvc queue start``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dvc.api
import pandas as pd
import scipy.stats
import yaml
from dvc.exceptions import DvcException, PathMissingError
from pydantic import BaseModel, TypeAdapter

from tlee.checksums import KEY, unsealed
from tlee.errors import UserError
from tlee.methods import display_name, in_order
from tlee.metrics import METRIC_NAMES
from tlee.paper.run_files import flat
from tlee.params import method_settings
from tlee.paths import METRICS, RESULTS

EVALUATION = METRICS / "evaluate.json"
TABLES = RESULTS / "tables"

#: Columns of every table, and their parameters; the column ``pretraining`` has two, ``PRETRAINING``.
SHOWN = {
    "dataset": "dataset.name",
    "root": "dataset.root",
    "backbone": "model.backbone",
    "T": "extract.frames",
    "branches": "model.num_branches",
    "metric": "evaluate.metric",
}
PRETRAINING = ("model.weights", "model.trained")

#: Parameters that do not affect policies: what computes, and the latency measurement.
IRRELEVANT = ("compute.", "latency.")

CAPTION = (
    "Policies on the test videos, T frames sampled from each. GMACs are multiply-accumulates per video, of everything "
    "that runs. Intervals: Student's t of the mean over seeds; for a single seed, or equal scores, a bootstrap over "
    "videos."
)


class PolicyMetrics(BaseModel):
    """Results of a policy on test; the other fields of ``results/metrics/evaluate.json`` are not read."""

    score: float
    gmacs: float
    share_of_full: float
    frames: float
    low: float | None = None
    high: float | None = None


_EVALUATION = TypeAdapter(dict[str, PolicyMetrics | float])


@dataclass(frozen=True)
class Run:
    """One run of the pipeline. ``settings`` are its parameters by dotted key, except the seed and ``IRRELEVANT``."""

    name: str
    seed: int
    settings: dict[str, Any]
    policies: dict[str, PolicyMetrics]

    @property
    def key(self) -> str:
        """Identifier that is the same for runs that differ only in the seed."""
        return json.dumps({key: str(value) for key, value in self.settings.items()}, sort_keys=True)


# --- runs ----------------------------------------------------------------------------------------------


def gather_runs(commits: int = 1) -> tuple[list[Run], pd.DataFrame]:
    """Read the runs of the workspace, of the last ``commits`` in git, newest first, and of their DVC experiments.

    Returns the runs, and a table of the runs left out, ``run`` and ``reason``. Of several runs with the same parameters
    and seed the first is used. Raises ``UserError`` outside a repository of git and DVC.
    """
    try:
        rows = dvc.api.exp_show(num=commits)
    except DvcException as error:
        raise UserError(f"cannot list the runs in git and DVC: {' '.join(str(error).split())}") from None
    runs: dict[tuple[str, int], Run] = {}
    left_out = []
    for row in rows:
        name = row["Experiment"] or row["rev"]
        run = _read(name, row["rev"], row["State"] or "Success")
        if isinstance(run, str):
            left_out.append((name, run))
        elif run.policies != (first := runs.setdefault((run.key, run.seed), run)).policies:
            left_out.append((name, f"same parameters as {first.name}, different results"))
    return list(runs.values()), pd.DataFrame(left_out, columns=["run", "reason"])


def _read(name: str, revision: str, state: str) -> Run | str:
    """Read the run of a row of ``dvc exp show``, or return the reason for leaving it out."""
    if state != "Success":
        return state.lower()
    texts = {}
    for path in ("params.yaml", "dvc.lock", EVALUATION.as_posix()):
        try:
            texts[path] = dvc.api.read(path, rev=None if revision == "workspace" else revision)
        except PathMissingError:
            return f"no {path}"
    try:
        metrics = json.loads(texts[EVALUATION.as_posix()])
        policies = _EVALUATION.validate_python(unsealed(metrics) if KEY in metrics else metrics)  # older runs have none
        params, lock = yaml.safe_load(texts["params.yaml"]), yaml.safe_load(texts["dvc.lock"])
        changed = _changed_parameters(flat(params), lock)
        params["model"] |= method_settings(params["model"]["method"], params["model"]["gate"])
        settings = flat(params)
        seed = settings.pop("seed")
    except (ValueError, TypeError, AttributeError, yaml.YAMLError, KeyError, RecursionError):
        return f"its params.yaml or {EVALUATION} is damaged or too old"
    if changed:
        return f"{changed[0]} has changed since: run `dvc repro`"
    if missing := [key for key in (*SHOWN.values(), *PRETRAINING) if key not in settings]:
        return f"no {missing[0]} in its params.yaml"
    settings = {key: value for key, value in settings.items() if not key.startswith(IRRELEVANT)}
    return Run(name, seed, settings, {name: row for name, row in policies.items() if isinstance(row, PolicyMetrics)})


def _changed_parameters(settings: dict[str, Any], lock: dict[str, Any]) -> list[str]:
    """List the parameters that differ from those in ``dvc.lock``, with which the stages were run.

    Left out is the stage of the latency, which ``make seeds`` does not run. Values are compared as text: DVC writes
    ``0.00001`` as ``1e-05``, which is text in YAML 1.1.
    """
    relevant = [stage for name, stage in lock["stages"].items() if name != "latency" and "params" in stage]
    stages = [flat(stage["params"]["params.yaml"]) for stage in relevant]
    recorded = {key: value for stage in stages for key, value in stage.items() if not key.startswith(IRRELEVANT)}
    return [key for key, value in recorded.items() if key not in settings or str(settings[key]) != str(value)]


# --- tables --------------------------------------------------------------------------------------------


def policy_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Average runs over seeds: one block of rows for runs that differ only in the seed, one row per policy.

    Columns: those of ``SHOWN`` and ``pretraining``; further parameters, by their dotted keys, in which blocks with
    otherwise equal columns differ; ``policy``, a key; means over ``seeds`` of ``score``, ``gmacs`` per
    video, ``share_of_full`` and ``frames`` used; ``low`` and ``high``, a 95% interval of the score. Blocks are ordered
    by data set, backbone and pretraining, the full network first in each.
    Raises ``UserError`` if there are no runs.
    """
    if not runs:
        raise UserError(f"no run has {EVALUATION}: run `dvc repro`")
    blocks: dict[str, list[Run]] = {}
    for run in runs:
        blocks.setdefault(run.key, []).append(run)
    settings = pd.DataFrame([block[0].settings for block in blocks.values()], dtype=object)
    shown = settings[list(SHOWN.values())].set_axis(list(SHOWN), axis=1)
    shown["pretraining"] = [_pretraining(*row) for row in settings[list(PRETRAINING)].itertuples(index=False)]
    titles = shown.join(settings[_distinguishing(settings, shown)])
    members = list(blocks.values())
    rows = []
    for index, title in titles.sort_values(["dataset", "backbone", "pretraining"], kind="stable").iterrows():
        found = {policy for run in members[index] for policy in run.policies}
        for policy in in_order(found):
            outcomes = [run.policies[policy].model_dump() for run in members[index] if policy in run.policies]
            rows.append({**title, "policy": policy, **_over_seeds(pd.DataFrame(outcomes, dtype=float))})
    return pd.DataFrame(rows)


def _pretraining(weights: str | None, trained: str | None) -> str:
    """Name the weights that training started from."""
    if trained:
        return f"as in {Path(trained).stem}"
    if weights is None:
        return "from scratch"
    return "ImageNet" if weights == "imagenet" else Path(weights).stem


def _distinguishing(settings: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    """List the parameters that differ between blocks with equal ``shown`` columns."""
    shown_alike = shown.astype(str).agg("|".join, axis=1)
    differ = settings.astype(str).groupby(shown_alike).nunique().max() > 1
    return [key for key in settings if differ[key]]


def _over_seeds(outcomes: pd.DataFrame) -> dict[str, float]:
    """Average runs; where their scores differ, the interval is Student's t of the mean score, clipped to 0..1."""
    means, scores = outcomes.mean(), outcomes["score"]
    if scores.nunique() > 1:
        interval = scipy.stats.t.interval(0.95, len(scores) - 1, means["score"], scipy.stats.sem(scores))
        means["low"], means["high"] = max(interval[0], 0.0), min(interval[1], 1.0)
    return {**means, "seeds": len(outcomes)}


def paper_table(table: pd.DataFrame) -> pd.DataFrame:
    """Format ``policy_table`` for a paper: text, scores and shares in percent.

    A data set in a folder of another name is followed by that name: the demo is ``ucf101 (data)``.
    """
    metrics = table["metric"].unique()
    folders = [Path(root).name for root in table["root"]]
    named = zip(table["dataset"], folders, strict=True)
    printed = {
        "data set": [name if name == folder else f"{name} ({folder})" for name, folder in named],
        **{name: table[name].map(str) for name in ("backbone", "pretraining", "T", "branches")},
        **{name: table[name].map(str) for name in table if "." in name},
        **({"metric": table["metric"].map(METRIC_NAMES)} if len(metrics) > 1 else {}),
        "policy": [display_name(policy) for policy in table["policy"]],
        f"{METRIC_NAMES[metrics[0]] if len(metrics) == 1 else 'score'} (%)": _numbers(100 * table["score"], ".1f"),
        "95% interval": [
            "" if pd.isna(low) else f"{100 * low:.1f} to {100 * high:.1f}"
            for low, high in zip(table["low"], table["high"], strict=True)
        ],
        "GMACs": _numbers(table["gmacs"], ".4g"),
        "of full (%)": _numbers(100 * table["share_of_full"], ".0f"),
        "frames": _numbers(table["frames"], ".1f"),
        "seeds": _numbers(table["seeds"], "d"),
    }
    return pd.DataFrame(printed).reset_index(drop=True)


def _numbers(column: pd.Series, form: str) -> list[str]:
    return [f"{value:{form}}" for value in column]


def write_tables(table: pd.DataFrame, folder: Path = TABLES) -> list[Path]:
    """Write ``policies.csv`` from ``table``, and ``policies.md`` and ``policies.tex`` from ``paper_table``.

    Returns their paths.
    The LaTeX requires the package booktabs and shows the settings of a block in its first row only.
    """
    printed = paper_table(table)
    folder.mkdir(parents=True, exist_ok=True)
    csv, markdown, latex = (folder / f"policies.{ending}" for ending in ("csv", "md", "tex"))
    table.to_csv(csv, index=False, float_format="%.6g", lineterminator="\n")
    alignment = ["left" if column in _settings(printed) else "right" for column in printed]
    rows = printed.to_markdown(index=False, disable_numparse=True, colalign=alignment)
    markdown.write_text(f"{rows}\n\n{CAPTION}\n", encoding="utf-8")
    latex.write_text(_latex(printed), encoding="utf-8")
    return [csv, markdown, latex]


def _settings(printed: pd.DataFrame) -> list[str]:
    """List the columns up to the policy; columns of numbers follow."""
    return list(printed)[: list(printed).index("policy") + 1]


def _latex(printed: pd.DataFrame) -> str:
    *settings, _ = _settings(printed)
    first = printed[settings].ne(printed[settings].shift()).any(axis=1)
    body = printed.assign(**printed[settings].where(first, ""))
    lines = body.to_latex(
        index=False,
        escape=True,
        column_format="l" * (len(settings) + 1) + "r" * (len(printed.columns) - len(settings) - 1),
        caption=CAPTION,
        label="tab:policies",
        position="t",
    ).splitlines()
    start = lines.index(r"\midrule") + 1
    for row in reversed(printed.index[first][1:]):
        lines.insert(start + row, r"\midrule")
    return "\n".join(lines) + "\n"


def measured_points(table: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Select the rows of ``policy_table`` that are comparable with ``published`` ones: same data set and metric.

    Baselines that are bounds (random exits, the oracle) are left out. Returns the columns of ``published_results``:
    ``dataset``, ``method``, ``gmacs``, ``score``, ``label``.
    """
    comparable = table.merge(published[["dataset", "metric"]].drop_duplicates())
    points = comparable[~comparable["policy"].isin(["random", "oracle"])].rename(columns={"policy": "method"})
    names = [display_name(method) for method in points["method"]]
    networks = points["backbone"] + " (" + points["pretraining"] + ")"
    return points.assign(label=[f"{name}, {network}" for name, network in zip(names, networks, strict=True)])[
        ["dataset", "method", "gmacs", "score", "label"]
    ]
