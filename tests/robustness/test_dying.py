"""Kernels that die, memory and disks that run out, folders that cannot be written, two runs at once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError
from support.commands import (
    ROOT,
    TLEE,
    call,
    error_line,
    make_folder,
    needs_mounts,
    read_only,
    run,
    write_notebook,
)
from support.dataset_files import make_tiny
from support.refusals import one_line

import tlee.__main__ as command_line
from tlee.execution import run_notebook

STAGES = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_folder(tmp_path))
    return tmp_path


def failure(kind: str, message: str) -> PapermillExecutionError:
    """Return what papermill raises where a cell raised an exception of type ``kind``."""
    return PapermillExecutionError(
        cell_index=0, exec_count=1, source="", ename=kind, evalue=message, traceback=["no traceback"]
    )


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells run in this process, and their exceptions arrive as those of a kernel."""

    def execute(source: Path, *_: object, **__: object) -> None:
        try:
            for cell in nbformat.read(source, as_version=4).cells:
                exec(cell.source, {})
        except Exception as error:
            raise failure(type(error).__name__, str(error)) from None

    monkeypatch.setattr("papermill.execute_notebook", execute)


# --- memory ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_kernel_is_one_line_with_the_stage_the_cause_and_the_remedy(project):
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    write_notebook(project, "2_pretrain_backbone", code)
    done = call(project, "run", "2_pretrain_backbone")
    error_line(done, "2_pretrain_backbone", "died", "memory", "pretrain.batch_clips", "model.input_size")


@pytest.mark.slow
def test_the_log_of_a_kernel_stays_out_of_the_output(project):
    """It tells, at some ends of a kernel, that it was interrupted; under pytest, it is written to stderr."""
    write_notebook(project, "hello", "get_ipython().kernel.log.error('KeyboardInterrupt caught in kernel.')")
    done = run(project, *TLEE, "run", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran results/notebooks/hello.ipynb\n", "")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_names_parameters_that_exist(project, monkeypatch, stage):
    def die(*_, **__) -> None:
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr("papermill.execute_notebook", die)
    write_notebook(project, stage, "")
    message = one_line(lambda: run_notebook(stage), stage, "memory")
    named = re.findall(r"\b([a-z]+)\.([a-z_]+)\b", message)
    assert named
    assert all(key in PARAMS[section] for section, key in named if section != "params")


def test_another_runtime_error_of_papermill_keeps_its_traceback(project, monkeypatch):
    def fail(*_, **__) -> None:
        raise RuntimeError("no port")

    monkeypatch.setattr("papermill.execute_notebook", fail)
    write_notebook(project, "any", "")
    with pytest.raises(RuntimeError, match="no port"):
        run_notebook("any")


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import numpy\nnumpy.zeros(1 << 50)",
        "import torch\ntorch.zeros(1 << 50)",
        "import os\nfrom joblib import Parallel, delayed\nParallel(2)(delayed(os._exit)(9) for _ in range(2))",
    ],
    ids=["numpy", "torch", "worker"],
)
def test_memory_that_runs_out_in_a_cell_is_one_line(project, no_kernel, code):
    write_notebook(project, "1_extract_frames", code)
    one_line(lambda: run_notebook("1_extract_frames"), "1_extract_frames", "memory", "compute.jobs")


# --- disks -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_executed_notebook_is_one_line(project):
    write_notebook(project, "hello", "print('hello')")
    executed = project / "results/notebooks/hello.ipynb"
    executed.parent.mkdir()
    executed.symlink_to("/dev/full")
    error_line(call(project, "run", "hello"), "results/notebooks/hello.ipynb", os.strerror(28), "free space")


#: Ways to write more than a small disk holds. Not to /dev/full: as root, a writer that renames its finished file would
#: replace the device.
WRITERS = {
    "python": "with open('runs/x', 'w') as file:\n    file.write('x' * 99_999)",
    "arrow": "import pyarrow\nwith pyarrow.OSFile('runs/x', 'wb') as file:\n    file.write(b'x' * 99_999)",
    "safetensors": "import torch, safetensors.torch\nsafetensors.torch.save_file({'x': torch.zeros(99_999)}, 'runs/x')",
    "torch": "import torch\ntorch.save({'x': torch.zeros(99_999)}, 'runs/x')",
    "memory map": "import pathlib, tlee.arrays\n"
    "tlee.arrays.create_array(pathlib.Path('runs/x'), 'f4', (99_999,))[:] = 1",
}
SMALL_DISK = "mount -t tmpfs -o size=16k tmpfs runs"


@pytest.mark.slow
@needs_mounts
def test_a_full_disk_under_a_stage_is_one_line(project):
    write_notebook(project, "3_train_branches", WRITERS["python"])
    (project / "runs").mkdir()
    done = run(project, *TLEE, "run", "3_train_branches", mounts=[SMALL_DISK])
    error_line(done, "3_train_branches", "free space", "kept")


