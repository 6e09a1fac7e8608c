"""Weight files: exact round trips, and one-line errors for tensors that do not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support.refusals import one_line
from support.small import in_place_of_resnet18, random_network, small_params

from tlee._torchvision import models
from tlee.backbones import build_backbone
from tlee.model import TLEE, WEIGHT_FILES, load_trained, load_whole, parts, save_trained, whole
from tlee.params import METHOD_SETTINGS, ModelParams, Params
from tlee.weights import load_state, load_tensors, save_tensors

pytestmark = pytest.mark.usefixtures("five_layer_backbone")  # a small backbone stands for all

PARAMS = small_params(num_branches=3)
STAGES = ("pretrain", "branches", "gates")
CLASSES = ["Walk", "Bend", "Run"]


def with_model(**values: Any) -> Params:
    return PARAMS.model_copy(update={"model": PARAMS.model.model_copy(update=values)})


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model(frames: torch.Tensor) -> TLEE:
    """Network with random weights, and batch norm statistics that differ from the initial ones."""
    torch.manual_seed(0)
    with in_place_of_resnet18(), torch.no_grad():
        model = TLEE(PARAMS, len(CLASSES))
        model.train().full_features(frames)
    return model.eval()


@pytest.fixture
def saved(model: TLEE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Project folder, also the working folder, in which every stage has saved ``model``."""
    monkeypatch.chdir(tmp_path)
    for stage in STAGES:
        save_trained(model, stage, CLASSES)
    return tmp_path


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a weight file in place."""
    state, about = load_tensors(path, "a remedy")
    change(state)
    save_tensors(path, state, about)


# --- files of the stages -------------------------------------------------------------------------


@torch.inference_mode()
def test_a_saved_network_is_loaded_exactly(saved, model, frames):
    loaded, classes = load_trained(PARAMS, *STAGES)
    assert classes == CLASSES
    assert not loaded.training
    features = model.exit_features(frames)
    assert torch.equal(loaded.exit_features(frames), features)
    current, past = features[:, 1, -1], features[:, 0, -1]
    assert torch.equal(loaded.readout.classify(current, 1), model.readout.classify(current, 1))
    assert torch.equal(loaded.readout.gate(current, past, 1), model.readout.gate(current, past, 1))


@torch.inference_mode()
def test_the_file_of_a_stage_loads_its_part_and_no_other(saved, model, frames):
    loaded, _ = load_trained(PARAMS, "pretrain")
    assert torch.equal(loaded.full_features(frames), model.full_features(frames))
    assert torch.equal(loaded.readout.classifiers[0].weight, model.readout.classifiers[0].weight)
    assert not torch.equal(loaded.branches[0].fc.weight, model.branches[0].fc.weight)
    assert not torch.equal(loaded.readout.gates[0].fc1.weight, model.readout.gates[0].fc1.weight)


def test_the_stages_together_train_the_whole_network(model):
    trained = {id(parameter) for stage in STAGES for parameter in parts(model, stage).parameters()}
    assert trained == {id(parameter) for parameter in model.parameters()}


def test_a_weight_file_contains_classes_and_model_parameters(saved):
    for stage in STAGES:
        _, about = load_tensors(WEIGHT_FILES[stage], "a remedy")
        assert about["classes"] == CLASSES
        assert ModelParams.model_validate(about["model"]) == PARAMS.model


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_weights_give_the_same_bytes(saved, model, stage):
    before = WEIGHT_FILES[stage].read_bytes()
    for _ in range(8):
        assert save_trained(model, stage, CLASSES).read_bytes() == before


def test_trained_weights_do_not_need_the_pretrained_file(saved, model, frames):
    params = with_model(weights="gone.safetensors")
    loaded, _ = load_trained(params, "pretrain")
    assert torch.equal(loaded.full_features(frames), model.full_features(frames))


@pytest.mark.parametrize("stage", STAGES)
def test_a_missing_file_is_named_with_a_remedy(saved, stage):
    WEIGHT_FILES[stage].unlink()
    one_line(lambda: load_trained(PARAMS, *STAGES), f"{WEIGHT_FILES[stage]} does not exist", f"`dvc repro {stage}`")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.6, 0.9999])
@pytest.mark.parametrize("stage", STAGES)
def test_a_truncated_file_is_named_with_a_remedy(saved, stage, share):
    path = WEIGHT_FILES[stage]
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    one_line(lambda: load_trained(PARAMS, *STAGES), path, f"`dvc repro {stage}`")


def test_a_file_without_classes_is_refused(saved):
    path = WEIGHT_FILES["pretrain"]
    state, _ = load_tensors(path, "a remedy")
    safetensors.torch.save_file(state, path)
    one_line(lambda: load_trained(PARAMS, *STAGES), path, "classes", "`dvc repro pretrain`")


KEYS = {"pretrain": "classifiers.0.weight", "branches": "branches.1.fc.bias", "gates": "gates.0.fc2.weight"}


@pytest.mark.parametrize(("stage", "key"), KEYS.items())
def test_a_missing_tensor_is_named(saved, stage, key):
    path = WEIGHT_FILES[stage]
    rewrite(path, lambda state: state.pop(key))
    one_line(lambda: load_trained(PARAMS, *STAGES), path, f"lacks tensor `{key}`", f"`dvc repro --force {stage}`")


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_tensor_is_named(saved, stage):
    path = WEIGHT_FILES[stage]
    rewrite(path, lambda state: state.update(head=torch.zeros(1)))
    one_line(lambda: load_trained(PARAMS, *STAGES), path, "unknown tensor `head`", f"`dvc repro --force {stage}`")


@pytest.mark.parametrize(("stage", "key"), KEYS.items())
def test_a_misshapen_tensor_is_named_with_both_shapes(saved, model, stage, key):
    path, shape = WEIGHT_FILES[stage], tuple(parts(model, stage).state_dict()[key].shape)
    rewrite(path, lambda state: state.update({key: torch.zeros(7, 5)}))
    shapes = f"`{key}` is (7, 5) instead of {shape}"
    one_line(lambda: load_trained(PARAMS, *STAGES), path, shapes, f"`dvc repro --force {stage}`")


@pytest.mark.parametrize(
    ("parameter", "value", "file"),
    [("crm_scale", 2, "branches"), ("crm_convs", 1, "branches"), ("num_branches", 2, "branches")],
)
def test_weights_of_other_parameters_are_refused(saved, parameter, value, file):
    params = with_model(**{parameter: value})
    one_line(lambda: load_trained(params, *STAGES), WEIGHT_FILES[file], f"`dvc repro --force {file}`")


def test_nothing_is_loaded_if_one_tensor_does_not_fit(model):
    state = {key: tensor + 1 for key, tensor in parts(model, "gates").state_dict().items()}
    state["gates.0.fc2.weight"] = torch.zeros(7, 5)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    gates = parts(model, "gates")
    expected = ("gates.safetensors", "`gates.0.fc2.weight`", "a remedy")
    one_line(lambda: load_state(gates, state, "gates.safetensors", "a remedy"), *expected)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


# --- trained networks from one file --------------------------------------------------------------


@pytest.fixture
def trained(model: TLEE, tmp_path: Path) -> Path:
    return save_tensors(tmp_path / "trained.safetensors", whole(model).state_dict(), {"classes": CLASSES})


def test_a_file_of_all_stages_contains_every_parameter(model):
    trained = {id(parameter) for parameter in whole(model).parameters()}
    assert trained == {id(parameter) for parameter in model.parameters()}


@torch.inference_mode()
def test_a_whole_network_is_loaded_from_one_file(trained, model, frames):
    loaded = load_whole(with_model(trained=str(trained), weights="gone.safetensors"), CLASSES)
    assert not loaded.training
    assert torch.equal(loaded.exit_features(frames), model.exit_features(frames))
    own = model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.state_dict().items())


def test_a_file_of_a_whole_network_may_have_no_classes(trained, model):
    safetensors.torch.save_file(whole(model).state_dict(), trained)
    load_whole(with_model(trained=str(trained)), ["any", "three", "classes"])


def test_a_network_for_other_classes_is_refused(trained):
    params = with_model(trained=str(trained))
    one_line(lambda: load_whole(params, ["Walk", "Bend"]), trained, "3 classes", "has 2", "model.trained")
    one_line(lambda: load_whole(params, ["Walk", "Run", "Bend"]), trained, "`Bend`", "`Run`", "model.trained")


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"num_branches": 2}, "unknown tensor `branches.2.alpha`"),
        ({"readout": "per_step"}, "lacks tensor `classifiers.1.bias`"),
        ({"mlp": 9}, "lacks tensor `mlp.0.bias`"),
        ({"reuse": "ema"}, "lacks tensor `reuse.logit`"),
        ({"gate": "confidence"}, "unknown tensor `gates.0.fc1.bias`"),
    ],
)
def test_a_network_of_another_kind_is_refused(trained, values, fault):
    params = with_model(trained=str(trained), **values)
    one_line(lambda: load_whole(params, CLASSES), trained, fault, "model.trained")


def test_a_missing_or_damaged_network_is_named_with_its_parameter(trained, tmp_path):
    missing = tmp_path / "none.safetensors"
    params = with_model(trained=str(missing))
    one_line(lambda: load_whole(params, CLASSES), f"{missing} does not exist", "model.trained")
    trained.write_bytes(trained.read_bytes()[:1000])
    one_line(lambda: load_whole(with_model(trained=str(trained)), CLASSES), trained, "damaged", "model.trained")


# --- methods and joint training --------------------------------------------------------------------


@pytest.mark.parametrize("method", METHOD_SETTINGS)
@torch.inference_mode()
def test_every_method_is_loaded_from_its_files(method, tmp_path, monkeypatch):
    """Also methods without branches or without a gate, whose files contain nothing but the classes."""
    monkeypatch.chdir(tmp_path)
    params = small_params(method=method)
    model = random_network(params)
    for stage in STAGES:
        save_trained(model, stage, CLASSES)
    loaded, _ = load_trained(params, *STAGES)
    own = model.state_dict()
    assert own.keys() == loaded.state_dict().keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.state_dict().items())


def test_jointly_trained_branches_are_in_the_file_of_the_backbone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = small_params({"pretrain.joint": True})
    model = random_network(params)
    assert set(parts(model, "pretrain").keys()) == {"backbone", "mlp", "reuse", "classifiers", "branches"}
    save_trained(model, "pretrain", CLASSES)
    loaded, _ = load_trained(params, "pretrain")
    assert torch.equal(loaded.branches[0].fc.weight, model.branches[0].fc.weight)


# --- pretrained weights in torchvision's layout --------------------------------------------------


@pytest.fixture(scope="module")
def reference(frames: torch.Tensor) -> models.MobileNetV2:
    """torchvision's MobileNetV2, with batch norm statistics that differ from the initial ones."""
    torch.manual_seed(2)
    network = models.mobilenet_v2(weights=None)
    with torch.no_grad():
        network.train()(frames.flatten(0, 1))
    return network.eval()


