"""Trainings with several seeds: run as DVC experiments, collected, averaged and compared."""

import contextlib
import lzma
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import pandas as pd
import pytest
import scipy.stats
from dvc.repo import Repo
from support.titles import states, title

from tlee import __main__ as command_line
from tlee.checksums import load_sealed
from tlee.errors import UserError
from tlee.evaluation.per_video import LIMITS
from tlee.figures.seeds import DRAWN, trade_off_of_seeds
from tlee.paper.replicates import Replicates
from tlee.paper.seed_runs import find_experiment, train
from tlee.paper.seeds import (
    STAGES,
    Trainings,
    collect,
    costs,
    finding,
    inputs,
    limits_table,
    load_trainings,
    mean_curves,
    read_curves,
    report,
    scores_table,
)
from tlee.paths import FIGURES, SEEDS

#: A warning of a library that DVC uses.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")


def videos(seed: int, **shares: float) -> pd.DataFrame:
    """A run with four videos in two groups; each method costs a share, and is wrong on as many videos as the seed."""
    rows = []
    for method, share in ({"full": 1.0} | shares).items():
        for row, name in enumerate("abcd"):
            numbers = {f"share_{limit:g}": share for limit in LIMITS}
            correct = {f"correct_{limit:g}": method == "full" or row >= seed for limit in LIMITS}
            outcome = {"method": method, "video": name, "group": name > "b", "full": True, "area": 1 - share}
            rows.append({**outcome, **correct, **numbers, "split": 1, "seed": seed})
    return pd.DataFrame(rows)


def trainings(*runs: pd.DataFrame) -> Trainings:
    return Trainings(Replicates(pd.concat(runs)), Replicates(runs[0]), pd.DataFrame())


CURVES = pd.DataFrame(
    [
        *[(0, "full", 1.0, 1.0), (0, "tlee", 0.1, 0.6), (0, "tlee", 0.4, 0.8)],
        *[(1, "full", 0.9, 1.0), (1, "tlee", 0.05, 0.3), (1, "tlee", 0.2, 0.5), (1, "tlee", 0.8, 0.7)],
    ],
    columns=["run", "method", "score", "share"],
).rename(columns={"score": "share", "share": "score"})
CURVES.loc[CURVES["method"] == "full", ["share", "score"]] = [[1.0, 1.0], [1.0, 0.9]]


# --- numbers -------------------------------------------------------------------------------------------


def test_curves_are_averaged_where_all_runs_have_one():
    means = mean_curves(CURVES)
    assert set(means["method"]) == {"tlee"}  # the full network is one point
    assert means["share"].iloc[[0, -1]].tolist() == pytest.approx([0.1, 0.4])
    assert means["score"].iloc[0] == pytest.approx((0.6 + 0.4) / 2)  # 0.1 is halfway from 0.05 to 0.2 in the logarithm
    assert means["score"].iloc[-1] == pytest.approx((0.8 + 0.6) / 2)
    margin = scipy.stats.t.ppf(0.975, 1) * scipy.stats.sem([0.8, 0.6])
    assert means["low"].iloc[-1] == pytest.approx(max(0.7 - margin, 0))
    assert means["high"].iloc[-1] == pytest.approx(min(0.7 + margin, 1))
    assert (means["low"] >= 0).all() and (means["high"] <= 1).all()


def test_the_mean_of_one_run_is_its_curve_without_an_interval():
    means = mean_curves(CURVES[CURVES["run"] == 0])
    assert means["score"].iloc[[0, -1]].tolist() == pytest.approx([0.6, 0.8])
    assert (means["low"] == means["score"]).all() and (means["high"] == means["score"]).all()


def test_curves_are_shares_of_each_run_s_full_network(tmp_path):
    paths = [tmp_path / "0.csv", tmp_path / "1.csv"]
    for path, gmacs in zip(paths, (2.0, 4.0), strict=True):
        path.write_text(f"method,score,gmacs\nfull,1,{gmacs}\ntlee,0.5,1\n")
    assert read_curves(paths).set_index(["run", "method"])["share"].to_dict() == {
        **{(0, "full"): 1, (0, "tlee"): 0.5},
        **{(1, "full"): 1, (1, "tlee"): 0.25},
    }
    for content in ("", "method,score,gmacs\ntlee,0.5,1\n", "method,score\nfull,1\n"):
        paths[1].write_text(content)
        with pytest.raises(UserError, match=r"1\.csv is missing or damaged: run `dvc repro evaluate`"):
            read_curves(paths)


def test_inputs_are_code_data_and_parameters_but_the_seed():
    lock = {
        "stages": {
            name: {
                "deps": [{"path": "results/frames", "md5": "0"}, {"path": f"results/code/{name}.txt", "md5": "1"}],
                "params": {"params.yaml": {"seed": 3, "gates": {"beta": 0.5}, "compute.jobs": 2, "dataset.split": 1}},
                "outs": [{"path": "results/frames" if name == "extract" else f"results/{name}", "md5": "2"}],
            }
            for name in (*STAGES, "latency")
        }
    }
    del lock["stages"]["explain"]["params"]
    found = inputs(lock)
    assert list(found) == list(STAGES)
    assert found["gates"] == {"results/code/gates.txt": "1", "gates.beta": "0.5", "dataset.split": "1"}
    assert found["explain"] == {"results/code/explain.txt": "1"}


