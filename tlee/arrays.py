"""NumPy files that are written part by part, without being kept in memory."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike


def create_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """Create a ``.npy`` file of zeros and return it as a writable memory map.

    Raises ``OSError`` if the disk has too little space for all of it: a write to a memory map would then kill the
    process. Where space cannot be reserved (macOS), it still does.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