@pytest.fixture(scope="module")
def raised_on_a_full_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Type and message of the exception of each of ``WRITERS`` on a small disk, all in one process."""
    folder = tmp_path_factory.mktemp("disk")
    (folder / "runs").mkdir()
    code = f"""
import json, pathlib
for name, code in {WRITERS!r}.items():
    try:
        exec(code, {{}})
    except Exception as error:
        print(json.dumps([name, type(error).__name__, str(error)]))
    for path in pathlib.Path("runs").iterdir():
        path.unlink()
"""
    done = run(folder, sys.executable, "-c", code, mounts=[SMALL_DISK])
    assert done.returncode == 0, done.stderr
    return {name: raised for name, *raised in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@needs_mounts
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_whoever_writes(project, monkeypatch, raised_on_a_full_disk, writer):
    def execute(*_: object, **__: object) -> None:
        raise failure(*raised_on_a_full_disk[writer])

    monkeypatch.setattr("papermill.execute_notebook", execute)
    write_notebook(project, "3_train_branches", "")
    one_line(lambda: run_notebook("3_train_branches"), "3_train_branches", "free space", "kept")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_output_of_a_command_is_one_line(project):
    write_notebook(project, "hello", "pass")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*TLEE, "run", "hello"], cwd=project, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert "free space" in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr


#: Extracts the frames of a tiny data set until the disk is full, then once more with space; prints how many it read.
EXTRACT = """
import subprocess, sys
from tlee.errors import UserError
import tlee.extraction.store as store
from tlee.datasets import read_dataset
from tlee.params import load_params
from tlee.paths import FRAMES

read, params = store._read_video, load_params()
def counted(*arguments):
    count[0] += 1
    return read(*arguments)
store._read_video = counted
if "unchecked" in sys.argv:
    store.Space.check = lambda *_: None

for space in ("16k", "9m"):
    subprocess.run(["mount", "-o", f"remount,size={space}", "runs"], check=True)
    count = [0]
    try:
        store.extract(read_dataset(params.dataset, 0), params.extract, FRAMES)
        print("read", count[0], "extracted")
    except OSError as error:
        print("read", count[0], error.strerror)
    except UserError as error:
        print("read", count[0], error)
