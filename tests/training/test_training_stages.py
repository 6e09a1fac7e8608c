"""The stages of training, one after the other, on small frame stores of three colours."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from support.small import T, small_params
from support.stores import write_small_stores

from tlee.backbones import BACKBONES
from tlee.errors import UserError
from tlee.evaluation.evaluate import evaluate_splits
from tlee.evaluation.step_by_step import step_by_step_agreement
from tlee.features import load_features, store_features
from tlee.model import TLEE, load_trained, whole
from tlee.params import METHOD_SETTINGS, Params
from tlee.paths import MODELS, RUNS, SPLITS
from tlee.training.backbone import pretrain
from tlee.training.branches import STRATEGIES, UNCHANGED, train_branches
from tlee.training.gates import Pairs, train_gates
from tlee.weights import save_tensors

pytestmark = [pytest.mark.usefixtures("five_layer_backbone"), pytest.mark.slow]

QUICK = {
    "pretrain.epochs": 3,
    "pretrain.batch_clips": 6,
    "pretrain.learning_rate": 0.02,
    "branches.epochs": 2,
    "branches.batch_clips": 6,
    "branches.train_views": 2,
    "gates.epochs": 2,
    "gates.batch_clips": 6,
}
LABELS = [row % 3 for row in range(12)]
SEVERAL = [[row % 3, (row + 1) % 3] if row % 2 else [row % 3] for row in range(12)]


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, the working one, with frames of every split."""
    monkeypatch.chdir(tmp_path)
    write_small_stores(LABELS)
    return tmp_path


def quick(overrides: dict[str, Any] | None = None, **model: Any) -> Params:
    return small_params(QUICK | (overrides or {}), **model)


def train(params: Params) -> tuple[TLEE, dict[str, pd.DataFrame], Pairs | None]:
    """Run all stages as the notebooks do: the network, histories and strategies, and the pairs of the gates."""
    pretraining, branches = pretrain(params), train_branches(params)
    store_features(params)
    gates = train_gates(params)
    for stage in (pretraining, branches, gates):
        stage.write()
    histories = {"pretrain": pretraining.history, "branches": branches.history, "gates": gates.history}
    return gates.model, histories | {"strategies": branches.comparison}, gates.pairs


def files_of(names: set[str]) -> set[str]:
    return {f"{name}.safetensors" for name in names}


# --- every method --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHOD_SETTINGS)
def test_every_method_is_trained(stores, method):
    params = quick(method=method)
    model, tables, pairs = train(params)
    assert not model.training
    assert {path.name for path in MODELS.iterdir()} == files_of({"backbone", "branches", "gates"})
    assert not list(RUNS.glob("*.pt"))

    history = tables["pretrain"]
    assert list(history["epoch"]) == [1, 2, 3]
    assert list(history.columns)[2:] == [f"val top-1, {count}" for count in ("1 frame", "3 frames", "4 frames")]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]

    exits = params.model.num_branches
    strategies = set(STRATEGIES) if exits else {UNCHANGED}
    kinds = [*(f"depth {depth}" for depth in range(exits + 1)), "mixed depths"]
    comparison = tables["strategies"]
    assert set(comparison["strategy"]) == strategies
    assert all(list(rows["depths"]) == kinds for _, rows in comparison.groupby("strategy"))
    assert comparison["kept"].sum() == len(kinds)
    assert len(tables["branches"]) == (2 if exits else 0)

    learned = method in ("tlee", "frameexit")
    assert len(tables["gates"]) == (2 if learned else 0)
    assert (pairs is not None) == learned
    if learned:
        assert set(pairs.metrics()) == {"val AUROC", "val AUROC of confidence"}
        assert pairs.table()["score"].between(0, 1).all()

    loaded, classes = load_trained(params, "pretrain", "branches", "gates")
    assert classes == ["red", "green", "blue"]
    own = model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.state_dict().items())


def test_the_stored_features_are_those_of_the_trained_network(stores):
    train(quick())
    for split, videos in (("train", 24), ("val", 12), ("test", 12)):
        table = load_features(split)
        assert table.features.shape == (videos, T, 3, 12)
        assert table.labels.tolist() == LABELS * (videos // 12)
        assert torch.equal(table.truth, torch.eye(3, dtype=torch.bool)[table.labels])
        assert len(table.videos) == len(table.groups) == videos
        assert table.classes == ["red", "green", "blue"]
    views = load_features("train").features.chunk(2)
    assert not torch.allclose(*views)  # each is augmented anew


def test_features_in_float16_take_half_the_space_and_are_rounded_ones(stores):
    train(quick())
    exact = {split: load_features(split).features.clone() for split in SPLITS}
    store_features(quick({"branches.feature_precision": "float16"}))
    for split, features in exact.items():
        table = load_features(split)
        assert table.stored.equal(features.half())
        assert table.stored.nbytes == features.nbytes / 2
        assert table.features.dtype == torch.float32
    assert train_gates(quick()).pairs


def test_the_network_agrees_with_features_in_float16(stores):
    params = quick({"branches.feature_precision": "float16"})
    train(params)
    agreement = step_by_step_agreement(evaluate_splits(params), params)
    assert agreement["full"] == 1
    assert agreement.min() >= 0.8


def test_the_same_seed_trains_the_same_network(stores):
    first, _, _ = train(quick(mlp=20, gate="frameexit"))
    second, _, _ = train(quick(mlp=20, gate="frameexit"))
    own = first.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in second.state_dict().items())


