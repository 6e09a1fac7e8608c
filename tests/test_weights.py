"""Weight files: what is written is read back exactly, and what does not fit is named in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support.refusals import one_line
from support.small import random_network, small_params

from tlee._torchvision import models
from tlee.backbones import build_backbone
from tlee.model import TLEE, WEIGHT_FILES, load_trained, load_whole, parts, save_trained, whole
from tlee.params import METHOD_SETTINGS, ModelParams, Params, load_params
from tlee.weights import load_state, load_tensors, save_tensors

ROOT = Path(__file__).parents[1]

PARAMS = load_params(ROOT / "params.yaml", {"model.num_branches": 3, "model.weights": None})
STAGES = ("pretrain", "branches", "gates")
CLASSES = ["Walk", "Bend", "Run"]


def with_model(**values: Any) -> Params:
    return PARAMS.model_copy(update={"model": PARAMS.model.model_copy(update=values)})


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model(frames: torch.Tensor) -> TLEE:
    """Random weights and normalisation statistics that are not the initial ones."""
    torch.manual_seed(0)
    model = TLEE(PARAMS, len(CLASSES))
    with torch.no_grad():
        model.train().full_features(frames)
    return model.eval()


@pytest.fixture
def saved(model: TLEE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, the working one, in which every stage has saved ``model``."""
    monkeypatch.chdir(tmp_path)
    for stage in STAGES:
        save_trained(model, stage, CLASSES)
    return tmp_path


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a weight file in place."""
    state, about = load_tensors(path, "a remedy")
    change(state)
    save_tensors(path, state, about)


# --- the kit's own files -------------------------------------------------------------------------


@torch.inference_mode()
def test_a_saved_network_comes_back_exactly(saved, model, frames):
    loaded, classes = load_trained(PARAMS, *STAGES)
    assert classes == CLASSES
    assert not loaded.training
    features = model.exit_features(frames)
    assert torch.equal(loaded.exit_features(frames), features)
    current, past = features[:, 1, -1], features[:, 0, -1]
    assert torch.equal(loaded.readout.classify(current, 1), model.readout.classify(current, 1))
    assert torch.equal(loaded.readout.gate(current, past, 1), model.readout.gate(current, past, 1))


@torch.inference_mode()
def test_a_stage_brings_its_part_and_no_other(saved, model, frames):
    loaded, _ = load_trained(PARAMS, "pretrain")
    assert torch.equal(loaded.full_features(frames), model.full_features(frames))
    assert torch.equal(loaded.readout.classifiers[0].weight, model.readout.classifiers[0].weight)
    assert not torch.equal(loaded.branches[0].fc.weight, model.branches[0].fc.weight)
    assert not torch.equal(loaded.readout.gates[0].fc1.weight, model.readout.gates[0].fc1.weight)


def test_the_stages_together_train_the_whole_network(model):
    trained = {id(parameter) for stage in STAGES for parameter in parts(model, stage).parameters()}
    assert trained == {id(parameter) for parameter in model.parameters()}


def test_a_weight_file_says_what_it_was_made_for(saved):
    for stage in STAGES:
        _, about = load_tensors(WEIGHT_FILES[stage], "a remedy")
        assert about["classes"] == CLASSES
        assert ModelParams.model_validate(about["model"]) == PARAMS.model


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_weights_give_the_same_bytes(saved, model, stage):
    before = WEIGHT_FILES[stage].read_bytes()
    for _ in range(8):
        assert save_trained(model, stage, CLASSES).read_bytes() == before


def test_trained_weights_do_not_need_the_file_that_training_began_with(saved, model, frames):
    params = with_model(weights="gone.safetensors")
    loaded, _ = load_trained(params, "pretrain")
    assert torch.equal(loaded.full_features(frames), model.full_features(frames))


@pytest.mark.parametrize("stage", STAGES)
def test_a_missing_file_is_named_with_a_remedy(saved, stage):
    WEIGHT_FILES[stage].unlink()
    message = one_line(lambda: load_trained(PARAMS, *STAGES))
    assert message == f"{WEIGHT_FILES[stage]} does not exist: run `dvc repro {stage}`"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.6, 0.9999])
@pytest.mark.parametrize("stage", STAGES)
def test_a_truncated_file_is_named_with_a_remedy(saved, stage, share):
    path = WEIGHT_FILES[stage]
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = one_line(lambda: load_trained(PARAMS, *STAGES))
    assert message == f"{path} is not a whole .safetensors file: run `dvc repro {stage}`"


def test_a_file_of_another_program_names_no_classes(saved):
    path = WEIGHT_FILES["pretrain"]
    state, _ = load_tensors(path, "a remedy")
    safetensors.torch.save_file(state, path)
    assert one_line(lambda: load_trained(PARAMS, *STAGES)) == f"{path} names no classes: run `dvc repro pretrain`"


KEYS = {"pretrain": "classifiers.0.weight", "branches": "branches.1.fc.bias", "gates": "gates.0.fc2.weight"}


@pytest.mark.parametrize(("stage", "key"), KEYS.items())
def test_a_lacking_key_is_named(saved, stage, key):
    path = WEIGHT_FILES[stage]
    rewrite(path, lambda state: state.pop(key))
    message = one_line(lambda: load_trained(PARAMS, *STAGES))
    assert message == f"{path} lacks tensor `{key}`, so it is of another network: run `dvc repro --force {stage}`"


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_key_is_named(saved, stage):
    path = WEIGHT_FILES[stage]
    rewrite(path, lambda state: state.update(head=torch.zeros(1)))
    message = one_line(lambda: load_trained(PARAMS, *STAGES))
    assert message.startswith(f"{path} has an unknown tensor `head`, so it is of another network: ")
    assert message.endswith(f"run `dvc repro --force {stage}`")


@pytest.mark.parametrize(("stage", "key"), KEYS.items())
def test_a_misshapen_key_is_named_with_both_shapes(saved, model, stage, key):
    path, shape = WEIGHT_FILES[stage], tuple(parts(model, stage).state_dict()[key].shape)
    rewrite(path, lambda state: state.update({key: torch.zeros(7, 5)}))
    message = one_line(lambda: load_trained(PARAMS, *STAGES))
    assert message.startswith(f"{path}: `{key}` is (7, 5) instead of {shape}, so it was made with other parameters")
    assert message.endswith(f": run `dvc repro --force {stage}`")


@pytest.mark.parametrize(
    ("parameter", "value", "file"),
    [("crm_scale", 2, "branches"), ("crm_convs", 1, "branches"), ("exits", 2, "branches")],
)
def test_weights_of_other_parameters_are_refused(saved, parameter, value, file):
    params = with_model(**{parameter: value})
    assert one_line(lambda: load_trained(params, *STAGES)).startswith(str(WEIGHT_FILES[file]))


def test_nothing_is_loaded_where_one_key_does_not_fit(model):
    state = {key: tensor + 1 for key, tensor in parts(model, "gates").state_dict().items()}
    state["gates.0.fc2.weight"] = torch.zeros(7, 5)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    message = one_line(lambda: load_state(parts(model, "gates"), state, "gates.safetensors", "a remedy"))
    assert message.startswith("gates.safetensors: `gates.0.fc2.weight`")
    assert message.endswith(": a remedy")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


# --- networks that come trained ------------------------------------------------------------------


@pytest.fixture
def trained(model: TLEE, tmp_path: Path) -> Path:
    return save_tensors(tmp_path / "trained.safetensors", whole(model).state_dict(), {"classes": CLASSES})


def test_all_that_is_trained_is_the_whole_network(model):
    assert {id(parameter) for parameter in whole(model).parameters()} == {id(each) for each in model.parameters()}


@torch.inference_mode()
def test_a_whole_network_comes_from_one_file(trained, model, frames):
    loaded = load_whole(with_model(trained=str(trained), weights="gone.safetensors"), CLASSES)
    assert not loaded.training
    assert torch.equal(loaded.exit_features(frames), model.exit_features(frames))
    own = model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.state_dict().items())


def test_a_whole_network_may_come_without_its_classes(trained, model):
    safetensors.torch.save_file(whole(model).state_dict(), trained)
    load_whole(with_model(trained=str(trained)), ["any", "three", "classes"])


REMEDY = "correct model.trained, null trains from the start"


def test_a_network_for_other_classes_is_refused(trained):
    message = one_line(lambda: load_whole(with_model(trained=str(trained)), ["Walk", "Bend"]))
    assert message == f"{trained} knows 3 classes, but the data set has 2: {REMEDY}"
    message = one_line(lambda: load_whole(with_model(trained=str(trained)), ["Walk", "Run", "Bend"]))
    assert message == f"{trained}: its class `Bend` stands where the data set has `Run`: {REMEDY}"


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"num_branches": 2}, "has an unknown tensor `branches.2.alpha`"),
        ({"readout": "per_step"}, "lacks tensor `classifiers.1.bias`"),
        ({"mlp": 9}, "lacks tensor `mlp.0.bias`"),
        ({"reuse": "ema"}, "lacks tensor `reuse.logit`"),
        ({"gate": "confidence"}, "has an unknown tensor `gates.0.fc1.bias`"),
    ],
)
def test_a_network_of_another_kind_is_refused(trained, values, fault):
    message = one_line(lambda: load_whole(with_model(trained=str(trained), **values), CLASSES))
    assert message == f"{trained} {fault}, so it is of another network: {REMEDY}"


def test_a_missing_or_broken_network_is_named_with_its_parameter(trained, tmp_path):
    missing = tmp_path / "none.safetensors"
    message = one_line(lambda: load_whole(with_model(trained=str(missing)), CLASSES))
    assert message == f"{missing} does not exist: {REMEDY}"
    trained.write_bytes(trained.read_bytes()[:1000])
    message = one_line(lambda: load_whole(with_model(trained=str(trained)), CLASSES))
    assert message == f"{trained} is not a whole .safetensors file: {REMEDY}"


# --- networks that are not all trained apart -------------------------------------------------------


@pytest.mark.usefixtures("five_layer_backbone")
@pytest.mark.parametrize("method", METHOD_SETTINGS)
@torch.inference_mode()
def test_every_method_comes_back_from_its_files(method, tmp_path, monkeypatch):
    """Those without branches or without a gate too, whose files hold nothing but their classes."""
    monkeypatch.chdir(tmp_path)
    params = small_params(method=method)
    model = random_network(params)
    for stage in STAGES:
        save_trained(model, stage, CLASSES)
    loaded, _ = load_trained(params, *STAGES)
    own = model.state_dict()
    assert own.keys() == loaded.state_dict().keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.usefixtures("five_layer_backbone")
def test_branches_that_are_trained_with_the_backbone_are_in_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = small_params({"pretrain.joint": True})
    model = random_network(params)
    assert set(parts(model, "pretrain").keys()) == {"backbone", "mlp", "reuse", "classifiers", "branches"}
    save_trained(model, "pretrain", CLASSES)
    loaded, _ = load_trained(params, "pretrain")
    assert torch.equal(loaded.branches[0].fc.weight, model.branches[0].fc.weight)


# --- weights to begin with, in torchvision's layout ----------------------------------------------


@pytest.fixture(scope="module")
def reference(frames: torch.Tensor) -> models.MobileNetV2:
    """torchvision's own network, with normalisation statistics that are not the initial ones."""
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
@pytest.mark.parametrize("exits", [0, 1, 2, 3])
def test_a_backbone_computes_what_torchvision_s_does_wherever_it_is_cut(file, reference, frames, exits):
    backbone = build_backbone("mobilenet_v2", exits, file).eval()
    expected = reference.features(backbone.normalise(frames.flatten(0, 1))).mean((2, 3))
    torch.testing.assert_close(backbone(frames).flatten(0, 1), expected)


