"""Tables for a paper: runs are found in git and DVC, averaged over seeds, and written in printable form."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import dvc.api
import nbformat
import pandas as pd
import pytest
from dvc.repo import Repo
from support.refusals import one_line

from tlee.paper.tables import (
    CAPTION,
    EVALUATION,
    SHOWN,
    TABLES,
    PolicyMetrics,
    Run,
    gather_runs,
    measured_points,
    paper_table,
    policy_table,
    write_tables,
)

SETTINGS = {
    "dataset.name": "ucf101",
    "dataset.root": "../datasets/ucf101",
    "model.backbone": "resnet50",
    "model.weights": "imagenet",
    "model.trained": None,
    "model.num_branches": 3,
    "extract.frames": 10,
    "evaluate.metric": "top1",
    "gates.beta": 0.5,
    "gates.epochs": 30,
}


def policy(score: float, gmacs: float = 1.0, **interval: float) -> PolicyMetrics:
    return PolicyMetrics(score=score, gmacs=gmacs, share_of_full=gmacs / 40, frames=4.0, **interval)


def run(seed: int = 0, policies: dict[str, PolicyMetrics] | None = None, **settings: Any) -> Run:
    """A run with ``policies``, by default the full network and TLEE; double underscores stand for dots."""
    changed = {key.replace("__", "."): value for key, value in settings.items()}
    given = policies or {"tlee": policy(0.8, low=0.7, high=0.9), "full": policy(0.9, 40.0, low=0.8, high=1.0)}
    return Run(f"run-{seed}", seed, SETTINGS | changed, given)


def tlee_row(*scores: float, **interval: float) -> pd.Series:
    """The row of TLEE with one seed per score."""
    runs = [run(seed, {"tlee": policy(score, **interval)}) for seed, score in enumerate(scores)]
    return policy_table(runs).iloc[0]


# --- seeds ---------------------------------------------------------------------------------------------


def test_seeds_are_averaged_with_students_interval_of_the_mean():
    """The standard error is 0.02 / sqrt(3), and t with 2 degrees of freedom is 4.3027."""
    row = tlee_row(0.80, 0.82, 0.84, low=0.1, high=0.2)
    assert (row["score"], row["seeds"]) == (pytest.approx(0.82), 3)
    assert (row["low"], row["high"]) == pytest.approx((0.82 - 4.3027 * 0.011547, 0.82 + 4.3027 * 0.011547), abs=1e-5)


def test_costs_and_frames_are_averaged_over_seeds():
    runs = [run(seed, {"tlee": policy(0.8, gmacs)}) for seed, gmacs in enumerate((1.0, 3.0))]
    assert policy_table(runs)[["gmacs", "share_of_full", "frames"]].iloc[0].tolist() == [2.0, 0.05, 4.0]


def test_the_interval_is_clipped_to_0_and_1():
    assert tuple(tlee_row(0.0, 1.0)[["low", "high"]]) == (0.0, 1.0)


@pytest.mark.parametrize("scores", [(0.8,), (0.8, 0.8, 0.8)])
def test_one_seed_and_equal_scores_keep_the_interval_over_videos(scores):
    row = tlee_row(*scores, low=0.7, high=0.9)
    assert (row["score"], row["low"], row["high"], row["seeds"]) == pytest.approx((0.8, 0.7, 0.9, len(scores)))


def test_a_policy_without_an_interval_has_none():
    row = tlee_row(0.8)
    assert pd.isna(row["low"]) and pd.isna(row["high"])


def test_a_policy_missing_from_some_runs_has_fewer_seeds():
    table = policy_table([run(0), run(1), run(2, {"full": policy(0.9)})]).set_index("policy")
    assert table["seeds"].to_dict() == {"full": 3, "tlee": 2}


# --- blocks --------------------------------------------------------------------------------------------


def test_a_block_has_the_full_network_first_and_unnamed_policies_last():
    given = {name: policy(0.5) for name in ("newest", "oracle", "tlee", "full")}
    assert policy_table([run(0, given)])["policy"].tolist() == ["full", "tlee", "oracle", "newest"]


def test_blocks_are_ordered_by_data_set_and_backbone():
    runs = [run(dataset__name=name, model__backbone=net) for net in ("vgg16", "resnet50") for name in ("ucf101", "hvu")]
    table = policy_table(runs)
    assert table.loc[table["policy"] == "full", ["dataset", "backbone"]].to_numpy().tolist() == [
        ["hvu", "resnet50"],
        ["hvu", "vgg16"],
        ["ucf101", "resnet50"],
        ["ucf101", "vgg16"],
    ]


def test_a_parameter_is_shown_if_it_alone_distinguishes_blocks():
    table = policy_table([run(), run(gates__beta=1.0)])
    assert table["gates.beta"].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert "gates.epochs" not in table


def test_a_parameter_that_varies_with_the_backbone_is_not_shown():
    assert "gates.beta" not in policy_table([run(), run(model__backbone="vgg16", gates__beta=1.0)])


@pytest.mark.parametrize(
    ("weights", "trained", "name"),
    [
        (None, None, "from scratch"),
        ("imagenet", None, "ImageNet"),
        ("weights/kinetics.safetensors", None, "kinetics"),
        ("imagenet", "weights/theirs.safetensors", "as in theirs"),
    ],
)
def test_pretraining_is_named(weights, trained, name):
    assert policy_table([run(model__weights=weights, model__trained=trained)])["pretraining"].unique() == [name]


def test_weights_of_the_same_name_are_distinguished_by_their_paths():
    table = policy_table([run(model__weights="a/it.pth"), run(model__weights="b/it.pth")])
    assert table["pretraining"].unique() == ["it"]
    assert table["model.weights"].unique().tolist() == ["a/it.pth", "b/it.pth"]


def test_a_table_without_runs_is_refused():
    assert "run `dvc repro`" in one_line(lambda: policy_table([]))


# --- print ---------------------------------------------------------------------------------------------


def test_a_printed_row():
    printed = paper_table(policy_table([run(gates__beta=0.1), run(gates__beta=1.0)]))
    assert printed.iloc[1].to_dict() == {
        "data set": "ucf101",
        "backbone": "resnet50",
        "pretraining": "ImageNet",
        "T": "10",
        "branches": "3",
        "gates.beta": "0.1",
        "policy": "TLEE",
        "top-1 (%)": "80.0",
        "95% interval": "70.0 to 90.0",
        "GMACs": "1",
        "of full (%)": "2",
        "frames": "4.0",
        "seeds": "1",
    }


def test_the_demo_is_distinguished_from_ucf101():
    assert set(paper_table(policy_table([run(dataset__root="data")]))["data set"]) == {"ucf101 (data)"}


def test_several_metrics_have_a_column():
    table = policy_table([run(), run(dataset__name="hvu", evaluate__metric="map")])
    printed = paper_table(table)
    assert printed["metric"].tolist() == ["mAP", "mAP", "top-1", "top-1"]
    assert "score (%)" in printed
    assert "mAP (%)" in paper_table(table[table["metric"] == "map"])


@pytest.fixture
def written(tmp_path) -> dict[str, str]:
    """The files of two blocks, one with names and values that must be escaped in LaTeX."""
    odd = {"tlee": policy(0.5), "full": policy(0.9), "100%_new & better": policy(0.9)}
    table = policy_table([run(), run(1, odd, model__backbone="mobilenet_v2")])
    return {path.suffix: path.read_text() for path in write_tables(table, tmp_path / "tables")}


def test_the_csv_file_has_the_numbers(written, tmp_path):
    table = pd.read_csv(tmp_path / "tables" / "policies.csv")
    assert table["policy"].tolist() == ["full", "tlee", "100%_new & better", "full", "tlee"]
    assert table["score"].tolist() == [0.9, 0.5, 0.9, 0.9, 0.8]
    assert table["low"].isna().tolist() == [True, True, True, False, False]


def test_the_markdown_file_has_one_line_per_policy_and_the_caption(written):
    head, rule, *rows, empty, caption = written[".md"].splitlines()
    assert len(rows) == 5
    assert {line.count("|") for line in (head, rule, *rows)} == {13}
    assert (empty, caption) == ("", CAPTION)


def test_the_latex_file_can_be_compiled(written):
    """Special characters are escaped, rows have one cell per column, and each block starts with a rule."""
    lines = written[".tex"].splitlines()
    (columns,) = re.findall(r"\\begin{tabular}{([lr]+)}", written[".tex"])
    rows = [line for line in lines if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}
    assert not re.search(r"(?<!\\)[%_#$]", "\n".join(rows))
    assert r"100\%\_new \& better" in written[".tex"]
    assert r"top-1 (\%) & 95\% interval" in rows[0]
    rules = [index for index, line in enumerate(lines) if line == r"\midrule"]
    assert [lines[index + 1].split(" & ")[1] for index in rules] == [r"mobilenet\_v2", "resnet50"]
    assert [row.split(" & ")[1].strip() for row in rows] == ["backbone", r"mobilenet\_v2", "", "", "resnet50", ""]
    opened = re.findall(r"\\begin{(\w+)}", written[".tex"])
    assert opened == re.findall(r"\\end{(\w+)}", written[".tex"])[::-1]


def test_points_comparable_with_published_ones_have_the_same_data_set_and_metric():
    bounds = {name: policy(0.9) for name in ("full", "random", "oracle")}
    runs = [
        run(0, bounds, dataset__name="activitynet", evaluate__metric="map"),
        run(dataset__name="activitynet"),  # top-1, which no paper reports
        run(),
    ]
    published = pd.DataFrame([("activitynet", "map"), ("hvu", "map")], columns=["dataset", "metric"])
    points = measured_points(policy_table(runs), published)
    assert points.to_numpy().tolist() == [["activitynet", "full", 1.0, 0.9, "full network, resnet50 (ImageNet)"]]
    assert measured_points(policy_table([run()]), published).empty


# --- runs in git and DVC -------------------------------------------------------------------------------

#: A warning of a library that DVC uses.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")

STAGE = """
import json, pathlib, sys
seed, beta = int(sys.argv[1]), float(sys.argv[2])
values = {"gmacs": beta, "share_of_full": beta / 40, "frames": 10, "low": 0.0, "high": 1.0, "top5": 1.0}
metrics = {"full": values | {"score": 0.9}, "tlee": values | {"score": 0.7 + 0.1 * seed}, "step_by_step_agreement": 1}
path = pathlib.Path("results/metrics/evaluate.json")
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(json.dumps(metrics))
"""
PIPELINE = f"""
stages:
  evaluate:
    cmd: {sys.executable} -S stage.py ${{seed}} ${{gates.beta}}
    params: [seed, dataset, extract, model, gates, latency]
    outs:
      - results/metrics/evaluate.json: {{cache: false}}
