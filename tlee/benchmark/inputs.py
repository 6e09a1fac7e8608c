"""Input of training: how many frames a core loads, what workers add, and how long a device as fast as a GPU waits."""

import io
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import cast

import joblib
import numpy as np
import torch
from PIL import Image

from tlee.benchmark.rows import row
from tlee.clips import ClipDataset
from tlee.extraction import to_jpeg
from tlee.frames import FrameStore
from tlee.loading import Batch, Loader
from tlee.params import Params
from tlee.views import RandomView

GPU_IMAGES = 3000  #: images per second on which a current GPU trains MobileNetV2 or ResNet-50
LOAD = 0.55  #: share of their time for which workers are busy where a step waits for less than a twentieth of its time
WORKERS, BATCH, EPOCHS = 2, 8, 7  # batches as in the recipes
CPU = torch.device("cpu")


@dataclass(frozen=True)
class JpegStore:
    """Videos whose frames are all the same JPEG, in place of a ``FrameStore``."""

    num_videos: int
    jpeg: bytes
    clip_frames: int = 1

    def __len__(self) -> int:
        return self.num_videos

    def targets(self, rows: Sequence[int], multi_label: bool) -> torch.Tensor:
        """Return the first class for each of ``rows``."""
        return torch.zeros(len(rows), dtype=torch.long)

    def clip(self, row: int, steps: list[int]) -> list[Image.Image]:
        """Decode one image for each step."""
        return [Image.open(io.BytesIO(self.jpeg)).convert("RGB") for _ in steps]


class Loaded(ClipDataset):
    """Clips as far as processor cores load them; a GPU would finish them."""

    def finish(self, *batch: torch.Tensor) -> Batch:
        return batch


def time_input(params: Params, num_clips: int) -> list[tuple]:
    """Measure the loading of ``num_clips`` clips of random frames for training; rows of ``benchmark``."""
    frames, cores = params.extract.frames, joblib.cpu_count()
    data = random_clips(params, num_clips, Loaded)
    times = _seconds(data, {0, WORKERS, cores})
    rate = num_clips * frames / median(times[cores]) / cores
    needed = GPU_IMAGES / (LOAD * rate)
    return [
        row("input", "size of a frame (kB)", len(cast(JpegStore, data.store).jpeg) / 1000),
        row("input", "frames/s without workers", num_clips * frames / median(times[0])),
        row("input", f"time with {WORKERS} workers / without", _ratio(times[WORKERS], times[0]), target=1 / 1.8),
        row("input", "frames/s of each worker, with one per core", rate),
        row("input", f"cores that feed {GPU_IMAGES} images/s", needed),
        row("input", f"share of time waited, at {GPU_IMAGES} images/s", _wait(data, cores, GPU_IMAGES / frames)),
        row(
            "input",
            "share of time waited, at the share of these that the cores here can feed",
            _wait(data, cores, GPU_IMAGES / frames * min(cores / needed, 1)),
            target=0.05,
        ),
    ]


def random_clips(params: Params, number: int, kind: type[ClipDataset] = ClipDataset) -> ClipDataset:
    """Return clips of random frames as training reads them, from what serves as a store."""
    store = cast(FrameStore, JpegStore(number, _jpeg(params)))
    return kind(store, list(range(params.extract.frames)), RandomView(params.model.input_size))


def _jpeg(params: Params) -> bytes:
    """Return a frame of random coarse patterns, 4:3, as extraction would store it."""
    height = params.extract.short_side
    width = height * 4 // 3
    cells = np.random.default_rng(params.seed).integers(0, 256, (height // 12, width // 12, 3), np.uint8)
    image = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
    return to_jpeg(image, height, params.extract.jpeg_quality)


def _seconds(data: ClipDataset, numbers_of_workers: Collection[int]) -> dict[int, list[float]]:
    """Return the times of epochs by the number of workers, which take turns, after one that starts the workers."""
    with ExitStack() as stack:
        loaders, times = {}, {number: list[float]() for number in numbers_of_workers}
        for data.workers in numbers_of_workers:
            loaders[data.workers] = stack.enter_context(Loader(data, BATCH, CPU, shuffle=True))
        for epoch in range(1 + EPOCHS):
            for number, loader in loaders.items():
                start = time.perf_counter()
                for _ in loader.epoch(epoch):
                    pass
                times[number].append(time.perf_counter() - start)
    return {number: each[1:] for number, each in times.items()}


def _ratio(times: list[float], others: list[float]) -> float:
    """Return the median ratio of times that were measured one after the other."""
    return median(one / other for one, other in zip(times, others, strict=True))


def _wait(data: ClipDataset, workers: int, clips_per_second: float) -> float:
    """Return the share of time that a process waits whose steps are sleeps, as long as such a device would take.

    It is the median over epochs, each from its second batch on.
    """
    data.workers = workers
    with Loader(data, BATCH, CPU, shuffle=True) as loader:
        return median(_waited(loader, epoch, BATCH / clips_per_second) for epoch in range(EPOCHS))


def _waited(loader: Loader, epoch: int, step: float) -> float:
    batches = loader.epoch(epoch)
    next(batches)
    waited, start = 0.0, time.perf_counter()
    for _ in range(len(loader) - 1):
        time.sleep(step)
        before = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - before
    return waited / (time.perf_counter() - start)
