"""Start of a stage's function on all devices of ``compute``, by torchrun, from the process of the notebook.

The notebook shows what rank 0 prints, and gets what it returns. All ranks end if one of them does, or the notebook's
kernel, even if it is killed: their standard input is a pipe from it.
"""

import builtins
import json
import os
import pickle
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from tlee.devices import devices_of
from tlee.distributed.ranks import world
from tlee.errors import UserError
from tlee.params import Params
from tlee.paths import RUNS

Result = TypeVar("Result")

FOLDER = RUNS / "ranks"  #: what the notebook and the ranks tell each other
JOB, RETURNED, ERRORS, LOG = "job.pickle", "returned.pickle", "error-{}.json", "log.txt"

PORT = 29500  #: of the first of several machines, where it waits for the others

END_WITHIN = 15.0  #: seconds

_KILLED = "exitcode  : -9"  # of a rank, in the log of torchrun


def on_all_devices(stage: Callable[[Params], Result]) -> Callable[[Params], Result]:
    """Decorate a function of a module with parameters alone: it runs on each of the devices that they name.

    What it returns, on rank 0, can be pickled. Raises ``UserError`` if a rank raises it or is killed.
    """

    @wraps(stage)
    def run(params: Params) -> Result:
        devices = used_devices(params)
        alone = devices * params.compute.nodes == 1
        return stage(params) if alone or world().size > 1 else _launch(stage, params, devices)

    return run


def used_devices(params: Params) -> int:
    """Return how many devices of this machine train together; of ``auto``, as many as share batches evenly."""
    found, nodes = devices_of(params.compute), params.compute.nodes
    if params.compute.devices != "auto":
        return found
    batches = params.pretrain.batch_clips, params.branches.batch_clips
    even = [count for count in range(1, found + 1) if not any(batch % (count * nodes) for batch in batches)]
    return max(even, default=found)


def _launch(stage: Callable[[Params], Result], params: Params, devices: int) -> Result:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (FOLDER / JOB).write_bytes(pickle.dumps((stage.__module__, stage.__name__, params)))
    command = _command(params.compute.nodes, devices)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (FOLDER / LOG).open("w", encoding="utf-8") as log, subprocess.Popen(command, stderr=log, **pipes) as process:
        try:
            for line in process.stdout:  # type: ignore[union-attr]
                print(line, end="", flush=True)
        except BaseException:  # an interruption
            _end(process)
            raise
    if not (FOLDER / RETURNED).exists():
        raise _error()
    returned = pickle.loads((FOLDER / RETURNED).read_bytes())
    shutil.rmtree(FOLDER)
    return returned


def _end(process: subprocess.Popen) -> None:
    """End the ranks, which end with their input, and then what started them: of itself, or else by a signal."""
    process.stdin.close()  # type: ignore[union-attr]
    for stop in (process.terminate, process.kill):
        try:
            process.wait(END_WITHIN)
            return
        except subprocess.TimeoutExpired:
            stop()
    process.wait()


def _command(nodes: int, devices: int) -> list[str]:
    """Return the command that starts the ranks of this machine, or within a job of SLURM those of all."""
    if nodes == 1:
        return [*_torchrun("--standalone", f"--nproc-per-node={devices}"), "--attended", str(FOLDER)]
    if "SLURM_JOB_ID" in os.environ:
        torchrun = shlex.join([*_of_node("SLURM_NODEID", nodes, devices), "--attended", str(FOLDER)])
        shell = torchrun.replace("SLURM_NODEID", "$SLURM_NODEID")
        tasks = ["--kill-on-bad-exit=1", f"--nodes={nodes}", f"--ntasks={nodes}"]
        return ["srun", *tasks, "bash", "-c", f"exec {shell}"]
    others = shlex.join([*_of_node("K", nodes, devices), str(FOLDER)])
    print(f"waiting for {nodes - 1} more machines: on each, K = 1, 2, ... run in this folder\n{others}")
    return [*_of_node("0", nodes, devices), "--attended", str(FOLDER)]


def _of_node(number: str, nodes: int, devices: int) -> list[str]:
    shape = [f"--nnodes={nodes}", f"--node-rank={number}", f"--nproc-per-node={devices}"]
    return _torchrun(*shape, f"--master-addr={socket.gethostname()}", f"--master-port={PORT}")


def _torchrun(*options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", "tlee.distributed.rank"]


def _error() -> Exception:
    """Return the error with which the ranks ended: that of the first one, since it lets others fail."""
    errors = sorted(FOLDER.glob(ERRORS.format("*")), key=lambda path: path.stat().st_mtime_ns)
    if errors:
        error = json.loads(errors[0].read_text(encoding="utf-8"))
        if error["kind"] == "UserError":
            return UserError(error["message"])
        print(error["traceback"], flush=True)
        kind = getattr(builtins, error["kind"], RuntimeError)
        return kind(error["message"])
    if _KILLED in (FOLDER / LOG).read_text(encoding="utf-8", errors="replace"):
        return MemoryError("a process of several that train together was killed")
    return UserError(f"the processes that train together did not start or did not end: {FOLDER / LOG} says why")
