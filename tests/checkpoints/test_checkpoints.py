"""Published checkpoints: the imported network has the features and decisions of the authors' network."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from support import authors_networks as authors
from support.refusals import one_line
from torch import nn
from typer.testing import CliRunner

import tlee.__main__ as command_line
from tlee._torchvision import models
from tlee.checkpoints import LAYOUTS, import_checkpoint, report
from tlee.costs import count_costs
from tlee.model import TLEE, load_whole, whole
from tlee.params import Params, load_params
from tlee.policies.inference import run
from tlee.policies.sources import LiveFeatures, StoredFeatures
from tlee.policies.thresholds import Thresholds
from tlee.weights import load_tensors

VIDEOS, SIZE = 6, 64
PARAMS_FILE = Path(__file__).parents[2] / "params.yaml"
CLASSES = [str(number) for number in range(authors.CLASSES)]


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    """Different videos ``[N, T, 3, S, S]``: coarse random maps, enlarged."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(VIDEOS * authors.FRAMES, 3, 8, 8, generator=generator)
    return nn.functional.interpolate(coarse, SIZE).unflatten(0, (VIDEOS, authors.FRAMES))


@pytest.fixture(scope="module")
def frameexit_state(clips: torch.Tensor) -> authors.State:
    """Checkpoint of FrameExit whose gates each stop about half of the videos."""
    state = authors.frameexit_checkpoint(clips)
    z = authors.frameexit_features(state, clips)[:, :, 0].cummax(1).values
    for index in range(authors.FRAMES - 2):
        authors.balance_gate(state, index, z[:, index + 1], z[:, index])
    return state


def tlee_state(clips: torch.Tensor, gate: str | None, mlp: int | None) -> authors.State:
    """Return a checkpoint of TLEE whose gate stops about half of the videos."""
    state = authors.tlee_checkpoint(clips, gate, mlp)
    if gate:
        z = authors.tlee_features(state, clips)[:, :, -1].cummax(1).values
        authors.balance_gate(state, 0, z[:, 1:].flatten(0, 1), z[:, :-1].flatten(0, 1))
    return state


def imported(folder: Path, content: object, layout: str, **options) -> tuple[TLEE, Params]:
    """Save, import and load ``content`` with the parameters of the report, except for a small input size."""
    torch.save(content, folder / "published.pth")
    done = import_checkpoint(folder / "published.pth", layout, PARAMS_FILE, folder / "it.safetensors", **options)
    params = load_params(PARAMS_FILE, reported_parameters(report(done)) | {"model.input_size": SIZE})
    return load_whole(params, done.classes), params


def reported_parameters(text: str) -> dict[str, object]:
    """Parse the YAML at the end of a report: values by dotted key."""
    sections = yaml.safe_load(text.split("set in params.yaml:")[1])
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}


def refusal(folder: Path, content: object, layout: str, *expected: object, **options) -> str:
    """Return the error line of an import, which must contain ``expected``."""
    return one_line(lambda: imported(folder, content, layout, **options), *expected)


# --- FrameExit -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frameexit_model(frameexit_state: authors.State, tmp_path_factory: pytest.TempPathFactory) -> tuple[TLEE, Params]:
    parallel = {f"module.{name}": tensor for name, tensor in frameexit_state.items()}
    return imported(tmp_path_factory.mktemp("frameexit"), parallel, "frameexit")


@pytest.mark.slow
@torch.inference_mode()
def test_frameexit_classifiers_agree_with_the_authors(frameexit_state, frameexit_model, clips):
    model, _ = frameexit_model
    theirs, ours = authors.frameexit_features(frameexit_state, clips), model.exit_features(clips)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    z = theirs[:, :, 0].cummax(1).values
    logits = [authors.apply_linear(frameexit_state, f"classifiers.{t}", z[:, t]) for t in range(authors.FRAMES)]
    torch.testing.assert_close(model.readout.prefix_logits(ours, 0), torch.stack(logits, 1), rtol=1e-3, atol=1e-3)
    assert z.std() > 0.1


