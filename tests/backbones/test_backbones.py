"""Backbones: the cuts of the papers, equality of stepwise and batched computation, and pretrained weights."""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from urllib.error import URLError

import onnxruntime
import pytest
import safetensors.torch
import torch
from support.refusals import one_line
from torch import nn

from tlee._torchvision import models
from tlee.backbones import BACKBONES, Backbone, build_backbone
from tlee.backbones.normalise import IMAGENET_MEAN, IMAGENET_STD
from tlee.paper.backbone_table import AUTHORS_GMACS, MAX_BRANCHES, ExitCost, exit_costs, markdown
from tlee.params import ModelParams
from tlee.weights import read_weights

ROOT = Path(__file__).parents[2]
IMAGENET = ROOT.parent / "shared" / "weights" / "mobilenet_v2_imagenet.safetensors"

#: Channels and side of every tap at 224 pixels (X3D-S: at 160), and D.
DESIGN = {
    "vgg16": (((128, 56), (256, 28), (512, 14)), 512),
    "bn_inception": (((192, 28), (576, 14), (1056, 7)), 1024),
    "resnet18": (((64, 56), (128, 28), (256, 14)), 512),
    "resnet34": (((64, 56), (128, 28), (256, 14)), 512),
    "resnet50": (((256, 56), (512, 28), (1024, 14)), 2048),
    "mobilenet_v2": (((24, 56), (64, 14), (96, 14)), 1280),
    "mobilenet_v2_tsm": (((24, 56), (64, 14), (96, 14)), 1280),
    "efficientnet_b3": (((24, 112), (48, 28), (136, 14)), 1536),
    "x3d_s": (((48, 20), (96, 10), (192, 5)), 2048),
}
#: GMACs of each exit at 224 pixels.
GMACS = {
    "mobilenet_v2": (0.076, 0.121, 0.164, 0.299),
    "mobilenet_v2_tsm": (0.076, 0.121, 0.164, 0.299),
    "efficientnet_b3": (0.040, 0.275, 0.602, 0.961),
    "vgg16": (4.711, 9.335, 13.959, 15.347),
    "resnet50": (0.786, 1.814, 3.278, 4.087),
}
SIZE = 64


def small(name: str, num_branches: int = MAX_BRANCHES) -> Backbone:
    """Build a random backbone in evaluation mode, the same at every call; X3D-S reads clips of 4 frames.

    Its batch norms have the statistics of random frames: with the initial ones, signals vanish with depth and
    comparisons would be meaningless.
    """
    return deepcopy(_random_backbone(name, num_branches))


@cache
@torch.inference_mode(False)
def _random_backbone(name: str, num_branches: int) -> Backbone:
    torch.manual_seed(0)
    backbone = BACKBONES[name](num_branches)
    backbone.clip_frames = min(backbone.clip_frames, 4)
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            layer.momentum = None
    with torch.no_grad():
        backbone.train()(clips_for(backbone))
    return backbone.eval()


def clips_for(backbone: Backbone, videos: int = 2, steps: int = 3, size: int = SIZE) -> torch.Tensor:
    """Return random clips ``[N, T, *input_shape]`` in 0..1."""
    shape = (videos, steps, *backbone.input_shape(size))
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def stepwise_taps(backbone: Backbone, clips: torch.Tensor) -> list[torch.Tensor]:
    """Compute the result of ``taps`` one time step after the other, at full depth."""
    steps = []
    memories = [tuple(m.expand(len(clips), *m.shape[1:]) for m in memory) for memory in backbone.start_memory(SIZE)]
    for tap in clips.unbind(1):
        outputs = []
        for depth, memory in enumerate(memories):
            tap, memories[depth] = backbone.step(depth, tap, memory)
            outputs.append(tap)
        steps.append(outputs)
    return [torch.stack(outputs, 1).flatten(0, 1) for outputs in zip(*steps, strict=True)]


