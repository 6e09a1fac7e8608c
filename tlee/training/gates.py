"""Stage 2 (``gates``): the gates alone, trained on stored exit features."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from tlee.features import FeatureTable, TableRows, load_features
from tlee.levels import ALWAYS, NEVER
from tlee.loading import Loader
from tlee.metrics import auroc, is_correct
from tlee.model import TLEE, load_trained, load_whole, save_trained
from tlee.params import Params
from tlee.readout import Accumulated
from tlee.records import save_metrics, save_table
from tlee.training.loop import NO_HISTORY, Task, fit_stage

VALIDATED = 512  #: videos at a time


def exit_label(loss: torch.Tensor, t: int, patience: float, beta: float) -> torch.Tensor:
    """Label 1 where the gate should stop at step ``t``: ``loss(classify(z_tb), y) <= beta * exp(t / patience)``.

    ``loss`` is the loss of each sample, ``[N]``; ``patience`` is 2 in FrameExit (equation 8) and ``3 + b`` at depth
    ``b`` in TLEE (section III-C, here per sample).
    """
    return (loss <= beta * math.exp(t / patience)).to(loss.dtype)


class GateTask(Task):
    """Binary cross-entropy of the gate over the pairs ``(z_tb, z)`` that occur at inference.

    ``z`` depends on the depths at which earlier frames were left, so each video of a batch gets a random layer policy
    (a confidence threshold a depth, some switched off) and leaves its frames as that policy does.
    """

    def __init__(self, model: TLEE):
        super().__init__()
        self.readout, params = model.readout.requires_grad_(False), model.params
        self.readout.gates.requires_grad_(True)
        self.beta = params.gates.beta
        as_frameexit = params.model.method == "frameexit"
        self.patience = [2 if as_frameexit else 3 + depth for depth in range(model.num_exits)]

    def forward(self, features: torch.Tensor, targets: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of exit features ``[N, T, B + 1, D]``; for the rest see ``FeatureTable``."""
        pairs = self.pairs(features, targets, truth)
        return nn.functional.binary_cross_entropy_with_logits(pairs.scores, pairs.stop)

    def pairs(self, features: torch.Tensor, targets: torch.Tensor, truth: torch.Tensor) -> "Pairs":
        """Collect the pairs at ``0 < t < T - 1`` of the videos that have not left their frame yet."""
        readout = self.readout
        videos, frames, depths, _ = features.shape
        leave = random_layer_thresholds(videos, depths, features.device)
        known, found = Accumulated.nothing(videos, features.device), []
        for t in range(frames - 1):
            before = known
            inside = torch.ones(videos, dtype=torch.bool, device=features.device)
            for b in range(depths):
                base = readout.base(before, known, t)
                current = readout.accumulate(base, features[:, t, b])
                logits = readout.classify(current.z, t)
                confidence = readout.probabilities(logits).amax(1)
                if not before.is_empty:
                    stop = exit_label(readout.loss(logits, targets), t, self.patience[b], self.beta)
                    score = readout.gate(current.z, readout.compared(before, base).z, t)
                    values = score, stop, is_correct(logits, truth), confidence
                    found.append([each[inside] for each in values])
                known = known.where(inside[:, None], current)
                inside = inside & ~(confidence > leave[:, b])
        return Pairs(*(torch.cat(each) for each in zip(*found, strict=True)))


class Pairs(NamedTuple):
    """Scores and labels of ``P`` pairs ``(z_tb, z)``; ``[P]`` each."""

    scores: torch.Tensor  #: logits of the gate
    stop: torch.Tensor  #: label, see ``exit_label``
    correct: torch.Tensor  #: True if ``z_tb`` is classified correctly
    confidence: torch.Tensor  #: largest class probability at ``z_tb``

    @property
    def auroc(self) -> float:
        """AUROC of the gate for correct against incorrect classification."""
        return auroc(self.scores.sigmoid(), self.correct)

    def metrics(self) -> dict[str, float]:
        """AUROC of the gate, and of confidence alone."""
        return {
            "val AUROC": self.auroc,
            "val AUROC of confidence": auroc(self.confidence, self.correct),
        }

    def table(self) -> pd.DataFrame:
        """Table with the columns ``score`` (a probability) and ``correct``."""
        return pd.DataFrame({"score": self.scores.sigmoid().numpy(), "correct": self.correct.numpy()})


def random_layer_thresholds(videos: int, depths: int, device: torch.device) -> torch.Tensor:
    """Draw a confidence threshold for each video and depth, ``[N, B + 1]``, half of them ``NEVER``.

    The deepest depth is always left.
    """
    thresholds = 1 - torch.rand(videos, depths, device=device) ** 2
    thresholds[torch.rand(videos, depths, device=device) < 0.5] = NEVER
    thresholds[:, -1] = ALWAYS
    return thresholds


@dataclass(frozen=True)
class GateTraining:
    """The network with its gates, whose weights are written, and how they score on ``val``."""

    model: TLEE
    history: pd.DataFrame  #: ``epoch``, ``loss`` and AUROC on val; empty if the gates were imported
    pairs: Pairs | None  #: of val; None without gates

    @property
    def metrics(self) -> dict[str, float]:
        """AUROC on val of the gate and of confidence; empty without gates."""
        return self.pairs.metrics() if self.pairs else {}

    def write(self) -> None:
        """Write metrics and tables."""
        save_table("gates", "history", self.history)
        save_metrics("gates", self.metrics)


def train_gates(params: Params) -> GateTraining:
    """Train the gates on the stored exit features of ``train``, measure them on ``val``, write their weights.

    Imported gates (``model.trained``) are only measured.
    """
    torch.manual_seed(params.seed)
    model, classes = load_trained(params, "pretrain", "branches")
    if params.model.trained:
        model = load_whole(params, classes)
    task, val, history = GateTask(model), load_features("val"), NO_HISTORY
    if model.readout.gates and not params.model.trained:
        data = TableRows(load_features("train"), model.readout.multi_label)

        def validate() -> dict[str, float]:
            return {"val AUROC": _pairs_of(task, val).auroc}

        history = fit_stage("gates", task, data, params.gates, params, validate)
    save_trained(model, "gates", classes)
    return GateTraining(model, history, _pairs_of(task, val) if model.readout.gates else None)


@torch.inference_mode()
def _pairs_of(task: GateTask, table: FeatureTable) -> Pairs:
    task.eval()
    device = next(task.parameters()).device
    with Loader(TableRows(table, task.readout.multi_label), VALIDATED, device) as loader:
        found = [task.pairs(*batch) for batch in loader.epoch()]
    return Pairs(*(torch.cat(parts).cpu() for parts in zip(*found, strict=True)))