@pytest.mark.slow
@torch.inference_mode()
def test_frameexit_gates_are_negated(frameexit_state, frameexit_model, clips):
    model, _ = frameexit_model
    z = model.exit_features(clips)[:, :, 0].cummax(1).values
    for t in range(1, authors.FRAMES - 1):
        theirs = authors.gate_score(frameexit_state, t - 1, z[:, t], z[:, t - 1])
        torch.testing.assert_close(model.readout.gate(z[:, t], z[:, t - 1], t), -theirs, rtol=1e-3, atol=1e-4)
    assert len(model.readout.gates) == authors.FRAMES - 2


@pytest.mark.slow
@torch.inference_mode()
def test_frameexit_videos_stop_at_the_same_frames_as_the_authors(frameexit_state, frameexit_model, clips):
    model, _ = frameexit_model
    features = authors.frameexit_features(frameexit_state, clips)
    confidences = authors.apply_linear(frameexit_state, "classifiers.0", features[:, 0, 0]).softmax(1).amax(1)
    first = authors.between(confidences, 0.8)
    used, logits = authors.frameexit_decisions(frameexit_state, features, first)
    policy = Thresholds(layer=(), first=(first,), gate=(0.5,), stop=(1.0,))
    outcomes = run(StoredFeatures(model.exit_features(clips)), model.readout, policy, count_costs(model))
    assert outcomes.frames.tolist() == used
    assert len(set(used)) > 2
    torch.testing.assert_close(outcomes.logits, logits, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_frameexit_reports_all_parameters(frameexit_model):
    _, params = frameexit_model
    model, evaluate = params.model, params.evaluate
    assert (model.method, model.backbone, model.mlp, model.num_branches) == ("frameexit", "resnet50", 96, 0)
    assert (model.readout, model.gate, model.reuse) == ("per_step", "frameexit", "max")
    assert (evaluate.first_threshold, evaluate.gate_threshold, params.extract.frames) == (0.99, 0.5, authors.FRAMES)


@pytest.mark.slow
def test_frameexit_with_two_frames_has_no_gate(frameexit_state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = ("backbone.", "mlp.", "classifiers.0.", "classifiers.1.", "exit_selector.0.")
    short = {name: tensor for name, tensor in frameexit_state.items() if name.startswith(kept)}
    params_file = tmp_path / "params.yaml"
    few = re.sub(r"\bframes: \d+", "frames: 2", PARAMS_FILE.read_text(encoding="utf-8"))
    params_file.write_text(few, encoding="utf-8")
    torch.save(short, tmp_path / "two.pth")
    done = import_checkpoint(tmp_path / "two.pth", "frameexit", params_file, tmp_path / "two.safetensors")
    model = load_whole(load_params(params_file, reported_parameters(report(done))), CLASSES)
    assert (len(model.readout.classifiers), len(model.readout.gates)) == (2, 0)


# --- TLEE ----------------------------------------------------------------------------------------


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("mlp", [None, 80])
@pytest.mark.parametrize("gate", ["mlp", "frameexit"])
def test_tlee_exits_are_those_of_the_authors(clips, tmp_path, gate, mlp):
    state = tlee_state(clips, gate, mlp)
    training = {"module." + name: tensor for name, tensor in state.items()}
    model, params = imported(tmp_path, {"state_dict": training, "epoch": 25, "best_prec1": 80.5}, "tlee")
    assert (params.model.num_branches, params.model.gate, params.model.mlp) == (3, gate, mlp)
    assert params.model.accumulate == "published"

    theirs, ours = authors.tlee_features(state, clips), model.exit_features(clips)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    z = theirs[:, :, -1].cummax(1).values
    score = authors.gate_score(state, 0, z[:, 2], z[:, 1])
    torch.testing.assert_close(model.readout.gate(z[:, 2], z[:, 1], 2), score, rtol=1e-3, atol=1e-4)

    confidences = authors.apply_linear(state, "classifiers.0", theirs).softmax(-1).amax(-1)
    first, layer = authors.between(confidences[:, 0], 0.9), authors.between(confidences, 0.8)
    paths, logits = authors.tlee_decisions(state, theirs, first, layer)
    policy = Thresholds(layer=(layer,) * 3, first=(first,) * 4, gate=(0.5,) * 4, stop=(1.0,) * 4)
    outcomes = run(StoredFeatures(ours), model.readout, policy, count_costs(model))
    assert outcomes.exit_depths.tolist() == paths
    assert len({depth for path in paths for depth in path}) > 2
    torch.testing.assert_close(outcomes.logits, logits, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize(("name", "weight"), [("ap", 0.5), ("ema", 0.999), (None, 0.8)])
def test_tlee_exits_are_those_of_the_authors_with_a_mean_of_two_features(clips, tmp_path, name, weight):
    """The authors' code saves no weight of the past; without a name, the file has a learned one."""
    state, options = tlee_state(clips, "mlp", None), {} if name is None else {"reuse": name}
    if name is None:
        state["feature_func.beta"] = torch.tensor(weight)
    model, params = imported(tmp_path, state, "tlee", **options)
    assert params.model.reuse == "ema"
    assert model.readout.reuse.logit.sigmoid().item() == pytest.approx(weight, abs=1e-6)

    features = model.exit_features(clips)
    confidences = authors.apply_linear(state, "classifiers.0", features).softmax(-1).amax(-1)
    first, layer = authors.between(confidences[:, 0], 0.9), authors.between(confidences, 0.8)
    paths, logits = authors.tlee_decisions(
        state, features, first, layer, lambda past, current: weight * past + (1 - weight) * current
    )
    policy = Thresholds(layer=(layer,) * 3, first=(first,) * 4, gate=(0.5,) * 4, stop=(1.0,) * 4)
    outcomes = run(StoredFeatures(features), model.readout, policy, count_costs(model))
    assert outcomes.exit_depths.tolist() == paths
    torch.testing.assert_close(outcomes.logits, logits, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [1.0, -0.1, float("nan")])
def test_a_tlee_weight_of_the_past_outside_of_a_mean_is_refused(small, tmp_path, weight):
    refusal(tmp_path, small | {"feature_func.beta": torch.tensor(weight)}, "tlee", "`feature_func.beta`", "0 and 1")


@pytest.mark.slow
def test_tlee_attention_is_refused_with_the_reason(small, tmp_path):
    layers = authors.linear("feature_func.testfrm.1", 256, 512) | authors.linear("feature_func.testfrm.4", 1, 256)
    refusal(tmp_path, small | layers, "tlee", "`feature_func.testfrm.1.weight`", "scores", "`useFeatureFunc`")


@pytest.mark.slow
def test_another_reuse_than_the_maximum_is_refused_for_frameexit(frameexit_state, tmp_path):
    refusal(tmp_path, frameexit_state, "frameexit", "--reuse", reuse="ap")


@pytest.mark.slow
@torch.inference_mode()
def test_tlee_exits_are_the_same_with_live_features(clips, tmp_path):
    model, _ = imported(tmp_path, tlee_state(clips, "mlp", None), "tlee")
    policy = Thresholds(layer=(0.3,) * 3, first=(0.9,) * 4, gate=(0.5,) * 4, stop=(1.0,) * 4)
    costs = count_costs(model)
    live = run(LiveFeatures(model, clips[0]), model.readout, policy, costs)
    stored = run(StoredFeatures(model.exit_features(clips[:1])), model.readout, policy, costs)
    assert torch.equal(live.exit_depths, stored.exit_depths)


@pytest.mark.slow
def test_tlee_without_a_gate_stops_by_confidence(clips, tmp_path):
    model, params = imported(tmp_path, tlee_state(clips, None, None), "tlee")
    assert params.model.gate == "confidence"
    assert not len(model.readout.gates)


@pytest.mark.slow
def test_tlee_resnets_are_recognised_by_child_or_by_name(clips, tmp_path):
    network = models.resnet18(weights=None)
    network.fc = nn.Identity()
    named = {f"backbone.baseModel.{name}": tensor for name, tensor in network.state_dict().items()}
    children = nn.Sequential(*network.children()).state_dict()
    numbered = {f"backbone.baseModel.{name}": tensor for name, tensor in children.items()}
    head = authors.linear("classifiers.0", authors.CLASSES, 512)
    states = [whole(imported(tmp_path, body | head, "tlee")[0]).state_dict() for body in (named, numbered)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert torch.equal(states[0]["backbone.body.layer4.1.conv2.weight"], network.layer4[1].conv2.weight)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "builder"), [("efficientnet_b3", models.efficientnet_b3), ("vgg16", None)])
def test_tlee_other_backbones_are_recognised_by_their_layers(name, builder, tmp_path):
    features = builder(weights=None).features if builder else models.vgg.make_layers(models.vgg.cfgs["D"], True)
    state = {f"backbone.baseModel.{key}": tensor for key, tensor in features.state_dict().items()}
    state |= authors.linear("classifiers.0", authors.CLASSES, 512 if name == "vgg16" else 1536)
    _, params = imported(tmp_path, state, "tlee")
    assert (params.model.backbone, params.model.num_branches) == (name, 0)


@pytest.fixture(scope="module")
def large_clips() -> torch.Tensor:
    """Two videos of two frames, of the size at which the authors' windows fit their linear layers."""
    generator = torch.Generator().manual_seed(5)
    return nn.functional.interpolate(torch.rand(4, 3, 28, 28, generator=generator), 224).unflatten(0, (2, 2))


@pytest.mark.slow
@torch.inference_mode()
def test_tlee_branches_that_pool_in_windows_are_imported_unchanged(large_clips, tmp_path):
    state = authors.tlee_checkpoint(large_clips, "mlp", None, authors.WINDOWS)
    torch.save(state, tmp_path / "published.pth")
    done = import_checkpoint(tmp_path / "published.pth", "tlee", PARAMS_FILE, tmp_path / "it.safetensors")
    settings = reported_parameters(report(done))
    assert (settings["model.crm_pool"], settings["model.input_size"]) == ("windows", 224)
    assert re.search("crm_pool: windows .*grid", report(done))
    model = load_whole(load_params(PARAMS_FILE, settings), CLASSES)
    theirs = authors.tlee_features(state, large_clips)
    torch.testing.assert_close(model.exit_features(large_clips), theirs, rtol=1e-3, atol=1e-3)
    assert theirs[:, :, :-1].std(0).mean() > 0.1


@pytest.mark.slow
def test_tlee_branches_that_pool_to_a_grid_are_recognised(clips, tmp_path):
    _, params = imported(tmp_path, tlee_state(clips, None, None), "tlee")
    assert params.model.crm_pool == "grid"


@pytest.mark.slow
@torch.inference_mode()
def test_tlee_branches_can_be_omitted(clips, tmp_path):
    state = authors.tlee_checkpoint(clips, "mlp", None, authors.WINDOWS)
    model, params = imported(tmp_path, state, "tlee", branches=False)
    assert params.model.num_branches == 0
    unbranched = {name: tensor for name, tensor in state.items() if "branches" not in name}
    theirs = authors.tlee_features(unbranched, clips)
    torch.testing.assert_close(model.exit_features(clips), theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_tlee_branches_that_pool_otherwise_are_refused(clips, tmp_path):
    state = authors.tlee_checkpoint(clips, "mlp", None, cells=(16, 9, 4))
    refusal(tmp_path, state, "tlee", "`backbone.branches.0.fc1.weight`", "(1280, 96) instead of (1280, 1176)")


@pytest.mark.slow
def test_tlee_linear_layers_at_the_full_depth_are_refused(clips, tmp_path):
    state = tlee_state(clips, None, None) | authors.linear("backbone.fc_layer.0", 4, 4)
    refusal(tmp_path, state, "tlee", "published.pth", "`backbone.fc_layer.0.weight`, `backbone.fc_layer.0.bias`")


@pytest.mark.slow
def test_the_normalisation_is_the_authors_by_default(clips, tmp_path, frameexit_model):
    state = tlee_state(clips, None, None)
    by_name = {
        "imagenet": imported(tmp_path, state, "tlee", normalise="imagenet")[0],
        "kinetics": imported(tmp_path, state, "tlee")[0],
    }
    for name, model in by_name.items():
        mean, std = authors.IMAGENET if name == "imagenet" else authors.KINETICS
        assert torch.equal(model.backbone.normalise.mean, torch.tensor(mean))
        assert torch.equal(model.backbone.normalise.std, torch.tensor(std))
    assert torch.equal(frameexit_model[0].backbone.normalise.mean, torch.tensor(authors.IMAGENET[0]))


# --- errors --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> authors.State:
    """Checkpoint of TLEE without branches on ResNet-18."""
    torch.manual_seed(3)
    body = nn.Sequential(*list(models.resnet18(weights=None).children())[:-1]).state_dict()
    state = {f"backbone.baseModel.{name}": tensor for name, tensor in body.items()}
    return state | authors.linear("classifiers.0", authors.CLASSES, 512) | authors.frameexit_gate(0, 512)


def test_missing_tensors_are_listed_by_the_authors_names(small, tmp_path):
    missing = ("backbone.baseModel.5.0.conv1.weight", "exit_selector.0.bn1.bias")
    remaining = {name: tensor for name, tensor in small.items() if name not in missing}
    refusal(tmp_path, remaining, "tlee", "published.pth lacks", f"`{missing[0]}`, `{missing[1]}`", "--as")


def test_many_tensors_are_counted(small, tmp_path):
    extra = {f"extra.{index}": torch.zeros(1) for index in range(8)}
    refusal(tmp_path, small | extra, "tlee", "unknown `extra.0`, `extra.1`, `extra.2` and 5 more")


def test_misshapen_tensors_are_named_with_both_shapes(small, tmp_path):
    misshapen = small | {"exit_selector.0.conv2.weight": torch.zeros(64, 9, 1, 1)}
    refusal(tmp_path, misshapen, "tlee", "`exit_selector.0.conv2.weight`", "(64, 9, 1, 1) instead of (64, 128)")


@pytest.mark.slow
def test_a_checkpoint_of_the_other_layout_is_refused(small, frameexit_state, tmp_path):
    refusal(tmp_path, small, "frameexit", "published.pth", "FrameExit", "--as")
    refusal(tmp_path, frameexit_state, "tlee", "published.pth", "`backbone.baseModel.`", "--as")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {"state_dict": {"a": 1}}, torch.zeros(2)])
def test_a_file_without_a_state_dict_is_refused(tmp_path, layout, content):
    refusal(tmp_path, content, layout, "published.pth", "`state_dict`")


@pytest.mark.slow
def test_a_layer_whose_weight_is_a_scalar_is_refused(small, tmp_path):
    refusal(tmp_path, small | {"classifiers.0.weight": torch.tensor(1.0)}, "tlee", "no layer `classifiers.0.weight`")


class Code:
    """Object that only unsafe unpickling would load."""


@pytest.mark.slow
def test_a_file_with_other_objects_than_tensors_is_refused(small, tmp_path):
    refusal(tmp_path, {"state_dict": small, "config": Code()}, "tlee", "published.pth", "`state_dict`")


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("old", [False, True])
def test_a_truncated_file_is_refused(small, tmp_path, share, old):
    path = tmp_path / "ckpt.best.pth.tar"
    torch.save(small, path, _use_new_zipfile_serialization=not old)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    target = tmp_path / "it.safetensors"
    one_line(lambda: import_checkpoint(path, "tlee", PARAMS_FILE, target), path, "download it again")
    assert not target.exists()


@pytest.mark.slow
def test_a_target_with_another_suffix_is_refused_and_not_overwritten(small, tmp_path):
    torch.save(small, tmp_path / "a.pth")
    before = (tmp_path / "a.pth").read_bytes()
    path = tmp_path / "a.pth"
    one_line(lambda: import_checkpoint(path, "tlee", PARAMS_FILE, path), path, ".safetensors", "--to")
    assert (tmp_path / "a.pth").read_bytes() == before


# --- classes -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_class_names_are_stored_with_the_weights(small, tmp_path):
    names = ["Walk", "Bend", "Run", "Jump", "Wave", "Kick", "Sit down"]
    (tmp_path / "classes.txt").write_text("\n".join(names) + "\n")
    imported(tmp_path, small, "tlee", class_file=tmp_path / "classes.txt")
    _, about = load_tensors(tmp_path / "it.safetensors", "a remedy")
    assert about["classes"] == names
    assert (about["model"]["backbone"], about["model"]["gate"]) == ("resnet18", "frameexit")


@pytest.mark.slow
def test_without_class_names_classes_are_numbers_and_a_note_mentions_it(small, tmp_path):
    torch.save(small, tmp_path / "a.pth")
    done = import_checkpoint(tmp_path / "a.pth", "tlee", PARAMS_FILE, tmp_path / "a.safetensors")
    assert done.classes == CLASSES
    assert "--classes" in done.notes[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected"), [("a\nb\n", ("2 classes", "7")), ("a\nb\nc\nd\ne\nf\na\n", ("`a` twice",))]
)
def test_class_names_that_do_not_fit_are_refused(small, tmp_path, text, expected):
    file = tmp_path / "classes.txt"
    file.write_text(text)
    refusal(tmp_path, small, "tlee", file, *expected, "--classes", class_file=file)


def test_a_missing_class_file_is_named(small, tmp_path):
    file = tmp_path / "none.txt"
    refusal(tmp_path, small, "tlee", f"{file} cannot be read", "--classes", class_file=file)


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(PARAMS_FILE, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_command_writes_the_weights_and_reports_the_parameters(small, project):
    old_format = {"_use_new_zipfile_serialization": False}  # that of PyTorch 1.3, which FrameExit used
    torch.save({"state_dict": small}, project / "ckpt.best.pth.tar", **old_format)
    done = CliRunner().invoke(command_line.app, ["import-checkpoint", "ckpt.best.pth.tar", "--as", "tlee"])
    assert done.exit_code == 0, done.output
    assert re.search("backbone: resnet18 .*mobilenet_v2", done.output)
    assert re.search("trained: weights/ckpt.best.safetensors .*null", done.output)
    params = load_params("params.yaml", reported_parameters(done.output))
    assert load_whole(params, CLASSES).readout.classifiers[0].weight.equal(small["classifiers.0.weight"])


@pytest.mark.slow
def test_the_same_file_gives_the_same_bytes(small, project):
    torch.save(small, "a.pth")
    contents = []
    for _ in range(2):
        CliRunner().invoke(command_line.app, ["import-checkpoint", "a.pth", "--as", "tlee"], catch_exceptions=False)
        contents.append(Path("weights/a.safetensors").read_bytes())
    assert contents[0] == contents[1]


def test_an_error_of_the_command_is_one_line(project, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tlee", "import-checkpoint", "none.pth", "--as", "frameexit"])
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    message = str(caught.value)
    assert message.startswith("error: none.pth does not exist")
    assert "\n" not in message
