"""Stage 1.1 (``pretrain``): backbone and classifier at full depth, over all prefixes of frames.

Joint training (the authors' stage 1) includes the branches in the same pass, each depth with its own loss.
"""

from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from torch import nn

from tlee.clips import ClipDataset, load_clips
from tlee.devices import device_of
from tlee.distributed.batch_norm import BATCH_NORMS
from tlee.distributed.launch import on_all_devices
from tlee.distributed.ranks import drawn, gathered, only_first
from tlee.loading import Loader
from tlee.metrics import top1
from tlee.model import TLEE, load_whole, save_trained
from tlee.params import Params
from tlee.records import save_metrics, save_table
from tlee.reproducibility import convolution_threads
from tlee.throughput import CLIPS_AT_ONCE, prepare
from tlee.training.loop import Task, add_up, fit_stage, single_precision


class PretrainTask(Task):
    """Mean loss after 1, 2, ... T frames, all at full depth (TLEE section III-E, FrameExit 3.3).

    Few clips are soon memorised. What helps against that is in the parameters: dropout of the features, label
    smoothing, batch norm that keeps the statistics of the initial weights, a learning rate of its own for the backbone.
    Joint training adds the loss at each branch, and learns a share ``distillation`` of it from the predictions at full
    depth instead of the labels (Zhang et al., Be your own teacher, ICCV 2019).
    """

    def __init__(self, model: TLEE):
        super().__init__()
        self.model, self.settings = model, model.params.pretrain
        self.frozen = model.backbone.first_layers(self.settings.frozen_layers)
        self.frozen.requires_grad_(False)

    def rates(self) -> dict[float, list[nn.Parameter]]:
        """Return backbone and heads apart; the heads learn ``head_rate`` times as fast."""
        if self.settings.head_rate == 1:
            return super().rates()
        backbone = [parameter for parameter in self.model.backbone.parameters() if parameter.requires_grad]
        inside = set(backbone)
        heads = [each for each in self.parameters() if each.requires_grad and each not in inside]
        return {1.0: backbone, self.settings.head_rate: heads} if backbone else {self.settings.head_rate: heads}

    def train(self, mode: bool = True) -> "PretrainTask":
        """Set the mode of all layers but the frozen ones, which stay in evaluation mode (batch norm too)."""
        super().train(mode)
        self.frozen.eval()
        if self.settings.batch_norm == "frozen":
            for layer in self.model.backbone.modules():
                if isinstance(layer, BATCH_NORMS):
                    layer.eval()
        return self

    def forward(self, clips: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        model, settings = self.model, self.settings
        features = model.exit_features(clips) if settings.joint else model.full_features(clips)
        with single_precision(features):
            return self._loss(features.float(), targets)

    def _loss(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        model, settings = self.model, self.settings
        if settings.dropout and self.training:
            features = features * drawn(partial(self._dropout, features[0]), len(features))
        *early, full = [model.readout.prefix_logits(features, depth) for depth in range(features.shape[2])]
        losses = [model.readout.mean_loss(logits, targets, settings.label_smoothing) for logits in (*early, full)]
        if settings.distillation:
            taught = (self._distance(logits, full.detach()) for logits in early)
            share = settings.distillation
            losses[:-1] = [(1 - share) * own + share * each for own, each in zip(losses[:-1], taught, strict=True)]
        return add_up(losses)

    def _dropout(self, one: torch.Tensor, videos: int) -> torch.Tensor:
        """Draw by what the features of ``videos`` like ``one`` are multiplied."""
        return nn.functional.dropout(one.new_ones(videos, *one.shape), self.settings.dropout)

    def _distance(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Mean Kullback-Leibler divergence of the predictions of ``logits [N, T, C]`` from those of ``teacher``."""
        if self.model.readout.multi_label:
            loss = nn.functional.binary_cross_entropy_with_logits
            return loss(logits, teacher.sigmoid()) - loss(teacher, teacher.sigmoid())
        ours, theirs = logits.log_softmax(-1).flatten(0, 1), teacher.log_softmax(-1).flatten(0, 1)
        return nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


@dataclass(frozen=True)
class Pretraining:
    """The history of stage 1.1, which has written the weights."""

    history: pd.DataFrame  #: ``epoch``, ``loss`` and top-1 on val after 1, 3 and all frames; no loss if only measured

    @property
    def trained(self) -> bool:
        """False for a network that was imported (``model.trained``) and only measured."""
        return "loss" in self.history

    def write(self) -> None:
        """Write metrics and tables."""
        save_table("pretrain", "history", self.history)
        save_metrics("pretrain", self.history.iloc[-1].drop("epoch").to_dict())


@on_all_devices
@convolution_threads()
def pretrain(params: Params) -> Pretraining:
    """Train on the frame store's ``train``, validate on ``val``, write the weights.

    A network that was imported (``model.trained``) is only measured: its history has one row, without a loss.
    """
    torch.manual_seed(params.seed)
    train = load_clips("train", params, augment=True, draw=params.pretrain.frames)
    val = load_clips("val", params)
    classes = train.store.classes
    if params.model.trained:
        model = load_whole(params, classes).to(device_of(params.compute))
        history = pd.DataFrame([{"epoch": 0, **validate(model, val)}])
    else:
        model = prepare(TLEE(params, len(classes)))
        task = PretrainTask(model)
        history = fit_stage("pretrain", task, train, params.pretrain, params, lambda: validate(model, val))
    only_first(partial(save_trained, model, "pretrain", classes))
    return Pretraining(history)


@torch.inference_mode()
def validate(model: TLEE, clips: ClipDataset) -> dict[str, float]:
    """Top-1 at full depth after 1, 3 and all frames."""
    model.eval()
    device = next(model.parameters()).device
    with Loader(clips, CLIPS_AT_ONCE, device) as loader:
        features = [model.full_features(frames) for frames, _, _ in loader.epoch()]
    logits = torch.cat([model.readout.prefix_logits(each, 0) for each in features])
    logits = gathered(logits, len(clips)).cpu()
    frames = sorted({1, min(3, logits.shape[1]), logits.shape[1]})
    return {
        f"val top-1, {count} frame{'s' * (count > 1)}": top1(logits[:, count - 1], clips.store.truth())
        for count in frames
    }