# --- the cuts and their costs --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def costs() -> Iterator[dict[str, list[ExitCost]]]:
    """Costs of every exit of every backbone, at the sizes of ``DESIGN``, which the table need not count again."""
    counted = cache(exit_costs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlee.paper.backbone_table.exit_costs", counted)
        yield {name: counted(name, 160 if name == "x3d_s" else 224) for name in BACKBONES}


def test_the_parameters_allow_exactly_the_backbones():
    assert set(ModelParams.model_fields["backbone"].annotation.__args__) == set(BACKBONES) == set(DESIGN)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_taps_are_at_the_cuts_of_the_papers(costs, name):
    maps, feature_dim = DESIGN[name]
    *taps, features = [cost.tap for cost in costs[name]]
    assert [(tap[0], *tap[-2:]) for tap in taps] == [(channels, side, side) for channels, side in maps]
    assert features == (feature_dim,)


@pytest.mark.slow
@pytest.mark.parametrize("name", GMACS)
def test_gmacs_of_each_exit(costs, name):
    assert [cost.gmacs for cost in costs[name]] == pytest.approx(GMACS[name], abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", AUTHORS_GMACS)
def test_gmacs_agree_with_the_authors_except_for_normalisation_and_activations(costs, name):
    for cost, printed in zip(costs[name], AUTHORS_GMACS[name], strict=True):
        assert printed is None or 0.998 < printed / cost.gmacs < 1.14


@pytest.mark.slow
def test_x3d_has_the_gmacs_of_frameexit_at_160_pixels_and_more_at_182(costs):
    assert costs["x3d_s"][-1].gmacs == pytest.approx(1.96, abs=0.005)
    assert exit_costs("x3d_s", 182)[-1].gmacs == pytest.approx(2.72, abs=0.005)


@pytest.mark.slow
def test_efficientnet_has_the_gmacs_of_frameexit_at_300_pixels():
    assert exit_costs("efficientnet_b3", 300)[-1].gmacs == pytest.approx(1.83, abs=0.005)


@pytest.mark.slow
def test_numbers_of_parameters_are_those_published(costs):
    x3d_s = costs["x3d_s"][-1].parameters + 400 * (2048 + 1)  # with Kinetics-400's classifier
    assert x3d_s == pytest.approx(3.76e6, rel=0.01)
    assert costs["bn_inception"][-1].parameters == pytest.approx(10.27e6, rel=0.002)  # published: with biases
    assert costs["mobilenet_v2"][-1].parameters == sum(p.numel() for p in models.mobilenet_v2().features.parameters())


@pytest.mark.slow
def test_the_documented_table_is_up_to_date(costs):
    assert markdown() in (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")


# --- the interface -------------------------------------------------------------------------------------


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("name", BACKBONES)
def test_step_by_step_gives_the_same_as_all_at_once(name):
    backbone = small(name)
    clips = clips_for(backbone)
    at_once = backbone.taps(clips)
    for depth, (whole, stepped) in enumerate(zip(at_once, stepwise_taps(backbone, clips), strict=True)):
        assert whole.std() > 0.05
        torch.testing.assert_close(
            stepped, whole, rtol=1e-4, atol=1e-4, msg=lambda text, depth=depth: f"depth {depth}: {text}"
        )
    torch.testing.assert_close(backbone(clips), at_once[-1].unflatten(0, clips.shape[:2]))
    assert [backbone.to_map(tap).shape[1] for tap in at_once[:-1]] == list(backbone.tap_channels)
    assert all(backbone.to_map(tap).dim() == 4 for tap in at_once[:-1])
    assert at_once[-1].shape == (6, backbone.feature_dim)


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("num_branches", [0, 1, 2])
@pytest.mark.parametrize("name", ["mobilenet_v2_tsm", "resnet18", "x3d_s"])
def test_the_deepest_cuts_are_used_and_change_nothing(name, num_branches):
    whole, cut = small(name), small(name, num_branches)
    assert cut.tap_channels == whole.tap_channels[MAX_BRANCHES - num_branches :]
    assert len(cut.segments) == len(cut.start_memory(SIZE)) == num_branches + 1
    assert cut.state_dict().keys() == whole.state_dict().keys()
    clips = clips_for(whole, steps=2)
    for own, expected in zip(cut.taps(clips), whole.taps(clips)[MAX_BRANCHES - num_branches :], strict=True):
        torch.testing.assert_close(own, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_more_branches_than_cuts_are_refused(name):
    with torch.device("meta"):
        one_line(lambda: BACKBONES[name](4), "model.num_branches is 4", "3 cuts", "lower it")


def test_a_time_step_is_a_frame_or_a_clip():
    with torch.device("meta"):
        assert BACKBONES["resnet18"](3).input_shape(96) == (3, 96, 96)
        assert BACKBONES["x3d_s"](3).input_shape(96) == (3, 13, 96, 96)


@pytest.mark.slow
def test_the_map_of_a_tap_with_time_is_the_mean_over_time():
    tap = torch.rand(2, 48, 4, 8, 8)
    torch.testing.assert_close(small("x3d_s").to_map(tap), tap.mean(2))


@torch.inference_mode()
@pytest.mark.parametrize("name", ["resnet18", "x3d_s"])
def test_the_first_layer_normalises_rgb(name):
    backbone = small(name)
    backbone.normalise.set((0.1, 0.2, 0.3), (0.5, 2.0, 4.0))
    frames = clips_for(backbone, 1, 1)[:, 0]
    per_channel = (3,) + (1,) * (frames.dim() - 2)
    by_hand = (frames - torch.tensor([0.1, 0.2, 0.3]).view(per_channel)) / torch.tensor([0.5, 2, 4]).view(per_channel)
    torch.testing.assert_close(backbone.segments[0][0](frames), by_hand)
    torch.testing.assert_close(backbone.segments[0](frames), backbone.segments[0][1:](by_hand))
    assert {"normalise.mean", "normalise.std"} < backbone.state_dict().keys()


@pytest.mark.slow
@torch.inference_mode()
def test_a_copy_is_independent():
    backbone = small("resnet18")
    clips = clips_for(backbone)
    copy, features = deepcopy(backbone), backbone(clips)
    nn.init.zeros_(copy.body.conv1.weight)
    assert torch.equal(backbone(clips), features)
    assert not torch.allclose(copy(clips), features)


# --- the temporal shift --------------------------------------------------------------------------------


@pytest.mark.slow
@torch.inference_mode()
def test_the_shift_reads_the_previous_frame_and_no_other():
    backbone = small("mobilenet_v2_tsm")
    clips = clips_for(backbone, videos=2, steps=3)
    features = backbone(clips)
    changed = clips.clone()
    changed[0, 1] = 1 - changed[0, 1]
    differs = (backbone(changed) - features).abs().amax(2) > 1e-4
    assert differs.tolist() == [[False, True, True], [False, False, False]]
    assert not torch.allclose(features, small("mobilenet_v2")(clips))


@torch.inference_mode()
def test_a_shifted_block_by_hand():
    """Block 3 of MobileNetV2 at two frames: 24 channels, of which 3 come from the previous frame."""
    backbone = small("mobilenet_v2_tsm")
    block = backbone.body.features[3]
    clips = clips_for(backbone, videos=1, steps=2)
    before = nn.Sequential(backbone.normalise, *backbone.body.features[:3])
    first, second = before(clips[:, 0]), before(clips[:, 1])  # no shift before the first skip connection
    mixed = torch.cat([first[:, :3], second[:, 3:]], 1)
    blind = torch.cat([torch.zeros_like(first[:, :3]), first[:, 3:]], 1)
    expected = torch.cat([first + block.conv(blind), second + block.conv(mixed)])
    torch.testing.assert_close(backbone.taps(clips)[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 75])
def test_the_initial_memory_is_zero_for_each_shifted_channel(size):
    backbone = small("mobilenet_v2_tsm").double()
    start = backbone.start_memory(size)
    assert [len(memory) for memory in start] == [1, 2, 3, 4]
    assert not any(memory.any() for memory in sum(start, ()))
    tap = clips_for(backbone, 1, 1, size)[:, 0].double()
    with torch.inference_mode():
        for depth, memory in enumerate(start):
            tap, remembered = backbone.step(depth, tap, memory)
            assert [m.shape for m in remembered] == [m.shape for m in memory]
            assert {m.dtype for m in memory} == {torch.float64}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"mobilenet_v2_tsm"}))
def test_other_backbones_have_no_memory(name):
    with torch.device("meta"):
        assert BACKBONES[name](2).start_memory(64) == [(), (), ()]


def test_gradients_reach_the_previous_frame_through_the_shift():
    backbone = small("mobilenet_v2_tsm")
    clips = clips_for(backbone, 1, 2).requires_grad_()
    backbone(clips)[0, 1].sum().backward()
    assert clips.grad[0, 0].abs().sum() > 0


# --- export --------------------------------------------------------------------------------------------


class OneStep(nn.Module):
    """Segment as a graph: ``(tap, *memory) -> (tap, *memory)``."""

    def __init__(self, backbone: Backbone, depth: int):
        super().__init__()
        self.backbone, self.depth = backbone, depth

    def forward(self, tap: torch.Tensor, *memory: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tap, memory = self.backbone.step(self.depth, tap, memory)
        return tap, *memory


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["mobilenet_v2_tsm", "x3d_s", "bn_inception"])
def test_a_step_runs_in_onnx_runtime_with_the_same_results(name, tmp_path):
    backbone = small(name)
    tap = clips_for(backbone, 1, 1)[:, 0]
    for depth, start in enumerate(backbone.start_memory(SIZE)):
        memory = tuple(torch.rand_like(tensor) for tensor in start)
        inputs = ["tap", *(f"memory{i}" for i in range(len(memory)))]
        path = tmp_path / f"{depth}.onnx"
        outputs = [f"next_{name}" for name in inputs]
        torch.onnx.export(
            OneStep(backbone, depth).eval(),
            (tap, *memory),
            str(path),
            input_names=inputs,
            output_names=outputs,
            opset_version=13,
            dynamo=False,
        )
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = session.run(outputs, dict(zip(inputs, (t.numpy() for t in (tap, *memory)), strict=True)))
        tap, remembered = backbone.step(depth, tap, memory)
        for own, expected in zip(found, (tap, *remembered), strict=True):
            torch.testing.assert_close(torch.from_numpy(own), expected, rtol=1e-3, atol=1e-4)


# --- pretrained weights --------------------------------------------------------------------------------


def statistics(backbone: Backbone) -> tuple[list[float], list[float]]:
    return backbone.normalise.mean.tolist(), backbone.normalise.std.tolist()


def imagenet_statistics() -> tuple:
    return pytest.approx(IMAGENET_MEAN), pytest.approx(IMAGENET_STD)


@pytest.fixture(scope="module")
def reference() -> models.ResNet:
    """torchvision's ResNet-18, with batch norm statistics that differ from the initial ones."""
    torch.manual_seed(2)
    network = models.resnet18(weights=None)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 64))
    return network.eval()


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_a_local_file_gives_the_features_of_torchvision(reference, tmp_path, suffix):
    path = tmp_path / f"resnet18{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(reference.state_dict(), path)
    backbone = build_backbone("resnet18", 2, path).eval()
    assert statistics(backbone) == imagenet_statistics()
    clips = clips_for(backbone)
    headless = nn.Sequential(*list(reference.children())[:-1], nn.Flatten())
    torch.testing.assert_close(backbone(clips).flatten(0, 1), headless(backbone.normalise(clips.flatten(0, 1))))


