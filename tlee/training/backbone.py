"""Stage 1.1 (``pretrain``): backbone and classifier at full depth, over all prefixes of frames.

Joint training (the authors' stage 1) includes the branches in the same pass, each depth with its own loss.
"""

from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from tlee.clips import ClipDataset, load_clips
from tlee.metrics import top1
from tlee.model import TLEE, load_whole, save_trained
from tlee.params import Params
from tlee.records import save_metrics, save_table
from tlee.training.loop import add_up, fit_stage, to_fastest_layout


class PretrainTask(nn.Module):
    """Mean loss after 1, 2, ... T frames, all at full depth (TLEE section III-E, FrameExit 3.3)."""

    def __init__(self, model: TLEE):
        super().__init__()
        self.model = model
        settings = model.params.pretrain
        self.joint, self.frozen = settings.joint, model.backbone.first_layers(settings.frozen_layers)
        self.frozen.requires_grad_(False)

    def train(self, mode: bool = True) -> "PretrainTask":
        """Set the mode of all layers but the frozen ones, which stay in evaluation mode (batch norm too)."""
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, clips: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        features = self.model.exit_features(clips) if self.joint else self.model.full_features(clips)
        losses = (self.model.readout.prefix_loss(features, b, targets) for b in range(features.shape[2]))
        return add_up(losses)


@dataclass(frozen=True)
class Pretraining:
    """The network after stage 1.1, whose weights are written, and the history of its training."""

    model: TLEE
    history: pd.DataFrame  #: ``epoch``, ``loss`` and top-1 on val after 1, 3 and all frames; no loss if only measured

    @property
    def trained(self) -> bool:
        """False for a network that was imported (``model.trained``) and only measured."""
        return "loss" in self.history

    def write(self) -> None:
        """Write metrics and tables."""
        save_table("pretrain", "history", self.history)
        save_metrics("pretrain", self.history.iloc[-1].drop("epoch").to_dict())


def pretrain(params: Params) -> Pretraining:
    """Train on the frame store's ``train``, validate on ``val``, write the weights.

    A network that was imported (``model.trained``) is only measured: its history has one row, without a loss.
    """
    torch.manual_seed(params.seed)
    train = load_clips("train", params, augment=True, draw=params.pretrain.frames)
    val = load_clips("val", params)
    classes = train.store.classes
    if params.model.trained:
        model = load_whole(params, classes)
        history = pd.DataFrame([{"epoch": 0, **validate(model, val)}])
    else:
        model = to_fastest_layout(TLEE(params, len(classes)))
        task = PretrainTask(model)
        history = fit_stage("pretrain", task, train, params.pretrain, params, lambda: validate(model, val))
    save_trained(model, "pretrain", classes)
    return Pretraining(model, history)


@torch.inference_mode()
def validate(model: TLEE, clips: ClipDataset) -> dict[str, float]:
    """Top-1 at full depth after 1, 3 and all frames."""
    model.eval()
    device = next(model.parameters()).device
    features = [model.full_features(frames.to(device)) for frames, _, _ in DataLoader(clips, 32)]
    logits = torch.cat([model.readout.prefix_logits(each, 0) for each in features]).cpu()
    frames = sorted({1, min(3, logits.shape[1]), logits.shape[1]})
    return {
        f"val top-1, {count} frame{'s' * (count > 1)}": top1(logits[:, count - 1], clips.store.truth)
        for count in frames
    }
