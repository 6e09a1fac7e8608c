"""Loading of batches: their order, random numbers, and worker processes, which change nothing and leave nothing."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import psutil
import pytest
import torch
from support.refusals import one_line
from support.rows import TensorRows
from support.small import small_params
from support.stores import write_small_stores

from tlee import collation, devices
from tlee.clips import ClipDataset, load_clips
from tlee.errors import UserError
from tlee.loading import EpochOrder, Examples, Key, Loader, drawn_by
from tlee.paths import FRAMES

CPU = torch.device("cpu")


def rows(order: EpochOrder) -> list[list[int]]:
    return [[key.row for key in batch] for batch in order]


# --- order and random numbers ----------------------------------------------------------------------------


def test_without_shuffling_all_rows_come_in_order():
    assert rows(EpochOrder(5, batch=2, seed=0, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_shuffled_batches_are_complete_and_depend_on_seed_and_epoch():
    found = []
    for seed in (0, 1):
        for epoch in (0, 1):
            order = EpochOrder(11, batch=4, seed=seed, shuffle=True)
            order.epoch = epoch
            assert len(order) == 2
            found.append(rows(order))
            assert rows(order) == found[-1]
            assert [len(batch) for batch in found[-1]] == [4, 4]
            assert len({row for batch in found[-1] for row in batch}) == 8
    assert all(found.count(each) == 1 for each in found)


def test_a_batch_is_at_most_all_rows():
    assert len(rows(EpochOrder(3, batch=8, seed=0, shuffle=True))[0]) == 3


def test_keys_carry_the_seed_and_the_epoch():
    order = EpochOrder(2, batch=2, seed=5, shuffle=False)
    order.epoch = 3
    assert list(order) == [[Key(5, 3, 0), Key(5, 3, 1)]]


def test_numbers_drawn_by_a_key_leave_the_generator_as_it_was():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = torch.rand(1)
    with drawn_by(Key(0, 1, 2)):
        drawn = torch.rand(1)
    assert torch.equal(torch.cat([first, torch.rand(2)]), expected)
    with drawn_by(Key(0, 1, 2)):
        assert torch.equal(torch.rand(1), drawn)


def test_loading_draws_nothing_from_the_generator_of_training():
    torch.manual_seed(0)
    with Loader(TensorRows(torch.arange(6)), 2, CPU, shuffle=True) as loader:
        batches = [batch for (batch,) in loader.epoch(4)]
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.cat(batches).sort().values.tolist() == list(range(6))


# --- workers ---------------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipDataset:
    """Twelve clips of the split `train`, of which three frames are drawn, with random views."""
    monkeypatch.chdir(tmp_path)
    write_small_stores([row % 3 for row in range(12)])
    return load_clips("train", small_params(), augment=True, draw=3)


def two_epochs(data: ClipDataset, workers: int) -> list[torch.Tensor]:
    data.workers = workers
    with Loader(data, 5, CPU, seed=3, shuffle=True) as loader:
        return [part for epoch in (0, 1) for batch in loader.epoch(epoch) for part in batch]


@pytest.mark.slow
def test_the_number_of_workers_changes_no_bit_and_none_is_left(clips):
    alone, *others = (two_epochs(clips, workers) for workers in (0, 1, 2))
    assert len(alone) == 2 * 2 * 3
    for other in others:
        assert all(torch.equal(*pair) for pair in zip(alone, other, strict=True))
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_whole_although_their_memory_is_used_again(workers):
    data = TensorRows(torch.arange(99.0).view(33, 3), torch.arange(33))
    data.workers = workers
    with Loader(data, 2, CPU) as loader:
        for _ in range(2):
            found = [(rows.tolist(), values.tolist()) for values, rows in loader.epoch()]
            assert [row for rows, _ in found for row in rows] == list(range(33))
            assert all(values == data.tensors[0][rows].tolist() for rows, values in found)


@pytest.mark.slow
def test_shared_memory_is_sent_once_and_kept_as_long_as_the_loader():
    data = TensorRows(torch.arange(99.0).view(33, 3))
    data.workers = 1
    with Loader(data, 2, CPU) as loader:
        places = [values.data_ptr() for _ in range(2) for (values,) in loader.epoch()]
    assert len(places) == 2 * 17
    assert len(set(places)) == collation.PREFETCHED + 2
    memory = weakref.ref(loader._loader.collate_fn)  # which holds it
    del loader
    gc.collect()
    assert memory() is None


@pytest.mark.slow
def test_an_interruption_leaves_no_worker(clips):
    clips.workers = 2
    with pytest.raises(KeyboardInterrupt) as interruption, Loader(clips, 2, CPU) as loader:
        for _ in loader.epoch():
            assert len(multiprocessing.active_children()) == 2
            raise KeyboardInterrupt
    assert interruption.tb  # refers to the loop
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_worker_that_dies_is_named_with_the_parameter(clips):
    clips.workers = 2
    with Loader(clips, 1, CPU) as loader, pytest.raises(UserError, match=r"lower compute\.workers") as error:
        for index, _ in enumerate(loader.epoch()):
            if index == 0:
                for worker in multiprocessing.active_children():
                    os.kill(worker.pid, signal.SIGKILL)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_damaged_store_is_one_line_from_a_worker_too(clips):
    path = FRAMES / "train" / "00000.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    for workers in (0, 1):
        clips = load_clips("train", small_params({"compute.workers": workers}))
        with Loader(clips, 4, CPU) as loader:
            one_line(lambda loader=loader: list(loader.epoch()), path, "`dvc repro extract`")


@pytest.mark.slow
def test_a_killed_process_leaves_no_worker(tmp_path, root):
    code = """
import multiprocessing, torch
from support.rows import TensorRows
from tlee.loading import Loader
if __name__ == "__main__":
    rows = TensorRows(torch.arange(8))
    rows.workers = 2
    batches = Loader(rows, 2, torch.device("cpu")).epoch()
    next(batches)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    input()
"""
    script = tmp_path / "train.py"
    script.write_text(code)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    with subprocess.Popen([sys.executable, script], **pipes, env=environment) as process:
        assert process.stdout
        workers = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        process.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while any(worker.is_running() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- devices and numbers of workers ----------------------------------------------------------------------


def test_workers_are_as_many_as_asked_for():
    assert devices.workers_of(small_params({"compute.workers": 3}).compute) == 3


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (8, 7), (64, devices.MOST_WORKERS)])
def test_a_gpu_gets_a_worker_for_each_core_but_one(monkeypatch, cores, expected):
    monkeypatch.setattr(devices, "device_of", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(devices.joblib, "cpu_count", lambda: cores)
    assert devices.workers_of(small_params().compute) == expected


def test_a_cpu_trains_without_workers():
    assert devices.workers_of(small_params({"compute.accelerator": "cpu"}).compute) == 0


def test_an_absent_device_is_one_line_with_the_parameter(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    compute = small_params({"compute.accelerator": "cuda"}).compute
    one_line(lambda: devices.device_of(compute), "compute.accelerator is cuda", "set it to auto")


def test_examples_name_their_length_and_load_their_rows():
    tensors = TensorRows(torch.arange(3), torch.eye(3))
    assert (len(tensors), tensors.workers) == (3, Examples.workers)
    assert tensors[Key(0, 7, 2)][0] == 2
