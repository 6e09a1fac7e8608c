"""Is a run the committed one, what seeds make of it, outside, or damaged? On small fabricated git repositories."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from support.refusals import one_line
from typer.testing import CliRunner

import tlee.__main__ as command_line
from tlee.checksums import read_sealed, save_sealed, sealed_lines
from tlee.paper import agreement
from tlee.paper.agreement import Number, compare, one_more_seed, report
from tlee.paper.integrity import dvc_hash
from tlee.paper.seeds import STAGES, inputs

N = 100  # test videos
MODULE = "tlee/policies/walking.py"
PARAMS = Path(__file__).parents[2] / "params.yaml"


# --- fabricated runs ---------------------------------------------------------------------------------


def write_run(seed: int = 0, *, lost: int = 2, gmacs: float = 1.0, auroc: float = 0.9, code: str = "0a") -> None:
    """Write a complete run in the working folder: TLEE loses ``lost`` of 100 videos at ``gmacs`` of 4 each."""
    params = PARAMS.read_text(encoding="utf-8").replace("seed: 0", f"seed: {seed}")
    Path("params.yaml").write_text(params, encoding="utf-8")
    correct = {"full": np.ones(N, bool), "tlee": np.arange(N) >= lost}
    costs, frames = {"full": 4.0, "tlee": gmacs}, {"full": 10, "tlee": 2}
    names = [f"{row}.mp4" for row in range(N)]
    trace = pd.concat(
        pd.DataFrame({"method": name, "video": names, "correct": each, "gmacs": costs[name], "frames": frames[name]})
        for name, each in correct.items()
    )
    videos = pd.DataFrame({"video": names, "method": "tlee", "full": correct["full"]})
    for name, table in {"trace": trace, "videos": videos}.items():
        write(f"results/plots/evaluate/{name}.csv", sealed_lines(table.to_csv(index=False, lineterminator="\n")))
    policies = {
        name: {"score": each.mean(), "gmacs": costs[name], "share_of_full": costs[name] / 4, "frames": frames[name]}
        for name, each in correct.items()
    }
    content = {
        "extract": {"val": 50, "test": N},
        "pretrain": {"loss": 0.1 + seed, "val top-1, 10 frames": 0.98},
        "branches": {"depth 0": 0.9},
        "gates": {"val AUROC": auroc},
        "evaluate": policies | {"step_by_step_agreement": 1.0},
        "explain": {"saving": 4 / gmacs, "harmful": lost, "helpful": 0},
        "guarantee": {"test": {"harm": 0.01, "share_of_full": 0.3, "full_top1": 1.0}},
        "edge": {"max_logit_difference": 1e-6},
        "latency": {"TLEE": {"p50": 0.6}},
    }
    for name, metrics in content.items():
        save_sealed(Path(f"results/metrics/{name}.json"), metrics)
    write("results/code/5_evaluate.txt", f"{code}  {MODULE}\n")
    write("results/models/backbone.safetensors", f"weights of seed {seed}, {lost}, {gmacs}, {auroc}")
    write("results/frames/test.arrow", "frames")
    write("data.dvc", yaml.safe_dump({"outs": [{"md5": "aa.dir", "path": "data"}]}))
    write_environment()
    record()


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8", newline="")


def write_environment(**changed: Any) -> None:
    found = {"processor": "x86_64: old", "cores": 2, "packages": {"torch": "2.0", "numpy": "2.0"}} | changed
    write("results/environment/5_evaluate.json", json.dumps(found))


def record() -> None:
    """Write ``dvc.lock`` as DVC does when all stages have been run."""
    outs = {stage: [f"results/metrics/{stage}.json"] for stage in (*STAGES, "latency")}
    outs["extract"].append("results/frames")
    outs["pretrain"].append("results/models/backbone.safetensors")
    outs["evaluate"].append("results/plots/evaluate")
    deps = {stage: [] for stage in outs} | {"evaluate": ["results/models/backbone.safetensors", "results/frames"]}
    deps["evaluate"].append("results/code/5_evaluate.txt")
    seed = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["seed"]
    stages = {
        stage: {
            "deps": [entry(path) for path in deps[stage]],
            "params": {"params.yaml": {"seed": seed, "evaluate.max_loss": 1.0}},
            "outs": [entry(path) for path in outs[stage]],
        }
        for stage in outs
    }
    stages["extract"]["deps"] = [{"path": "data", "md5": "aa.dir"}]
    write("dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))


def entry(path: str) -> dict[str, Any]:
    return {"path": path, "md5": dvc_hash(Path(path)), "size": 1}


def write_seed(seed: int, **numbers: Any) -> None:
    """Write ``results/seeds/seed<K>/`` as `make seeds` does; the run in the working folder is another one then."""
    write_run(seed, **numbers)
    folder = Path(f"results/seeds/seed{seed}")
    metrics = {stage: read_sealed(Path(f"results/metrics/{stage}.json")) for stage in STAGES}
    save_sealed(folder / "metrics.json", metrics)
    save_sealed(folder / "inputs.json", inputs(yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))))


def git(*arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def commit() -> None:
    git("init", "--quiet", "--template=")
    git("add", "--all")
    git("commit", "--quiet", "--message", "run")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a run of seed 0, TLEE at 98% and a quarter of the GMACs, and with three more seeds."""
    folder = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed, (lost, gmacs) in {1: (1, 1.1), 2: (3, 0.9), 3: (2, 1.0)}.items():
            write_seed(seed, lost=lost, gmacs=gmacs)
        write_run()
        commit()
        git("gc", "--quiet")  # a few files, which every test copies
    return folder