@pytest.fixture
def file(reference: models.MobileNetV2, tmp_path: Path) -> Path:
    path = tmp_path / "mobilenet_v2.safetensors"
    safetensors.torch.save_file(reference.state_dict(), path)
    return path


@torch.inference_mode()
@pytest.mark.parametrize("num_branches", [0, 1, 2, 3])
def test_a_backbone_has_the_features_of_torchvision_at_any_number_of_cuts(file, reference, frames, num_branches):
    backbone = build_backbone("mobilenet_v2", num_branches, file).eval()
    expected = reference.features(backbone.normalise(frames.flatten(0, 1))).mean((2, 3))
    torch.testing.assert_close(backbone(frames).flatten(0, 1), expected)


def test_names_of_torchvision_are_read_and_its_classifier_is_ignored(file, reference):
    names = set(load_tensors(file, "a remedy")[0])
    assert {"features.0.0.weight", "features.18.1.running_mean", "classifier.1.weight"} <= names
    body = build_backbone("mobilenet_v2", 3, file).body.state_dict()
    assert set(body) == {name for name in names if not name.startswith("classifier.")}
    assert all(torch.equal(body[name], tensor) for name, tensor in reference.state_dict().items() if name in body)


def test_a_file_without_the_classifier_is_accepted(file, reference):
    rewrite(file, lambda state: (state.pop("classifier.1.weight"), state.pop("classifier.1.bias")))
    weight = build_backbone("mobilenet_v2", 3, file).body.features[0][0].weight
    assert torch.equal(weight, reference.features[0][0].weight)


def test_the_network_starts_from_the_weights_of_the_parameter(file, reference):
    model = TLEE(with_model(backbone="mobilenet_v2", weights=str(file)), classes=3)
    assert torch.equal(model.backbone.body.features[0][0].weight, reference.features[0][0].weight)


def test_without_a_file_initial_weights_are_random():
    first, second = (build_backbone("mobilenet_v2", 3).body.features[0][0].weight for _ in range(2))
    assert not torch.equal(first, second)


def test_a_missing_file_is_named_with_its_parameter(tmp_path):
    path = tmp_path / "none.safetensors"
    one_line(lambda: build_backbone("mobilenet_v2", 3, path), f"{path} does not exist", "model.weights")


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "resnet18.safetensors"
    safetensors.torch.save_file(models.resnet18(weights=None).state_dict(), path)
    lacking = "lacks tensor `features.0.0.weight`"
    one_line(lambda: build_backbone("mobilenet_v2", 3, path), path, lacking, "model.weights")