# --- text and figure -----------------------------------------------------------------------------------

RUNS = trainings(videos(0, tlee=0.1, temporal=0.4, confidence=0.2), videos(1, tlee=0.2, temporal=0.4, confidence=0.2))


def test_tables_and_the_finding():
    lines = scores_table(RUNS).splitlines()
    assert {line.count("|") for line in lines} == {7}
    assert lines[2] == "| full network | 100.0% | 100.0% to 100.0% | 100% | 100% to 100% | 100.0% at 100% |"
    assert lines[4] == "| TLEE | 87.5% | 50.0% to 100.0% | 15% | 10% to 20% | 100.0% at 10% |"
    assert finding(RUNS.all) == (
        "At equal cost, on average over budgets, the gain of TLEE in points of top-1 is "
        "25.0 (20.0 to 30.0) on temporal only and 5.0 (0.0 to 10.0) on confidence (2 trainings, 95% intervals)."
    )
    assert finding(RUNS.all, ["temporal"]).endswith("is 25.0 (20.0 to 30.0) on temporal only (2 trainings, "
                                                    "95% intervals).")  # fmt: skip
    assert costs(RUNS.all) == (
        "Expected to lose 1 point at most, it needs 0.38 (0.25 to 0.50) of the GMACs of temporal only and "
        "0.75 (0.50 to 1.00) of those of confidence."
    )
    rows = limits_table(RUNS.all).splitlines()
    assert rows[0].endswith("| GMACs | of those of temporal only | of those of confidence |")
    assert rows[2] == "| 1 | 12.5 | 0.0 to 50.0 | 15.0% | 0.38 (0.25 to 0.50) | 0.75 (0.50 to 1.00) |"
    assert len(rows) == 2 + len(LIMITS)
    parts = (scores_table(RUNS), finding(RUNS.all), costs(RUNS.all), "\n".join(rows))
    assert all(part in report(RUNS) for part in parts)


def test_the_figure_has_each_run_the_mean_and_the_finding():
    axes = trade_off_of_seeds(CURVES, mean_curves(CURVES), RUNS.all.scores(1), finding(RUNS.all))
    assert states(title(axes), "TLEE", "25.0 (20.0 to 30.0) on temporal only")
    thin = [line for line in axes.lines if line.get_linewidth() < 1 and len(line.get_xdata()) > 1]
    assert [len(line.get_xdata()) for line in thin if line.get_color() == "#D55E00"] == [2, 3]
    bold = [line for line in axes.lines if line.get_linewidth() > 2 and len(line.get_xdata())]
    assert [line.get_xdata()[[0, -1]].tolist() for line in bold] == [pytest.approx([10, 40])]
    drawn = [text.get_text().partition(" (")[0] for text in axes.get_legend().get_texts()]
    assert drawn == ["full network", "temporal only", "confidence", "TLEE"]
    assert len(DRAWN) == 5


# --- experiments ---------------------------------------------------------------------------------------

STAGE = f"""
import json, os, pathlib, sys
from tlee.checksums import save_sealed, sealed_lines
name, seed = sys.argv[1], int(sys.argv[2])
with open(os.environ["RAN"], "a") as log:
    print(name, seed, file=log)
if name == "gates" and pathlib.Path(os.environ["RAN"]).with_name("fail").exists():
    sys.exit(1)
results = pathlib.Path("results")
save_sealed(results / f"metrics/{{name}}.json", {{"seed": seed}})
if name == "evaluate":
    folder = results / "plots/evaluate"
    folder.mkdir(parents=True, exist_ok=True)
    header = {",".join(videos(0))!r}
    outcomes = (("full", 0.5, {"True,1.0," * len(LIMITS)!r}), ("tlee", 0.9, {"True,0.2," * len(LIMITS)!r}))
    rows = [f"{{method}},a,g,True,{{area}},{{found}}1,{{seed}}" for method, area, found in outcomes]
    (folder / "videos.csv").write_text(sealed_lines("\\n".join([header, *rows]) + "\\n"))
    (folder / "trade_off.csv").write_text("method,score,gmacs\\nfull,1,1\\ntlee,0.5,0.1\\ntlee,0.9,0.5\\n")
"""


def pipeline() -> str:
    lines = ["stages:"]
    for before, name in zip([None, *STAGES], STAGES, strict=False):
        lines += [f"  {name}:", f"    cmd: {sys.executable} stage.py {name} ${{seed}}", "    params: [seed, note]"]
        lines += ["    deps:", "      - stage.py", *([f"      - results/metrics/{before}.json"] if before else [])]
        lines += ["    outs:", f"      - results/metrics/{name}.json: {{cache: false}}"]
        lines += ["      - results/plots/evaluate: {cache: false}"] if name == "evaluate" else []
    return "\n".join(lines)


