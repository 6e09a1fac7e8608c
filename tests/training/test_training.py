"""Training: which parts learn, which stay frozen, and resuming after an interruption."""

import math
import random
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch._inductor.config
from support.refusals import one_line
from support.rows import TensorRows
from support.small import T, identity_readout, random_clips, random_network, small_params
from torch import nn

from tlee.errors import UserError
from tlee.model import TLEE
from tlee.params import PretrainParams
from tlee.paths import LOCK
from tlee.resumption import remove_recorded
from tlee.training.backbone import PretrainTask
from tlee.training.branches import STRATEGIES, BranchTask, random_depths
from tlee.training.gates import GateTask, exit_label, random_layer_thresholds
from tlee.training.loop import Task, fit, fit_stage, state_file

PARAMS = small_params({"pretrain.epochs": 5, "pretrain.batch_clips": 4})


# --- the loop -----------------------------------------------------------------------------------------


class Regression(Task):
    """A small task with dropout, so that randomness has to be resumed too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(self.layers(inputs), targets)


def data() -> TensorRows:
    generator = torch.Generator().manual_seed(0)
    return TensorRows(torch.randn(20, 3, generator=generator), torch.randn(20, 1, generator=generator))


def train(task: Regression, state: Path, settings: PretrainParams = PARAMS.pretrain):
    return fit(task, data(), settings, seed=0, validate=lambda: {"value": 1.0}, state=state)


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


def test_a_damaged_state_is_ignored_with_a_warning(tmp_path, capsys):
    whole, state = Regression(), tmp_path / "state.pt"
    history = train(whole, tmp_path / "whole.pt")
    with pytest.raises(PowerCut):
        train(Interrupted(), state)
    state.write_bytes(state.read_bytes().replace(b"history", b"mystery"))
    again = Regression()
    assert train(again, state).equals(history)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in whole.state_dict().items())
    assert f"warning: {state} is damaged" in capsys.readouterr().out


def test_a_finished_stage_repeats_its_last_epoch_until_it_is_recorded(tmp_path, monkeypatch, capsys):
    """It may have been killed while it drew its figures, or while DVC stored its outputs."""
    monkeypatch.chdir(tmp_path)

    def run_stage() -> tuple[pd.DataFrame, dict[str, torch.Tensor], float, bool]:
        remove_recorded()
        task = Regression()
        history = fit_stage("pretrain", task, data(), PARAMS.pretrain, PARAMS, lambda: {"value": 1.0})
        return history, task.state_dict(), random.random(), "resuming after epoch 4" in capsys.readouterr().out

    runs = [run_stage(), run_stage()]
    LOCK.touch()
    runs.append(run_stage())
    assert [resumed for *_, resumed in runs] == [False, True, False]
    (history, weights, number, _), *others = runs
    for other in others:
        assert other[0].equals(history)
        assert all(torch.equal(tensor, other[1][name]) for name, tensor in weights.items())
        assert other[2] == number


def test_the_same_seed_gives_the_same_weights(tmp_path):
    first, second = Regression(), Regression()
    assert train(first, tmp_path / "first.pt").equals(train(second, tmp_path / "second.pt"))
    assert torch.equal(first.layers[0].weight, second.layers[0].weight)


def test_a_loss_that_is_not_finite_names_the_remedy(tmp_path):
    class Diverging(Regression):
        def forward(self, *batch: torch.Tensor) -> torch.Tensor:
            return super().forward(*batch) * math.inf

    with pytest.raises(UserError, match=r"epoch 1: lower this stage's learning_rate"):
        train(Diverging(), tmp_path / "run.pt")


COMPILES = shutil.which("g++") and Path(sysconfig.get_path("include"), "Python.h").exists()
needs_compiler = pytest.mark.skipif(not COMPILES, reason="needs a C++ compiler: sudo apt install g++ python3-dev")
COMPILED = PARAMS.pretrain.model_copy(update={"epochs": 2, "compile": True})


@pytest.mark.slow
@needs_compiler
def test_compiled_steps_differ_by_rounding_alone(tmp_path):
    """With dropout and batch norm too, and weights keep their names."""
    plain, compiled = Regression(), Regression()
    expected = train(plain, tmp_path / "plain.pt", COMPILED.model_copy(update={"compile": False}))
    history = train(compiled, tmp_path / "compiled.pt", COMPILED)
    assert history["loss"].tolist() == pytest.approx(expected["loss"].tolist(), rel=1e-4)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert [task._compiled_call_impl is None for task in (plain, compiled)] == [True, False]


def test_steps_that_cannot_be_compiled_name_the_remedy(tmp_path):
    compiler = {"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}
    torch.compiler.reset()  # what other tests have compiled
    with torch._inductor.config.patch(compiler):
        one_line(
            lambda: train(Regression(), tmp_path / "run.pt", COMPILED),
            "no-such-compiler",
            "install a C++ compiler, such as g++, or set this stage's `compile` to false",
        )


def test_a_run_is_kept_under_its_parameters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    same = small_params({"evaluate.max_loss": 0.5})
    other = small_params({"pretrain.learning_rate": 0.5})
    default = state_file("pretrain", small_params())
    assert state_file("pretrain", same) == default
    assert state_file("pretrain", other) != default
    assert state_file("branches", same) != default


# --- the backbone -----------------------------------------------------------------------------------------


five_layers = pytest.mark.usefixtures("five_layer_backbone")
WIDTH = 12  # of its features


def one_step(task: nn.Module, *batch: torch.Tensor) -> set[str]:
    """Take one large step; the names of what has changed, parameters and buffers."""
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    task.train()
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], 1.0)
    task(*batch).backward()
    optimizer.step()
    return {name for name, tensor in task.state_dict().items() if not torch.equal(tensor, before[name])}


def clips_and_labels(model: TLEE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return random_clips(model, videos=4), torch.tensor([0, 1, 2, 1]), torch.arange(4)


def modules(names: set[str]) -> set[str]:
    """``model.backbone`` of ``model.backbone.body.0.weight``."""
    return {".".join(name.split(".")[:3]) for name in names if "num_batches" not in name}


@five_layers
def test_the_backbone_learns_with_the_classifier_alone():
    model = random_network(small_params(mlp=20, reuse="attention"))
    learned = modules(one_step(PretrainTask(model), *clips_and_labels(model)))
    assert learned == {
        "model.backbone.body",
        *(f"model.mlp.{layer}" for layer in (0, 1)),
        "model.readout.reuse",
        "model.readout.classifiers",
    }


@five_layers
def test_jointly_the_branches_learn_too():
    model = random_network(small_params({"pretrain.joint": True}))
    task = PretrainTask(model)
    learned = modules(one_step(task, *clips_and_labels(model)))
    assert learned == {"model.backbone.body", "model.branches.0", "model.branches.1", "model.readout.classifiers"}
    model.eval()
    clips, labels, rows = clips_and_labels(model)
    features = model.exit_features(clips)
    losses = [model.readout.prefix_loss(features, depth, labels) for depth in range(3)]
    torch.testing.assert_close(task.eval()(clips, labels, rows), sum(losses))


@five_layers
@pytest.mark.parametrize("layers", [0, 1, 3, 5])
def test_frozen_layers_keep_parameters_and_statistics(layers):
    model = random_network(small_params({"pretrain.frozen_layers": layers}))
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    task = PretrainTask(model)
    one_step(task, *clips_and_labels(model))
    after = model.backbone.state_dict()
    changed = {int(name.split(".")[1]) for name in after if not torch.equal(after[name], before[name])}
    assert changed == set(range(layers, 5))
    assert [layer[1].training for layer in model.backbone.body] == [index >= layers for index in range(5)]


@five_layers
def test_more_frozen_layers_than_there_are_name_the_parameter():
    with pytest.raises(UserError, match=r"pretrain.frozen_layers is 8, but this backbone has 7: lower it"):
        PretrainTask(random_network(small_params({"pretrain.frozen_layers": 8})))


@five_layers
def test_frozen_statistics_stay_and_the_weights_still_learn():
    model = random_network(small_params())
    settings = model.params.pretrain.model_copy(update={"batch_norm": "frozen"})
    model.params = model.params.model_copy(update={"pretrain": settings})
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    one_step(PretrainTask(model), *clips_and_labels(model))
    after = model.backbone.state_dict()
    kept = {name.rpartition(".")[2] for name in after if torch.equal(after[name], before[name])}
    changed = {name.rpartition(".")[2] for name in after if not torch.equal(after[name], before[name])}
    assert {"running_mean", "running_var", "num_batches_tracked"} <= kept
    assert {"weight", "bias"} <= changed


def test_statistics_that_do_not_exist_cannot_be_frozen():
    with pytest.raises(UserError, match=r"`pretrain.batch_norm` is 'frozen', but `model.weights` is null"):
        small_params({"pretrain.batch_norm": "frozen"})


@five_layers
@pytest.mark.parametrize("rate", [1.0, 10.0])
def test_the_heads_have_a_learning_rate_of_their_own(rate):
    model = random_network(small_params({"pretrain.head_rate": rate, "pretrain.frozen_layers": 2}))
    rates = PretrainTask(model).rates()
    heads = {id(parameter) for parameter in rates[rate]}
    assert {id(parameter) for parameter in model.readout.classifiers.parameters()} <= heads
    trained = [each for each in model.parameters() if each.requires_grad]
    assert sum(len(part) for part in rates.values()) == len(trained)
    assert all((id(each) in heads) == (rate == 1) for each in model.backbone.body[2].parameters())


@five_layers
def test_dropout_and_label_smoothing_change_the_loss_of_training_as_published():
    model = random_network(small_params({"pretrain.dropout": 0.5, "pretrain.label_smoothing": 0.2}))
    task, batch = PretrainTask(model), clips_and_labels(model)
    drawn = {task.train()(*batch).item() for _ in range(3)}
    assert len(drawn) == 3
    logits = model.eval().readout.prefix_logits(model.full_features(batch[0]), 0)
    right = logits.log_softmax(-1).gather(2, batch[1][:, None, None].expand(-1, T, 1))[..., 0]
    smooth = -(0.8 * right + 0.2 * logits.log_softmax(-1).mean(-1)).mean()
    torch.testing.assert_close(task.eval()(*batch), smooth)


def test_label_smoothing_of_several_labels_moves_them_to_one_half():
    readout = identity_readout()
    readout.multi_label = True
    logits, targets = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]])
    expected = nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor([[0.9, 0.1]]))
    torch.testing.assert_close(readout.loss(logits, targets, smoothing=0.2), expected[None])


@five_layers
@pytest.mark.parametrize("multi_label", [False, True])
def test_branches_learn_a_share_from_the_full_depth_and_it_learns_nothing_from_them(multi_label):
    model = random_network(small_params({"pretrain.joint": True, "pretrain.distillation": 1.0}))
    model.readout.multi_label = multi_label
    clips, labels, rows = clips_and_labels(model)
    targets = nn.functional.one_hot(labels, 3).float() if multi_label else labels
    task = PretrainTask(model).eval()
    features = model.exit_features(clips)
    full = model.readout.prefix_loss(features, 2, targets)
    assert task(clips, targets, rows) > full
    same = features[:, :, 2:].expand(-1, -1, 3, -1)  # branches that predict what the full depth does
    model.exit_features = lambda clips: same
    torch.testing.assert_close(task(clips, targets, rows), full)


# --- branches -------------------------------------------------------------------------------------------


def branch_task(model: TLEE) -> BranchTask:
    return BranchTask(model, {strategy: model.new_branches() for strategy in STRATEGIES})


@five_layers
def test_branches_train_and_nothing_else():
    model = random_network(small_params(branch="conv"))
    task = branch_task(model)
    learned = modules(one_step(task, *clips_and_labels(model)))
    assert learned == {f"heads.{strategy}.{branch}" for strategy in STRATEGIES for branch in (0, 1)}
    assert not any(parameter.requires_grad for parameter in model.parameters())


@five_layers
def test_each_strategy_has_heads_of_its_own_and_the_full_depth_in_common():
    model = random_network(small_params(mlp=20))
    features = branch_task(model).eval().features(random_clips(model, videos=2))
    first, *others = (features[strategy] for strategy in STRATEGIES)
    assert first.shape == (2, T, 3, 20)
    for other in others:
        assert torch.equal(first[:, :, -1], other[:, :, -1])
        assert not torch.allclose(first[:, :, 0], other[:, :, 0])


@five_layers
def test_the_losses_of_the_strategies_by_hand(monkeypatch):
    depths = torch.tensor([[0, 1, 2, 0]])
    monkeypatch.setattr("tlee.training.branches.random_depths", lambda features, clips: depths.expand(clips, -1))
    model = random_network(small_params(accumulate="visited"))
    task = branch_task(model).eval()
    clips, labels, rows = clips_and_labels(model)
    expected = 0.0
    for strategy, features in task.features(clips).items():
        own = [model.readout.prefix_loss(features, depth, labels) for depth in (0, 1)]
        mixed = model.readout.prefix_loss(features, depths.expand(4, -1), labels)
        distance = sum((features[:, :, depth] - features[:, :, 2]).square().mean() for depth in (0, 1))
        expected += sum(own) + mixed * (strategy != "own_depth") + distance * (strategy == "distilled")
    torch.testing.assert_close(task(clips, labels, rows), expected)


def test_random_depths_are_those_there_are():
    torch.manual_seed(0)
    depths = random_depths(torch.zeros(1, 5, 3, 2), 40)
    assert depths.shape == (40, 5)
    assert depths.unique().tolist() == [0, 1, 2]


# --- gates ----------------------------------------------------------------------------------------------


def test_gate_labels_by_hand():
    """The largest loss at which the label is to stop is beta * exp(t / (3 + b)), for each sample by itself."""
    loss = torch.tensor([0.49, 0.51, 0.7, 3.5, 3.7])
    assert exit_label(loss, t=0, patience=3, beta=0.5).tolist() == [1, 0, 0, 0, 0]
    assert exit_label(loss, t=1, patience=3, beta=0.5).tolist() == [1, 1, 0, 0, 0]  # 0.698
    assert exit_label(loss, t=6, patience=3, beta=0.5).tolist() == [1, 1, 1, 1, 0]  # 3.695
    assert exit_label(loss, t=6, patience=6, beta=0.5).tolist() == [1, 1, 1, 0, 0]  # 1.359
    assert exit_label(loss, t=4, patience=2, beta=0.5).tolist() == [1, 1, 1, 1, 0]  # 3.695, FrameExit's


@five_layers
@pytest.mark.parametrize(
    ("method", "patience"), [("tlee", [3, 4, 5]), ("frameexit", [2]), ("layer", [3, 4, 5]), ("full", [3])]
)
def test_label_patience_is_that_of_the_papers(method, patience):
    assert GateTask(random_network(small_params(method=method))).patience == patience


def test_labels_are_given_at_each_depth_and_step(monkeypatch):
    """Frames run to the end; of every pair the loss is ln 2, which is enough from some step on."""
    monkeypatch.setattr("tlee.training.gates.random_layer_thresholds", lambda *_: torch.tensor([[1.0, 1.0, 0.0]]))
    task = gate_task(reuse="none", frames=6, beta=0.4)  # ln 2 / 0.4 = exp(0.5498): patience 3: from t = 2 on
    pairs = task.pairs(torch.zeros(1, 6, 3, 2), torch.tensor([0]), torch.tensor([[True, False]]))
    assert pairs.stop.view(4, 3).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert pairs.correct.all()  # of equal scores the first counts


class Recorder(Task):
    """A gate that notes the first numbers of what it compares."""

    def __init__(self):
        super().__init__()
        self.seen: list[tuple[float, float]] = []

    def forward(self, current: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        self.seen.append((current[0, 0].item(), past[0, 0].item()))
        return torch.zeros(len(current))


def gate_task(frames: int = T, beta: float = 0.5, **model: Any) -> GateTask:
    """Of a readout whose logits are its two features."""
    settings = {"extract.frames": frames, "gates.beta": beta}
    network = nn.Module()
    network.params, network.num_exits = small_params(settings, **model), 3
    network.readout = identity_readout(**model)
    return GateTask(network)


FEATURES = torch.zeros(1, 4, 3, 2)
FEATURES[0, :, :, 0] = torch.tensor([[1.0, 2, 9], [3, 4, 9], [0, 5, 9], [99, 99, 99]])


@pytest.mark.parametrize(
    ("model", "pairs"),
    [
        ({"reuse": "max"}, [(3, 2), (4, 2), (4, 4), (5, 4)]),
        ({"reuse": "max", "accumulate": "visited"}, [(3, 2), (4, 2), (4, 4), (5, 4)]),
        ({"reuse": "none"}, [(3, 2), (4, 2), (0, 4), (5, 4)]),
        ({"reuse": "mean"}, [(2.5, 2), (3, 2), (2, 3), (11 / 3, 3)]),
        ({"reuse": "mean", "accumulate": "visited"}, [(2, 1.5), (2.5, 1.5), (2, 2.5), (2.5, 2.5)]),
        ({"reuse": "add", "accumulate": "visited"}, [(6, 3), (10, 3), (10, 10), (15, 10)]),
        ({"reuse": "max", "accumulate": "published"}, [(3, 2), (4, 3), (4, 4), (5, 4)]),
        ({"reuse": "mean", "accumulate": "published"}, [(2.5, 2), (3, 2.5), (2.25, 3), (2.8, 2.25)]),
    ],
)
def test_a_gate_learns_from_the_pairs_that_inference_meets(monkeypatch, model, pairs):
    """With one video and every frame left at depth 1, the pairs can be listed."""
    monkeypatch.setattr("tlee.training.gates.random_layer_thresholds", lambda *_: torch.tensor([[1.0, 0.0, 0.0]]))
    task = gate_task(**model)
    recorder = Recorder()
    task.readout.gates = nn.ModuleList([recorder])
    found = task.pairs(FEATURES, torch.tensor([0]), torch.tensor([[True, False]]))
    # Depth 2 is computed for the batch but not trained on.
    inside = [pair for index, pair in enumerate(recorder.seen) if index % 3 < 2]
    assert inside == [pytest.approx(pair) for pair in pairs]
    assert len(found.scores) == 4


def test_each_step_learns_its_gate():
    task = gate_task(readout="per_step")
    recorders = [Recorder(), Recorder()]
    task.readout.gates = nn.ModuleList(recorders)
    task.pairs(FEATURES, torch.tensor([0]), torch.tensor([[True, False]]))
    assert [len(recorder.seen) for recorder in recorders] == [3, 3]  # depths of the steps 1 and 2
    assert [recorder.seen[0][0] >= 3 for recorder in recorders] == [True, True]


@pytest.mark.parametrize(("gate", "readout"), [("mlp", "shared"), ("frameexit", "shared"), ("frameexit", "per_step")])
def test_only_the_gates_learn_in_their_stage(gate, readout):
    task = gate_task(gate=gate, readout=readout, reuse="attention")
    task.train()
    truth = torch.eye(2, dtype=torch.bool)[[0, 1, 1, 0, 1]]
    task(torch.randn(5, T, 3, 2), torch.tensor([0, 1, 1, 0, 1]), truth).backward()
    learning = {name for name, parameter in task.named_parameters() if parameter.grad is not None}
    assert learning == {name for name, _ in task.named_parameters() if name.startswith("readout.gates.")}
    assert len(task.readout.gates) == (2 if readout == "per_step" else 1)


def test_several_labels_have_one_loss_and_any_is_correct(monkeypatch):
    monkeypatch.setattr("tlee.training.gates.random_layer_thresholds", lambda *_: torch.tensor([[1.0, 0.0, 0.0]]))
    task = gate_task()
    task.readout.multi_label = True
    truth = torch.tensor([[True, True]])
    pairs = task.pairs(FEATURES, truth.float(), truth)
    assert pairs.correct.all()
    assert pairs.confidence[0].item() == pytest.approx(torch.tensor(3.0).sigmoid().item())  # of class 0, at 3


def test_random_layer_policies_leave_the_deepest_always():
    torch.manual_seed(0)
    thresholds = random_layer_thresholds(1000, 4, torch.device("cpu"))
    assert thresholds[:, -1].eq(0).all()
    assert 0.4 < thresholds[:, :-1].eq(1).double().mean() < 0.6
