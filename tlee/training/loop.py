"""The training loop of all stages: seeded per epoch, resumed after the last finished epoch."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from functools import partial, reduce
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from tlee._lightning import Fabric, seed_everything
from tlee.devices import device_of
from tlee.distributed.batch_norm import synchronise_batch_norm
from tlee.distributed.fabric import new_fabric
from tlee.distributed.ranks import mean, only_first
from tlee.errors import UserError
from tlee.loading import Batch, Examples, Loader
from tlee.params import ClipTrainingParams, Params, TrainingParams
from tlee.paths import FEATURES, FRAMES, MODELS, RUNS
from tlee.resumption import finish, reopen
from tlee.stage_code import PACKAGE
from tlee.training.compilation import compile_steps, compiler_errors_in_one_line
from tlee.weights import load_pickle


class Task(nn.Module):
    """A network with its loss, ``forward(*batch)``, that ``fit`` trains; the loss is always in single precision."""

    def rates(self) -> dict[float, list[nn.Parameter]]:
        """Return the parameters to train by the factor of the learning rate that they are trained with."""
        return {1.0: [parameter for parameter in self.parameters() if parameter.requires_grad]}


VALIDATE_EVERY = 5  # epochs

NO_HISTORY = pd.DataFrame({"epoch": [], "loss": []})  #: of a stage that trained nothing


def state_file(stage: str, params: Params) -> Path:
    """Path of the state of an interrupted run of ``stage``, named by the parameters, its input files and the code."""
    settings = params.model_dump(exclude={"evaluate", "latency", "compute"})  # of later stages, of no stage
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for folder in (FRAMES, MODELS, FEATURES):
        for path in sorted(folder.rglob("*")):
            digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    for source in sorted(PACKAGE.rglob("*.py")):
        digest.update(source.read_bytes())
    return RUNS / f"{stage}-{digest.hexdigest()[:16]}.pt"


def add_up(losses: Iterable[torch.Tensor]) -> torch.Tensor:
    """Add losses, of which there is at least one, from the first to the last."""
    return reduce(torch.add, losses)


def single_precision(tensor: torch.Tensor) -> torch.autocast:
    """Return the context in which operators on the device of ``tensor`` keep single precision."""
    return torch.autocast(tensor.device.type, enabled=False)


def fit_stage(
    stage: str,
    task: Task,
    data: Examples,
    training: TrainingParams,
    params: Params,
    validate: Callable[[], dict[str, float]],
) -> pd.DataFrame:
    """Train ``task`` as ``fit`` does, resumable until DVC has recorded the stage; return the history."""
    state = state_file(stage, params)
    only_first(partial(reopen, state))
    accelerator = device_of(params.compute).type
    history = fit(task, data, training, seed=params.seed, validate=validate, state=state, accelerator=accelerator)
    only_first(partial(finish, state))
    return history


def fit(
    task: Task,
    data: Examples,
    params: TrainingParams,
    *,
    seed: int,
    validate: Callable[[], dict[str, float]],
    state: Path,
    accelerator: str = "auto",
) -> pd.DataFrame:
    """Train ``task`` with AdamW and a one-cycle learning rate.

    A line is printed after every epoch, and after all but the last the state of training is written to the file
    ``state``. If it exists at the start, training resumes from it and ends as if it had not been interrupted: the last
    epoch is run in any case, so random numbers drawn later are the same too. A damaged state is ignored with a warning.

    ``data`` is read in batches of ``params.batch_clips``, shuffled by ``seed`` and epoch. Ranks that train together
    have equal parts of each batch and go through the same steps, to rounding, as one process with all of it.

    Returns the history: one row an epoch with ``epoch``, ``loss`` and, every ``VALIDATE_EVERY`` epochs and at the end,
    the values of ``validate()``.
    Raises ``UserError`` if the loss is not finite, or if steps are to be compiled and cannot be.
    """
    compiled, precision = False, "32-true"
    if isinstance(params, ClipTrainingParams):
        compiled, precision = params.compile, params.precision
    fabric = new_fabric(accelerator, precision)
    synchronise_batch_norm(task, fabric.device)
    if compiled:
        compile_steps(task)
    loader = Loader(data, params.batch_clips, fabric.device, seed=seed, shuffle=True)
    rates = task.rates()
    peaks = [rate * params.learning_rate for rate in rates]
    groups = [{"params": part, "lr": peak} for part, peak in zip(rates.values(), peaks, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=params.weight_decay, fused=True)
    network, optimizer = fabric.setup(task, optimizer)
    steps = params.epochs * len(loader)
    rise = 0.1 if steps != 10 else 0.2  # PyTorch would divide by zero
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, steps, pct_start=rise)
    progress: dict[str, Any] = {"task": network, "optimizer": optimizer, "schedule": schedule, "history": []}
    progress["precision"] = fabric.strategy.precision  # the scale of losses of 16-mixed
    if _is_intact(state):
        fabric.load(state, progress)
        print(f"resuming after epoch {len(progress['history'])} from {state}", flush=True)
    history = progress["history"]
    with loader, compiler_errors_in_one_line():
        for epoch in range(len(history), params.epochs):
            seed_everything(seed + epoch, verbose=False)  # the same epoch, resumed or not
            start = time.perf_counter()
            loss = _train_epoch(fabric, network, loader.epoch(epoch), optimizer, schedule)
            if not math.isfinite(loss):
                raise UserError(f"the loss became {loss} in epoch {epoch + 1}: lower this stage's learning_rate")
            due = (epoch + 1) % VALIDATE_EVERY == 0 or epoch + 1 == params.epochs
            history.append({"epoch": epoch + 1, "loss": loss, **(validate() if due else {})})
            values = "  ".join(f"{name} {value:.3f}" for name, value in history[-1].items() if name != "epoch")
            seconds = time.perf_counter() - start
            print(f"epoch {epoch + 1:3d}/{params.epochs}  {values}  ({seconds:.1f} s)", flush=True)
            if epoch + 1 < params.epochs:
                unfinished = state.with_suffix(".unfinished")
                fabric.save(unfinished, progress)
                only_first(partial(unfinished.replace, state))
    return pd.DataFrame(history)


def _is_intact(state: Path) -> bool:
    if not state.exists():
        return False
    try:
        load_pickle(state, "training starts from the first epoch")
        return True
    except UserError as error:
        print(f"warning: {error}", flush=True)
        return False


def _train_epoch(fabric: Fabric, task: nn.Module, batches: Iterable[Batch], optimizer, schedule) -> float:
    """Train on ``batches``; the loss stays on the device meanwhile, so that a GPU is never waited for."""
    task.train()
    losses = []
    for batch in batches:
        loss = task(*batch)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.detach())
    return sum(mean(torch.stack(losses)).tolist()) / len(losses)
