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
from tlee.model import TLEE, load_trained, save_trained
from tlee.params import Params
from tlee.training.loop import fit, state_file

STRATEGIES = ("own_depth", "mixed_depths", "distilled")


class BranchTask(nn.Module):
    """The loss of all strategies together; they share nothing but the frozen network."""

    def __init__(self, model: TLEE):
        super().__init__()
        self.model = model.requires_grad_(False)
        self.heads = nn.ModuleDict({strategy: model.new_branches() for strategy in STRATEGIES})

    def train(self, mode: bool = True) -> "BranchTask":
        """Like every module's, but the frozen network stays in evaluation mode (batch norm too)."""
        super().train(mode)
        self.model.eval()
        return self

    def features(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """Frames ``[N, T, 3, H, W]`` to the exit features ``[N, T, B + 1, D]`` of each strategy's heads."""
        with torch.no_grad():
            taps = self.model.backbone.taps(frames.flatten(0, 1))
        return {
            strategy: torch.stack(
                [*(head(tap) for head, tap in zip(heads, taps, strict=False)), taps[-1]], dim=1
            ).unflatten(0, frames.shape[:2])
            for strategy, heads in self.heads.items()
        }

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """``[N, T, D]``, one feature a frame, to ``[N, T, C]``: what is known after each frame."""
        return self.model.readout.classifier(self.model.readout.prefixes(features))

    def forward(self, frames: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return sum(self._loss(strategy, features, labels) for strategy, features in self.features(frames).items())

    def _loss(self, strategy: str, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        *branches, full = features.unbind(2)
        loss = sum(self._cross_entropy(branch, labels) for branch in branches)
        if strategy != "own_depth":
            loss = loss + self._cross_entropy(mix_depths(features), labels)
        if strategy == "distilled":
            loss = loss + sum(nn.functional.mse_loss(branch, full) for branch in branches)
        return loss

    def _cross_entropy(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self.logits(features)
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1]))


def mix_depths(features: torch.Tensor) -> torch.Tensor:
    """Exit features ``[N, T, B + 1, D]`` to those of a random depth for each frame, ``[N, T, D]``."""
    clips, frames, depths, dim = features.shape
    depth = torch.randint(depths, (clips, frames, 1, 1), device=features.device)
    return features.gather(2, depth.expand(-1, -1, -1, dim)).squeeze(2)


def train_branches(params: Params) -> tuple[TLEE, pd.DataFrame, pd.DataFrame]:
    """Train all strategies, keep the one whose features work together best on val, write its weights.

    Returns the network with the heads kept, the history, and the comparison: one row a strategy
    and kind of exits, with ``accuracy`` on val after all frames and whether it is ``kept``.
    """
    torch.manual_seed(params.seed)
    model, classes = load_trained(params.model, "pretrain")
    train = load_clips("train", params.extract, params.model, augment=True, draw=params.branches.frames)
    val = load_clips("val", params.extract, params.model)
    task = BranchTask(model).to(memory_format=torch.channels_last)
    history = fit(
        task,
        train,
        params.branches,
        seed=params.seed,
        validate=lambda: {},
        state=state_file("branches", params),
    )
    comparison = compare(task, val)
    mixed = comparison[comparison["exits"] == "mixed depths"]
    kept = mixed.loc[mixed["accuracy"].idxmax(), "strategy"]
    comparison["kept"] = comparison["strategy"] == kept
    model.branches = task.heads[kept]
    save_trained(model, "branches", classes)
    return model, history, comparison


@torch.inference_mode()
def compare(task: BranchTask, clips: ClipDataset, draws: int = 20) -> pd.DataFrame:
    """Top-1 after each number of frames, averaged, of each strategy: all frames left at one depth, or at mixed ones.

    Mixed depths are drawn ``draws`` times.
    """
    task.eval()
    device = next(task.parameters()).device
    batches = [task.features(frames.to(device)) for frames, _, _ in DataLoader(clips, 32)]
    labels = clips.store.labels.to(device)
    rows = []
    for strategy in STRATEGIES:
        features = torch.cat([batch[strategy] for batch in batches])
        kinds = {f"depth {depth}": [paths] for depth, paths in enumerate(features.unbind(2))}
        kinds["mixed depths"] = [mix_depths(features) for _ in range(draws)]
        for exits, drawn in kinds.items():
            logits = [task.logits(paths).flatten(0, 1) for paths in drawn]
            repeated = labels.repeat_interleave(features.shape[1])
            accuracy = sum(top1(each, repeated) for each in logits) / len(logits)
            rows.append({"strategy": strategy, "exits": exits, "accuracy": accuracy})
    return pd.DataFrame(rows)