metrics: [results/metrics/evaluate.json]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory, root) -> Path:
    """The project's parameters and a trivial stage: a commit before its run, one after, and three experiments."""
    folder = tmp_path_factory.mktemp("repository")
    params = (root / "params.yaml").read_text().replace("beta: 0.5 ", "beta: 0.00005 ")
    (folder / "params.yaml").write_text(params)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "stage.py").write_text(STAGE)

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments], cwd=folder, check=True)

    git("init", "--quiet")
    with contextlib.chdir(folder), Repo.init() as repo:
        git("add", ".")
        git("commit", "--quiet", "--message", "before")
        repo.reproduce()
        git("add", ".")
        git("commit", "--quiet", "--message", "after")
        for changed in (["seed=1"], ["seed=2", "latency.threads=2"], ["seed=0", "gates.beta=2.0"]):
            repo.experiments.run(params=changed, name="-".join(changed).replace(".", "-").replace("=", "-"))
            git("checkout", "--quiet", ".")
    return folder


@pytest.fixture
def inside(repository, monkeypatch) -> Iterator[Path]:
    monkeypatch.chdir(repository)
    yield repository
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=repository, check=True)


def left_out() -> list[list[str]]:
    """The runs that are left out, with the reasons."""
    return gather_runs()[1].to_numpy().tolist()


