"""Training from stored frames, beside training on clips that are on the device already."""

import contextlib
import io
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tlee.benchmark.inputs import BATCH, random_clips
from tlee.benchmark.rows import row
from tlee.devices import device_of, workers_of
from tlee.loading import Batch, Examples, Key
from tlee.model import TLEE
from tlee.params import Params
from tlee.throughput import prepare
from tlee.training.backbone import PretrainTask
from tlee.training.loop import fit

STEPS = {"cpu": 3}  #: timed steps of training
STEPS_OF_GPU = 100
UNTIMED = 0.2  #: share of further steps before: workers start, and a GPU chooses its convolutions
SLOWDOWN = 1 / 0.8  #: that a GPU may have from reading its input


class Resident(Examples):
    """As many examples as asked for, all the same ``clips`` that are on the device."""

    def __init__(self, clips: torch.Tensor, number: int):
        self._clips, self._number = clips, number

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, key: Key) -> tuple[torch.Tensor]:
        return (torch.tensor(0),)

    def finish(self, *batch: torch.Tensor) -> Batch:
        (targets,) = batch
        return self._clips[: len(targets)], targets, targets


class Timed(Examples):
    """``data`` and the times at which its batches were ready."""

    def __init__(self, data: Examples):
        self._data, self.workers, self.times = data, data.workers, list[float]()

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, key: Key) -> tuple:
        return self._data[key]

    def finish(self, *batch: torch.Tensor) -> Batch:
        finished = self._data.finish(*batch)
        self.times.append(time.perf_counter())
        return finished


def time_training(params: Params, steps: int | None = None) -> list[tuple]:
    """Measure steps of stage 1.1 on the device of ``params``; rows of ``benchmark``."""
    device = device_of(params.compute)
    steps = steps or STEPS.get(device.type, STEPS_OF_GPU)
    clips = BATCH * (steps + 1 + round(UNTIMED * steps))
    stored = random_clips(params, clips)
    batch = torch.stack([stored.clip(row) for row in range(BATCH)]).to(device)
    resident, stored.workers = Resident(batch, clips), workers_of(params.compute)
    _seconds(params, Resident(batch, 2 * BATCH), device, 1)  # the first training begins slowly
    on_device, from_store = (_seconds(params, data, device, steps) for data in (resident, stored))
    frames = BATCH * params.extract.frames
    limit = None if device.type == "cpu" else SLOWDOWN
    return [
        row("training", "frames/s on clips that are on the device", frames / on_device),
        row("training", "frames/s from stored frames", frames / from_store),
        row("training", "time from stored frames / on the device", from_store / on_device, target=limit),
    ]


def _seconds(params: Params, data: Examples, device: torch.device, steps: int) -> float:
    """Return the mean time of the last ``steps`` steps."""
    torch.manual_seed(params.seed)
    task = prepare(PretrainTask(TLEE(params, classes=10)))
    settings = params.pretrain.model_copy(update={"epochs": 1, "batch_clips": BATCH})
    timed = Timed(data)
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        state = Path(folder) / "state.pt"
        fit(task, timed, settings, seed=params.seed, validate=dict, state=state, accelerator=device.type)
    return (timed.times[-1] - timed.times[-1 - steps]) / steps
