"""Stage 1.1 (``pretrain``): backbone and classifier at full depth, over all prefixes of frames."""

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from tlee.frames import ClipDataset, load_clips
from tlee.metrics import top1
from tlee.model import TLEE, save_trained
from tlee.params import Params
from tlee.training.loop import fit, state_file


class PretrainTask(nn.Module):
    """Mean cross-entropy after 1, 2, ... T frames, all at full depth (TLEE section III-E, FrameExit 3.3)."""

    def __init__(self, model: TLEE):
        super().__init__()
        self.model = model

    def logits(self, frames: torch.Tensor) -> torch.Tensor:
        """``[N, T, 3, H, W]`` to ``[N, T, C]``: what is known after each frame."""
        readout = self.model.readout
        return readout.classifier(readout.prefixes(self.model.full_features(frames)))

    def forward(self, frames: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        logits = self.logits(frames)
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1]))


def pretrain(params: Params) -> tuple[TLEE, pd.DataFrame]:
    """Train on the frame store's ``train``, watch ``val``, write the weights.

    Returns the network and the history: ``epoch``, ``loss`` and top-1 on val after 1, 3 and all frames.
    """
    torch.manual_seed(params.seed)
    train = load_clips("train", params.extract, params.model, augment=True, draw=params.pretrain.frames)
    val = load_clips("val", params.extract, params.model)
    model = TLEE(params.model, len(train.store.classes)).to(memory_format=torch.channels_last)
    task = PretrainTask(model)
    history = fit(
        task,
        train,
        params.pretrain,
        seed=params.seed,
        validate=lambda: validate(task, val),
        state=state_file("pretrain", params),
    )
    save_trained(model, "pretrain", train.store.classes)
    return model, history


@torch.inference_mode()
def validate(task: PretrainTask, clips: ClipDataset) -> dict[str, float]:
    """Top-1 at full depth after 1, 3 and all frames."""
    task.eval()
    device = next(task.parameters()).device
    logits = torch.cat([task.logits(frames.to(device)) for frames, _, _ in DataLoader(clips, 32)])
    labels = clips.store.labels.to(device)
    frames = sorted({1, min(3, logits.shape[1]), logits.shape[1]})
    return {f"val top-1, {count} frame{'s' * (count > 1)}": top1(logits[:, count - 1], labels) for count in frames}
