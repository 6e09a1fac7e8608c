"""The papers' ablation tables on one trained backbone: every reuse, gate, branch, readout and method.

All variants share the backbone, and but for those of the branch also the branches, so a variant is trained on
stored exit features in seconds: its reuse and classifiers over all prefixes and depths, then its gate. It gets
thresholds of its own on ``val`` and is reported on ``test``, like the default pipeline's policies.
"""

import contextlib
import io
from dataclasses import dataclass, replace
from functools import cache

import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from tlee.costs import count_costs
from tlee.evaluation.evaluate import evaluate
from tlee.evaluation.replay import Split
from tlee.features import FeatureTable, load_features, split_features
from tlee.frames import load_clips
from tlee.model import TLEE, load_trained
from tlee.params import Params, TrainingParams, change
from tlee.paths import SPLITS
from tlee.training.branches import BranchTask, random_depths
from tlee.training.gates import GateTask
from tlee.training.loop import fit, state_file

READOUT_EPOCHS, BRANCH_EPOCHS = 20, 10

Tables = dict[str, FeatureTable]  #: by split


@dataclass(frozen=True)
class Variant:
    """One row: what is varied, its name, and the parameters that differ from the default's."""

    ablation: str
    name: str
    overrides: dict


VARIANTS = [
    *(Variant("reuse", kind, {"model.reuse": kind}) for kind in ("max", "attention", "ema", "mean", "add", "none")),
    *(Variant("accumulate", kind, {"model.accumulate": kind}) for kind in ("exit", "visited")),
    *(Variant("gate", kind, {"model.gate": kind}) for kind in ("mlp", "frameexit", "confidence", "random")),
    *(Variant("readout", kind, {"model.readout": kind}) for kind in ("shared", "per_step")),
    *(Variant("branch", kind, {"model.branch": kind}) for kind in ("crm", "conv", "fc")),
    *(Variant("method", kind, {"model.method": kind}) for kind in ("full", "frameexit", "layer", "tlee", "random")),
]


def ablate(params: Params) -> pd.DataFrame:
    """Train and evaluate every variant; one row each.

    ``ablation``, ``variant``, then of its policy on test ``score`` with ``low`` and ``high``, ``gmacs``,
    ``share_of_full``, ``frames``, and ``full_score``, what its full network scores.
    Raises ``UserError`` if the default pipeline has not been run.
    """
    rows = []
    for variant in VARIANTS:
        row = _run(params, change(params, variant.overrides), is_branch=variant.ablation == "branch")
        rows.append({"ablation": variant.ablation, "variant": variant.name, **row})
        print(f"{variant.ablation:10s} {variant.name:10s} {row['score']:.3f} at {row['gmacs']:.4f} GMACs", flush=True)
    return pd.DataFrame(rows)


@cache
def _run(default: Params, params: Params, is_branch: bool) -> dict[str, float]:
    """The row of one variant; the same one is not run twice, as the defaults of most ablations are."""
    trained, classes = load_trained(default, "pretrain", "branches")
    torch.manual_seed(params.seed)
    model = TLEE(change(params, {"model.weights": None}), len(classes))
    if params.model.num_branches:  # else the network is not cut, and nothing but its costs is asked for
        model.backbone, model.mlp = trained.backbone, trained.mlp
    with contextlib.redirect_stdout(io.StringIO()):  # a line an epoch, of some thirty trainings
        tables = _branch_tables(model, trained, params) if is_branch else _stored_tables(model, trained)
        _train_readout(model, tables["train"], params, "own" if is_branch else "stored")
    model.eval()
    costs = count_costs(model)
    val, test = (Split(tables[split], model.readout, costs, params.evaluate.metric) for split in ("val", "test"))
    table = evaluate(val, test, params).table.set_index("method")
    kept = ["score", "low", "high", "gmacs", "share_of_full", "frames"]
    return {**table.loc[params.model.method, kept].to_dict(), "full_score": table.at["full", "score"]}


def _stored_tables(model: TLEE, trained: TLEE) -> Tables:
    """The exit features of the pipeline's branches, which ``model`` takes over; of the deepest if it has fewer."""
    if model.branches:
        model.branches = trained.branches
    tables = {split: load_features(split) for split in SPLITS}
    return {split: replace(table, features=table.features[:, :, -model.num_exits :]) for split, table in tables.items()}


def _branch_tables(model: TLEE, trained: TLEE, params: Params) -> Tables:
    """Exit features of branches of another kind, trained the papers' way with fewer epochs than the pipeline's."""
    readout, model.readout = model.readout, trained.readout
    branches = model.new_branches()
    task = BranchTask(model, {"own_depth": branches})
    clips = load_clips("train", params, augment=True, draw=params.branches.frames)
    settings = params.branches.model_copy(update={"epochs": BRANCH_EPOCHS})
    _fit("branches", task, clips, settings, params)
    model.branches = branches
    tables = {split: split_features(model, params, split) for split in SPLITS}
    model.readout = readout
    return tables


class ReadoutTask(nn.Module):
    """Reuse and classifiers over all prefixes, with all frames left at one depth, at each, and at random ones."""

    def __init__(self, model: TLEE):
        super().__init__()
        self.readout = model.readout

    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        depths = [*range(features.shape[2]), random_depths(features)]
        return sum(self.readout.prefix_loss(features, depth, targets) for depth in depths)


def _train_readout(model: TLEE, table: FeatureTable, params: Params, features: str) -> None:
    """Reuse, classifiers and then gates on exit features, ``stored`` ones or those of the ``own`` branches."""
    targets = table.targets(model.readout.multi_label)
    settings = params.gates.model_copy(update={"epochs": READOUT_EPOCHS})
    _fit(f"readout-{features}", ReadoutTask(model), TensorDataset(table.features, targets), settings, params)
    if model.readout.gates:
        data = TensorDataset(table.features, targets, table.truth)
        _fit(f"gates-{features}", GateTask(model), data, settings, params)


def _fit(what: str, task: nn.Module, data: Dataset, settings: TrainingParams, params: Params) -> None:
    fit(task, data, settings, seed=params.seed, validate=dict, state=state_file(f"ablation-{what}", params))