def show_only(monkeypatch: pytest.MonkeyPatch, *revisions: str) -> None:
    """Make ``dvc exp show`` list only these."""
    rows = [{"Experiment": None, "rev": revision, "State": None} for revision in revisions]
    monkeypatch.setattr(dvc.api, "exp_show", lambda num: rows)


@pytest.fixture
def workspace(inside, monkeypatch) -> Path:
    """The repository, with the workspace as the only run."""
    show_only(monkeypatch, "workspace")
    return inside


@pytest.mark.slow
def test_experiments_are_gathered_and_averaged(inside):
    runs, missing = gather_runs()
    assert runs[0].name == "workspace"  # the last commit has the same results
    assert len(runs) == 4 and missing.empty
    table = policy_table(runs).set_index(["gates.beta", "policy"])
    assert table["seeds"].to_dict() == {(5e-5, "full"): 3, (5e-5, "tlee"): 3, (2.0, "full"): 1, (2.0, "tlee"): 1}
    assert table["score"].to_list() == pytest.approx([0.9, 0.8, 0.9, 0.7])
    assert set(table["pretraining"]) == {"from scratch"}
    assert "latency.threads" not in table


@pytest.mark.slow
def test_an_earlier_commit_without_a_run_is_named(inside):
    runs, missing = gather_runs(commits=2)
    assert len(runs) == 4
    assert missing["reason"].tolist() == ["no dvc.lock"]


