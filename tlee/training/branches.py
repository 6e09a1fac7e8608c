"""Stage 1.2 (``branches``): the branch heads, with backbone and classifier frozen.

Strategies of training are compared on the same batches; each has heads of its own, and the taps of the
frozen backbone, which cost most, are computed once for all of them.

``own_depth``
    The papers' way: every depth must classify videos whose frames all left at that depth.
``mixed_depths``
    Also videos whose frames left at random depths: what the features of a video meet at inference.
``distilled``
    As ``mixed_depths``, and each feature is drawn towards the full depth's feature of its frame.
"""

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from tlee.frames import ClipDataset, load_clips
from tlee.metrics import top1
from tlee.model import TLEE, load_trained, load_whole, save_trained
from tlee.params import Params
from tlee.training.loop import NO_HISTORY, fit, state_file, to_fastest_layout

STRATEGIES = ("own_depth", "mixed_depths", "distilled")
AS_THEY_ARE = "as they are"  # branches that come trained, or none


class BranchTask(nn.Module):
    """The loss of all strategies together; they share nothing but the frozen network."""

    def __init__(self, model: TLEE, heads: dict[str, nn.ModuleList]):
        super().__init__()
        self.model = model.requires_grad_(False)
        self.heads = nn.ModuleDict(heads)

    def train(self, mode: bool = True) -> "BranchTask":
        """Like every module's, but the frozen network stays in evaluation mode (batch norm too)."""
        super().train(mode)
        self.model.eval()
        return self

    def features(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        """Clips ``[N, T, *input_shape]`` to the exit features ``[N, T, B + 1, D]`` of each strategy's heads."""
        with torch.no_grad():
            taps = self.model.backbone.taps(clips)
        return {
            strategy: self.model.heads(taps, heads).unflatten(0, clips.shape[:2])
            for strategy, heads in self.heads.items()
        }

    def forward(self, clips: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return sum(self._loss(strategy, features, targets) for strategy, features in self.features(clips).items())

    def _loss(self, strategy: str, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        readout, branches = self.model.readout, range(features.shape[2] - 1)
        loss = sum(readout.prefix_loss(features, depth, targets) for depth in branches)
        if strategy != "own_depth":
            loss = loss + readout.prefix_loss(features, random_depths(features), targets)
        if strategy == "distilled":
            full = features[:, :, -1]
            loss = loss + sum(nn.functional.mse_loss(features[:, :, depth], full) for depth in branches)
        return loss


def random_depths(features: torch.Tensor) -> torch.Tensor:
    """A depth for each frame of exit features ``[N, T, B + 1, D]``, ``[N, T]``."""
    clips, frames, depths, _ = features.shape
    return torch.randint(depths, (clips, frames), device=features.device)


def train_branches(params: Params) -> tuple[TLEE, pd.DataFrame, pd.DataFrame]:
    """Train all strategies, keep the one whose features work together best on val, write its weights.

    Without branches, and where they come trained or were trained with the backbone, they are kept as they are.
    Returns the network with the heads kept, the history, and the comparison: one row a strategy
    and kind of exits, with ``accuracy`` on val after all frames and whether it is ``kept``.
    """
    model, classes = load_trained(params, "pretrain")
    train = load_clips("train", params, augment=True, draw=params.branches.frames)
    val = load_clips("val", params)
    if params.model.trained:
        model = load_whole(params, classes)
    trains = params.model.num_branches > 0 and not params.pretrain.joint and not params.model.trained
    torch.manual_seed(params.seed)
    heads = {strategy: model.new_branches() for strategy in STRATEGIES} if trains else {AS_THEY_ARE: model.branches}
    task = to_fastest_layout(BranchTask(model, heads))
    history = NO_HISTORY
    if trains:
        history = fit(
            task,
            train,
            params.branches,
            seed=params.seed,
            validate=lambda: {},
            state=state_file("branches", params),
        )
    comparison = compare_strategies(task, val)
    mixed = comparison[comparison["depths"] == "mixed depths"]
    kept = mixed.loc[mixed["accuracy"].idxmax(), "strategy"]
    comparison["kept"] = comparison["strategy"] == kept
    model.branches = task.heads[kept]
    save_trained(model, "branches", classes)
    return model, history, comparison


@torch.inference_mode()
def compare_strategies(task: BranchTask, clips: ClipDataset, draws: int = 20) -> pd.DataFrame:
    """Top-1 after each number of frames, averaged, of each strategy: all frames left at one depth, or at mixed ones.

    Mixed depths are drawn ``draws`` times.
    """
    task.eval()
    readout, device = task.model.readout, next(task.parameters()).device
    batches = [task.features(frames.to(device)) for frames, _, _ in DataLoader(clips, 32)]
    rows = []
    for strategy in task.heads:
        features = torch.cat([batch[strategy] for batch in batches])
        kinds: dict[str, list[int | torch.Tensor]] = {f"depth {depth}": [depth] for depth in range(features.shape[2])}
        kinds["mixed depths"] = [random_depths(features) for _ in range(draws)]
        for depths, drawn in kinds.items():
            logits = torch.stack([readout.prefix_logits(features, each) for each in drawn]).cpu()
            truth = clips.store.truth[None, :, None].expand(*logits.shape[:3], -1)
            accuracy = top1(logits.flatten(0, 2), truth.flatten(0, 2))
            rows.append({"strategy": strategy, "depths": depths, "accuracy": accuracy})
    return pd.DataFrame(rows)
