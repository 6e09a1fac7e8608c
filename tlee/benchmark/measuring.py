"""Time and memory of a piece of work."""

import ctypes
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MEGA = 1e6


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of ``work()``."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@dataclass
class MemoryUsage:
    """Memory that the process allocates while it is measured, without mapped files."""

    is_known: bool = False  #: False if the system does not report it
    added: int = 0  #: maximum beyond the memory at the start, in bytes


@contextmanager
def measure_memory() -> Iterator[MemoryUsage]:
    """Poll the memory of this process, on systems that report it (Linux)."""
    _release_free_memory()
    start, done = _anonymous_memory(), threading.Event()
    memory = MemoryUsage(is_known=start is not None)

    def poll() -> None:
        while not done.wait(0.01):
            memory.added = max(memory.added, (_anonymous_memory() or 0) - (start or 0))

    poller = threading.Thread(target=poll)
    if memory.is_known:
        poller.start()
    try:
        yield memory
    finally:
        done.set()
        if memory.is_known:
            poller.join()


def _release_free_memory() -> None:
    """Return free memory of this process to the system: its reuse would not be measured."""
    with suppress(OSError, AttributeError):  # C libraries other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _anonymous_memory() -> int | None:
    """Read the anonymous resident memory of this process in bytes; None if the system does not report it."""
    status = Path("/proc/self/status")
    found = re.search(r"^RssAnon:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found.group(1)) * 1024 if found else None
