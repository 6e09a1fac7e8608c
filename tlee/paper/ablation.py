"""The papers' ablation tables on one trained backbone: every reuse, gate, branch, readout and method.

All variants share the backbone, and except in the ablation of the branch also the branches. A variant is therefore
trained on stored exit features in seconds: its reuse and classifiers over all prefixes and depths, then its gate. Its
thresholds are chosen on ``val`` and it is evaluated on ``test``, like the policies of the default pipeline; one variant
decides by values instead (``evaluate.rule``), to which the gate would not matter.
"""

import contextlib
import io
from dataclasses import dataclass, replace
from functools import reduce

import pandas as pd
import torch
from torch import nn

from tlee.clips import load_clips
from tlee.costs import count_costs
from tlee.devices import device_of
from tlee.evaluation.comparison import paired
from tlee.evaluation.evaluate import evaluate
from tlee.evaluation.replay import Split
from tlee.evaluation.results import Results
from tlee.features import FeatureTable, TableRows, load_features, split_features
from tlee.loading import Examples
from tlee.model import TLEE, load_trained, without_initial_weights
from tlee.params import Params, TrainingParams, change
from tlee.paths import SPLITS
from tlee.throughput import prepare
from tlee.training.branches import BranchTask, random_depths
from tlee.training.gates import GateTask
from tlee.training.loop import Task, fit, state_file

READOUT_EPOCHS, BRANCH_EPOCHS = 20, 10

Tables = dict[str, FeatureTable]  #: exit features by split


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    ablation: str  #: the part that is varied
    name: str  #: the kind of this part
    overrides: dict  #: parameters that differ from the default's, by dotted key


VARIANTS = [
    *(Variant("reuse", kind, {"model.reuse": kind}) for kind in ("max", "attention", "ema", "mean", "add", "none")),
    *(Variant("accumulate", kind, {"model.accumulate": kind}) for kind in ("exit", "visited")),
    *(Variant("gate", kind, {"model.gate": kind}) for kind in ("mlp", "frameexit", "confidence", "random")),
    *(Variant("readout", kind, {"model.readout": kind}) for kind in ("shared", "per_step")),
    *(Variant("rule", kind, {"evaluate.rule": kind}) for kind in ("thresholds", "optimal_stopping")),
    *(Variant("branch", kind, {"model.branch": kind}) for kind in ("crm", "conv", "fc")),
    *(Variant("method", kind, {"model.method": kind}) for kind in ("full", "frameexit", "layer", "tlee", "random")),
]


@dataclass(frozen=True)
class Setup:
    """The training of one or more variants: the kinds of the default are variants of several ablations."""

    params: Params
    trains_branches: bool  #: train branches, instead of using those of the pipeline


@dataclass(frozen=True)
class Result:
    """A trained and evaluated setup."""

    numbers: dict[str, float]  #: its columns of the table
    test: Split
    results: Results  #: of its policy, for each video of ``test``


def ablate(params: Params) -> pd.DataFrame:
    """Train and evaluate every variant; one row each.

    ``ablation`` and ``variant``; ``score`` of its policy on test with ``low`` and ``high``, ``gmacs``,
    ``share_of_full`` and ``frames``; ``full_score``, the score of its full network; and beside the default's variant of
    the same ablation, on the same videos, ``points`` and ``cost_ratio`` with intervals, see ``comparison.paired``.
    Raises ``UserError`` if the default pipeline has not been run.
    """
    setups = [
        Setup(change(params, {"evaluate.rule": "thresholds"} | variant.overrides), variant.ablation == "branch")
        for variant in VARIANTS
    ]
    results: dict[Setup, Result] = {}
    for setup in dict.fromkeys(setups):
        result = results[setup] = _train_and_evaluate(setup, *load_trained(params, "pretrain", "branches"))
        for variant, its_setup in zip(VARIANTS, setups, strict=True):
            if its_setup == setup:
                score, gmacs = result.numbers["score"], result.numbers["gmacs"]
                print(f"{variant.ablation:10s} {variant.name:10s} {score:.3f} at {gmacs:.4f} GMACs", flush=True)
    rows = []
    for variant, setup in zip(VARIANTS, setups, strict=True):
        names = {"ablation": variant.ablation, "variant": variant.name}
        reference = results[_reference(variant.ablation, setups, params)]
        rows.append({**names, **results[setup].numbers, **_beside(reference, results[setup], params)})
    return pd.DataFrame(rows)