@pytest.mark.slow
def test_the_normalisation_comes_from_the_file(reference, tmp_path):
    path = tmp_path / "resnet18.safetensors"
    safetensors.torch.save_file(reference.state_dict(), path, {"mean": "0.1, 0.2,0.3", "std": "0.5,0.5,0.25"})
    mean, std = statistics(build_backbone("resnet18", 3, path))
    assert mean == pytest.approx([0.1, 0.2, 0.3])
    assert std == pytest.approx([0.5, 0.5, 0.25])


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"mean": "0.5,0.5", "std": "1,1,1"}, ("`mean`", "'0.5,0.5'", "should be like 0.5,0.5,0.5")),
        ({"mean": "grey", "std": "1,1,1"}, ("`mean`", "'grey'", "should be like 0.5,0.5,0.5")),
        ({"mean": "0,0,0", "std": "1,nan,1"}, ("`std`", "'1,nan,1'", "should be like 0.5,0.5,0.5")),
        ({"mean": "0,0,0", "std": "1,0,1"}, ("`std`", "'1,0,1'", "should be above 0")),
        ({"mean": "0,0,0"}, ("has no `std`",)),
    ],
)
def test_malformed_metadata_is_named(tmp_path, metadata, expected):
    path = tmp_path / "some.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(1)}, path, metadata)
    one_line(lambda: build_backbone("resnet18", 3, path), path, *expected, "model.weights")


