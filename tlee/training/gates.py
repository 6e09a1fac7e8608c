"""Stage 2 (``gates``): the gate alone, on stored exit features."""

import math
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn
from torch.utils.data import TensorDataset

from tlee.features import FeatureTable, load_features
from tlee.metrics import auroc
from tlee.model import TLEE, Readout, load_trained, save_trained
from tlee.params import Params
from tlee.policies import ALWAYS, NEVER
from tlee.training.loop import fit, state_file


def exit_label(loss: torch.Tensor, t: int, b: int, beta: float) -> torch.Tensor:
    """1 where stopping at ``(t, b)`` is right: ``CE(classify(z_tb), y) <= beta * exp(t / (3 + b))``.

    ``loss`` is the cross-entropy of each sample, ``[N]`` (TLEE section III-C, per sample).
    """
    return (loss <= beta * math.exp(t / (3 + b))).to(loss.dtype)


class GateTask(nn.Module):
    """Binary cross-entropy of the gate over every pair ``(z_tb, z)`` that inference meets.

    ``z`` depends on where earlier frames were left, so each video of a batch gets a random layer policy (a
    confidence threshold a depth, some switched off) and walks on as that policy would.
    """

    def __init__(self, readout: Readout, beta: float):
        super().__init__()
        readout.requires_grad_(False)
        readout.gate.requires_grad_(True)
        self.readout, self.beta = readout, beta

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Exit features ``[N, T, B + 1, D]`` and classes ``[N]`` to the mean loss."""
        pairs = self.pairs(features, labels)
        return nn.functional.binary_cross_entropy_with_logits(pairs.scores, pairs.stop)

    def pairs(self, features: torch.Tensor, labels: torch.Tensor) -> "Pairs":
        """Every pair at ``0 < t < T - 1`` where each video is still inside its frame."""
        videos, frames, depths, _ = features.shape
        leave = random_layer_thresholds(videos, depths, features.device)
        past, found = None, []
        for t in range(frames - 1):
            following, inside = None, torch.ones(videos, dtype=torch.bool, device=features.device)
            for b in range(depths):
                current = self.readout.accumulate(past, features[:, t, b], t)
                logits = self.readout.classifier(current)
                probabilities = logits.softmax(1)
                if past is not None:
                    loss = nn.functional.cross_entropy(logits, labels, reduction="none")
                    stop = exit_label(loss, t, b, self.beta)
                    score, right = self.readout.gate(current, past), logits.argmax(1) == labels
                    found.append([each[inside] for each in (score, stop, right, probabilities.amax(1))])
                leaves = inside & (probabilities.amax(1) > leave[:, b])
                following = current if following is None else torch.where(leaves[:, None], current, following)
                inside = inside & ~leaves
            past = following
        return Pairs(*(torch.cat(each) for each in zip(*found, strict=True)))


class Pairs(NamedTuple):
    """What the gate says of pairs ``(z_tb, z)``, and what is true of them; ``[P]`` each."""

    scores: torch.Tensor  #: logits of the gate
    stop: torch.Tensor  #: ``exit_label``
    right: torch.Tensor  #: whether classifying ``z_tb`` is right
    confidence: torch.Tensor  #: softmax maximum of ``z_tb``

    def metrics(self) -> dict[str, float]:
        """How well the gate, and confidence alone, tell right from wrong."""
        return {
            "val AUROC": auroc(self.scores.sigmoid(), self.right),
            "val AUROC of confidence": auroc(self.confidence, self.right),
        }

    def table(self) -> pd.DataFrame:
        """Columns ``score`` (a probability) and ``right``."""
        return pd.DataFrame({"score": self.scores.sigmoid().numpy(), "right": self.right.numpy()})


def random_layer_thresholds(videos: int, depths: int, device: torch.device) -> torch.Tensor:
    """``[N, B + 1]``: for each video and depth a confidence to leave at, half of them ``NEVER``.

    The deepest is always left.
    """
    thresholds = 1 - torch.rand(videos, depths, device=device) ** 2
    thresholds[torch.rand(videos, depths, device=device) < 0.5] = NEVER
    thresholds[:, -1] = ALWAYS
    return thresholds


def train_gate(params: Params) -> tuple[TLEE, pd.DataFrame, Pairs]:
    """Train the gate on the stored exit features of ``train`` and write its weights.

    Returns the network, the history and the pairs of ``val``.
    """
    torch.manual_seed(params.seed)
    model, classes = load_trained(params.model, "pretrain", "branches")
    train, val = (load_features(split) for split in ("train", "val"))
    task = GateTask(model.readout, params.gates.beta)
    history = fit(
        task,
        TensorDataset(train.features, train.labels),
        params.gates,
        seed=params.seed,
        validate=lambda: _validate(task, val),
        state=state_file("gates", params),
    )
    save_trained(model, "gates", classes)
    with torch.inference_mode():
        return model, history, task.cpu().pairs(val.features, val.labels)


@torch.inference_mode()
def _validate(task: GateTask, table: FeatureTable) -> dict[str, float]:
    device = next(task.parameters()).device
    pairs = task.pairs(table.features.to(device), table.labels.to(device))
    return {"val AUROC": auroc(pairs.scores.sigmoid(), pairs.right)}
