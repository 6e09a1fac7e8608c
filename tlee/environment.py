"""The environment of a run: what can change its numbers besides code, parameters and data.

Each stage leaves one small file, ``results/environment/<notebook>.json``, in git beside its results and with nothing in
it that names a user, a machine or a path. ``tlee.paper.agreement`` compares those of two runs.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from tlee.paths import RESULTS

ENVIRONMENT = RESULTS / "environment"

#: Packages that compute, decode or encode; the version of Pillow's libjpeg-turbo is recorded beside them.
PACKAGES = (
    *("av", "lightning-fabric", "numpy", "onnx", "onnxruntime", "pandas", "pillow", "scikit-learn", "scipy", "torch"),
    *("torchmetrics", "torchvision"),
)

#: Variables that choose the instruction sets of ATen, oneDNN, MKL, OpenBLAS and NumPy, or the number of threads.
SETTINGS = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_DYNAMIC", "MKL_ENABLE_INSTRUCTIONS"),
    *("MKL_NUM_THREADS", "NPY_DISABLE_CPU_FEATURES", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"),
    "OPENBLAS_NUM_THREADS",
)

#: Instruction sets that arithmetic libraries choose their code by, as Linux names them on x86-64 and on ARM.
INSTRUCTION_SETS = (
    *("avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2"),
)

_CPU_INFO, _NVIDIA = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")
_MODEL_KEYS = ("model name", "cpu family", "model", "CPU implementer", "CPU part")


def record_environment(notebook: str) -> Path:
    """Write the environment of this process, in which ``notebook`` has run, to ``results/environment/``."""
    path = ENVIRONMENT / f"{notebook}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(environment(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def environment() -> dict[str, Any]:
    """Return what the numbers of this process can depend on, as JSON; torch is not imported.

    ``instruction sets`` are those that Linux reports. ``vector code`` names groups of them that NumPy finds by asking
    the processor itself: these are right under an emulator, where Linux reports the processor below it. ``cores`` are
    those that this process may use. ``settings`` are those of ``SETTINGS`` that are set.
    """
    info = cpu_info()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "accelerator": _accelerator(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instruction sets": [name for name in INSTRUCTION_SETS if name in flags],
        "packages": _packages(),
        "processor": _processor(info),
        "python": platform.python_version(),
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "system": _system(),
        "vector code": _vector_code(),
    }


def cpu_info() -> dict[str, str]:
    """Return what Linux reports of the first processor; nothing elsewhere."""
    try:
        first = _CPU_INFO.read_text(encoding="utf-8", errors="replace").strip().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _processor(info: dict[str, str]) -> str:
    """Name the processor: virtual machines hide its name, but not the numbers of its family and model."""
    name, *numbers = [info.get(key, "") for key in _MODEL_KEYS]
    labels = (f"{key} {number}" for key, number in zip(_MODEL_KEYS[1:], numbers, strict=True) if number)
    words = ", ".join(filter(None, [name, *labels]))
    return f"{platform.machine()}: {words or _macos_processor() or platform.processor() or 'unknown'}"


def _macos_processor() -> str:
    if platform.system() != "Darwin":
        return ""
    command = ["sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _accelerator() -> str:
    """Name the NVIDIA graphics processors that the driver of Linux lists, or ``none`` if they are hidden from CUDA."""
    names = []
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "none"
    for path in sorted(_NVIDIA.glob("*/information")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    return ", ".join(names) or "none"


def _packages() -> dict[str, str]:
    """Return the versions of ``PACKAGES`` that are installed, and of the JPEG decoder within Pillow."""
    from PIL import features

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions | {"libjpeg-turbo": features.version_feature("libjpeg_turbo") or "not in Pillow"}


def _system() -> str:
    """Name the operating system and its C library, whose functions of floating-point numbers differ by version."""
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return ", ".join(filter(None, [name, " ".join(platform.libc_ver()).strip()]))


def _vector_code() -> list[str]:
    import numpy as np

    found = np.show_config(mode="dicts").get("SIMD Extensions", {})  # NumPy leaves out what is empty
    return [*found.get("baseline", []), *found.get("found", [])]
