"""Workers of an extraction: local processes, and those of a dask or ray cluster."""

import os
import shutil
import signal
import socket
import subprocess
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


PATHS = os.pathsep.join([str(ROOT), str(ROOT / "tests")])  #: where workers of a cluster import from


@pytest.fixture(scope="module")
def dask_cluster() -> Iterator[str]:
    """A dask cluster of two worker processes, by its address."""
    distributed = pytest.importorskip("distributed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS)
        with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as local:
            yield local.scheduler_address.replace("tcp://", "dask://")


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[str]:
    """A ray cluster of two worker processes, by its address."""
    pytest.importorskip("ray")
    head, client = free_port(), free_port()
    options = ["--head", "--block", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    options += [f"--port={head}", f"--ray-client-server-port={client}"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": PATHS}, stdout=subprocess.DEVNULL)
    try:
        while not answers(client):
            assert process.poll() is None
            time.sleep(0.2)
        yield f"ray://127.0.0.1:{client}"
    finally:
        process.terminate()  # it ends the processes of the cluster
        process.wait()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as connecting:
        return connecting.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=["dask", "ray"])
def cluster(request: pytest.FixtureRequest) -> str:
    """The address of a cluster of two worker processes."""
    return request.getfixturevalue(f"{request.param}_cluster")


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
def test_a_cluster_that_loses_a_worker_writes_the_same_bytes(dataset, dask_cluster):
    from distributed import Client

    extract(dataset, PARAMS, Path("here"))
    shutil.rmtree("runs")
    with Client(dask_cluster.replace("dask://", "tcp://"), set_as_default=False) as client:
        client.wait_for_workers(2)
        victim = next(iter(client.run(os.getpid).values()))
    killer = threading.Thread(target=kill_after_first_part, args=[victim, Path("runs").absolute()])
    killer.start()
    extract(dataset, PARAMS, Path("cluster"), dask_cluster)
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


@pytest.mark.slow
def test_a_ray_cluster_that_does_not_answer_is_one_line(monkeypatch):
    worker = pytest.importorskip("ray.util.client.worker")
    monkeypatch.setattr(worker, "INITIAL_TIMEOUT_SEC", 0.2)
    with pytest.warns(UserWarning, match="timed out"):
        one_line(lambda: open_workers("ray://127.0.0.1:9").__enter__(), "compute.jobs", "ray://127.0.0.1:9", "start")


@pytest.mark.parametrize(("name", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_package_that_is_not_installed_is_one_line(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    one_line(lambda: open_workers(f"{name}://host:1").__enter__(), "compute.jobs", f"{name} is not", "`pip install")
