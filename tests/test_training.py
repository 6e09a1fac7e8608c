"""Training: what is learnt from, what stays frozen, and going on after an interruption."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from tlee.errors import UserError
from tlee.model import TLEE
from tlee.params import load_params
from tlee.training.branches import STRATEGIES, BranchTask, mix_depths
from tlee.training.gates import GateTask, exit_label, random_layer_thresholds
from tlee.training.loop import fit, state_file

ROOT = Path(__file__).parents[1]
PARAMS = load_params(ROOT / "params.yaml", {"pretrain.epochs": 5, "pretrain.batch_clips": 4})


# --- the loop -----------------------------------------------------------------------------------------


class Regression(nn.Module):
    """A small task with dropout, so that randomness has to be resumed too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(self.layers(inputs), targets)


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(20, 3, generator=generator), torch.randn(20, 1, generator=generator))


def train(task: Regression, state: Path, validate=lambda: {"value": 1.0}):
    return fit(task, data(), PARAMS.pretrain, seed=0, validate=validate, state=state)


class PowerCut(Exception):
    """Stands for whatever ends a process."""


class Interrupted(Regression):
    """Breaks off in the middle of its fourth epoch: batches of 4 of 20 samples make 5 steps an epoch."""

    steps = 0

    def forward(self, *batch: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if self.steps == 18:
            raise PowerCut
        return super().forward(*batch)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path, capsys):
    whole = Regression()
    history = train(whole, tmp_path / "whole.pt")
    with pytest.raises(PowerCut):
        train(Interrupted(), tmp_path / "broken.pt")
    capsys.readouterr()
    resumed = Regression()
    resumed_history = train(resumed, tmp_path / "broken.pt")
    assert "resuming after epoch 3" in capsys.readouterr().out
    assert resumed_history.equals(history)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_finished_run_leaves_no_state_behind(tmp_path):
    train(Regression(), tmp_path / "run.pt")
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_gives_the_same_weights(tmp_path):
    first, second = Regression(), Regression()
    assert train(first, tmp_path / "run.pt").equals(train(second, tmp_path / "run.pt"))
    assert torch.equal(first.layers[0].weight, second.layers[0].weight)


def test_a_loss_that_is_no_number_names_the_remedy(tmp_path):
    class Diverging(Regression):
        def forward(self, *batch: torch.Tensor) -> torch.Tensor:
            return super().forward(*batch) * math.inf

    with pytest.raises(UserError, match=r"epoch 1: lower this stage's learning_rate"):
        train(Diverging(), tmp_path / "run.pt")


def test_a_run_is_kept_under_its_parameters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    same = load_params(ROOT / "params.yaml", {"evaluate.max_loss": 0.5})
    other = load_params(ROOT / "params.yaml", {"pretrain.learning_rate": 0.5})
    default = state_file("pretrain", load_params(ROOT / "params.yaml"))
    assert state_file("pretrain", same) == default
    assert state_file("pretrain", other) != default
    assert state_file("branches", same) != default


# --- branches -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> TLEE:
    torch.manual_seed(0)
    return TLEE(PARAMS.model, classes=3)


def test_branches_train_and_nothing_else(model):
    task = BranchTask(model)
    task.train()
    frames, labels = torch.randn(2, 3, 3, 64, 64), torch.tensor([0, 2])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    task(frames, labels, torch.arange(2)).backward()
    assert all(parameter.grad is not None for parameter in task.heads.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_each_strategy_has_heads_of_its_own_and_the_full_depth_in_common(model):
    task = BranchTask(model).eval()
    features = task.features(torch.randn(2, 3, 3, 64, 64))
    first, *others = (features[strategy] for strategy in STRATEGIES)
    assert first.shape == (2, 3, 4, 1280)
    for other in others:
        assert torch.equal(first[:, :, -1], other[:, :, -1])
        assert not torch.allclose(first[:, :, 0], other[:, :, 0])


def test_mixed_depths_are_taken_from_the_frames_own_exits():
    torch.manual_seed(0)
    features = torch.arange(4 * 5 * 3.0).reshape(4, 5, 3, 1)
    mixed = mix_depths(features)
    assert mixed.shape == (4, 5, 1)
    assert (mixed[:, :, None] == features).any(2).all()
    assert len(set((mixed % 3).flatten().tolist())) == 3


# --- gates ----------------------------------------------------------------------------------------------


def test_gate_labels_by_hand():
    """The largest loss at which stopping is right is beta * exp(t / (3 + b)), for each sample by itself."""
    loss = torch.tensor([0.49, 0.51, 0.7, 3.5, 3.7])
    assert exit_label(loss, t=0, b=0, beta=0.5).tolist() == [1, 0, 0, 0, 0]
    assert exit_label(loss, t=1, b=0, beta=0.5).tolist() == [1, 1, 0, 0, 0]  # 0.698
    assert exit_label(loss, t=6, b=0, beta=0.5).tolist() == [1, 1, 1, 1, 0]  # 3.695
    assert exit_label(loss, t=6, b=3, beta=0.5).tolist() == [1, 1, 1, 0, 0]  # 1.359


def test_a_gate_learns_from_the_pairs_that_inference_meets(model, monkeypatch):
    """With one video and every frame left at a known depth, the pairs can be listed."""
    monkeypatch.setattr("tlee.training.gates.random_layer_thresholds", lambda *_: torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    seen = []

    class Recorder(nn.Module):
        def forward(self, current: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
            seen.append((current[0, 0].item(), past[0, 0].item()))
            return torch.zeros(len(current))

    readout = TLEE(PARAMS.model, classes=3).readout
    readout.gate = Recorder()
    features = torch.zeros(1, 4, 4, 1280)
    features[0, :, :, 0] = torch.tensor([[1.0, 2, 9, 9], [3, 4, 9, 9], [0, 5, 9, 9], [99, 99, 99, 99]])
    pairs = GateTask(readout, beta=0.5).pairs(features, torch.tensor([0]))
    # Frames leave at depth 1 (past = 2, then 4); depths beyond it are computed for the batch but not learnt from.
    assert [pair for pair in seen if pair[0] != 9] == [(3, 2), (4, 2), (4, 4), (5, 4)]
    assert len(pairs.scores) == 4


def test_only_the_gate_learns_in_its_stage(model):
    task = GateTask(TLEE(PARAMS.model, classes=3).readout, beta=0.5)
    task(torch.randn(5, 4, 4, 1280), torch.tensor([0, 1, 2, 0, 1])).backward()
    learning = {name for name, parameter in task.named_parameters() if parameter.grad is not None}
    assert learning == {f"readout.gate.{layer}.{kind}" for layer in ("fc1", "fc2") for kind in ("weight", "bias")}


def test_random_layer_policies_leave_the_deepest_always():
    torch.manual_seed(0)
    thresholds = random_layer_thresholds(1000, 4, torch.device("cpu"))
    assert thresholds[:, -1].eq(0).all()
    assert 0.4 < thresholds[:, :-1].eq(1).double().mean() < 0.6