# --- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"reuse": "attention", "accumulate": "visited"},
        {"reuse": "mean", "readout": "per_step", "gate": "frameexit"},
        {"mlp": 20, "branch": "conv", "reuse": "ema"},
        {"branch": "fc", "order": "sequential", "gate": "frameexit"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_other_networks_are_trained(stores, settings):
    _, tables, pairs = train(quick(**settings))
    assert tables["pretrain"]["loss"].iloc[-1] < tables["pretrain"]["loss"].iloc[0]
    assert len(tables["gates"]) == 2
    assert torch.isfinite(pairs.scores).all()


def test_each_step_trains_its_classifier_and_gate(stores):
    params = quick(readout="per_step")
    torch.manual_seed(params.seed)
    start = TLEE(params, 3).readout.state_dict()
    model, _, _ = train(params)
    assert (len(model.readout.classifiers), len(model.readout.gates)) == (T, T - 2)
    assert not any(torch.equal(tensor, start[name]) for name, tensor in model.readout.state_dict().items())


def test_several_labels_are_trained_by_binary_cross_entropy(stores):
    write_small_stores(SEVERAL)
    model, tables, pairs = train(quick({"dataset.labels": "multi"}))
    assert model.readout.multi_label
    loss = tables["pretrain"]["loss"]
    assert loss.iloc[-1] < loss.iloc[0] < 1.2  # about ln 2 at the start; cross-entropy of three classes is ln 3
    assert load_features("train").truth.tolist() == 2 * [
        [label in ([labels] if isinstance(labels, int) else labels) for label in range(3)] for labels in SEVERAL
    ]
    assert math.isfinite(tables["gates"]["loss"].iloc[-1])
    assert pairs.correct.any()


def test_two_time_steps_leave_nothing_to_decide_for_a_gate(stores):
    model, tables, pairs = train(quick({"extract.frames": 2, "pretrain.frames": 2, "branches.frames": 2}))
    assert not model.readout.gates
    assert (len(tables["gates"]), pairs) == (0, None)
    assert list(tables["pretrain"].columns)[2:] == ["val top-1, 1 frame", "val top-1, 2 frames"]


@pytest.mark.parametrize("exits", [0, 1])
def test_a_network_over_clips_is_trained(stores, monkeypatch, exits):
    """X3D-S with time steps of three frames at few pixels."""
    build = BACKBONES["x3d_s"]

    def shorter(count: int):
        backbone = build(count)
        backbone.clip_frames = 3
        return backbone

    monkeypatch.setitem(BACKBONES, "x3d_s", shorter)
    write_small_stores(LABELS[:6], clip_frames=3)
    once = {"pretrain.epochs": 1, "branches.epochs": 1, "branches.train_views": 1, "extract.clip_frames": 13}
    _, tables, pairs = train(quick(once, backbone="x3d_s", num_branches=exits, crm_scale=3))
    assert math.isfinite(tables["pretrain"]["loss"].item())
    assert load_features("val").features.shape == (6, T, exits + 1, 2048)
    assert torch.isfinite(pairs.scores).all()


# --- joint, frozen, trained ------------------------------------------------------------------------------


def test_jointly_trained_branches_are_kept_unchanged(stores):
    params = quick({"pretrain.joint": True})
    pretrain(params)
    jointly, _ = load_trained(params, "pretrain")
    before = {name: tensor.clone() for name, tensor in jointly.state_dict().items() if "gates" not in name}
    model, tables, _ = train(params)
    assert len(tables["branches"]) == 0
    assert set(tables["strategies"]["strategy"]) == {UNCHANGED}
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_frozen_layers_end_as_they_began(stores):
    """The weights to begin with are those of a file, of which the first two layers stay."""
    params = quick({"pretrain.frozen_layers": 2})
    torch.manual_seed(5)
    start = TLEE(params, 3).backbone.body.state_dict()
    path = save_tensors(stores / "start.safetensors", start, {})
    pretrain(quick({"pretrain.frozen_layers": 2}, weights=str(path)))
    model, _ = load_trained(params, "pretrain")
    after = model.backbone.body.state_dict()
    changed = {int(name.split(".")[0]) for name in start if not torch.equal(after[name], start[name])}
    assert changed == {2, 3, 4}


@pytest.mark.parametrize("method", ["tlee", "frameexit", "full"])
def test_an_imported_network_is_measured_and_not_changed(stores, method):
    torch.manual_seed(5)
    given = TLEE(quick(method=method), 3)
    path = save_tensors(stores / "given.safetensors", whole(given).state_dict(), {"classes": ["red", "green", "blue"]})
    model, tables, pairs = train(quick(method=method, trained=str(path)))
    own = given.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    (row,) = tables["pretrain"].to_dict("records")
    assert row["epoch"] == 0
    assert "loss" not in row
    assert len(tables["branches"]) == len(tables["gates"]) == 0
    assert set(tables["strategies"]["strategy"]) == {UNCHANGED}
    assert (pairs is not None) == (method != "full")
    assert {path.name for path in MODELS.iterdir()} == files_of({"backbone", "branches", "gates"})


def test_a_network_imported_for_other_classes_is_refused(stores):
    path = save_tensors(
        stores / "given.safetensors", whole(TLEE(quick(), 2)).state_dict(), {"classes": ["red", "green"]}
    )
    with pytest.raises(UserError, match=r"given\.safetensors knows 2 classes, but the data set has 3: correct"):
        pretrain(quick(trained=str(path)))
