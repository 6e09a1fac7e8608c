"""TLEE: a segmented backbone, its branches, and the readout that turns exit features into decisions."""

from pathlib import Path

import torch
from torch import nn

from tlee.backbones import build_backbone
from tlee.errors import UserError
from tlee.exits import BRANCHES, GATES, REUSES
from tlee.params import ModelParams
from tlee.paths import MODELS
from tlee.weights import load_state, load_tensors, save_tensors


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
    about = {"classes": classes, "model": model.params.model_dump()}
    return save_tensors(WEIGHT_FILES[stage], parts(model, stage).state_dict(), about)


def load_trained(params: ModelParams, *stages: str) -> tuple[TLEE, list[str]]:
    """The network with the weights of the named training stages, in evaluation mode, and its classes.

    Raises ``UserError`` if a weight file is missing, damaged or made with other parameters.
    """
    loaded = {stage: load_tensors(WEIGHT_FILES[stage], f"run `dvc repro {stage}`") for stage in stages}
    _, about = loaded[stages[0]]
    if "classes" not in about:
        raise UserError(f"{WEIGHT_FILES[stages[0]]} names no classes: run `dvc repro {stages[0]}`")
    model = TLEE(params.model_copy(update={"weights": None}), len(about["classes"]))
    for stage, (state, _) in loaded.items():
        load_state(parts(model, stage), state, WEIGHT_FILES[stage], f"run `dvc repro {stage}`")
    return model.eval(), about["classes"]
