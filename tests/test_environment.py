"""The environment that a stage leaves beside its results: what it holds, and what it must not hold."""

import getpass
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import tlee.environment
from tlee.environment import PACKAGES, environment, record_environment
from tlee.reproducibility import PINS

X86 = """processor\t: 0
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Processor
flags\t\t: fpu avx avx2 avx512f amx_tile xsave

processor\t: 1
flags\t\t: fpu
"""
ARM = """processor\t: 0
Features\t: fp asimd sve
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


@pytest.fixture
def cpu_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty file in place of that of Linux."""
    path = tmp_path / "cpuinfo"
    path.touch()
    monkeypatch.setattr(tlee.environment, "_CPU_INFO", path)
    return path


def test_the_first_processor_is_named_with_its_family_and_model(cpu_info, monkeypatch):
    cpu_info.write_text(X86)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    found = environment()
    assert found["processor"] == "x86_64: Intel(R) Xeon(R) Processor, cpu family 6, model 143"
    assert found["instruction sets"] == ["avx", "avx2", "avx512f", "amx_tile"]


def test_a_processor_of_arm_is_named_by_its_part(cpu_info, monkeypatch):
    cpu_info.write_text(ARM)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    found = environment()
    assert found["processor"] == "aarch64: CPU implementer 0x41, CPU part 0xd40"
    assert found["instruction sets"] == ["asimd", "sve"]


def test_a_system_that_reports_no_processor_still_has_an_environment(cpu_info, monkeypatch):
    cpu_info.unlink()
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    found = environment()
    assert (found["processor"], found["instruction sets"]) == ("riscv64: unknown", [])


def test_graphics_processors_are_named_unless_they_are_hidden(tmp_path, monkeypatch):
    for number in range(2):
        card = tmp_path / f"0000:0{number}:00.0"
        card.mkdir()
        (card / "information").write_text("Model: \t\t NVIDIA H100\nIRQ:   \t\t 7\n")
    monkeypatch.setattr(tlee.environment, "_NVIDIA", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environment()["accelerator"] == "NVIDIA H100, NVIDIA H100"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environment()["accelerator"] == "none"


def test_versions_are_those_of_the_packages_and_of_the_decoder_within_pillow():
    packages = environment()["packages"]
    assert packages.keys() == {*PACKAGES, "libjpeg-turbo"}
    assert packages["torch"] == importlib.metadata.version("torch")
    assert packages["libjpeg-turbo"][0].isdigit()


def test_a_package_that_is_not_installed_is_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(tlee.environment, "PACKAGES", ("torch", "no-such-package"))
    assert environment()["packages"]["no-such-package"] == "not installed"


def test_only_settings_that_are_set_are_recorded(monkeypatch):
    for name in tlee.environment.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert environment()["settings"] == {"ATEN_CPU_CAPABILITY": "avx2"}


def test_every_setting_that_is_pinned_is_recorded():
    assert PINS.keys() <= set(tlee.environment.SETTINGS)


def test_numpy_finds_no_vector_code_that_it_was_told_not_to_use():
    code = "from tlee.environment import environment; print(*environment()['vector code'])"

    def found(disabled: str) -> set[str]:
        variables = os.environ | {"NPY_DISABLE_CPU_FEATURES": disabled}
        done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    optional = found("") & {"X86_V3", "X86_V4", "AVX512_ICL", "AVX512_SPR"}
    if not optional:
        pytest.skip("a processor without AVX2")
    assert not found(" ".join(optional)) & optional


def test_the_file_is_small_sorted_and_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = record_environment("5_evaluate")
    assert path == Path("results/environment/5_evaluate.json")
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    assert text == json.dumps(content, indent=2, sort_keys=True) + "\n"
    assert len(text) < 3000
    assert record_environment("5_evaluate").read_text(encoding="utf-8") == text


def test_the_file_names_no_machine_user_or_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0123")
    text = record_environment("5_evaluate").read_text(encoding="utf-8")
    assert str(Path.home()) not in text and str(tmp_path) not in text and sys.prefix not in text
    assert f'"{getpass.getuser()}"' not in text
    assert socket.gethostname() not in text
    assert "GPU-0123" not in text


def test_nothing_slow_is_imported_for_it():
    code = "import sys, tlee.environment as e; e.environment(); print('torch' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
