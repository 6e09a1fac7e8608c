"""Workers of an extraction: local processes, and those of a dask cluster."""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from support.clips import encode
from support.killing import kill_first
from support.refusals import one_line
from support.small import ROOT, small_params

from tlee.datasets import Dataset
from tlee.extraction import extract
from tlee.extraction.workers import open_workers
from tlee.frames import FrameStore
from tlee.paths import SPLITS

PARAMS = small_params({"extract.short_side": 24}).extract


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A dask cluster of two worker processes, by its address."""
    distributed = pytest.importorskip("distributed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as local:
            yield local.scheduler_address.replace("tcp://", "dask://")


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Sixty videos in all splits, of which the workers know the relative path only by the working folder here."""
    monkeypatch.chdir(tmp_path)
    encode(Path("videos/a.mp4"))
    rows = [("a.mp4", [0], SPLITS[number % 3], "g", np.nan, number + 1.0) for number in range(60)]
    manifest = pd.DataFrame(rows, columns=["video", "labels", "split", "group", "start", "end"])
    return Dataset(Path("videos"), ["a"], manifest)


def contents(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*.arrow")}


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(dataset, cluster):
    extract(dataset, PARAMS, Path("here"))
    shutil.rmtree("runs")
    extract(dataset, PARAMS, Path("cluster"), cluster)
    assert contents("cluster") == contents("here")
    assert len(FrameStore("cluster/val")) == 20


@pytest.mark.slow
def test_tasks_of_a_killed_worker_are_run_by_another(cluster, tmp_path):
    with open_workers(cluster) as workers:
        assert workers.count == 2
        assert sorted(workers.run(kill_first, ((str(tmp_path / "lock"), number) for number in range(6)))) == [*range(6)]


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_writes_the_same_bytes(dataset, cluster):
    from distributed import Client

    extract(dataset, PARAMS, Path("here"))
    shutil.rmtree("runs")
    with Client(cluster.replace("dask://", "tcp://"), set_as_default=False) as client:
        client.wait_for_workers(2)
        victim = next(iter(client.run(os.getpid).values()))
    killer = threading.Thread(target=kill_after_first_part, args=[victim, Path("runs").absolute()])
    killer.start()
    extract(dataset, PARAMS, Path("cluster"), cluster)
    killer.join()
    assert not psutil.pid_exists(victim)
    assert contents("cluster") == contents("here")


def kill_after_first_part(victim: int, runs: Path) -> None:
    while not any(runs.glob("extract-*/*.report")):
        time.sleep(0.001)
    os.kill(victim, signal.SIGKILL)


@pytest.mark.slow
def test_a_cluster_without_the_kit_is_one_line(cluster, monkeypatch):
    monkeypatch.setattr("tlee.extraction.workers.TASKS", "tlee_is_absent")
    one_line(lambda: open_workers(cluster).__enter__(), "compute.jobs", "No module named 'tlee_is_absent'", "install")


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_one_line():
    pytest.importorskip("distributed")
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}):
        one_line(lambda: open_workers("dask://127.0.0.1:9").__enter__(), "compute.jobs", "dask://127.0.0.1:9", "start")


@pytest.mark.parametrize(("name", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_package_that_is_not_installed_is_one_line(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    one_line(lambda: open_workers(f"{name}://host:1").__enter__(), "compute.jobs", f"{name} is not", "`pip install")
