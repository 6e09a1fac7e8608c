"""Commands run as a user runs them: in a project folder, with disks of any state."""

import contextlib
import io
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pytest

import tlee.__main__ as command_line

ROOT = Path(__file__).parents[2]
TLEE = (sys.executable, "-m", "tlee")

#: Skips a test where a process cannot have mounts of its own.
needs_mounts = pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0,
    reason="no mount namespaces here",
)


def run(folder: Path, *command: str, mounts: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``folder``, after the shell commands ``mounts``, which no other process sees."""
    if mounts:
        command = ("unshare", "-rm", "sh", "-ec", " && ".join([*mounts, 'exec "$@"']), "sh", *command)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m tlee`` with ``arguments`` in ``folder`` and in this process, which has imported what it needs.

    Output of libraries that write to file descriptors is not captured, and ``sys.exit`` is an exit status as usual.
    """
    command, status = ["tlee", *arguments], 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
        patch.chdir(folder)
        patch.setattr(sys, "argv", command)
        try:
            command_line.main()
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            status = 1 if isinstance(end.code, str) else end.code or 0
    return subprocess.CompletedProcess(command, status, stdout.getvalue(), stderr.getvalue())


def read_only(folder: str) -> str:
    return f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"


def error_line(done: subprocess.CompletedProcess[str], *expected: str) -> str:
    """Return the single line on stderr of a command that failed; it must contain ``expected``."""
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    missing = [part for part in expected if part not in line]
    assert not missing, f"{line!r} lacks {missing}"
    return line


def make_folder(folder: Path) -> Path:
    """Create a project with valid parameters and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "params.yaml", folder)
    return folder


def write_notebook(folder: Path, name: str, code: str) -> None:
    """Write a notebook of one cell to the folder that the pipeline runs notebooks from."""
    path = folder / "results" / "stripped" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