class Repository:
    """A repository with the stages of the pipeline in miniature, and a commit after its run with seed 0."""

    def __init__(self, folder: Path):
        self.folder, self.log = folder / "repository", folder / "ran"
        self.folder.mkdir()
        (self.folder / "dvc.yaml").write_text(pipeline())
        (self.folder / "stage.py").write_text(STAGE)
        (self.folder / "params.yaml").write_text("seed: 0  # of everything\nnote: a\n")
        (self.folder / ".gitignore").write_text("/runs/\n")
        self.git("init", "--quiet")
        for key, value in (("user.name", "a"), ("user.email", "a@b.c"), ("gc.auto", "0")):
            self.git("config", key, value)
        with contextlib.chdir(self.folder), Repo.init() as repo:
            repo.reproduce()
        self.commit()

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.folder, check=True)

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "a commit")

    def ran(self) -> list[str]:
        """The stages that ran since the last call, with their seeds."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAN", str(folder / "ran"))
        Repository(folder)
        (folder / "ran").unlink()
    return folder


@pytest.fixture
def repository(template, tmp_path, monkeypatch) -> Repository:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True, symlinks=True)
    found = Repository.__new__(Repository)
    found.folder, found.log = tmp_path / "repository", tmp_path / "ran"
    monkeypatch.setenv("RAN", str(found.log))
    monkeypatch.chdir(found.folder)
    return found


def everything(seed: int) -> list[str]:
    return [f"{stage} {seed}" for stage in STAGES]


@pytest.mark.slow
def test_a_seed_is_trained_once_and_collected(repository):
    before = (repository.folder / "results/metrics/gates.json").read_bytes()
    train(1)
    assert repository.ran() == everything(1)
    train(1)
    assert repository.ran() == []
    assert (repository.folder / "results/metrics/gates.json").read_bytes() == before
    assert find_experiment(1) and not find_experiment(2)
    folder = collect(1)
    assert folder == SEEDS / "seed1"
    assert load_sealed(folder / "metrics.json", "") == {stage: {"seed": 1} for stage in STAGES}
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(first) == {"metrics.json", "inputs.json", "videos.csv.xz", "trade_off.csv"}
    clone = repository.folder / "runs/seeds/seed1/results/plots/evaluate"
    assert lzma.decompress(first["videos.csv.xz"]) == (clone / "videos.csv").read_bytes()
    assert first["trade_off.csv"] == (clone / "trade_off.csv").read_bytes()
    shutil.rmtree(folder)
    assert {path.name: path.read_bytes() for path in collect(1).iterdir()} == first
    with pytest.raises(UserError, match="no experiment `seed2`: run `python -m tlee seeds 2`"):
        collect(2)


@pytest.mark.slow
def test_a_run_that_failed_is_continued(repository):
    fail = repository.log.with_name("fail")
    fail.touch()
    with pytest.raises(UserError, match=r"`dvc repro` failed in runs/seeds/seed1.*run the same command again"):
        train(1)
    assert repository.ran() == everything(1)[:4]
    assert find_experiment(1) is None
    fail.unlink()
    train(1)
    assert repository.ran() == everything(1)[3:]
    assert find_experiment(1)


@pytest.mark.slow
def test_after_another_commit_only_what_it_changed_runs(repository):
    train(1)
    repository.ran()
    (repository.folder / "params.yaml").write_text("seed: 0\nnote: a\nother: 1\n")
    repository.commit()
    assert find_experiment(1) is None
    train(1)
    assert repository.ran() == []
    assert collect(1)
    (repository.folder / "params.yaml").write_text("seed: 0\nnote: b\n")
    with pytest.raises(UserError, match=r"^params\.yaml is not committed"):
        train(1)
    repository.commit()
    train(1)
    assert repository.ran() == everything(1)


@pytest.mark.slow
def test_the_command_trains_compares_and_draws(repository, capsys):
    with pytest.raises(UserError, match="results/seeds has no runs: `make seeds`"):
        load_trainings()
    command_line.app(["seeds", "2"], standalone_mode=False)
    assert repository.ran() == everything(2)
    text = capsys.readouterr().out
    found = load_trainings()
    assert (found.all.num_runs, found.own.num_runs) == (2, 1)
    assert scores_table(found) in text and "(2 trainings" in text
    figure = FIGURES / "seeds" / "trade_off.png"
    first = figure.read_bytes()
    command_line.app(["seeds"], standalone_mode=False)
    assert figure.read_bytes() == first
    assert capsys.readouterr().out.count(scores_table(found)) == 1


@pytest.mark.slow
def test_runs_of_other_parameters_are_refused(repository):
    train(1)
    collect(1)
    lock = Path("dvc.lock")
    lock.write_text(lock.read_text().replace("note: a", "note: b"))
    with pytest.raises(UserError, match=r"results/seeds/seed1 was run with other .* of stage extract: run `dvc repro`"):
        load_trainings()
    lock.write_text("stages: {}")
    with pytest.raises(UserError, match=r"dvc\.lock has no complete run"):
        load_trainings()


def test_outside_a_repository_git_s_message_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UserError, match=r"`git status` failed \(.*not a git repository.*\)"):
        train(1)