@pytest.fixture
def four_seeds(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ``original``, as the working folder."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(*arguments: str, status: int) -> str:
    """Return what the command prints; it must end with ``status``."""
    done = CliRunner().invoke(command_line.app, ["compare", *arguments], catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done.output


def cells(output: str, name: str) -> list[str]:
    """Return the cells of the row ``name`` of a table."""
    (row,) = [line for line in output.splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def edit(path: str, *keys: str, value: Any, sealed: bool = True) -> None:
    """Change a number by hand, with a new checksum if ``sealed``."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    if sealed:
        save_sealed(Path(path), content)
    else:
        write(path, json.dumps(content))


# --- the interval ------------------------------------------------------------------------------------


def test_the_interval_of_three_seeds_by_hand():
    """s is 0.02, and t with 2 degrees of freedom has its quantile 0.9995 at 31.599."""
    half = 31.599 * 0.02 * (4 / 3) ** 0.5
    assert one_more_seed([0.90, 0.92, 0.94], 0.0) == pytest.approx((0.92 - half, 0.92 + half), abs=2e-5)


def test_the_interval_of_five_seeds_by_hand():
    """The squared deviations sum to 0.001, so that s is sqrt(0.00025); t with 4 degrees of freedom is 8.610."""
    half = 8.610 * 0.00025**0.5 * 1.2**0.5
    assert one_more_seed([0.90, 0.91, 0.92, 0.93, 0.94], 0.0) == pytest.approx((0.92 - half, 0.92 + half), abs=2e-5)


def test_equal_seeds_leave_room_for_one_video_and_no_more():
    """Also where a number of videos is no round share: metrics have six digits."""
    shares = [round(count / 256, 6) for count in range(250, 257)]
    for row, share in enumerate(shares):
        low, high = one_more_seed([share] * 4, 1 / 256)
        assert [low <= other <= high for other in shares] == [abs(other - row) <= 1 for other in range(len(shares))]


def test_the_interval_holds_one_more_seed_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(agreement, "CONFIDENCE", 0.8)
    runs = np.random.default_rng(0).normal(0.9, 0.02, size=(3000, 6))
    inside = [low <= last <= high for *seeds, last in runs for low, high in [one_more_seed(seeds, 0.0)]]
    assert np.mean(inside) == pytest.approx(0.8, abs=0.025)


def test_a_number_that_one_run_lacks_is_outside():
    assert not Number("a", None, 0.9, (0.9, 0.9, 0.9), 0.1).is_inside
    assert not Number("a", 0.9, None, (0.9, 0.9, 0.9), 0.1).is_inside


# --- verdicts ----------------------------------------------------------------------------------------


def test_an_unchanged_run_has_the_same_bits(four_seeds):
    output = told(status=0)
    assert output.startswith("The same bits as HEAD (")
    assert "|" not in output
    assert "latencies" in output


def test_times_and_the_rounding_of_onnx_runtime_may_differ(four_seeds):
    edit("results/metrics/latency.json", "TLEE", "p50", value=0.7)
    edit("results/metrics/edge.json", "max_logit_difference", value=2e-6)
    record()
    assert told(status=0).startswith("The same bits as HEAD (")


def test_the_same_bits_on_another_processor_say_so(four_seeds):
    write_environment(processor="x86_64: new", cores=4)
    output = told(status=0)
    assert output.startswith("The same bits as HEAD (")
    assert "what differs: processor, number of cores." in output
    assert cells(output, "processor") == ["x86_64: old", "x86_64: new"]


def test_another_seed_is_inside_and_named(four_seeds):
    write_run(seed=7, lost=3, gmacs=1.05)
    output = told(status=0)
    assert output.startswith("Inside: 2 of 9 headline numbers differ from HEAD (")
    assert "what 4 seeds make of it; what differs: seed." in output.splitlines()[0]
    committed, yours, interval, judged = cells(output, "TLEE: top-1")
    assert (committed, yours, judged) == ("98.00%", "97.00%", "inside")
    low, high = one_more_seed([0.98, 0.99, 0.97, 0.98], 0.01)
    assert interval == f"{low:.2%} to {min(high, 1):.2%}"
    assert cells(output, "seed") == ["0", "7"]
    assert "same bits up to stage pretrain," in output
    assert "full network: top-1" not in output  # it does not differ


def test_numbers_by_more_than_seeds_make_of_them_are_outside_and_come_first(four_seeds):
    write_run(lost=40, gmacs=1.05)
    output = told(status=1)
    assert output.startswith("Outside: 2 of 9 headline numbers differ from HEAD (")
    assert ", 1 of them by more than seeds make of it; nothing else that is recorded differs." in output
    assert cells(output, "TLEE: top-1")[-1] == "outside"
    assert cells(output, "TLEE: share of GMACs")[-1] == "inside"
    assert output.index("TLEE: top-1") < output.index("TLEE: share of GMACs")


def test_one_video_of_val_is_allowed_where_all_seeds_are_equal(four_seeds):
    write_run(auroc=0.92)
    assert cells(told(status=0), "gates: val AUROC")[-1] == "inside"
    write_run(auroc=0.93)
    assert cells(told(status=1), "gates: val AUROC")[-1] == "outside"


def test_another_processor_with_the_same_seed_is_told_from_another_seed(four_seeds):
    write_run(lost=3)
    write_environment(processor="x86_64: new", packages={"torch": "2.1", "numpy": "2.0"})
    output = told(status=0)
    assert output.startswith("Inside: 1 of 9 ")
    assert "what differs: processor, versions." in output
    assert cells(output, "torch") == ["2.0", "2.1"]
    assert "numpy" not in output


def test_equal_numbers_from_other_bits_are_told(four_seeds):
    write("results/models/backbone.safetensors", "other weights")
    record()
    line = told(status=0).splitlines()[0]
    assert "The same numbers as HEAD (" in line
    assert "other bits in results/models/backbone.safetensors; nothing else that is recorded differs." in line


def test_the_run_of_a_committed_seed_is_recognised(four_seeds):
    write_run(2, lost=3, gmacs=0.9)
    assert told(status=0).startswith("The same numbers as the committed seed 2; what differs: seed.")


def test_two_seeds_are_too_few_to_judge(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_seed(1, lost=1)
    write_run()
    commit()
    assert told(status=0).startswith("The same bits")
    write_run(lost=3)
    output = told(status=1)
    assert output.startswith("Different: 1 of 9 ")
    assert "2 committed seeds" in output and "only equality" in output and "`make seeds`" in output
    assert cells(output, "TLEE: top-1") == ["98.00%", "97.00%", "", "not judged"]


def test_seeds_of_other_code_do_not_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2, 3):
        write_seed(seed, lost=1, code="ff")
    write_run()
    commit()
    write_run(lost=3)
    assert "with 1 committed seed of the same code" in told(status=1)


def test_a_seed_that_repeats_the_committed_run_counts_once(four_seeds):
    write_seed(0)
    commit()
    write_run(lost=3)
    assert compare().num_seeds == 4


def test_other_parameters_data_and_code_are_listed(four_seeds):
    params = Path("params.yaml").read_text(encoding="utf-8").replace("beta: 0.5", "beta: 0.25")
    write_run(code="ff")
    write("params.yaml", params)
    write("results/frames/test.arrow", "other frames")
    record()
    output = told(status=0)
    assert "what differs: parameters, data, code." in output
    assert cells(output, "gates.beta") == ["0.5", "0.25"]
    assert cells(output, "code")[1].endswith(MODULE)
    assert cells(output, "frames")[0] != cells(output, "frames")[1]


def test_a_committed_run_without_environment_is_told(four_seeds):
    shutil.rmtree("results/environment")
    commit()
    write_environment()
    assert cells(told(status=0), "environment") == ["not recorded", "recorded"]


def test_an_older_commit_can_be_named(four_seeds):
    write_run(lost=3)
    git("commit", "--all", "--quiet", "--message", "another run")
    assert told(status=0).startswith("The same bits as HEAD (")
    assert told("HEAD~1", status=0).startswith("Inside: 1 of 9 headline numbers differ from HEAD~1 (")


def test_the_project_may_be_a_folder_of_a_repository(tmp_path, monkeypatch):
    folder = tmp_path / "papers" / "kit"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    write_run()
    monkeypatch.chdir(tmp_path)
    commit()
    monkeypatch.chdir(folder / "results")
    assert told(status=0).startswith("The same bits as HEAD (")


# --- damaged and incomplete runs ---------------------------------------------------------------------


DAMAGE: dict[str, tuple[Callable[[], None], str]] = {
    "metrics missing": (
        lambda: Path("results/metrics/gates.json").unlink(),
        "results/metrics/gates.json is missing",
    ),
    "metrics not JSON": (
        lambda: write("results/metrics/evaluate.json", '{"full": '),
        "results/metrics/evaluate.json is damaged",
    ),
    "metrics edited": (
        lambda: edit("results/metrics/evaluate.json", "tlee", "score", value=0.99, sealed=False),
        "results/metrics/evaluate.json is damaged",
    ),
    "metrics edited with checksum": (
        lambda: edit("results/metrics/gates.json", "val AUROC", value=0.91),
        "results/metrics/gates.json is not what stage gates wrote",
    ),
    "line of the trace": (
        lambda: write("results/plots/evaluate/trace.csv", Path("results/plots/evaluate/trace.csv").read_text()[:-3]),
        "results/plots/evaluate/trace.csv is damaged",
    ),
    "line of the videos": (
        lambda: write(
            "results/plots/evaluate/videos.csv",
            Path("results/plots/evaluate/videos.csv").read_text().replace("7.mp4,tlee,True", "7.mp4,tlee,False"),
        ),
        "results/plots/evaluate/videos.csv is damaged",
    ),
    "trace missing": (
        lambda: Path("results/plots/evaluate/trace.csv").unlink(),
        "results/plots/evaluate/trace.csv is missing",
    ),
    "weights missing": (
        lambda: Path("results/models/backbone.safetensors").unlink(),
        "results/models/backbone.safetensors is missing",
    ),
    "weights changed": (
        lambda: write("results/models/backbone.safetensors", "x"),
        "results/models/backbone.safetensors is not what stage pretrain wrote",
    ),
    "file in a folder changed": (
        lambda: write("results/frames/test.arrow", "x"),
        "results/frames is not what stage extract wrote",
    ),
    "parameter changed since": (
        lambda: write("params.yaml", Path("params.yaml").read_text().replace("max_loss: 1.0", "max_loss: 2.0")),
        "params.yaml has `evaluate.max_loss: 2.0`, and stage extract ran with `1.0`",
    ),
    "code changed since": (
        lambda: write("results/code/5_evaluate.txt", f"ff  {MODULE}\n"),
        "results/code/5_evaluate.txt has changed since stage evaluate used it",
    ),
    "data changed since": (
        lambda: write("data.dvc", yaml.safe_dump({"outs": [{"md5": "bb.dir", "path": "data"}]})),
        "data has changed since stage extract used it",
    ),
    "nothing run": (lambda: Path("dvc.lock").unlink(), "dvc.lock is missing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_or_incomplete_run_is_not_compared(four_seeds, name):
    damage, problem = DAMAGE[name]
    damage()
    output = told(status=1)
    assert output.startswith("Damaged or incomplete: 1 problem, so the numbers are not compared with HEAD (")
    assert output.splitlines()[1].startswith(f"- {problem}")
    assert "`dvc repro`" in output


def test_a_stage_that_ran_on_an_earlier_model_is_told(four_seeds):
    write("results/models/backbone.safetensors", "trained again")
    lock = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    (out,) = [out for out in lock["stages"]["pretrain"]["outs"] if out["path"].endswith("backbone.safetensors")]
    out["md5"] = dvc_hash(Path("results/models/backbone.safetensors"))
    write("dvc.lock", yaml.safe_dump(lock))
    assert "- results/models/backbone.safetensors has changed since stage evaluate used it" in told(status=1)


def test_a_stage_that_the_pipeline_no_longer_has_is_no_damage(four_seeds):
    """DVC keeps its record."""
    before, lock = told(status=0), yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    write("dvc.yaml", yaml.safe_dump({"stages": {stage: {"cmd": "run"} for stage in lock["stages"]}}))
    lock["stages"]["strip@old"] = {"outs": [{"path": "results/old.ipynb", "md5": "aa"}]}
    write("dvc.lock", yaml.safe_dump(lock))
    assert told(status=0) == before


@pytest.mark.parametrize(
    ("file", "keys", "value", "named"),
    [
        ("evaluate", ("tlee", "score"), 0.99, "0.99 as top-1 of TLEE, and results/plots/evaluate/trace.csv gives 0.98"),
        ("evaluate", ("full", "score"), 0.99, "top-1 of full network"),
        ("evaluate", ("tlee", "gmacs"), 0.999, "GMACs of TLEE"),
        ("evaluate", ("tlee", "share_of_full"), 0.2499, "share of GMACs of TLEE"),
        ("evaluate", ("tlee", "frames"), 1.99, "frames of TLEE"),
        ("evaluate", ("tlee", "score"), "0.98", "top-1 of TLEE"),
        ("explain", ("saving",), 4.001, "saving"),
        ("explain", ("harmful",), 1, "harmful exits"),
        ("guarantee", ("test", "full_top1"), 0.99, "top-1 of the full network"),
    ],
)
def test_numbers_that_the_results_of_each_video_do_not_confirm_are_told(four_seeds, file, keys, value, named):
    """Also if checksum and recorded hash have been made to fit."""
    edit(f"results/metrics/{file}.json", *keys, value=value)
    record()
    output = told(status=1)
    assert output.startswith("Damaged or incomplete")
    assert f"- results/metrics/{file}.json has" in output and named in output


def test_a_policy_without_results_of_each_video_is_told(four_seeds):
    edit("results/metrics/evaluate.json", "oracle", value={"score": 1.0})
    record()
    assert "results/metrics/evaluate.json has other policies than" in told(status=1)


def test_many_problems_are_cut_short(four_seeds):
    shutil.rmtree("results")
    output = told(status=1)
    assert len(output.splitlines()) == 11
    assert "more" in output.splitlines()[-2]


def test_the_hash_of_a_folder_is_that_of_dvc(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_text("1")
    (tmp_path / "a").write_text("2")
    one, two = (hashlib.md5(text).hexdigest() for text in (b"1", b"2"))
    listing = f'[{{"md5": "{two}", "relpath": "a"}}, {{"md5": "{one}", "relpath": "b/c"}}]'
    assert dvc_hash(tmp_path) == f"{hashlib.md5(listing.encode()).hexdigest()}.dir"


# --- bad input ---------------------------------------------------------------------------------------


def test_outside_a_repository_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    write_run()
    one_line(compare, "not a git repository", "clone")


def test_without_git_the_remedy_is_named(four_seeds, monkeypatch):
    monkeypatch.setenv("PATH", str(four_seeds))
    one_line(compare, "git is not installed")


@pytest.mark.parametrize("name", ["nosuch", "HEAD:params.yaml", "", "--all", "a b", "HEAD\nx"])
def test_an_unknown_revision_is_one_line(four_seeds, name):
    one_line(lambda: compare(name), "git knows no revision")


def test_a_revision_without_a_run_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(PARAMS, tmp_path)
    commit()
    one_line(compare, "HEAD (", "has no run in results/metrics", "name another revision")


def test_damaged_committed_metrics_are_one_line(four_seeds):
    write("results/metrics/evaluate.json", "{")
    commit()
    one_line(compare, "HEAD (", "results/metrics/evaluate.json", "name another revision")


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\n", "- 1\n", "stages: {a: 1}\n", "stages: {a: {outs: [1]}}\n"])
def test_a_damaged_record_of_dvc_is_one_line(four_seeds, text):
    write("dvc.lock", text)
    one_line(compare, "dvc.lock of the work tree is damaged", "git checkout dvc.lock")


@pytest.mark.parametrize("name", ["metrics", "inputs"])
def test_a_damaged_seed_is_one_line(four_seeds, name):
    write(f"results/seeds/seed2/{name}.json", "{")
    commit()
    one_line(compare, "results/seeds/seed2", "`make seeds`")


def test_a_report_is_the_same_each_time(four_seeds):
    write_run(seed=7, lost=3, gmacs=1.05)
    assert report(compare()) == report(compare())
