"""Shares of the ranks in rows, in batches and in random numbers; without other ranks, all of them.

A result does not depend on the number of ranks, but for rounding: random numbers are drawn for a whole batch on each
rank, in the same way, and each uses those of its share.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import distributed


class World(NamedTuple):
    """The number of this process among those that compute together, and how many they are."""

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        """True for the rank that prints and writes."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """Return the rows of this rank; those of all ranks follow each other, and differ by at most one in number."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)


def world() -> World:
    """Return the ranks that compute together; a process that was not launched with others is the only one."""
    if distributed.is_available() and distributed.is_initialized():
        return World(distributed.get_rank(), distributed.get_world_size())
    return World(0, 1)


def only_first(work: Callable[[], object]) -> None:
    """Let rank 0 do ``work`` when all ranks have come this far; the others wait for it."""
    _meet()
    if world().is_first:
        work()
    _meet()


def _meet() -> None:
    if world().size > 1:
        distributed.barrier()


def gathered(part: torch.Tensor, rows: int) -> torch.Tensor:
    """Return all ``rows`` on all ranks, in their order, from each rank's ``World.share`` of them."""
    if world().size == 1:
        return part
    lengths = [len(range(rows)[World(rank, world().size).share(rows)]) for rank in range(world().size)]
    padded = part.new_zeros(max(lengths), *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(parts, padded)
    return torch.cat([each[:length] for each, length in zip(parts, lengths, strict=True)])


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean over ranks of ``values``, of the same shape on each, without a gradient."""
    if world().size > 1:
        values = values.clone()
        distributed.all_reduce(values)
        values /= world().size
    return values


def drawn(draw: Callable[[int], torch.Tensor], rows: int) -> torch.Tensor:
    """Return this rank's rows of ``draw(n)``, random numbers for all ``n`` rows of a batch; each rank has ``rows``."""
    rank, size = world()
    return draw(rows * size)[rank * rows : (rank + 1) * rows]