def test_torchvision_s_names_are_read_and_its_classifier_is_left_out(file, reference):
    names = set(load_tensors(file, "a remedy")[0])
    assert {"features.0.0.weight", "features.18.1.running_mean", "classifier.1.weight"} <= names
    body = build_backbone("mobilenet_v2", 3, file).body.state_dict()
    assert set(body) == {name for name in names if not name.startswith("classifier.")}
    assert all(torch.equal(body[name], tensor) for name, tensor in reference.state_dict().items() if name in body)


def test_a_file_without_the_classifier_will_do(file, reference):
    rewrite(file, lambda state: (state.pop("classifier.1.weight"), state.pop("classifier.1.bias")))
    weight = build_backbone("mobilenet_v2", 3, file).body.features[0][0].weight
    assert torch.equal(weight, reference.features[0][0].weight)


def test_the_parameter_starts_the_whole_network_from_the_file(file, reference):
    model = TLEE(with_model(weights=str(file)), classes=3)
    assert torch.equal(model.backbone.body.features[0][0].weight, reference.features[0][0].weight)


def test_without_a_file_every_start_is_another():
    first, second = (build_backbone("mobilenet_v2", 3).body.features[0][0].weight for _ in range(2))
    assert not torch.equal(first, second)


def test_a_missing_start_is_named_with_its_parameter(tmp_path):
    message = one_line(lambda: build_backbone("mobilenet_v2", 3, tmp_path / "none.safetensors"))
    assert message.startswith(f"{tmp_path / 'none.safetensors'} does not exist")
    assert "model.weights" in message


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "resnet18.safetensors"
    safetensors.torch.save_file(models.resnet18(weights=None).state_dict(), path)
    message = one_line(lambda: build_backbone("mobilenet_v2", 3, path))
    assert message.startswith(f"{path} lacks tensor `features.0.0.weight`")
    assert "model.weights" in message
