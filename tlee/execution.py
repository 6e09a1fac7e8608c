"""Execution of notebooks by the pipeline, with papermill."""

import errno
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tlee._papermill import NotJSONError, PapermillExecutionError, papermill
from tlee.environment import record_environment
from tlee.errors import UserError, one_line, storage_error
from tlee.params import load_params
from tlee.paths import NOTEBOOKS, RUNS, SOURCES, STRIPPED
from tlee.reproducibility import kernel_settings
from tlee.resumption import remove_recorded

#: Silences the kernel's own log (its use of TCP, its end when interrupted), not the output of cells.
QUIET_KERNEL = ["--Application.log_level=CRITICAL", "--IPKernelApp.no_stderr=True"]

#: Parameters that the memory of a stage grows with, by its notebook.
_LESS_MEMORY = {
    "1_extract_frames": "compute.jobs (processes), extract.frames or extract.short_side",
    "2_pretrain_backbone": "pretrain.batch_clips, pretrain.frames or model.input_size",
    "3_train_branches": "branches.batch_clips, branches.frames, branches.train_views or model.input_size",
    "4_train_gates": "gates.batch_clips or branches.train_views",
    "5_evaluate": "extract.frames or model.num_branches",
    "6_latency": "latency.videos or model.input_size",
    "7_guarantee": "extract.frames or model.num_branches",
    "8_explain": "extract.frames or model.input_size",
}

_MEMORY_ERRORS = {
    *("MemoryError", "_ArrayMemoryError", "ArrowMemoryError", "OutOfMemoryError"),
    *("TerminatedWorkerError", "KilledWorker"),  # of joblib and dask
    *("ActorDiedError", "ActorUnavailableError"),  # of ray
}
_NO_MEMORY = re.compile(r"can't allocate memory|[Cc]annot allocate memory|CUDA out of memory")
_ERRNO = re.compile(r"(?:errno|os error) (\d+)", re.IGNORECASE)  # of Python, Arrow, safetensors
_NO_STATE = re.compile(r"PytorchStreamWriter failed|unexpected pos \d+ vs \d+")  # of torch.save, without a reason


def run_notebook(name: str) -> Path:
    """Run a notebook with papermill from the project's root; return the path of the executed copy.

    Notebooks of the pipeline are read from ``results/stripped/``, others from ``notebooks/``. The output of cells is
    also printed here. Raises ``UserError`` if a cell raised one, the notebook is missing, damaged or already running,
    the run was interrupted, or memory, disk or permissions did not suffice.
    """
    params = load_params()  # reports a typo before a kernel starts
    candidates = (STRIPPED / f"{name}.ipynb", SOURCES / f"{name}.ipynb")
    source, target = next((path for path in candidates if path.exists()), None), NOTEBOOKS / f"{name}.ipynb"
    if source is None or Path(name).name != name:
        raise UserError(f"{candidates[1]} does not exist: name a notebook without its folder and ending")
    try:
        with _locked(name), kernel_settings(params.reproducible):
            remove_recorded()
            target.parent.mkdir(parents=True, exist_ok=True)
            _execute(source, target)
            if source.parent == STRIPPED:  # of a stage
                record_environment(name)
    except KeyboardInterrupt:
        raise UserError("interrupted; what is finished is kept: run the same command again") from None
    except NotJSONError:
        raise UserError(f"{source} is damaged: `dvc repro` makes it again from notebooks/{name}.ipynb") from None
    except PapermillExecutionError as error:
        fixable = _fixable(name, error.ename, error.evalue)
        if fixable is None:
            raise
        raise fixable from None
    except OSError as error:
        if error.filename is None:  # of a write, as opposed to opening a file
            error.filename = str(target)
        raise
    except RuntimeError as error:
        if not str(error).startswith("Kernel died"):
            raise
        raise _out_of_memory(name, "its kernel died, most likely because memory ran out") from None
    return target


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Keep other processes from running the same notebook; the lock of a process ends with it."""
    lock = FileLock(RUNS / f"{name}.lock")
    RUNS.mkdir(exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{name} is running in another process, which holds {lock.lock_file}: wait for it") from None
    try:
        yield
    finally:
        lock.release()


def _execute(source: Path, target: Path) -> None:
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # the death of a kernel is an exception too
    papermill.execute_notebook(
        source,
        target,
        kernel_name="python3",
        progress_bar=False,
        stdout_file=sys.stdout,
        stderr_file=sys.stderr,
        extra_arguments=QUIET_KERNEL,
    )


# --- errors that a user can fix ------------------------------------------------------------------------------


def _fixable(name: str, kind: str, message: str) -> UserError | None:
    """Return the error for the user if the exception of a cell is one; ``kind`` is its type."""
    if kind == "UserError":
        return UserError(message)
    if kind in _MEMORY_ERRORS or _NO_MEMORY.search(message):
        return _out_of_memory(name, f"memory ran out ({kind})")
    line = one_line(" ".join(message.split()))
    if number := _ERRNO.search(line):
        return storage_error(int(number[1]), f"{name}: {line}")
    if _NO_STATE.search(line):
        return storage_error(errno.ENOSPC, f"{name}: the state of training cannot be written below {RUNS}/")
    return None


def _out_of_memory(name: str, problem: str) -> UserError:
    remedy = _LESS_MEMORY.get(name, "the numbers of videos and frames in params.yaml")
    return UserError(f"{name}: {problem}: lower {remedy}, or close other programs; finished work is kept")
