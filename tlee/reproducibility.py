"""Settings with which different x86-64 processors compute the same bits.

Libraries for arithmetic choose their code at run time, by the processor: instruction sets, blocking by the size of
caches, threads by the number of cores. Sums in another order round differently, and training amplifies the last digit.
With ``reproducible: true`` in ``params.yaml`` these choices are fixed for the kernels that run notebooks, and for
their worker processes.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

from tlee.environment import cpu_info

#: Environment variables, read when a library is loaded, and the choice that each one fixes.
PINS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own operators
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # oneDNN: convolutions
    "MKL_CBWR": "COMPATIBLE",  # MKL: matrix products; its other modes differ between Intel's and AMD's processors
    "OPENBLAS_CORETYPE": "Haswell",  # OpenBLAS in NumPy and SciPy: matrix products
    "OPENBLAS_L2_SIZE": "512",  # KiB; their blocks depend on it
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",  # NumPy: exponentials, logarithms, sums
    "OMP_NUM_THREADS": "1",  # the order of sums depends on it; see ``convolution_threads``
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_DYNAMIC": "FALSE",  # MKL may not use fewer
}

#: Threads of torch in stages that train or run convolutions; on one core, too.
CONVOLUTION_THREADS = 2

#: Rounds for which a waiting thread of GNU OpenMP stays awake. With its own 300,000, and other programs on the same
#: cores, threads spend most of the time waiting for each other. Bits do not depend on it.
_ROUNDS = {"GOMP_SPINCOUNT": "1000"}


def can_pin() -> bool:
    """True on Linux with an x86-64 processor that has AVX2, as nearly all since 2013."""
    return platform.machine() == "x86_64" and "avx2" in cpu_info().get("flags", "").split()


@contextmanager
def kernel_settings(reproducible: bool) -> Iterator[None]:
    """Give kernels that are started meanwhile their settings: ``PINS`` too, if they are wanted and this machine can."""
    settings = {name: value for name, value in _ROUNDS.items() if name not in os.environ}
    settings |= PINS if reproducible and can_pin() else {}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def is_pinned() -> bool:
    """True in a process that was started with the settings ``PINS``."""
    return all(os.environ.get(name) == value for name, value in PINS.items())


@contextmanager
def convolution_threads() -> Iterator[None]:
    """Let torch use ``CONVOLUTION_THREADS`` meanwhile where the settings hold; small products gain nothing from two."""
    if not is_pinned():
        yield
        return
    import torch  # slow to import

    before = torch.get_num_threads()
    torch.set_num_threads(CONVOLUTION_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)