@pytest.mark.slow
def test_metadata_of_the_kit_does_not_set_the_normalisation(reference, tmp_path):
    path = tmp_path / "own.safetensors"
    safetensors.torch.save_file(reference.state_dict(), path, {"tlee": json.dumps({"mean": 3})})
    assert statistics(build_backbone("resnet18", 0, path)) == imagenet_statistics()


@pytest.mark.slow
def test_x3d_has_the_names_of_pytorchvideo():
    names = BACKBONES["x3d_s"](0).body.state_dict().keys()
    assert {
        "blocks.0.conv.conv_xy.weight",
        "blocks.1.res_blocks.0.branch1_conv.weight",
        "blocks.1.res_blocks.0.branch2.norm_b.1.block.2.bias",
        "blocks.2.res_blocks.0.branch1_norm.running_mean",
        "blocks.4.res_blocks.6.branch2.conv_c.weight",
        "blocks.5.pool.post_conv.weight",
    } < names
    assert "blocks.1.res_blocks.0.branch1_norm.weight" not in names
    assert "blocks.1.res_blocks.1.branch2.norm_b.1.block.0.weight" not in names


@pytest.mark.slow
def test_the_temporal_shift_loads_weights_of_mobilenet(tmp_path):
    path, saved = tmp_path / "mobilenet_v2.pth", models.mobilenet_v2(weights=None).state_dict()
    torch.save(saved, path)
    body = build_backbone("mobilenet_v2_tsm", 3, path).body.state_dict()
    assert set(body) == {name for name in saved if not name.startswith("classifier.")}
    assert all(torch.equal(value, saved[name]) for name, value in body.items())


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"state_dict": {}}, {"weight": 1.0}, {3: torch.zeros(1)}])
def test_a_pickle_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    one_line(lambda: read_weights(path, "a remedy"), path, "tensors by name", "a remedy")


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_pickle_is_refused(reference, tmp_path, share):
    path = tmp_path / "resnet18.pth"
    torch.save(reference.state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    one_line(lambda: build_backbone("resnet18", 3, path), path, "a .pth file", "model.weights")


@pytest.mark.slow
def test_code_in_a_pickle_is_never_run(tmp_path):
    path = tmp_path / "network.pth"
    torch.save(nn.Linear(1, 1), path)
    one_line(lambda: build_backbone("resnet18", 3, path), path, "a .pth file", "model.weights")


def test_a_missing_pickle_is_named(tmp_path):
    path = tmp_path / "none.pth"
    one_line(lambda: read_weights(path, "a remedy"), f"{path} does not exist", "a remedy")


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>", b"PK not a zip", b"\x80\x02", bytes(100), b"junk" * 99])
def test_a_file_that_is_not_a_pickle_is_refused(tmp_path, content):
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    one_line(lambda: read_weights(path, "a remedy"), path, "a .pth file", "a remedy")


# --- ImageNet's weights --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "architecture"), [("mobilenet_v2_tsm", "mobilenet_v2"), ("vgg16", "vgg16_bn"), ("resnet18", "resnet18")]
)
def test_if_the_download_fails_the_file_to_fetch_is_named(monkeypatch, tmp_path, name, architecture):
    def fail(*_arguments, **_options):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    url = models.get_model_weights(architecture)["IMAGENET1K_V1"].url
    place = tmp_path / "checkpoints" / Path(url).name
    one_line(
        lambda: build_backbone(name, 3, "imagenet"), name, "no route to host", f"{url} at {place}", "model.weights"
    )


