"""``python -m tlee``: output in the right places, and one line for errors that the user can fix."""

import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError
from support.commands import TLEE, error_line, make_folder, run, write_notebook
from support.titles import states

import tlee.__main__ as command_line
from tlee.checksums import save_sealed
from tlee.errors import UserError
from tlee.execution import run_notebook
from tlee.paper.summary import guarantee_line, latency_line, savings_line, summarise
from tlee.paths import find_root

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with valid parameters and nothing else, as the working folder."""
    monkeypatch.chdir(make_folder(tmp_path))
    return tmp_path


def tlee(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(folder, *TLEE, *arguments)


def silent_error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The single line on stderr of a command that failed and printed nothing else."""
    assert not done.stdout
    return error_line(done)


# --- run -----------------------------------------------------------------------------------------


def test_bad_parameters_are_one_line_before_anything_runs(project):
    write_notebook(project, "1_extract_frames", "raise SystemExit('it ran')")
    path = project / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("seed:", "sead:"), encoding="utf-8")
    line = silent_error_line(tlee(project, "run", "1_extract_frames"))
    assert "params.yaml: " in line
    assert "unknown key `sead`, did you mean `seed`?" in line
    assert not (project / "results" / "notebooks").exists()


def test_a_missing_notebook_is_named_with_the_remedy(project):
    line = silent_error_line(tlee(project, "run", "1_extract_frames"))
    assert all(part in line for part in ("notebooks/1_extract_frames.ipynb", "does not exist", "without its folder"))


