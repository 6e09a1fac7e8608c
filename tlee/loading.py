"""Batches of examples on a device: their order, the worker processes that load them, and their random numbers.

Random numbers belong to the epoch and the row, whichever process draws them, so that the number of workers changes no
bit, and neither does resuming.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tlee.collation import PREFETCHED, Collate
from tlee.distributed.ranks import world
from tlee.errors import UserError

Batch = tuple[torch.Tensor, ...]  #: arguments of ``Task.forward``


class Key(NamedTuple):
    """Position of an example, and what its random numbers depend on."""

    seed: int
    epoch: int
    row: int


@contextmanager
def drawn_by(key: Key) -> Iterator[None]:
    """Let PyTorch's generator draw the numbers of ``key`` meanwhile, and go on afterwards as if it had not."""
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    try:
        yield
    finally:
        generator.set_state(state)


class Examples(Dataset):
    """What is trained on: ``examples[key]`` loads one example, a tuple; ``finish`` makes the inputs of a task."""

    workers = 0  #: processes that load examples; 0: this one

    def __len__(self) -> int:
        raise NotImplementedError

    def finish(self, *batch: torch.Tensor) -> Batch:
        """Map the parts of a collated batch, on the device, to the arguments of ``Task.forward``.

        With workers, the first part is overwritten when the next batches are loaded.
        """
        return batch


class EpochOrder(Sampler[list[Key]]):
    """Batches of keys of one epoch after the other, of which each rank has a share.

    Shuffled by seed and epoch, ``batch`` examples are shared evenly by the ranks, and an incomplete batch is left out.
    In order, each rank has its share of all examples, in batches of at most ``batch``.

    Raises ``UserError`` if examples or batches are too few to be shared, or not evenly.
    """

    def __init__(self, examples: int, batch: int, seed: int, shuffle: bool):
        self.seed, self.shuffle, self.epoch = seed, shuffle, 0
        self._world, self._examples, batch = world(), examples, min(batch, examples)
        if examples < self._world.size or (shuffle and batch % self._world.size):
            what = f"batches of {batch} clips" if shuffle else f"{examples} clips"
            remedy = "change compute.devices or batch_clips"
            raise UserError(f"{what} cannot be shared evenly by {self._world.size} devices: {remedy}")
        self.batch = batch // self._world.size if shuffle else batch  #: examples of a batch on this rank

    def __len__(self) -> int:
        if self.shuffle:
            return self._examples // (self.batch * self._world.size)
        return -(-len(self._own()) // self.batch)

    def __iter__(self) -> Iterator[list[Key]]:
        rows = self._own()
        for start in range(0, len(self) * self.batch, self.batch):
            yield [Key(self.seed, self.epoch, row) for row in rows[start : start + self.batch].tolist()]

    def _own(self) -> np.ndarray:
        """Return the rows of this rank in their order."""
        rows, together = np.arange(self._examples), self.batch * self._world.size
        if not self.shuffle:
            return rows[self._world.share(self._examples)]
        rows = np.random.default_rng([self.seed, self.epoch]).permutation(rows)
        batches = rows[: self._examples // together * together].reshape(-1, together)
        return batches[:, self._world.share(together)].flatten()


class Loader:
    """Batches of ``data`` on ``device``; with workers a context manager, since they live until its end.

    Workers are forked from a server process that has imported what they need. A fork of this process itself would
    not be safe: a Jupyter kernel, Arrow and OpenMP have threads, whose locks a fork would copy.

    Raises ``UserError`` if a worker dies.
    """

    def __init__(self, data: Examples, batch: int, device: torch.device, *, seed: int = 0, shuffle: bool = False):
        self._data, self._device, self._pinned = data, device, device.type == "cuda"
        self._order = EpochOrder(len(data), batch, seed, shuffle)
        self._workers = min(data.workers, len(self._order))
        self._loader: DataLoader = DataLoader(
            data,
            batch_sampler=self._order,
            collate_fn=Collate(self._order.batch),
            num_workers=self._workers,
            pin_memory=self._pinned,
            generator=torch.Generator(),  # otherwise it would draw from that of training
            **(_parallel() if self._workers else {}),
        )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._order)

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers at once, even if a traceback still refers to them."""
        if self._loader._iterator is not None:
            self._loader._iterator._shutdown_workers()  # type: ignore[attr-defined]

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, ready for ``Task.forward``."""
        self._order.epoch = epoch
        try:
            for batch in self._loader:
                parts = (torch.as_tensor(part) for part in batch)
                yield self._data.finish(*(part.to(self._device, non_blocking=self._pinned) for part in parts))
        except UserError as error:  # of a worker: with its traceback before it
            raise UserError(str(error).splitlines()[-1].removeprefix("tlee.errors.UserError: ")) from None
        except (RuntimeError, OSError, EOFError) as error:
            if not (self._workers and _is_broken(error)):
                raise
            raise UserError(
                "a process that loads clips has ended, most likely because memory ran out: lower compute.workers, "
                "close other programs, or in a container raise its shared memory (`docker run --shm-size 8g`)"
            ) from None


def _is_broken(error: Exception) -> bool:
    """True if an error is of the connection to a worker, which has ended, rather than of its work."""
    text = str(error)
    return text.startswith("DataLoader worker") if isinstance(error, RuntimeError) else not text.startswith("Caught ")


def _parallel() -> dict[str, Any]:
    """Arguments of a ``DataLoader`` with workers."""
    return {
        "multiprocessing_context": _context(),
        "worker_init_fn": _begin_worker,
        "persistent_workers": True,
        "prefetch_factor": PREFETCHED,
    }


def _context() -> BaseContext:
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["tlee.clips"])
    return context


def _begin_worker(_: int) -> None:
    """Leave interrupts to the process that began this worker, and end with it, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
