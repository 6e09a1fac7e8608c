"""Training that tests run on several ranks, which import it by its name."""

from pathlib import Path

import pandas as pd
import torch

from tlee.clips import load_clips
from tlee.distributed.launch import on_all_devices
from tlee.errors import UserError
from tlee.features import store_features
from tlee.model import TLEE
from tlee.params import Params
from tlee.throughput import prepare
from tlee.training.backbone import PretrainTask, pretrain, validate
from tlee.training.branches import STRATEGIES, BranchTask, train_branches
from tlee.training.loop import Task, fit

INTERRUPTED = Path("interrupted.pt")


class Double(Task):
    """A task in double precision, in which ten steps amplify no rounding that could be seen."""

    def __init__(self, task: PretrainTask | BranchTask):
        super().__init__()
        self.task = task

    def forward(self, clips: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        if isinstance(self.task, PretrainTask):
            return self.task._loss(self.task.model.exit_features(clips), targets)
        losses = [self.task._loss(strategy, each, targets) for strategy, each in self.task.features(clips).items()]
        return torch.stack(losses).sum()


class UntilTheSixth(Double):
    """The same, until its sixth step."""

    steps = 0

    def forward(self, *batch: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if self.steps == 6:
            raise UserError("five steps are enough")
        return super().forward(*batch)


def ten_steps(params: Params, state: Path, *, kind: type[Double] = Double, branches: bool = False) -> pd.DataFrame:
    """Train a network, or the branches of all strategies, for ten steps; return the history."""
    clips, val = load_clips("train", params, augment=True, draw=params.pretrain.frames), load_clips("val", params)
    torch.manual_seed(0)
    model = prepare(TLEE(params, 3).double())
    heads = {strategy: model.new_branches().double() for strategy in STRATEGIES}
    task = kind(BranchTask(model, heads) if branches else PretrainTask(model))
    settings = params.pretrain.model_copy(update={"precision": "64-true"})

    def validated() -> dict[str, float]:
        found = validate(model.float(), val)
        model.double()
        return found

    return fit(task, clips, settings, seed=0, validate=validated, state=state, accelerator="cpu")


@on_all_devices
def trainings(params: Params) -> dict[str, pd.DataFrame]:
    """Train the network, its branches, and go on with what was interrupted; return their histories."""
    return {
        "network": ten_steps(params, Path("network.pt")),
        "branches": ten_steps(params, Path("branches.pt"), branches=True),
        "resumed": ten_steps(params, INTERRUPTED),
    }


@on_all_devices
def stages(params: Params) -> list[pd.DataFrame]:
    """Run the stages that train on all devices; return the tables that they compare and draw."""
    tables = [pretrain(params).history, train_branches(params).comparison]
    store_features(params)
    return tables
