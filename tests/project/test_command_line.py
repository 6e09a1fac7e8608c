"""``python -m tlee`` and what it runs: results where they belong, and one line where the user can mend something."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError

import tlee.__main__ as command_line
from tlee.errors import UserError
from tlee.notebook import run_notebook
from tlee.paper.summary import guarantee_line, savings_line, summarise
from tlee.paths import find_root


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with valid parameters and nothing else, the working one."""
    shutil.copy(root / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stripped(project: Path, name: str, code: str) -> None:
    """A notebook of one cell where the pipeline puts what it runs."""
    path = project / "results" / "stripped" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def tlee(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tlee", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr of a command that failed with exit status 1."""
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert not done.stdout
    return line


# --- run -----------------------------------------------------------------------------------------


def test_bad_parameters_are_one_line_before_anything_runs(project):
    stripped(project, "1_extract_frames", "raise SystemExit('it ran')")
    path = project / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("seed:", "sead:"), encoding="utf-8")
    line = error_line(tlee(project, "run", "1_extract_frames"))
    assert "params.yaml: " in line
    assert "unknown key `sead`, did you mean `seed`?" in line
    assert not (project / "results" / "notebooks").exists()


def test_a_notebook_that_does_not_exist_is_named_with_the_remedy(project):
    line = error_line(tlee(project, "run", "1_extract_frames"))
    assert "notebooks/1_extract_frames.ipynb does not exist" in line
    assert "without its folder and ending" in line


def test_what_a_notebook_prints_is_printed_and_the_executed_one_is_kept(project):
    stripped(project, "hello", "from pathlib import Path\nprint('in', Path.cwd())")
    done = tlee(project, "run", "hello")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"in {project}", "ran results/notebooks/hello.ipynb"]
    executed = nbformat.read(project / "results" / "notebooks" / "hello.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == f"in {project}\n"


def test_a_damaged_notebook_is_named_with_the_remedy(project):
    path = project / "results" / "stripped" / "hello.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text('{"cells": [', encoding="utf-8")
    with pytest.raises(UserError, match=r"^results/stripped/hello\.ipynb is damaged: `dvc repro` makes it again"):
        run_notebook("hello")


def test_a_user_error_in_a_cell_is_its_line_alone(project):
    line = "list.txt line 3: class `Jump` is unknown; correct the file"
    stripped(project, "user", f"from tlee.errors import UserError\nraise UserError({line!r})")
    with pytest.raises(UserError) as caught:
        run_notebook("user")
    assert str(caught.value) == line
    executed = nbformat.read(project / "results" / "notebooks" / "user.ipynb", as_version=4)
    (output,) = executed.cells[-1].outputs
    assert output.traceback == [f"error: {line}"]


def test_any_other_exception_in_a_cell_keeps_its_traceback(project):
    stripped(project, "bug", "def ratio(count):\n    return 1 / count\n\nratio(0)")
    with pytest.raises(PapermillExecutionError) as caught:
        run_notebook("bug")
    assert caught.value.ename == "ZeroDivisionError"
    assert "return 1 / count" in str(caught.value)


# --- summary -------------------------------------------------------------------------------------


def test_a_summary_of_nothing_says_what_to_run(project):
    line = error_line(tlee(project, "summary"))
    assert "results/metrics/evaluate.json" in line
    assert "`dvc repro evaluate`" in line


def test_a_summary_without_latency_says_what_to_run(project):
    metrics = project / "results" / "metrics"
    metrics.mkdir(parents=True)
    (metrics / "evaluate.json").write_text("{}")
    with pytest.raises(UserError, match=r"latency\.json is missing or damaged: run `dvc repro latency`"):
        summarise()


def test_a_summary_of_a_damaged_file_says_what_to_run(project):
    metrics = project / "results" / "metrics"
    metrics.mkdir(parents=True)
    (metrics / "evaluate.json").write_text('{"full": ')
    with pytest.raises(UserError, match=r"evaluate\.json is missing or damaged: run `dvc repro evaluate`"):
        summarise()


def test_the_lines_of_the_summary_by_hand():
    explain = {"saving": 5.6, "by_frames": 4.57, "by_depth": 1.225}
    assert savings_line(explain) == (
        "TLEE is 5.6 times cheaper than the full network: 4.6 times by fewer frames, 1.2 times by shallower exits."
    )
    guarantee = {"max_loss": 5.0, "confidence": 0.95, "videos": 80, "needed_videos": 59, "passed": 9, "harmful": 0}
    guarantee |= {"share_of_full": 0.169, "test": {"videos": 256, "harmful": 2}}
    assert guarantee_line(guarantee) == (
        "95% sure, TLEE at 17% of the GMACs spoils at most 5% of unseen videos: it spoilt 0 of the 80 that it was "
        "tested on, and 2 of 256 on test."
    )
    assert guarantee_line(guarantee | {"passed": 0, "max_loss": 1.0, "needed_videos": 299}) == (
        "No exit of TLEE is sure to spoil at most 1% of unseen videos: that takes 299 videos of which none is spoilt, "
        "80 were at hand."
    )


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


def test_interrupting_says_that_the_work_is_kept(project, monkeypatch):
    def interrupted(*_, **__) -> None:
        raise KeyboardInterrupt

    stripped(project, "any", "1")
    monkeypatch.setattr("papermill.execute_notebook", interrupted)
    with pytest.raises(UserError, match=r"^interrupted; what is finished is kept"):
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


def test_the_nearest_root_is_taken(project):
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
def test_commands_go_to_the_root_first(project, monkeypatch, arguments, missing):
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
    assert str(caught.value) == f"no params.yaml at or above {tmp_path}: work within the project"
