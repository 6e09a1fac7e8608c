"""Time and memory of a sweep of policies over a memory-mapped table of exit features."""

import ctypes
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tlee.benchmark.random_weights import CLASSES, gate_scores
from tlee.benchmark.rows import row
from tlee.costs import Costs, count_costs
from tlee.evaluation.replay import Split
from tlee.features import FeatureTable
from tlee.model import TLEE
from tlee.readout import Readout
from tlee.params import Params
from tlee.policies.thresholds import Thresholds

MEGA = 1e6


def time_replay(params: Params, videos: int, points: int) -> list[tuple]:
    """Rows of ``benchmark``: ``points`` policies on a memory-mapped table of random exit features of ``videos``."""
    torch.manual_seed(params.seed)
    model = TLEE(params, CLASSES).eval()
    readout, costs = model.readout, count_costs(model)
    shape = (videos, params.extract.frames, model.num_exits, readout.width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        _write_features(path, shape, params.seed)
        split = _split(path, readout, costs)
        policies = _random_policies(split, points)
        never = Thresholds.never(model.num_exits)
        split.run(never)
        full = np.median([_seconds(lambda: split.run(never)) for _ in range(3)])
        with _memory() as memory:
            sweep = _seconds(lambda: [split.score(outcomes) for outcomes in split.sweep(policies)])
        size = path.stat().st_size
    rows = [
        row("replay", "videos", videos),
        row("replay", "table, MB", size / MEGA),
        row("replay", "policies", points),
        row("replay", "sweep / one pass of the full network", sweep / full),
        row("replay", "a policy of the sweep / one pass of the full network", sweep / full / points),
    ]
    if memory.known:
        rows.append(row("replay", "memory beyond the mapped table, MB", memory.added / MEGA))
    return rows


def _seconds(work: Any) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _write_features(path: Path, shape: tuple[int, ...], seed: int) -> None:
    """Features of a video that are alike, not negative, and part of the file only."""
    table, generator = np.lib.format.open_memmap(path, "w+", np.float32, shape), np.random.default_rng(seed)
    for start in range(0, shape[0], 64):
        part = table[start : start + 64]
        video = generator.standard_normal((len(part), 1, 1, shape[-1]), np.float32)
        part[...] = np.maximum(video + generator.standard_normal(part.shape, np.float32), 0)
    table.flush()


def _split(path: Path, readout: Readout, costs: Costs) -> Split:
    features = torch.from_numpy(np.load(path, mmap_mode="c"))
    videos = len(features)
    labels = torch.arange(videos) % CLASSES
    truth = nn.functional.one_hot(labels, CLASSES).bool()
    names = [str(video) for video in range(videos)]
    return Split(
        FeatureTable(features, labels, truth, names, names, list(map(str, range(CLASSES)))), readout, costs, "top1"
    )


@torch.inference_mode()
def _random_policies(split: Split, points: int) -> list[Thresholds]:
    """Thresholds at random quantiles of the scores of some videos."""
    features, readout, exits = split.table.features[:64], split.readout, range(split.num_exits)
    confidence = [readout.probabilities(readout.prefix_logits(features, b)).amax(-1).flatten() for b in exits]
    gate = [scores.flatten() for scores in gate_scores(readout, features)]
    draws = torch.rand(points, 4, split.num_exits, generator=torch.Generator().manual_seed(0)).tolist()
    return [
        Thresholds(
            tuple(confidence[b].quantile(leave[b]).item() for b in exits[:-1]),
            *(tuple(scores[b].quantile(kind[b]).item() for b in exits) for scores, kind in kinds),
        )
        for leave, *rest in draws
        for kinds in [list(zip((confidence, gate or confidence, confidence), rest, strict=True))]
    ]


@dataclass
class Memory:
    """Bytes that a process ``added`` at most to what it held, files that it maps aside; if that is ``known``."""

    known: bool = False
    added: int = 0


@contextmanager
def _memory() -> Iterator[Memory]:
    """Watch this process, on systems that tell (Linux)."""
    _give_back()
    memory, begin, done = Memory(), _anonymous(), threading.Event()

    def listen() -> None:
        while not done.wait(0.01):
            memory.added = max(memory.added, _anonymous() - begin)

    memory.known = begin is not None
    listener = threading.Thread(target=listen)
    if memory.known:
        listener.start()
    try:
        yield memory
    finally:
        done.set()
        if memory.known:
            listener.join()


def _give_back() -> None:
    """Return memory that is free in this process to the system: nobody would see it being taken again."""
    with suppress(OSError, AttributeError):  # where the C library is another than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _anonymous() -> int | None:
    status = Path("/proc/self/status")
    found = re.search(r"^RssAnon:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found.group(1)) * 1024 if found else None
