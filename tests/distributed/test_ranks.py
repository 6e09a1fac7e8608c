"""Training on several ranks: shares, the same numbers as one process, and how the ranks end."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import psutil
import pytest
import torch
from support.ranked import die, fail
from support.ranked_training import INTERRUPTED, UntilTheSixth, stages, ten_steps, trainings
from support.refusals import one_line
from support.small import small_params
from support.stores import write_small_stores

from tlee import devices, loading
from tlee.distributed import launch, ranks
from tlee.distributed.ranks import World, drawn, gathered, mean, only_first
from tlee.errors import UserError
from tlee.features import load_features, store_features
from tlee.loading import EpochOrder
from tlee.params import Params
from tlee.paths import SPLITS

QUICK = {
    "model.backbone": "mobilenet_v2",
    "pretrain.epochs": 5,
    "pretrain.batch_clips": 6,
    "pretrain.learning_rate": 0.001,
    "pretrain.dropout": 0.3,
    "pretrain.joint": True,
    "branches.epochs": 5,
    "branches.batch_clips": 6,
    "branches.train_views": 2,
    "compute.accelerator": "cpu",
}
LABELS = [row % 3 for row in range(13)]


def quick(devices: int | str, **changes: object) -> Params:
    """Parameters of a small network whose training has ten steps, two an epoch, on so many devices."""
    return small_params(QUICK | {"compute.devices": devices} | changes)


@pytest.fixture
def folder(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, in which ranks find the modules of the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (root, root / "tests"))))
    return tmp_path


@pytest.fixture
def stores(folder: Path) -> Path:
    write_small_stores(LABELS)
    return folder


# --- shares ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "size"), [(12, 3), (13, 4), (2, 4), (1, 1)])
def test_shares_follow_each_other_and_are_even(rows, size):
    shares = [range(rows)[World(rank, size).share(rows)] for rank in range(size)]
    assert list(chain(*shares)) == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def orders(size: int, monkeypatch: pytest.MonkeyPatch, **settings) -> list[list[list[int]]]:
    """Batches of one epoch, by rank."""
    found = []
    for rank in range(size):
        monkeypatch.setattr(loading, "world", lambda rank=rank: World(rank, size))
        order = EpochOrder(13, seed=3, **settings)
        batches = list(order)
        assert len(batches) == len(order)
        found.append([[key.row for key in batch] for batch in batches])
    return found


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_every_batch_of_one_process(monkeypatch, size):
    ((*alone,),) = orders(1, monkeypatch, batch=6, shuffle=True)
    shared = orders(size, monkeypatch, batch=6, shuffle=True)
    together = [list(chain(*parts)) for parts in zip(*shared, strict=True)]
    assert together == alone
    assert {len(batch) for batches in shared for batch in batches} == {6 // size}


def test_ranks_share_all_rows_in_order(monkeypatch):
    shared = orders(2, monkeypatch, batch=4, shuffle=False)
    assert shared == [[[0, 1, 2, 3], [4, 5]], [[6, 7, 8, 9], [10, 11, 12]]]


def test_batches_that_cannot_be_shared_are_refused(monkeypatch):
    monkeypatch.setattr(loading, "world", lambda: World(0, 4))
    one_line(lambda: EpochOrder(20, 6, 0, True), "batches of 6 clips", "4 devices", "compute.devices or batch_clips")
    one_line(lambda: EpochOrder(3, 6, 0, False), "3 clips", "4 devices")


def test_random_numbers_are_those_of_the_whole_batch(monkeypatch):
    def draw(rows: int) -> torch.Tensor:
        torch.manual_seed(0)
        return torch.rand(rows, 2)

    parts = []
    for rank in range(3):
        monkeypatch.setattr(ranks, "world", lambda rank=rank: World(rank, 3))
        parts.append(drawn(draw, 2))
    assert torch.equal(torch.cat(parts), draw(6))


def test_a_process_alone_has_everything():
    assert ranks.world() == World(0, 1)
    done, values = [], torch.arange(3.0)
    only_first(lambda: done.append(True))
    assert done == [True]
    assert gathered(values, 3) is mean(values) is values


# --- devices ---------------------------------------------------------------------------------------------


def test_all_gpus_are_used_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(devices, "device_of", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(devices.joblib, "cpu_count", lambda: 33)
    for wanted, expected in (("auto", 8), (2, 2)):
        compute = quick(wanted).compute
        assert devices.devices_of(compute) == expected
        assert devices.workers_of(compute) == 32 // expected
    one_line(lambda: devices.devices_of(quick(9).compute), "compute.devices is 9", "finds 8", "auto")


@pytest.mark.parametrize(("found", "nodes", "used"), [(8, 1, 8), (6, 1, 4), (6, 2, 4), (3, 1, 2), (1, 3, 1)])
def test_of_all_gpus_as_many_are_used_as_share_batches_evenly(monkeypatch, found, nodes, used):
    monkeypatch.setattr(launch, "devices_of", lambda compute: found)
    batches = {"pretrain.batch_clips": 16, "branches.batch_clips": 8}
    assert launch.used_devices(quick("auto", **batches, **{"compute.nodes": nodes})) == used
    assert launch.used_devices(quick(found, **batches)) == found  # as they were asked for


def test_a_cpu_is_one_device_or_as_many_processes_as_asked_for():
    assert [devices.devices_of(quick(wanted).compute) for wanted in ("auto", 3)] == [1, 3]


# --- the same numbers -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_train_as_one(stores, capsys):
    """With batch norm, dropout and random depths; and from the third epoch on, after one process."""
    with pytest.raises(UserError, match="five steps are enough"):
        ten_steps(quick(1), INTERRUPTED, kind=UntilTheSixth)
    shutil.copy(INTERRUPTED, "kept")
    capsys.readouterr()
    alone, printed = trainings(quick(1)), capsys.readouterr().out
    for state in Path().glob("*.pt"):
        state.unlink()
    shutil.move("kept", INTERRUPTED)
    together = trainings(quick(2))
    for name, history in alone.items():
        assert len(history) == 5
        for column in history:
            expected = history[column].tolist()
            assert together[name][column].tolist() == pytest.approx(expected, rel=1e-5, nan_ok=True), name
    assert alone["resumed"].equals(alone["network"])
    found = [re.sub(r" \(.*", "", text).splitlines() for text in (printed, capsys.readouterr().out)]
    assert found[0] == found[1]  # what rank 0 prints, and no other
    assert "resuming after epoch 2" in printed


@pytest.mark.slow
def test_every_stage_runs_on_two_devices(stores):
    """Features are those that one process finds for the same weights."""
    settings = {"pretrain.joint": False, "pretrain.epochs": 1, "branches.epochs": 1}
    history, comparison = stages(quick(2, **settings))
    assert history["loss"].notna().all()
    assert comparison["accuracy"].between(0, 1).all()
    together = {split: load_features(split).features.clone() for split in SPLITS}
    store_features(quick(1, **settings))
    for split, features in together.items():
        torch.testing.assert_close(features, load_features(split).features, rtol=1e-3, atol=1e-4)


# --- the end -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_error_of_one_rank_ends_all(folder, capsys):
    with pytest.raises(OSError, match=r"Errno 28\] No space left"):
        fail(quick(2))
    assert "in fail\n" in capsys.readouterr().out  # its traceback
    with pytest.raises(MemoryError, match="killed"):
        die(quick(2))


@contextmanager
def begin(folder: Path, code: str, **options) -> Iterator[subprocess.Popen]:
    """Run code in a process of its own, which is killed at the end if it has not ended.

    It can be interrupted even if these tests cannot, since a shell started them in the background.
    """
    interruptible = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{interruptible}\nfrom support.ranked import *\nfrom support.small import small_params\n{code}"
    with subprocess.Popen([sys.executable, "-c", code], cwd=folder, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_ranks_end_with_the_process_that_began_them(folder, number):
    with begin(folder, "stay(small_params({'compute.devices': 2}))", stderr=subprocess.DEVNULL) as process:
        found = _wait_for(lambda: [psutil.Process(int(path.name[4:])) for path in folder.glob("pid-*")], 2)
        process.send_signal(number)
        process.wait(WITHIN)
    _wait_for(lambda: [each for each in found if not each.is_running()], 2)


def _wait_for(find, count: int) -> list:
    deadline = time.monotonic() + 60
    while len(find()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return find()


# --- several machines ------------------------------------------------------------------------------------


WHERE = "print(where(small_params({'compute.nodes': 2})))"
RETURNED = "of 2\nWorld(rank=0, size=2)\n"
WITHIN = 120  # seconds


@pytest.mark.slow
def test_slurm_starts_the_ranks_of_all_machines(folder, monkeypatch):
    """`srun` stands in for two machines: it runs the command twice here."""
    srun = folder / "srun"
    two = 'SLURM_NODEID=1 "$@" <&3 & SLURM_NODEID=0 "$@"; wait'
    srun.write_text(f'#!/bin/bash\necho "$@" > arguments\nshift 3\nexec 3<&0\n{two}\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with begin(folder, WHERE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.communicate(timeout=WITHIN)[0] == RETURNED
    assert (folder / "arguments").read_text().startswith("--kill-on-bad-exit=1 --nodes=2 --ntasks=2 bash -c ")
    assert {path.name for path in folder.glob("rank-*")} == {"rank-0", "rank-1"}


@pytest.mark.slow
def test_another_machine_joins_by_the_command_that_is_printed(folder):
    with begin(folder, WHERE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == "waiting for 1 more machines: on each, K = 1, 2, ... run in this folder\n"
        command = process.stdout.readline()
        assert "--node-rank=K" in command
        joined = shlex.split(command.replace("=K", "=1"))
        subprocess.run(joined, check=True, cwd=folder, stderr=subprocess.DEVNULL, timeout=WITHIN)
        assert process.communicate(timeout=WITHIN)[0] == RETURNED