@pytest.mark.slow
def test_parameters_changed_since_the_run_are_named(workspace):
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("threads: 1 ", "threads: 2 "))  # affects no policy
    assert gather_runs()[1].empty
    params.write_text(params.read_text().replace("beta: 0.00005", "beta: 0.7"))
    ((name, reason),) = left_out()
    assert name == "workspace" and "gates.beta" in reason and "run `dvc repro`" in reason


@pytest.mark.slow
def test_a_run_whose_latency_was_measured_with_another_seed_is_used(workspace):
    """As those of ``make seeds``, which leave out that stage."""
    lock = workspace / "dvc.lock"
    latency = "  latency:\n    cmd: a\n    params:\n      params.yaml:\n        seed: 7\n"
    lock.write_text(lock.read_text() + latency)
    assert left_out() == []
    lock.write_text(lock.read_text().replace("  latency:", "  gates:"))
    assert left_out() == [["workspace", "seed has changed since: run `dvc repro`"]]


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [("gmacs", "GFLOPs"), ("}", "")])
def test_unusable_metrics_are_named(workspace, old, new):
    metrics = workspace / EVALUATION
    metrics.write_text(metrics.read_text().replace(old, new))
    ((name, reason),) = left_out()
    assert name == "workspace" and str(EVALUATION) in reason and "damaged" in reason


@pytest.mark.slow
def test_a_workspace_without_metrics_is_named(workspace):
    (workspace / EVALUATION).unlink()
    ((name, reason),) = left_out()
    assert (name, reason) == ("workspace", f"no {EVALUATION}")


@pytest.mark.slow
def test_a_run_without_a_newer_parameter_is_named(workspace):
    for name in ("params.yaml", "dvc.lock"):
        text = (workspace / name).read_text()
        (workspace / name).write_text(re.sub(r"\n +trained:[^\n]*", "", text))
    ((name, reason),) = left_out()
    assert name == "workspace" and reason.startswith("no model.trained")


@pytest.mark.slow
def test_different_results_with_the_same_parameters_are_named(inside, monkeypatch):
    show_only(monkeypatch, "workspace", "HEAD")
    assert left_out() == []
    metrics = inside / EVALUATION
    metrics.write_text(metrics.read_text().replace('"score": 0.7', '"score": 0.6'))
    ((name, reason),) = left_out()
    assert name == "HEAD" and "same parameters as workspace" in reason


@pytest.mark.slow
def test_a_failed_experiment_is_named_although_git_has_earlier_metrics(inside, monkeypatch):
    shown = dvc.api.exp_show()
    monkeypatch.setattr(dvc.api, "exp_show", lambda num: [*shown[:-1], shown[-1] | {"State": "Failed"}])
    runs, missing = gather_runs()
    assert len(runs) == 3
    assert missing.to_numpy().tolist() == [[shown[-1]["Experiment"], "failed"]]


def test_outside_of_git_the_error_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "git and DVC" in one_line(gather_runs)


@pytest.mark.slow
def test_the_notebook_runs(inside, root, capsys):
    cells = nbformat.read(root / "notebooks" / "tables.ipynb", as_version=4).cells
    names: dict[str, Any] = {}
    for cell in cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    assert (TABLES / "policies.tex").exists()
    assert "wrote results/tables/policies.csv" in capsys.readouterr().out
    assert Path("results/figures/tables/literature.png").exists()


def test_the_table_of_the_committed_run(root):
    """The metrics that the pipeline writes can be read."""
    metrics = json.loads((root / "results/metrics/evaluate.json").read_text())
    policies = {name: PolicyMetrics(**row) for name, row in metrics.items() if isinstance(row, dict)}
    table = policy_table([run(0, policies)])
    assert set(table["policy"]) == set(policies) and table["policy"].iloc[0] == "full"
    assert {*SHOWN, "pretraining"} < set(table)
