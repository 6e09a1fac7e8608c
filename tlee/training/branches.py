"""Stage 1.2 (``branches``): the branch heads, with backbone and classifier frozen.

Training strategies are compared on the same batches; each has its own heads, and the taps of the frozen backbone,
which cost most, are computed once for all of them.

``own_depth``
    The papers' loss: every depth classifies videos whose frames all left at that depth.
``mixed_depths``
    Adds videos whose frames left at random depths, as they do at inference.
``distilled``
    Adds to ``mixed_depths`` the distance of each feature to the feature of the full depth of its frame.
"""

from dataclasses import dataclass
from functools import partial
from typing import cast

import pandas as pd
import torch
from torch import nn

from tlee.clips import ClipDataset, load_clips
from tlee.devices import device_of
from tlee.distributed.launch import on_all_devices
from tlee.distributed.ranks import drawn, gathered, only_first
from tlee.loading import Loader
from tlee.metrics import top1
from tlee.model import TLEE, load_trained, load_whole, save_trained
from tlee.params import Params
from tlee.records import save_metrics, save_table
from tlee.reproducibility import convolution_threads
from tlee.throughput import CLIPS_AT_ONCE, prepare
from tlee.training.loop import NO_HISTORY, Task, add_up, fit_stage, single_precision

STRATEGIES = ("own_depth", "mixed_depths", "distilled")
UNCHANGED = "unchanged"  # imported or jointly trained branches, or none


class BranchTask(Task):
    """Sum of the losses of all strategies, which share only the frozen network."""

    def __init__(self, model: TLEE, heads: dict[str, nn.ModuleList]):
        super().__init__()
        self.model = model.requires_grad_(False)
        self.heads = nn.ModuleDict(heads)

    def train(self, mode: bool = True) -> "BranchTask":
        """Set the mode of the heads; the frozen network stays in evaluation mode (batch norm too)."""
        super().train(mode)
        self.model.eval()
        return self

    def heads_of(self, strategy: str) -> nn.ModuleList:
        """Heads that a strategy trains."""
        return cast(nn.ModuleList, self.heads[strategy])

    def features(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map clips ``[N, T, *input_shape]`` to the exit features ``[N, T, B + 1, D]`` of each strategy's heads."""
        with torch.no_grad():
            taps = self.model.backbone.taps(clips)
        return {
            strategy: self.model.heads(taps, self.heads_of(strategy)).unflatten(0, clips.shape[:2])
            for strategy in self.heads
        }

    def forward(self, clips: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        features = self.features(clips)
        with single_precision(clips):
            return add_up(self._loss(strategy, each.float(), targets) for strategy, each in features.items())

    def _loss(self, strategy: str, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        readout, branches = self.model.readout, range(features.shape[2] - 1)
        loss = add_up(readout.prefix_loss(features, depth, targets) for depth in branches)
        if strategy != "own_depth":
            depths = drawn(partial(random_depths, features), len(features))
            loss = loss + readout.prefix_loss(features, depths, targets)
        if strategy == "distilled":
            full = features[:, :, -1]
            loss = loss + add_up(nn.functional.mse_loss(features[:, :, depth], full) for depth in branches)
        return loss


def random_depths(features: torch.Tensor, clips: int) -> torch.Tensor:
    """Draw a depth for each frame of ``clips``, ``[clips, T]``, with exit features like ``[N, T, B + 1, D]``."""
    _, frames, depths, _ = features.shape
    return torch.randint(depths, (clips, frames), device=features.device)


@dataclass(frozen=True)
class BranchTraining:
    """The history of stage 1.2, which has written the weights of the branches, and the comparison that chose them."""

    history: pd.DataFrame  #: ``epoch``, ``loss``
    comparison: pd.DataFrame  #: see ``compare_strategies``, with ``kept``, true for the strategy that was chosen

    def write(self) -> None:
        """Write metrics and tables."""
        kept = self.comparison[self.comparison["kept"]]
        save_table("branches", "history", self.history)
        save_table("branches", "strategies", self.comparison)
        save_metrics("branches", kept.set_index("depths")["accuracy"].to_dict())


@on_all_devices
@convolution_threads()
def train_branches(params: Params) -> BranchTraining:
    """Train all strategies, keep the one that is best on val where depths mix, write its weights.

    Branches that were imported or trained with the backbone are kept unchanged.
    """
    model, classes = load_trained(params, "pretrain")
    train = load_clips("train", params, augment=True, draw=params.branches.frames)
    val = load_clips("val", params)
    if params.model.trained:
        model = load_whole(params, classes)
    trains = params.model.num_branches > 0 and not params.pretrain.joint and not params.model.trained
    torch.manual_seed(params.seed)
    heads = {strategy: model.new_branches() for strategy in STRATEGIES} if trains else {UNCHANGED: model.branches}
    task = prepare(BranchTask(model, heads)).to(device_of(params.compute))
    history = NO_HISTORY
    if trains:
        history = fit_stage("branches", task, train, params.branches, params, dict)
    comparison = compare_strategies(task, val)
    mixed = comparison[comparison["depths"] == "mixed depths"]
    kept = mixed.loc[mixed["accuracy"].idxmax(), "strategy"]
    comparison["kept"] = comparison["strategy"] == kept
    model.branches = task.heads_of(kept)
    only_first(partial(save_trained, model, "branches", classes))
    return BranchTraining(history, comparison)


@torch.inference_mode()
def compare_strategies(task: BranchTask, clips: ClipDataset, draws: int = 20) -> pd.DataFrame:
    """Compare strategies by top-1 on ``clips``, averaged over stopping after each frame.

    One row a ``strategy`` and ``depths``: all frames left at one depth, or at mixed depths, which are drawn ``draws``
    times; ``accuracy`` is from 0 to 1.
    """
    task.eval()
    readout, device = task.model.readout, next(task.parameters()).device
    with Loader(clips, CLIPS_AT_ONCE, device) as loader:
        batches = [task.features(frames) for frames, _, _ in loader.epoch()]
    rows = []
    for strategy in task.heads:
        features = gathered(torch.cat([batch[strategy] for batch in batches]), len(clips))
        kinds: dict[str, list[int | torch.Tensor]] = {f"depth {depth}": [depth] for depth in range(features.shape[2])}
        kinds["mixed depths"] = [random_depths(features, len(features)) for _ in range(draws)]
        for depths, samples in kinds.items():
            logits = torch.stack([readout.prefix_logits(features, each) for each in samples]).cpu()
            truth = clips.store.truth()[None, :, None].expand(*logits.shape[:3], -1)
            accuracy = top1(logits.flatten(0, 2), truth.flatten(0, 2))
            rows.append({"strategy": strategy, "depths": depths, "accuracy": accuracy})
    return pd.DataFrame(rows)
