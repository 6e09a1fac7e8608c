"""2-D CNNs, cut into segments after which a frame may exit."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from tlee._torchvision import models
from tlee.errors import UserError
from tlee.weights import load_state, load_tensors


@dataclass(frozen=True)
class Cuts:
    """Where a backbone is cut: ``after`` which of its layers, and the channels of each tap."""

    after: tuple[int, ...]
    tap_channels: tuple[int, ...]


class Backbone(nn.Module):
    """A frame classifier without its classifier: ``[N, 3, H, W] -> [N, D]``, in ``B + 1`` segments.

    ``layers`` is the network as a sequence; its parameters keep torchvision's names, whatever the cuts.
    ``exits`` (``B``) deepest cuts are used. The last segment ends with global average pooling.
    """

    def __init__(self, body: nn.Module, layers: nn.Sequential, cuts: Cuts, feature_dim: int, exits: int):
        super().__init__()
        if exits > len(cuts.after):
            raise UserError(f"model.exits is {exits}, but this backbone has {len(cuts.after)} cuts: lower it")
        self.body = body
        self.feature_dim = feature_dim
        first = len(cuts.after) - exits
        self.tap_channels = cuts.tap_channels[first:]
        borders = [0, *cuts.after[first:], len(layers)]
        spans = [layers[start:end] for start, end in pairwise(borders)]
        spans[-1] = nn.Sequential(*spans[-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self._segments = tuple(spans)  # views of `body`: registered there, not again here

    @property
    def segments(self) -> tuple[nn.Sequential, ...]:
        """The ``B + 1`` parts: chained, they map frames to features; each output but the last is a tap."""
        return self._segments

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        for segment in self.segments:
            frames = segment(frames)
        return frames

    def taps(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """What each segment returns for ``[N, 3, H, W]``: ``B`` maps, then the features ``[N, D]``."""
        outputs = []
        for segment in self.segments:
            frames = segment(frames)
            outputs.append(frames)
        return outputs


def mobilenet_v2(exits: int) -> Backbone:
    """MobileNetV2 1.0 (Sandler et al., CVPR 2018), cut after features 4, 8 and 12 as in TLEE."""
    body = models.mobilenet_v2(weights=None)
    body.classifier = nn.Identity()
    return Backbone(body, body.features, Cuts((4, 8, 12), (24, 64, 96)), 1280, exits)


BACKBONES: dict[str, Callable[[int], Backbone]] = {"mobilenet_v2": mobilenet_v2}


def build_backbone(name: str, exits: int, weights: str | Path | None = None) -> Backbone:
    """A backbone by name, randomly initialised or from a ``.safetensors`` file in torchvision's layout.

    Raises ``UserError`` if the file is missing, damaged or belongs to another network.
    """
    backbone = BACKBONES[name](exits)
    if weights is not None:
        remedy = "correct model.weights, null trains from scratch"
        state, _ = load_tensors(weights, remedy)
        own = {name: value for name, value in state.items() if not name.startswith(("classifier.", "fc."))}
        load_state(backbone.body, own, weights, remedy)
    return backbone
