"""The files that describe the environment agree with each other, and with the environment that runs."""

import importlib.metadata
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]

LOCK = [
    Requirement(line)
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
PINS = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in LOCK}

WANTED = [
    Requirement(line)
    for line in (
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["dev"],
        *PYPROJECT["build-system"]["requires"],  # the project is installed without build isolation
    )
]


@pytest.mark.parametrize("pin", LOCK, ids=lambda pin: pin.name)
def test_the_lock_contains_only_exact_versions(pin):
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    assert str(Version(specifier.version)) == specifier.version  # neither a wildcard nor a local build
    assert not pin.url


def test_the_lock_names_a_package_once():
    assert len(PINS) == len(LOCK)


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: wanted.name)
def test_every_dependency_is_locked_at_a_version_in_its_range(wanted):
    assert PINS[canonicalize_name(wanted.name)] in wanted.specifier


@pytest.mark.parametrize("name", PINS)
def test_the_installed_version_is_the_locked_one(name):
    installed = Version(importlib.metadata.version(name))
    assert installed.public == PINS[name]  # without the name of the build, such as +cpu


def test_this_python_is_one_that_the_project_is_for():
    assert ".".join(map(str, sys.version_info[:3])) in SpecifierSet(PROJECT["requires-python"])


@pytest.fixture(scope="module")
def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_conda_brings_a_python_that_the_project_is_for(conda):
    (python,) = (entry for entry in conda["dependencies"] if str(entry).startswith("python="))
    assert python.partition("=")[2] in SpecifierSet(PROJECT["requires-python"])


def test_conda_installs_the_lock_and_the_project_with_pip(conda):
    (pip,) = (entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r requirements.txt", "-e ."]
    assert "pip" in conda["dependencies"]


def in_a_fresh_process(code: str) -> str:
    """What ``code`` prints; nothing of this process is imported there, and every warning is an error."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_torchvision_is_usable_whatever_build_it_is():
    code = """
import torch
from tlee._torchvision import models, transforms
print(type(models.mobilenet_v2(weights=None)).__name__)
print(tuple(transforms.Resize(4)(torch.zeros(3, 8, 16, dtype=torch.uint8)).shape))
"""
    assert in_a_fresh_process(code).splitlines() == ["MobileNetV2", "(3, 4, 8)"]


@pytest.mark.slow
def test_metrics_are_usable_from_the_first_import():
    code = """
import torch
from tlee.metrics import auroc
print(auroc(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([False, True, False, True])))
"""
    assert float(in_a_fresh_process(code)) == pytest.approx(3 / 4)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not here")
def test_make_alone_lists_what_it_can_do():
    lines = subprocess.run(["make", "-C", ROOT, "-s"], capture_output=True, text=True, check=True).stdout.splitlines()
    targets = {target: text for target, _, text in (line.partition(" ") for line in lines)}
    assert {"repro", "test", "lab"} <= set(targets)
    assert all(text.strip() for text in targets.values())