def test_the_output_of_a_notebook_is_printed_and_the_executed_notebook_is_kept(project):
    write_notebook(project, "hello", "from pathlib import Path\nprint('in', Path.cwd())")
    done = tlee(project, "run", "hello")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"in {project}", "ran results/notebooks/hello.ipynb"]
    executed = nbformat.read(project / "results" / "notebooks" / "hello.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == f"in {project}\n"


def test_a_damaged_notebook_is_named_with_the_remedy(project):
    path = project / "results" / "stripped" / "hello.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text('{"cells": [', encoding="utf-8")
    with pytest.raises(UserError, match=r"^results/stripped/hello\.ipynb .*damaged.*`dvc repro`"):
        run_notebook("hello")


def test_a_user_error_in_a_cell_is_a_single_line(project):
    line = "list.txt line 3: class `Jump` is unknown; correct the file"
    write_notebook(project, "user", f"from tlee.errors import UserError\nraise UserError({line!r})")
    with pytest.raises(UserError) as caught:
        run_notebook("user")
    assert str(caught.value) == line
    executed = nbformat.read(project / "results" / "notebooks" / "user.ipynb", as_version=4)
    (output,) = executed.cells[-1].outputs
    assert output.traceback == [f"error: {line}"]


def test_any_other_exception_in_a_cell_keeps_its_traceback(project):
    write_notebook(project, "bug", "def ratio(count):\n    return 1 / count\n\nratio(0)")
    with pytest.raises(PapermillExecutionError) as caught:
        run_notebook("bug")
    assert caught.value.ename == "ZeroDivisionError"
    assert "return 1 / count" in str(caught.value)


# --- summary -------------------------------------------------------------------------------------


def test_a_summary_without_results_names_the_command_to_run(project):
    line = silent_error_line(tlee(project, "summary"))
    assert "results/metrics/evaluate.json" in line
    assert "`dvc repro evaluate`" in line


def test_a_summary_without_latency_names_the_command_to_run(project):
    metrics = project / "results" / "metrics"
    metrics.mkdir(parents=True)
    save_sealed(metrics / "evaluate.json", {})
    with pytest.raises(UserError, match=r"latency\.json .*`dvc repro latency`"):
        summarise()


def test_a_summary_of_a_damaged_file_names_the_command_to_run(project):
    metrics = project / "results" / "metrics"
    metrics.mkdir(parents=True)
    (metrics / "evaluate.json").write_text('{"full": ')
    with pytest.raises(UserError, match=r"evaluate\.json .*`dvc repro evaluate`"):
        summarise()


def test_the_savings_line_names_the_factors():
    line = savings_line({"saving": 5.6, "by_frames": 4.57, "by_depth": 1.225})
    assert states(
        line, "TLEE", "5.6 times", "full network", "4.6 times by fewer frames", "1.2 times by shallower exits"
    )


def test_the_guarantee_line_states_the_limit_and_the_result_on_test():
    guarantee = {"max_harm": 5.0, "confidence": 0.95, "videos": 80, "needed_videos": 59, "passed": 9, "harmful": 0}
    guarantee |= {"share_of_full": 0.169, "test": {"videos": 256, "harmful": 2}}
    line = guarantee_line(guarantee)
    assert states(line, "95% confidence", "TLEE", "17%", "at most 5%", "0 of 80", "2 of 256")
    none = guarantee_line(guarantee | {"passed": 0, "max_harm": 1.0, "needed_videos": 299})
    assert states(none, "95% confidence", "no", "TLEE", "at most 1%", "299", "80")
    harmful = guarantee_line(guarantee | {"passed": 0})
    assert states(harmful, "95% confidence", "no", "TLEE", "at most 5%", "most conservative", "too many of the 80")


def test_the_latency_line_compares_real_exits_with_the_full_network_and_the_ideal():
    latency = {"full network": {"p50": 4.0, "mean": 4.1}, "TLEE": {"p50": 0.262, "mean": 0.9}, "ideal": {"p50": 0.25}}
    line = latency_line(latency | {"real_to_ideal": 1.048})
    assert states(line, "full network 4.00 ms", "TLEE 0.26 ms", "1.05 times", "ideal", "0.90 ms")


# --- the command line itself ---------------------------------------------------------------------


def test_every_command_is_listed(tmp_path):
    done = tlee(tmp_path, "--help")
    assert done.returncode == 0
    for command in ("demo", "run", "summary", "predict", "watch"):
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("arguments", [["extract"], ["run"], ["summary", "5_evaluate"], ["predict"], ["watch"]])
def test_a_wrong_command_is_refused_without_a_traceback(tmp_path, arguments):
    done = tlee(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupting_reports_that_the_work_is_kept(project, monkeypatch):
    def interrupted(*_, **__) -> None:
        raise KeyboardInterrupt

    write_notebook(project, "any", "1")
    monkeypatch.setattr("papermill.execute_notebook", interrupted)
    with pytest.raises(UserError, match=r"^interrupted.* kept"):
        run_notebook("any")


def test_a_defect_is_not_disguised_as_a_user_error(monkeypatch):
    def defect() -> None:
        raise KeyError("full")

    monkeypatch.setattr(command_line, "app", defect)
    with pytest.raises(KeyError):
        command_line.main()


# --- the project's root --------------------------------------------------------------------------


def test_the_root_is_found_from_any_folder_of_the_project(project):
    below = project / "notebooks" / "drafts"
    below.mkdir(parents=True)
    assert {find_root(folder) for folder in (project, below.parent, below)} == {project}


def test_the_nearest_root_is_used(project):
    inner = project / "copies" / "one"
    inner.mkdir(parents=True)
    shutil.copy(project / "params.yaml", inner)
    assert find_root(inner) == inner


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (("run", "hello"), "notebooks/hello.ipynb"),
        (("summary",), "results/metrics/evaluate.json"),
        (("predict", "clip.mp4"), "results/models/backbone.safetensors"),
        (("watch", "clip.mp4"), "results/models/backbone.safetensors"),
    ],
)
def test_commands_run_in_the_root(project, monkeypatch, arguments, missing):
    below = project / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)
    with pytest.raises(UserError) as caught:
        command_line.app(arguments, standalone_mode=False)
    assert str(caught.value).startswith(missing)
    assert Path.cwd() == project


def test_outside_of_a_project_the_remedy_is_named(tmp_path):
    with pytest.raises(UserError) as caught:
        find_root(tmp_path)
    assert "params.yaml" in str(caught.value) and str(tmp_path) in str(caught.value)
