"""2-D CNNs, cut into segments after which a frame may exit."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from tlee._torchvision import models
from tlee.errors import UserError


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
        state, _ = load_weights(weights)
        own = {key: value for key, value in state.items() if not key.startswith(("classifier.", "fc."))}
        load_state(backbone.body, own, weights)
    return backbone


def load_weights(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the metadata of a ``.safetensors`` file; ``UserError`` if it is not whole."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: correct model.weights, or run the stage that writes it") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch it or run its stage again") from None


def load_state(module: nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Load ``state`` into ``module``; ``UserError`` names the first missing, unknown or misshapen key."""
    own = module.state_dict()
    for problem, keys in (
        ("lacks", own.keys() - state.keys()),
        ("has an unknown", state.keys() - own.keys()),
    ):
        if keys:
            raise UserError(f"{path} {problem} `{min(keys)}` (and {len(keys) - 1} more): it is of another model")
    for key, tensor in own.items():
        if tensor.shape != state[key].shape:
            raise UserError(
                f"{path}: `{key}` is {tuple(state[key].shape)}, this model needs {tuple(tensor.shape)}: "
                "it was made with other parameters"
            )
    module.load_state_dict(state)
