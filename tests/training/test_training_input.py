"""Training on clips: the same bits with any number of workers, resumed or not, and precisions other than single."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.small import random_clips, random_network, small_params
from support.stores import write_small_stores
from torch import nn

from tlee.clips import load_clips
from tlee.features import split_features
from tlee.model import TLEE
from tlee.params import Params
from tlee.training.backbone import PretrainTask, validate
from tlee.training.branches import STRATEGIES, BranchTask
from tlee.training.loop import fit

pytestmark = pytest.mark.usefixtures("five_layer_backbone")

QUICK = {"pretrain.epochs": 3, "pretrain.batch_clips": 5, "pretrain.dropout": 0.3, "compute.accelerator": "cpu"}


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, the working one, with frames of every split."""
    monkeypatch.chdir(tmp_path)
    write_small_stores([row % 3 for row in range(12)])
    return tmp_path


class PowerCut(Exception):
    """Stands for whatever ends a process."""


def train(state: Path, end_in: int = 0, **settings: Any) -> tuple[list[float], TLEE]:
    """Train a network with ``pretrain`` and validate it; return the losses and the network.

    ``end_in`` is the step, if any, in which the process ends.
    """
    params = small_params(QUICK | {f"compute.{name}": value for name, value in settings.items()})
    torch.manual_seed(0)
    task = PretrainTask(TLEE(params, 3))
    if end_in:
        steps = iter(range(1, end_in + 1))

        def count(*_: object) -> None:
            if next(steps) == end_in:
                raise PowerCut

        task.register_forward_pre_hook(count)
    clips, val = load_clips("train", params, augment=True, draw=3), load_clips("val", params)
    options = {"validate": lambda: validate(task.model, val), "state": state, "accelerator": "cpu"}
    history = fit(task, clips, params.pretrain, seed=0, **options)
    return history["loss"].tolist(), task.model


def assert_same(one: tuple[list[float], TLEE], other: tuple[list[float], TLEE]) -> None:
    assert one[0] == other[0]
    weights = other[1].state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in one[1].state_dict().items())


@pytest.mark.slow
def test_any_number_of_workers_trains_the_same_network_resumed_or_not(stores):
    alone = train(stores / "0.pt", workers=0)
    assert_same(train(stores / "1.pt", workers=1), alone)
    assert_same(train(stores / "2.pt", workers=2), alone)
    with pytest.raises(PowerCut):
        train(stores / "broken.pt", end_in=6, workers=2)  # in the last of three epochs of two steps
    assert_same(train(stores / "broken.pt", workers=1), alone)


def test_an_epoch_resumes_with_its_own_draws(stores):
    whole = train(stores / "whole.pt")
    with pytest.raises(PowerCut):
        train(stores / "broken.pt", end_in=4)
    assert_same(train(stores / "broken.pt"), whole)


@pytest.mark.slow
def test_exit_features_do_not_depend_on_workers_and_views_differ(stores):
    model = random_network(small_params())
    tables = [
        split_features(model, small_params({"compute.workers": workers, "branches.train_views": 2}), "train")
        for workers in (0, 2)
    ]
    assert torch.equal(tables[0].features, tables[1].features)
    first, second = tables[0].features.chunk(2)
    assert not torch.isclose(first, second).all(dim=(1, 2, 3)).any()


# --- precision -----------------------------------------------------------------------------------------


def task_of(params: Params, stage: str) -> PretrainTask | BranchTask:
    model = random_network(params)
    if stage == "pretrain":
        return PretrainTask(model)
    return BranchTask(model, {strategy: model.new_branches() for strategy in STRATEGIES})


@pytest.mark.parametrize("stage", ["pretrain", "branches"])
def test_convolutions_use_bf16_and_the_loss_single_precision(stage):
    params = small_params(reuse="attention")
    task, seen = task_of(params, stage), {}
    names = {layer: name for name, layer in task.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}

    def note(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        seen[names[layer]] = output.dtype

    for layer in names:
        layer.register_forward_hook(note)
    torch.manual_seed(0)
    batch = random_clips(task.model, videos=4), torch.tensor([0, 1, 2, 1]), torch.arange(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task(*batch)
    assert loss.dtype == torch.float32
    assert {dtype for name, dtype in seen.items() if "readout" in name} == {torch.float32}
    assert {dtype for name, dtype in seen.items() if "backbone" in name} == {torch.bfloat16}


def test_mixed_precision_trains_weights_of_single_precision(stores):
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        params = small_params(QUICK | {"pretrain.precision": precision})
        torch.manual_seed(0)
        task, clips = PretrainTask(TLEE(params, 3)), load_clips("train", params, augment=True, draw=3)
        state = stores / f"{precision}.pt"
        history = fit(task, clips, params.pretrain, seed=0, validate=dict, state=state, accelerator="cpu")
        losses[precision] = history["loss"]
        assert {weight.dtype for weight in task.parameters()} == {torch.float32}
    assert not losses["bf16-mixed"].equals(losses["32-true"])
    assert losses["bf16-mixed"].tolist() == pytest.approx(losses["32-true"].tolist(), rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_gpu_trains_from_workers_and_resumes(stores, precision):
    params = small_params(QUICK | {"pretrain.precision": precision, "compute.accelerator": "cuda"})
    found = []
    for _ in range(2):  # the second time, the last epoch is repeated
        torch.manual_seed(0)
        task, clips = PretrainTask(TLEE(params, 3)), load_clips("train", params, augment=True, draw=3)
        assert clips.workers > 0
        options = {"validate": dict, "state": stores / "state.pt", "accelerator": "cuda"}
        found.append(fit(task, clips, params.pretrain, seed=0, **options)["loss"].tolist())
        assert next(task.parameters()).is_cuda
    assert found[1] == pytest.approx(found[0], rel=1e-3)
