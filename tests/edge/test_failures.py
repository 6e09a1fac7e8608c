"""Errors of the runner in the kit's own process: one line with the file and the remedy, as from any other part."""

import json
from pathlib import Path

import pytest
from support.bundles import small_bundle
from support.commands import TLEE, error_line, make_folder, run, write_notebook
from support.projects import make_project
from support.refusals import one_line

import tlee.edge.report
from tlee.benchmark.networks import time_network
from tlee.checksums import save_sealed
from tlee.edge.bundle import write_bundle
from tlee.edge.report import time_policy
from tlee.edge.runner import RunnerError
from tlee.params import load_params
from tlee.paths import EDGE

pytestmark = pytest.mark.slow


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def expect_another_label(manifest: Path) -> None:
    about = json.loads(manifest.read_text(encoding="utf-8"))
    about["videos"][0] |= {"label": 7, "margin": 9.0}
    save_sealed(manifest, about)


FAILURES = {
    "a damaged graph": ("prefix0.onnx", flip_a_bit, ("run the same command again",)),
    "damaged clips": ("clips.npy", flip_a_bit, ("run the same command again",)),
    "a missing graph": ("prefix1.onnx", Path.unlink, ("run the same command again",)),
    "a damaged manifest": ("bundle.json", flip_a_bit, ("run the same command again",)),
    "a wrong result": ("bundle.json", expect_another_label, ("wrong result", "label", "expected 7")),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    return folder


@pytest.mark.usefixtures("five_layer_backbone")
@pytest.mark.parametrize(("name", "damage", "expected"), FAILURES.values(), ids=FAILURES)
def test_the_latency_stage_reports_a_bundle_in_one_line(project, monkeypatch, name, damage, expected):
    def write_and_damage(*args: object) -> None:
        write_bundle(*args)
        damage(EDGE / name)

    monkeypatch.chdir(project)
    monkeypatch.setattr(tlee.edge.report, "write_bundle", write_and_damage)
    one_line(lambda: time_policy(load_params()), EDGE, name, *expected)


def test_the_benchmark_reports_the_runner_in_one_line(monkeypatch):
    def fail(*_: object) -> None:
        raise RunnerError("python cannot import onnxruntime: install it")

    monkeypatch.setattr("tlee.benchmark.networks.random_frames", fail)
    one_line(lambda: time_network(load_params(), 2), "onnxruntime", "install it")


MEASURE = """
from tlee.edge.targets import measure_target
from tlee.params import load_params
from tlee.paths import EDGE

measure_target(load_params(overrides={"latency.target": "ssh://nano/folder"}).latency, EDGE)
"""


def test_the_command_that_runs_the_stage_ends_with_this_line(tmp_path):
    project = make_folder(tmp_path)
    small_bundle(project / EDGE, videos=2)
    flip_a_bit(project / EDGE / "prefix0.onnx")
    write_notebook(project, "6_latency", MEASURE)
    done = run(project, *TLEE, "run", "6_latency")
    error_line(done, str(EDGE / "prefix0.onnx"), "run the same command again, which exports it again")