def _reference(ablation: str, setups: list[Setup], params: Params) -> Setup:
    """Return the setup of an ablation that has the default's parameters, or else its first."""
    own = [setup for variant, setup in zip(VARIANTS, setups, strict=True) if variant.ablation == ablation]
    default = change(params, {"evaluate.rule": "thresholds"})
    return next((setup for setup in own if setup.params == default), own[0])


def _beside(reference: Result, result: Result, params: Params) -> dict[str, float]:
    """Compare a result with that of the reference on the same videos."""
    if result is reference:
        return {}
    compared = {"variant": result.results, "reference": reference.results}
    table = paired("variant", result.test.table.groups, compared, params.evaluate.bootstrap, params.seed)
    return table.drop(columns=["method", "against"]).iloc[0].to_dict()


def _train_and_evaluate(setup: Setup, trained: TLEE, classes: list[str]) -> Result:
    params = setup.params
    network = _assemble(params, trained, len(classes))
    with contextlib.redirect_stdout(io.StringIO()):  # one line per epoch, of some thirty trainings
        if setup.trains_branches:
            network.branches = _train_branches(network.new_branches(), trained, params)
            tables = {split: split_features(network, params, split) for split in SPLITS}
        else:
            tables = _stored_features(network.num_exits)
        _train_readout(network, tables["train"], params, "own" if setup.trains_branches else "stored")
    network.eval()
    costs = count_costs(network)
    val, test = (Split(tables[split], network.readout, costs, params.evaluate.metric) for split in ("val", "test"))
    evaluation, method = evaluate(val, test, params), params.model.method
    table = evaluation.table.set_index("method")
    columns = ["score", "low", "high", "gmacs", "share_of_full", "frames"]
    numbers = {**table.loc[method, columns].to_dict(), "full_score": table.at["full", "score"]}
    return Result(numbers, test, evaluation.results[method])


def _assemble(params: Params, trained: TLEE, num_classes: int) -> TLEE:
    """Build a network from the backbone, MLP and branches of ``trained`` and a readout with initial weights.

    Without branches the backbone is not cut: only the costs of such a network are used, whatever its weights.
    """
    torch.manual_seed(params.seed)
    network = TLEE(without_initial_weights(params), num_classes)
    if params.model.num_branches:
        network.backbone, network.mlp, network.branches = trained.backbone, trained.mlp, trained.branches
    return network


def _stored_features(num_exits: int) -> Tables:
    """Load the exit features of the pipeline, of the deepest ``num_exits`` exits."""
    tables = {split: load_features(split) for split in SPLITS}
    return {split: replace(table, stored=table.stored[:, :, -num_exits:]) for split, table in tables.items()}


def _train_branches(branches: nn.ModuleList, trained: TLEE, params: Params) -> nn.ModuleList:
    """Train branches on the frozen ``trained`` network as in the papers, with fewer epochs than the pipeline."""
    task = BranchTask(trained, {"own_depth": branches})
    clips = load_clips("train", params, augment=True, draw=params.branches.frames)
    _fit("branches", task, clips, params.branches.model_copy(update={"epochs": BRANCH_EPOCHS}), params)
    return branches


class ReadoutTask(Task):
    """Loss of reuse and classifiers over all prefixes, with frames left at each single depth and at random depths."""

    def __init__(self, network: TLEE):
        super().__init__()
        self.readout = network.readout

    def forward(self, features: torch.Tensor, targets: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        depths = [*range(features.shape[2]), random_depths(features, len(features))]
        return reduce(torch.add, (self.readout.prefix_loss(features, depth, targets) for depth in depths))


def _train_readout(network: TLEE, table: FeatureTable, params: Params, features: str) -> None:
    """Train reuse and classifiers, then gates, on exit features: ``stored`` ones, or those of the ``own`` branches."""
    data = TableRows(table, network.readout.multi_label)
    settings = params.gates.model_copy(update={"epochs": READOUT_EPOCHS})
    _fit(f"readout-{features}", ReadoutTask(network), data, settings, params)
    if network.readout.gates:
        _fit(f"gates-{features}", GateTask(network), data, settings, params)


def _fit(name: str, task: Task, data: Examples, settings: TrainingParams, params: Params) -> None:
    state = state_file(f"ablation-{name}", params)
    accelerator = device_of(params.compute).type
    fit(prepare(task), data, settings, seed=params.seed, validate=dict, state=state, accelerator=accelerator)
    state.unlink(missing_ok=True)
