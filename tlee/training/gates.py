"""Stage 2 (``gates``): the gates alone, on stored exit features."""

import math
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn
from torch.utils.data import TensorDataset

from tlee.features import FeatureTable, load_features
from tlee.levels import ALWAYS, NEVER
from tlee.metrics import auroc, is_correct
from tlee.model import TLEE, load_trained, load_whole, save_trained
from tlee.params import Params
from tlee.readout import Accumulated
from tlee.training.loop import NO_HISTORY, fit, state_file


def exit_label(loss: torch.Tensor, t: int, patience: float, beta: float) -> torch.Tensor:
    """1 where stopping at step ``t`` is right: ``loss(classify(z_tb), y) <= beta * exp(t / patience)``.

    ``loss`` is that of each sample, ``[N]``; ``patience`` is 2 in FrameExit (equation 8) and ``3 + b`` at depth
    ``b`` in TLEE (section III-C, here per sample).
    """
    return (loss <= beta * math.exp(t / patience)).to(loss.dtype)


class GateTask(nn.Module):
    """Binary cross-entropy of the gate over every pair ``(z_tb, z)`` that inference meets.

    ``z`` depends on where earlier frames were left, so each video of a batch gets a random layer policy (a
    confidence threshold a depth, some switched off) and walks on as that policy would.
    """

    def __init__(self, model: TLEE):
        super().__init__()
        self.readout, params = model.readout.requires_grad_(False), model.params
        self.readout.gates.requires_grad_(True)
        self.beta = params.gates.beta
        as_frameexit = params.model.method == "frameexit"
        self.patience = [2 if as_frameexit else 3 + depth for depth in range(model.num_exits)]

    def forward(self, features: torch.Tensor, targets: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Exit features ``[N, T, B + 1, D]`` and what their videos show (see ``FeatureTable``) to the mean loss."""
        pairs = self.pairs(features, targets, truth)
        return nn.functional.binary_cross_entropy_with_logits(pairs.scores, pairs.stop)

    def pairs(self, features: torch.Tensor, targets: torch.Tensor, truth: torch.Tensor) -> "Pairs":
        """Every pair at ``0 < t < T - 1`` where each video is still inside its frame."""
        readout = self.readout
        videos, frames, depths, _ = features.shape
        leave = random_layer_thresholds(videos, depths, features.device)
        known, found = Accumulated.nothing(videos, features.device), []
        for t in range(frames - 1):
            before = known
            inside = torch.ones(videos, dtype=torch.bool, device=features.device)
            for b in range(depths):
                current = readout.accumulate(readout.base(before, known), features[:, t, b])
                logits = readout.classify(current.z, t)
                confidence = readout.probabilities(logits).amax(1)
                if not before.is_empty:
                    stop = exit_label(readout.loss(logits, targets), t, self.patience[b], self.beta)
                    score = readout.gate(current.z, before.z, t)
                    values = score, stop, is_correct(logits, truth), confidence
                    found.append([each[inside] for each in values])
                known = known.where(inside[:, None], current)
                inside = inside & ~(confidence > leave[:, b])
        return Pairs(*(torch.cat(each) for each in zip(*found, strict=True)))


class Pairs(NamedTuple):
    """What the gate says of pairs ``(z_tb, z)``, and what is true of them; ``[P]`` each."""

    scores: torch.Tensor  #: logits of the gate
    stop: torch.Tensor  #: ``exit_label``
    correct: torch.Tensor  #: whether classifying ``z_tb`` is right
    confidence: torch.Tensor  #: largest probability of ``z_tb``

    @property
    def auroc(self) -> float:
        """How well the gate tells right from wrong."""
        return auroc(self.scores.sigmoid(), self.correct)

    def metrics(self) -> dict[str, float]:
        """How well the gate, and confidence alone, tell right from wrong."""
        return {
            "val AUROC": self.auroc,
            "val AUROC of confidence": auroc(self.confidence, self.correct),
        }

    def table(self) -> pd.DataFrame:
        """Columns ``score`` (a probability) and ``right``."""
        return pd.DataFrame({"score": self.scores.sigmoid().numpy(), "correct": self.correct.numpy()})


def random_layer_thresholds(videos: int, depths: int, device: torch.device) -> torch.Tensor:
    """``[N, B + 1]``: for each video and depth a confidence to leave at, half of them ``NEVER``.

    The deepest is always left.
    """
    thresholds = 1 - torch.rand(videos, depths, device=device) ** 2
    thresholds[torch.rand(videos, depths, device=device) < 0.5] = NEVER
    thresholds[:, -1] = ALWAYS
    return thresholds


def train_gate(params: Params) -> tuple[TLEE, pd.DataFrame, Pairs | None]:
    """Train the gate, or those of all steps, on the stored exit features of ``train`` and write the weights.

    Returns the network, the history and the pairs of ``val``. Gates that come trained are only measured, with an
    empty history; where there is no gate at all there are no pairs.
    """
    torch.manual_seed(params.seed)
    model, classes = load_trained(params, "pretrain", "branches")
    if params.model.trained:
        model = load_whole(params, classes)
    task, val, history = GateTask(model), load_features("val"), NO_HISTORY
    if model.readout.gates and not params.model.trained:
        train = load_features("train")
        history = fit(
            task,
            TensorDataset(train.features, train.targets(model.readout.multi_label), train.truth),
            params.gates,
            seed=params.seed,
            validate=lambda: {"val AUROC": _pairs_of(task, val).auroc},
            state=state_file("gates", params),
        )
    save_trained(model, "gates", classes)
    return model, history, _pairs_of(task, val) if model.readout.gates else None


@torch.inference_mode()
def _pairs_of(task: GateTask, table: FeatureTable) -> Pairs:
    task.eval()
    device = next(task.parameters()).device
    tensors = (table.features, table.targets(task.readout.multi_label), table.truth)
    return Pairs(*(each.cpu() for each in task.pairs(*(tensor.to(device) for tensor in tensors))))
