"""Backbone networks, cut into segments after which a frame may exit.

A new backbone is a function of ``num_branches`` (``B``) that returns a ``Backbone``, and a line in ``BACKBONES``.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from tlee.backbones.bn_inception import bn_inception
from tlee.backbones.cut import Backbone, Cuts, Memory
from tlee.backbones.from_torchvision import efficientnet_b3, mobilenet_v2, resnet18, resnet34, resnet50, vgg16
from tlee.backbones.pretrained import load_file, load_imagenet
from tlee.backbones.temporal_shift import mobilenet_v2_tsm
from tlee.backbones.x3d import x3d_s

__all__ = ["BACKBONES", "Backbone", "Cuts", "Memory", "build_backbone", "map_shapes"]

BACKBONES: dict[str, Callable[[int], Backbone]] = {
    "vgg16": vgg16,
    "bn_inception": bn_inception,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v2_tsm": mobilenet_v2_tsm,
    "efficientnet_b3": efficientnet_b3,
    "x3d_s": x3d_s,
}


def build_backbone(name: str, num_branches: int, weights: str | Path | None = None) -> Backbone:
    """Build a backbone by name, cut at its ``num_branches`` deepest cuts.

    ``weights``: None for random weights, ``imagenet`` for torchvision's, or a file (see ``load_file``).
    Raises ``UserError`` if there are fewer cuts, or if the weights are unavailable or belong to another network.
    """
    backbone = BACKBONES[name](num_branches)
    if weights == "imagenet":
        load_imagenet(backbone, name)
    elif weights is not None:
        load_file(backbone, weights)
    return backbone


def map_shapes(name: str, num_branches: int, size: int) -> list[torch.Size]:
    """Return the shapes ``[C, H, W]`` of the maps that branch heads read at ``size`` pixels, computing none."""
    return _map_shapes(BACKBONES[name], num_branches, size)


@cache
def _map_shapes(build: Callable[[int], Backbone], num_branches: int, size: int) -> list[torch.Size]:
    with torch.device("meta"):
        backbone = build(num_branches).eval()
        taps = backbone.taps(torch.zeros(1, 1, *backbone.input_shape(size)))[:-1]
        return [backbone.to_map(tap).shape[1:] for tap in taps]
