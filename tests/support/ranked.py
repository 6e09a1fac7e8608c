"""Functions that tests run on several ranks, which import them by their name, and little else."""

import os
import signal
import time
from pathlib import Path

from tlee.distributed.launch import on_all_devices
from tlee.distributed.ranks import World, world
from tlee.params import Params


@on_all_devices
def where(params: Params) -> World:
    """Return the rank; each one leaves its number in a file."""
    Path(f"rank-{world().rank}").touch()
    print("of", world().size, flush=True)
    return world()


@on_all_devices
def fail(params: Params) -> None:
    """Fail as a full disk lets it, but on rank 1 alone; the others wait for it."""
    if world().rank == 1:
        raise OSError(28, "No space left on device")
    time.sleep(600)


@on_all_devices
def die(params: Params) -> None:
    """Be killed on rank 1, as if memory had run out; the others wait for it."""
    if world().rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


@on_all_devices
def stay(params: Params) -> None:
    """Leave the number of the process in a file, and stay."""
    Path(f"pid-{os.getpid()}").touch()
    time.sleep(600)
