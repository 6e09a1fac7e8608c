"""TLEE: a segmented backbone, its branches and the readout, and the weight files of its training stages.

FrameExit is the case without branches whose readout has a classifier and a gate for each time step.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from tlee.backbones import Backbone, build_backbone, map_shapes
from tlee.errors import UserError
from tlee.modules import BRANCHES
from tlee.params import Params
from tlee.paths import MODELS
from tlee.readout import Readout
from tlee.weights import load_state, load_tensors, save_tensors


class Head(nn.Module):
    """Maps the output of a segment to an exit feature: the branch unless it is the last segment, and the MLP if any."""

    def __init__(self, backbone: Backbone, branch: nn.Module | None, mlp: nn.Module):
        super().__init__()
        self.to_map = backbone.to_map
        self.branch, self.mlp = branch, mlp

    def forward(self, tap: torch.Tensor) -> torch.Tensor:
        feature = tap if self.branch is None else self.branch(self.to_map(tap))
        return self.mlp(feature)


class TLEE(nn.Module):
    """The whole network (TLEE, IEEE IoT Journal 2024, section III; FrameExit, CVPR 2021, section 3).

    ``T`` time steps, ``B`` branches, ``B + 1`` exits, ``D`` feature size, ``C`` classes.
    """

    def __init__(self, params: Params, classes: int):
        super().__init__()
        self.params = params
        self.backbone = build_backbone(params.model.backbone, params.model.num_branches, params.model.weights)
        dim, width = self.backbone.feature_dim, params.model.mlp
        layers = [] if width is None else [nn.Linear(dim, width), nn.BatchNorm1d(width), nn.ReLU()]
        self.mlp = nn.Sequential(*layers)
        self.readout = Readout(width or dim, classes, params)
        self.branches = self.new_branches()  # last, so that they do not change how the others begin

    @property
    def num_exits(self) -> int:
        """``B + 1``."""
        return len(self.backbone.segments)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one time step: ``(3, S, S)``, or ``(3, L, S, S)`` if it is a short clip."""
        return self.backbone.input_shape(self.params.model.input_size)

    def new_branches(self) -> nn.ModuleList:
        """Freshly initialised branches, one for each tap but the last."""
        model = self.params.model
        branches = nn.ModuleList(
            BRANCHES[model.branch](channels, self.backbone.feature_dim, model)
            for channels in self.backbone.tap_channels
        )
        if any(is_lazy(parameter) for parameter in branches.parameters()):
            self._show_taps(branches.eval())
        return branches.train()

    @torch.no_grad()
    def _show_taps(self, branches: nn.ModuleList) -> None:
        """Initialise lazy layers by running the branches on taps of this network's sizes."""
        model = self.params.model
        shapes = map_shapes(model.backbone, model.num_branches, model.input_size)
        for branch, shape in zip(branches, shapes, strict=True):
            branch(torch.zeros(1, *shape))

    def head(self, depth: int, branches: nn.ModuleList | None = None) -> Head:
        """Head that maps the output of segment ``depth`` to an exit feature; ``branches`` replace the network's own."""
        branches = self.branches if branches is None else branches
        return Head(self.backbone, branches[depth] if depth < len(branches) else None, self.mlp)

    def full_features(self, clips: torch.Tensor) -> torch.Tensor:
        """Map clips ``[N, T, *input_shape]`` to the features of the full depth ``[N, T, 1, D]``."""
        return self.mlp(self.backbone(clips).flatten(0, 1)).unflatten(0, clips.shape[:2]).unsqueeze(2)

    def exit_features(self, clips: torch.Tensor) -> torch.Tensor:
        """Map clips ``[N, T, *input_shape]`` to all exit features ``[N, T, B + 1, D]``."""
        return self.heads(self.backbone.taps(clips)).unflatten(0, clips.shape[:2])

    def heads(self, taps: list[torch.Tensor], branches: nn.ModuleList | None = None) -> torch.Tensor:
        """Map the taps of ``M`` time steps to exit features ``[M, B + 1, D]``."""
        return torch.stack([self.head(depth, branches)(tap) for depth, tap in enumerate(taps)], dim=1)


# --- weights: one file a training stage ----------------------------------------------------------


def parts(model: TLEE, stage: str) -> nn.ModuleDict:
    """Modules that a training stage trains and its weight file contains; joint ``pretrain`` includes the branches."""
    readout = model.readout
    if stage == "branches":
        return nn.ModuleDict({"branches": model.branches})
    if stage == "gates":
        return nn.ModuleDict({"gates": readout.gates})
    backbone = {
        "backbone": model.backbone,
        "mlp": model.mlp,
        "reuse": readout.reuse,
        "classifiers": readout.classifiers,
    }
    joint = {"branches": model.branches} if model.params.pretrain.joint else {}
    return nn.ModuleDict(backbone | joint)


def whole(model: TLEE) -> nn.ModuleDict:
    """Modules trained in any stage, which a file for ``model.trained`` contains."""
    return nn.ModuleDict({name: part for stage in WEIGHT_FILES for name, part in parts(model, stage).items()})


WEIGHT_FILES = {
    "pretrain": MODELS / "backbone.safetensors",
    "branches": MODELS / "branches.safetensors",
    "gates": MODELS / "gates.safetensors",
}


def save_trained(model: TLEE, stage: str, classes: list[str]) -> Path:
    """Write the modules trained by ``stage``, with the model parameters and the classes."""
    about = {"classes": classes, "model": model.params.model.model_dump()}
    return save_tensors(WEIGHT_FILES[stage], parts(model, stage).state_dict(), about)


def load_trained(params: Params, *stages: str) -> tuple[TLEE, list[str]]:
    """Load the network with the weights of the named training stages, in evaluation mode, and its classes.

    Raises ``UserError`` if a weight file is missing, damaged or made with other parameters.
    """
    loaded = {stage: load_tensors(WEIGHT_FILES[stage], f"run `dvc repro {stage}`") for stage in stages}
    _, about = loaded[stages[0]]
    if "classes" not in about:
        raise UserError(f"{WEIGHT_FILES[stages[0]]} names no classes: run `dvc repro {stages[0]}`")
    model = TLEE(without_initial_weights(params), len(about["classes"]))
    for stage, (state, _) in loaded.items():
        load_state(parts(model, stage), state, WEIGHT_FILES[stage], f"run `dvc repro --force {stage}`")
    return model.eval(), about["classes"]


def without_initial_weights(params: Params) -> Params:
    """Parameters of the same network without initial weights, for one whose weights are loaded."""
    return params.model_copy(update={"model": params.model.model_copy(update={"weights": None})})


def load_whole(params: Params, classes: list[str]) -> TLEE:
    """Load the network with all weights from the file ``model.trained``, in evaluation mode.

    Raises ``UserError`` if the file is damaged, made with other parameters or for other classes; a file whose
    classes are named by their numbers fits every list of the same length.
    """
    path, remedy = str(params.model.trained), "correct model.trained, null trains from the start"
    state, about = load_tensors(path, remedy)
    known = about.get("classes", classes)
    if len(known) != len(classes):
        raise UserError(f"{path} knows {len(known)} classes, but the data set has {len(classes)}: {remedy}")
    other = [names for names in zip(known, classes, strict=True) if names[0] != names[1]]
    if other and not all(name.isdecimal() for name in known):
        raise UserError(f"{path}: its class `{other[0][0]}` stands where the data set has `{other[0][1]}`: {remedy}")
    model = TLEE(without_initial_weights(params), len(classes))
    load_state(whole(model), state, path, remedy)
    return model.eval()
