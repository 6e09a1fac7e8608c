"""Workers of an extraction: local processes, and those of a dask cluster."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.clips import encode
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
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
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
def test_a_cluster_that_does_not_answer_is_one_line():
    pytest.importorskip("distributed")
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}):
        one_line(lambda: open_workers("dask://127.0.0.1:9").__enter__(), "compute.jobs", "dask://127.0.0.1:9", "start")


@pytest.mark.parametrize(("name", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_package_that_is_not_installed_is_one_line(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    one_line(lambda: open_workers(f"{name}://host:1").__enter__(), "compute.jobs", f"{name} is not", "`pip install")
