"""The same bits on different processors: instruction sets and threads that are fixed for the pipeline's kernels."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.bits import ROOT

from tlee import environment, reproducibility
from tlee.params import load_params
from tlee.reproducibility import PINS, can_pin, is_pinned, kernel_settings

QEMU = shutil.which("qemu-x86_64")
CPU_INFO = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
OTHER = "EPYC-Rome" if "GenuineIntel" in CPU_INFO else "Haswell"  # without AVX-512, of the other maker

needs_avx2 = pytest.mark.skipif(not can_pin(), reason="needs Linux and an x86-64 processor with AVX2")


def checksums(folder: Path, *prefix: str, cores: int | None = None, pins: bool = True) -> dict[str, str]:
    """Run ``support/bits.py`` in a process of its own, limited to some cores and started by the command ``prefix``."""
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in PINS} | (PINS if pins else {})
    environment |= {"PYTHONPATH": sysconfig.get_path("purelib")}  # an emulated Python does not find its environment

    def limit() -> None:
        if cores:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

    done = subprocess.run(
        [*prefix, os.path.realpath(sys.executable), str(ROOT / "tests/support/bits.py"), str(folder)],
        env=environment,
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict[str, str]:
    return checksums(tmp_path_factory.mktemp("bits") / "reference")


@needs_avx2
@pytest.mark.slow
def test_one_core_computes_the_same_bits_as_all(reference, tmp_path):
    assert checksums(tmp_path / "one", cores=1) == reference


@needs_avx2
@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="needs QEMU's user mode: sudo apt install qemu-user")
def test_an_older_processor_computes_the_same_bits(reference, tmp_path):
    assert checksums(tmp_path / OTHER, str(QEMU), "-cpu", OTHER) == reference


@needs_avx2
@pytest.mark.slow
@pytest.mark.skipif("avx512f" not in CPU_INFO, reason="needs a processor with AVX-512")
def test_without_the_settings_a_newer_processor_computes_other_bits(reference, tmp_path):
    """Clips and frames are the same in any case; what is trained is not."""
    other = checksums(tmp_path / "unpinned", pins=False)
    different = {name for name in reference if other[name] != reference[name]}
    assert "results/models/backbone.safetensors" in different
    assert not [name for name in different if name.endswith((".mp4", ".arrow"))]


def test_settings_hold_for_processes_started_meanwhile_alone(monkeypatch):
    monkeypatch.setattr(reproducibility, "can_pin", lambda: True)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_CBWR", raising=False)
    with pytest.raises(KeyError), kernel_settings(True):
        assert is_pinned()
        raise KeyError
    assert not is_pinned()
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_CBWR" not in os.environ


@pytest.mark.parametrize(("wanted", "possible"), [(False, True), (True, False)])
def test_nothing_is_set_that_is_not_wanted_or_not_possible(monkeypatch, wanted, possible):
    monkeypatch.setattr(reproducibility, "can_pin", lambda: possible)
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    before = dict(os.environ)
    with kernel_settings(wanted):
        assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [("x86_64", "sse2 avx avx2 fma", True), ("x86_64", "sse2 avx", False), ("aarch64", "asimd avx2", False)],
)
def test_settings_need_a_processor_that_has_the_instructions(monkeypatch, tmp_path, machine, flags, expected):
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: {flags}\n")
    monkeypatch.setattr(environment, "_CPU_INFO", info)
    monkeypatch.setattr(reproducibility.platform, "machine", lambda: machine)
    assert can_pin() is expected


def test_the_demo_is_reproducible():
    assert load_params(ROOT / "params.yaml").reproducible