"""


@pytest.mark.slow
@needs_mounts
@pytest.mark.parametrize(("option", "message"), [("checked", "make space"), ("unchecked", os.strerror(28))])
def test_extraction_on_a_full_disk_keeps_its_finished_videos(project, option, message):
    """It ends before the disk is full, if its estimate is right."""
    make_tiny("folder", project / "data")
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    params["dataset"] |= {"name": "folder", "folds": 2, "group": None}
    params["extract"]["short_side"], params["compute"]["jobs"] = 64, 1
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (project / "runs").mkdir()
    done = run(project, sys.executable, "-c", EXTRACT, option, mounts=[SMALL_DISK])
    assert done.returncode == 0, done
    (first, failed), (second, extracted) = re.findall(r"^read (\d+) (.*)$", done.stdout, re.MULTILINE)
    assert message in failed
    assert extracted == "extracted"
    assert 1 <= int(first) < 8
    assert int(second) == 8 - int(first) + (option == "unchecked")  # one was read, but could not be written


@pytest.mark.slow
@needs_mounts
@pytest.mark.parametrize("folder", ["results", "runs"])
def test_a_read_only_folder_is_one_line(project, folder):
    write_notebook(project, "hello", "pass")
    (project / "runs").mkdir()
    done = run(project, *TLEE, "run", "hello", mounts=[read_only(folder)])
    error_line(done, f"{folder}/", os.strerror(30), "writable")


@pytest.mark.slow
@needs_mounts
def test_a_read_only_folder_under_a_command_is_one_line(project):
    write_notebook(project, "hello", "pass")
    (project / "results/code").mkdir()
    done = run(project, *TLEE, "code", mounts=[read_only("results")])
    error_line(done, "results/code/hello.txt", os.strerror(30), "writable")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(28, "free space"), (122, "quota"), (30, "writable"), (13, "permissions"), (1, "permissions")],
)
def test_errors_of_the_file_system_name_the_file_and_the_remedy(monkeypatch, number, remedy):
    """Those that no file system here can raise for every user are raised in place of the command."""

    def fail() -> None:
        raise OSError(number, os.strerror(number), "results/metrics/evaluate.json")

    monkeypatch.setattr(command_line, "app", fail)
    message = one_line(command_line.main, "results/metrics/evaluate.json", os.strerror(number), error=SystemExit)
    assert remedy in message


def test_another_error_of_the_system_keeps_its_traceback(monkeypatch):
    def fail() -> None:
        raise OSError(22, os.strerror(22))

    monkeypatch.setattr(command_line, "app", fail)
    with pytest.raises(OSError, match=os.strerror(22)):
        command_line.main()


# --- two runs at once ------------------------------------------------------------------------------------


@pytest.fixture
def running(project: Path) -> Iterator[subprocess.Popen]:
    """A run of notebook `slow`, whose cell waits for the file `go`."""
    code = "import time\nfrom pathlib import Path\nPath('begun').touch()\n"
    write_notebook(project, "slow", code + "while not Path('go').exists():\n    time.sleep(0.05)")
    process = subprocess.Popen([*TLEE, "run", "slow"], cwd=project, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (project / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    yield process
    (project / "go").touch()
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_the_same_notebook_cannot_run_twice_at_once_but_another_can(project, running):
    error_line(call(project, "run", "slow"), "slow", "another process", "wait")
    write_notebook(project, "other", "pass")
    assert call(project, "run", "other").returncode == 0
    (project / "go").touch()
    output, _ = running.communicate(timeout=60)
    assert (running.returncode, output) == (0, "ran results/notebooks/slow.ipynb\n")


@pytest.mark.slow
def test_a_killed_run_leaves_no_lock(project, running):
    running.send_signal(signal.SIGKILL)
    running.wait()
    (project / "go").touch()
    assert call(project, "run", "slow").returncode == 0


@pytest.mark.slow
def test_a_second_pipeline_in_the_folder_is_refused_and_harms_nothing(tmp_path):
    """DVC's own lock; its message is three lines."""
    dvc = str(Path(sys.executable).parent / "dvc")
    wait = "touch begun; while [ ! -e go ]; do sleep 0.05; done; echo 1 > out.txt"
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"a": {"cmd": wait, "outs": ["out.txt"]}}}))
    for command in (["git", "init", "--quiet"], [dvc, "init", "--quiet"]):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    first = subprocess.Popen([dvc, "repro"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "begun").exists() and first.poll() is None:
        time.sleep(0.05)
    second = run(tmp_path, dvc, "repro")
    (tmp_path / "go").touch()
    assert first.wait() == 0
    assert second.returncode != 0
    assert "is busy" in second.stderr and str(first.pid) in second.stderr
    assert (tmp_path / "out.txt").read_text() == "1\n"
    assert "up to date" in run(tmp_path, dvc, "status").stdout


# --- finished work -----------------------------------------------------------------------------------------


def test_a_run_removes_finished_work_only_if_dvc_has_recorded_it(project, monkeypatch):
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: None)
    write_notebook(project, "any", "")
    names = {"old.pt.finished": 1, "unfinished.pt": 1, "new.pt.finished": 3}
    Path("runs").mkdir()
    Path("dvc.lock").touch()
    os.utime("dvc.lock", (2, 2))
    for name, second in names.items():
        Path("runs", name).touch()
        os.utime(Path("runs", name), (second, second))
    run_notebook("any")
    assert {path.name for path in Path("runs").iterdir()} & names.keys() == {"unfinished.pt", "new.pt.finished"}


# --- folders ---------------------------------------------------------------------------------------------

ODD = "mes vidéos d'été № 1 (50%)"


@pytest.mark.slow
def test_notebooks_run_in_a_folder_with_spaces_and_accents(tmp_path):
    project = make_folder(tmp_path / ODD)
    write_notebook(project, "hello", "from tlee.notebook import begin\nbegin('extract', overrides={})\nprint('done')")
    done = call(project, "run", "hello")
    assert (done.returncode, done.stdout) == (0, "done\nran results/notebooks/hello.ipynb\n"), done
    done = call(project, "code")
    assert (done.returncode, done.stdout) == (0, "wrote 1 files to results/code\n"), done


@pytest.mark.slow
def test_the_pipeline_runs_in_a_folder_with_spaces_and_accents(tmp_path):
    project = make_folder(tmp_path / ODD)
    shutil.copy(ROOT / "dvc.yaml", project)
    shutil.copytree(ROOT / "notebooks", project / "notebooks")
    (project / "results/stripped").mkdir(parents=True)
    tools = str(Path(sys.executable).parent)
    path = {"PATH": f"{tools}:{os.environ['PATH']}"}
    for command in ("git init --quiet", "dvc init --quiet", "dvc repro --single-item strip"):
        subprocess.run(command.split(), cwd=project, env=os.environ | path, check=True, capture_output=True)
    assert (project / "results/stripped/5_evaluate.ipynb").stat().st_size


@pytest.mark.slow
def test_commands_run_from_any_folder_of_the_project(project):
    write_notebook(project, "hello", "from pathlib import Path\nprint(Path.cwd())")
    done = call(project / "results/stripped", "run", "hello")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, str(project)), done


def test_outside_of_a_project_every_command_is_one_line(tmp_path):
    for command in (["run", "hello"], ["code"], ["summary"], ["predict", "a.mp4"], ["watch", "a.mp4"]):
        error_line(call(tmp_path, *command), "params.yaml", "within the project")