@pytest.fixture
def downloaded(reference, monkeypatch, tmp_path) -> Path:
    """File of ResNet-18's ImageNet weights in the folder of ``torch.hub``, with the tensors of ``reference``."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / Path(models.ResNet18_Weights.IMAGENET1K_V1.url).name
    path.parent.mkdir()
    torch.save(reference.state_dict(), path)
    return path


@pytest.mark.slow
def test_a_downloaded_file_is_used(downloaded, reference):
    backbone = build_backbone("resnet18", 3, "imagenet")
    assert torch.equal(backbone.body.layer4[1].bn2.running_var, reference.layer4[1].bn2.running_var)
    assert statistics(backbone) == imagenet_statistics()


@pytest.mark.slow
def test_a_truncated_download_is_named(downloaded):
    downloaded.write_bytes(downloaded.read_bytes()[:5000])
    one_line(lambda: build_backbone("resnet18", 3, "imagenet"), "resnet18", "damaged", downloaded, "model.weights")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bn_inception", "x3d_s"])
def test_backbones_without_imagenet_weights_are_refused(name):
    one_line(lambda: build_backbone(name, 3, "imagenet"), "no ImageNet weights", name, "model.weights", "null")


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.skipif(not IMAGENET.exists(), reason="the ImageNet weights are not available")
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v2_tsm"])
def test_real_imagenet_weights_load(name):
    state, metadata = read_weights(IMAGENET, "a remedy")
    backbone = build_backbone(name, 3, IMAGENET).eval()
    assert statistics(backbone) == ([0.5] * 3, [0.5] * 3)
    assert metadata["mean"]
    assert torch.equal(backbone.body.features[0][0].weight, state["features.0.0.weight"])
    features = backbone(clips_for(backbone))
    assert features.shape == (2, 3, 1280)
    assert features.isfinite().all()
