"""TLEE: a segmented backbone, its branches, and the readout that turns exit features into decisions."""

from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from tlee.backbones import build_backbone, load_state, load_weights
from tlee.exits import BRANCHES, GATES, REUSES
from tlee.params import ModelParams
from tlee.paths import MODELS


class Readout(nn.Module):
    """What happens after an exit feature exists: reuse, the shared classifier, the gate.

    It needs no frame, so it runs on stored exit features exactly as it runs on fresh ones.
    """

    def __init__(self, feature_dim: int, classes: int, params: ModelParams):
        super().__init__()
        self.reuse = REUSES[params.reuse]()
        self.classifier = nn.Linear(feature_dim, classes)
        self.gate = GATES[params.gate](feature_dim)

    def accumulate(self, past: torch.Tensor | None, current: torch.Tensor, step: int) -> torch.Tensor:
        """The next ``z``, ``[N, D]``. The first frame (``past`` is none) just takes ``current``."""
        return current if past is None else self.reuse(past, current, step)

    def prefixes(self, features: torch.Tensor) -> torch.Tensor:
        """``[N, T, D]``, one feature a frame, to ``z`` after each frame, ``[N, T, D]``."""
        past, steps = None, []
        for step, current in enumerate(features.unbind(1)):
            past = self.accumulate(past, current, step)
            steps.append(past)
        return torch.stack(steps, dim=1)


class TLEE(nn.Module):
    """The whole network (TLEE, IEEE IoT Journal 2024, section III).

    ``T`` frames, ``B`` branches, ``B + 1`` exits, ``D`` feature size, ``C`` classes.
    """

    def __init__(self, params: ModelParams, classes: int):
        super().__init__()
        self.params = params
        self.backbone = build_backbone(params.backbone, params.exits, params.weights)
        self.branches = self.new_branches()
        self.readout = Readout(self.backbone.feature_dim, classes, params)

    @property
    def exits(self) -> int:
        """``B + 1``."""
        return len(self.backbone.segments)

    def new_branches(self) -> nn.ModuleList:
        """Freshly initialised heads, one for each tap but the last."""
        branch, params = BRANCHES[self.params.branch], self.params
        dim = self.backbone.feature_dim
        return nn.ModuleList(
            branch(channels, dim, params.crm_convs, params.crm_scale) for channels in self.backbone.tap_channels
        )

    def head(self, depth: int) -> nn.Module:
        """What maps the tap of ``depth`` to an exit feature; at the last depth the tap is the feature."""
        return self.branches[depth] if depth < len(self.branches) else nn.Identity()

    def full_features(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames ``[N, T, 3, H, W]`` to the features of the full depth ``[N, T, D]``."""
        return self.backbone(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def exit_features(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames ``[N, T, 3, H, W]`` to all exit features ``[N, T, B + 1, D]``."""
        taps = self.backbone.taps(frames.flatten(0, 1))
        features = torch.stack([self.head(depth)(tap) for depth, tap in enumerate(taps)], dim=1)
        return features.unflatten(0, frames.shape[:2])


# --- weights: one file a training stage ----------------------------------------------------------


def parts(model: TLEE, stage: str) -> nn.ModuleDict:
    """What a training stage trains, and its weight file holds."""
    return nn.ModuleDict(
        {
            "pretrain": {"backbone": model.backbone.body, "classifier": model.readout.classifier},
            "branches": {"branches": model.branches},
            "gates": {"gate": model.readout.gate},
        }[stage]
    )


WEIGHT_FILES = {
    "pretrain": MODELS / "backbone.safetensors",
    "branches": MODELS / "branches.safetensors",
    "gates": MODELS / "gates.safetensors",
}


def save_trained(model: TLEE, stage: str, classes: list[str]) -> Path:
    """Write what ``stage`` has trained, with the settings and the classes it was trained for."""
    path = WEIGHT_FILES[stage]
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {key: tensor.contiguous() for key, tensor in parts(model, stage).state_dict().items()}
    metadata = {"classes": "\n".join(classes), "model": model.params.model_dump_json()}
    safetensors.torch.save_file(state, path, metadata)
    return path


def load_trained(params: ModelParams, *stages: str) -> tuple[TLEE, list[str]]:
    """The network with the weights of the named training stages, in evaluation mode, and its classes.

    Raises ``UserError`` if a weight file is missing, damaged or made with other parameters.
    """
    classes: list[str] = []
    model = None
    for stage in stages:
        path = WEIGHT_FILES[stage]
        state, metadata = load_weights(path)
        if model is None:
            classes = metadata["classes"].split("\n")
            model = TLEE(params.model_copy(update={"weights": None}), len(classes))
        load_state(parts(model, stage), state, path)
    return model.eval(), classes
