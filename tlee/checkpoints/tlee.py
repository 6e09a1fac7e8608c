"""TLEE's checkpoints (IEEE IoT Journal 2024): a backbone, its branches, one classifier and at most one gate."""

from pathlib import Path
from typing import Any

from tlee.checkpoints.gates import frameexit_gate_prefixes, linear_to_mlp_gate
from tlee.checkpoints.layout import KINETICS, REMEDY, Found, State, demand, listed, numbered
from tlee.checkpoints.resnets import resnet_prefixes, which_resnet
from tlee.errors import UserError
from tlee.modules.branches import CRMBranch

BODY = "backbone.baseModel."
PIXELS = 224  #: of all networks in their code

#: A tensor that only this backbone has, of those that the authors take from torchvision's `features`.
_FEATURES = {
    "mobilenet_v2": f"{BODY}1.conv.0.0.weight",
    "efficientnet_b3": f"{BODY}1.0.block.0.0.weight",
    "vgg16": f"{BODY}40.weight",
}


def tlee(state: State, path: Path) -> Found:
    """Find the settings. Raises ``UserError`` for networks that the kit cannot compute, and says why.

    The authors' own gate has no activation between its layers; it is rewritten for the kit's ``mlp``, which has one.
    """
    demand(state, ("classifiers.0.weight",), path, "TLEE")
    backbone, prefixes = _backbone(state, path)
    num_branches = len(numbered(state, "backbone.branches.#.fc1.weight"))
    for index in range(num_branches):
        prefixes |= _branch_prefixes(state, index, path)
    gate, notes = _gate(state)
    prefixes |= frameexit_gate_prefixes(0) if gate == "frameexit" else {"gates.": "exit_selector."}
    mlp = state.get("mlp.layers.0.weight")
    return Found(
        settings={
            "extract.clip_frames": 1,
            "model.method": "tlee",
            "model.backbone": backbone,
            "model.num_branches": num_branches,
            **_branch_settings(state, num_branches),
            "model.mlp": None if mlp is None else mlp.shape[0],
            "model.reuse": "max",
            "model.readout": "shared",
            "model.gate": gate,
        },
        suggested={
            "extract.frames": 10,
            "extract.short_side": 256,
            "model.input_size": PIXELS,
            "model.order": "coarse_to_fine",
            "evaluate.first_threshold": 0.99,
            "evaluate.gate_threshold": 0.5,
            "evaluate.stop_threshold": 1.0,
        },
        classes=state["classifiers.0.weight"].shape[0],
        normalise=KINETICS,
        prefixes=prefixes | {"mlp.": "mlp.layers.", "classifiers.": "classifiers."},
        convert=linear_to_mlp_gate if gate == "mlp" else lambda ours: None,
        notes=notes,
    )


def without_branches(state: State) -> State:
    """The same network with the full depth as its only exit."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("backbone.branches.")}


def _backbone(state: State, path: Path) -> tuple[str, dict[str, str]]:
    layers = [name for name in state if name.startswith("backbone.fc_layer.")]
    if layers:
        raise UserError(
            f"{path} has {listed(layers)}: linear layers through which its full depth goes and which no backbone of "
            "this kit has, so it cannot be imported"
        )
    for name, tensor in _FEATURES.items():
        if tensor in state:
            return name, {"backbone.body.features.": BODY}
    if f"{BODY}conv1.weight" in state or f"{BODY}4.0.conv1.weight" in state:
        return which_resnet(state, BODY), resnet_prefixes(state, BODY)
    raise UserError(f"{path} has no backbone that this kit knows under `{BODY}`: {REMEDY}")


def _branch_prefixes(state: State, index: int, path: Path) -> dict[str, str]:
    ours, theirs = f"branches.{index}.", f"backbone.branches.{index}."
    numbers = numbered(state, f"{theirs}crm.conv#.weight")
    demand(state, [f"{theirs}crm.conv{number}.weight" for number in numbers or [0]], path, "TLEE")
    demand(state, [f"{theirs}fc1.weight"], path, "TLEE")
    convolutions = {f"{ours}crm.{2 * place}.": f"{theirs}crm.conv{number}." for place, number in enumerate(numbers)}
    return convolutions | {f"{ours}fc.": f"{theirs}fc1.", f"{ours}alpha": f"{theirs}alpha"}


def _branch_settings(state: State, num_branches: int) -> dict[str, Any]:
    """Those of the branches, by the first of them; nothing where there is none.

    Pooled to a grid all have the same number of places; in windows, as many as there are at the authors' input size.
    """
    if not num_branches:
        return {}
    numbers = numbered(state, "backbone.branches.0.crm.conv#.weight")
    narrowed, channels = state[f"backbone.branches.0.crm.conv{numbers[0]}.weight"].shape[:2]
    scale = (channels // narrowed).bit_length() - 1
    settings = {"model.branch": "crm", "model.crm_convs": len(numbers), "model.crm_scale": scale}
    if all(_reads_a_grid(state, f"backbone.branches.{index}.") for index in range(num_branches)):
        return settings | {"model.crm_pool": "grid"}
    return settings | {"model.crm_pool": "windows", "model.input_size": PIXELS}


def _reads_a_grid(state: State, branch: str) -> bool:
    channels = state[f"{branch}crm.conv{numbered(state, f'{branch}crm.conv#.weight')[-1]}.weight"].shape[0]
    return state[f"{branch}fc1.weight"].shape[1] == channels * CRMBranch.side**2


def _gate(state: State) -> tuple[str, list[str]]:
    if "exit_selector.0.fc1.weight" in state:
        return "mlp", ["the gate is linear: it is written as the kit's `mlp` gate that computes the same"]
    if "exit_selector.0.conv1.weight" in state:
        return "frameexit", ["batch norm of the gate is always applied; the authors' code skips it for a single video"]
    return "confidence", ["there is no gate, so videos stop by confidence alone"]
