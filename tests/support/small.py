"""Networks that are small enough to be built, exported and trained in moments."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tlee.backbones import BACKBONES, Backbone, Cuts
from tlee.backbones.parts import pooled
from tlee.costs import Costs
from tlee.model import TLEE
from tlee.params import Params, load_params
from tlee.policies.policy import ExitScores, Observation
from tlee.policies.sources import StoredFeatures
from tlee.readout import Accumulated, Readout

ROOT = Path(__file__).parents[2]
T, SIDE, CLASSES = 4, 16, 3

#: Costs by which a path is recognised.
COSTS = Costs(segments=(10, 20, 30), heads=(1, 2, 0), reuse=0, classifier=5, gate=7)


def small_params(overrides: dict[str, Any] | None = None, **model: Any) -> Params:
    """The shipped parameters for ``T`` frames of ``SIDE`` pixels and 2 branches; the rest are of ``model``."""
    settings = {
        "extract.frames": T,
        "pretrain.frames": 3,
        "pretrain.joint": False,
        "branches.frames": 3,
        "model.backbone": "resnet18",
        "model.weights": None,
        "model.trained": None,
        "model.input_size": SIDE,
        "model.num_branches": 2,
    }
    settings |= (overrides or {}) | {f"model.{name}": value for name, value in model.items()}
    return _loaded(tuple(settings.items())).model_copy(deep=True)


@cache
def _loaded(settings: tuple[tuple[str, Any], ...]) -> Params:
    """Read the file once for equal settings: YAML takes longer than many a test."""
    return load_params(ROOT / "params.yaml", dict(settings))


def identity_readout(**model: Any) -> Readout:
    """Two features, two classes, logits equal to the features."""
    readout = Readout(2, 2, small_params(**model))
    for classifier in readout.classifiers:
        classifier.weight.data, classifier.bias.data = torch.eye(2), torch.zeros(2)
    return readout


def observe(
    readout: Readout, current: torch.Tensor, past: torch.Tensor | None = None, t: int = 0, num_frames: int = T
) -> Observation:
    """What a policy sees of the videos with ``z_tb [n, D]`` at depth 0."""
    count = torch.ones(len(current), 1)
    before = Accumulated.nothing(len(current)) if past is None else Accumulated(past, count)
    scores = ExitScores(readout, Accumulated(current, count), before, t, b=0)
    return Observation(scores, torch.arange(len(current)), num_frames, memory=torch.zeros(len(current), 0))


def video(*frames: list[tuple[float, float]]) -> StoredFeatures:
    """One video from its frames, each a list of exit features from shallow to deep."""
    return StoredFeatures(torch.tensor([frames], dtype=torch.float32))


def random_features(videos: int = 40, frames: int = T, depths: int = 3, width: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(videos, frames, depths, width, generator=generator)


# --- a backbone of five layers -----------------------------------------------------------------------


def five_layers(exits: int) -> Backbone:
    """Convolutions with batch norm, cut after the second, third and fourth, and features of size 12."""
    body = nn.Sequential(*(_layer(*channels) for channels in ((3, 4), (4, 6), (6, 8), (8, 10), (10, 12))))
    return Backbone(body, pooled(body), Cuts((2, 3, 4), (6, 8, 10)), 12, exits)


def _layer(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=1 + (before < 6), padding=1), nn.BatchNorm2d(after), nn.ReLU()
    )


@contextmanager
def in_place_of_resnet18() -> Iterator[None]:
    """`resnet18` is the backbone of five layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "resnet18", five_layers)
        yield


def random_clips(model: TLEE, videos: int = 6, steps: int | None = None, seed: int = 1) -> torch.Tensor:
    """Clips ``[N, T, *input_shape]`` of values in 0..1 that differ in their means."""
    steps = model.params.extract.frames if steps is None else steps
    generator = torch.Generator().manual_seed(seed)
    shape = (videos, steps, *model.input_shape)
    level = torch.rand(videos, steps, *[1] * len(model.input_shape), generator=generator)
    return (torch.rand(shape, generator=generator) * level).clamp(0, 1)


@torch.no_grad()
def random_network(params: Params, classes: int = CLASSES) -> TLEE:
    """Random weights in evaluation mode, the same for the same parameters, by which clips differ at every exit.

    Batch norms hold the statistics of random clips, branches give features that are spread as those of the full
    depth, and classifiers are steep: with the initial weights nothing would differ from anything.
    """
    torch.manual_seed(0)
    model = TLEE(params, classes)
    clips = random_clips(model, videos=8, seed=2)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            layer.momentum = None  # the mean over all that it sees
    model.train().backbone(clips)
    *taps, deepest = model.eval().backbone.taps(clips)
    for branch, tap in zip(model.branches, taps, strict=True):
        _spread(branch, model.backbone.to_map(tap), deepest)
    model.mlp.train()
    model.heads([*taps, deepest])
    model.eval()
    features = model.exit_features(clips)
    for t, gate in enumerate(model.readout.gates.train(), start=1):
        gate(features[:, t].flatten(0, 1), features[:, :t].amax(1).flatten(0, 1))
    for classifier in model.readout.classifiers:
        classifier.weight *= 2 / features.std(0).mean()
        classifier.bias -= classifier(features.mean((0, 1, 2)))
    return model.eval()


def _spread(branch: nn.Module, tap: torch.Tensor, features: torch.Tensor) -> None:
    """Let the last layer give features with the mean and spread of others."""
    for layer in branch.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            layer.bias += 0.5  # few ReLUs are dead
    branch.train()(tap)
    own, last = branch.eval()(tap), [layer for layer in branch.modules() if isinstance(layer, nn.Linear)][-1]
    factor = features.std(0).mean() / own.std(0).mean()
    last.weight *= factor
    last.bias.copy_(features.mean(0) + factor * (last.bias - own.mean(0)))


def between(values: torch.Tensor, share: float = 0.5) -> float:
    """A threshold that about ``share`` of ``values`` are below and none is near: nothing is decided by rounding."""
    ordered = values.flatten().sort().values
    last = len(ordered) - 1
    start, end = (round(min(max(share + shift, 0), 1) * last) for shift in (-0.1, 0.1))
    start, end = min(start, last - 1), max(end, start + 1)
    widest = start + int(ordered[start : end + 1].diff().argmax())
    return (ordered[widest] + ordered[widest + 1]).item() / 2
