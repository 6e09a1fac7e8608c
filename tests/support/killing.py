"""A task that kills the worker that runs it. Workers of a cluster import it by its name."""

import os
import signal


def kill_first(lock: str, number: int) -> int:
    """Kill the first worker that comes here, else return ``number``; the file ``lock`` tells who was first."""
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return number
    os.kill(os.getpid(), signal.SIGKILL)
    return -1
