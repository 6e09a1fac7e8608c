"""TLEE's checkpoints (IEEE IoT Journal 2024): a backbone, its branches, one classifier and at most one gate."""

from pathlib import Path
from typing import Any

import torch

from tlee.checkpoints.gates import frameexit_gate_prefixes, linear_to_mlp_gate
from tlee.checkpoints.layout import KINETICS, REMEDY, Conversion, State, find_numbers, join_names, require_layers
from tlee.checkpoints.resnets import resnet_name, resnet_prefixes
from tlee.errors import UserError
from tlee.modules.branches import CRMBranch

BODY = "backbone.baseModel."
WEIGHT_OF_PAST = "feature_func.beta"  #: in files whose reuse is a learned moving average
PIXELS = 224  #: input size of all networks in the authors' code

#: A tensor that identifies each backbone among those made of torchvision's ``features``.
_FEATURES = {
    "mobilenet_v2": f"{BODY}1.conv.0.0.weight",
    "efficientnet_b3": f"{BODY}1.0.block.0.0.weight",
    "vgg16": f"{BODY}40.weight",
}


#: Weight of the past where reuse is a mean of two features, by the authors' name; their code saves none.
REUSE_WEIGHTS = {"ap": 0.5, "ema": 0.999}


def tlee(state: State, path: Path) -> Conversion:
    """Infer the settings. Raises ``UserError`` with the reason for networks that the kit cannot compute.

    The authors' own gate has no activation between its layers; it is rewritten as the kit's ``mlp``, which has one.
    """
    require_layers(state, ("classifiers.0.weight",), path, "TLEE")
    backbone, prefixes = _backbone(state, path)
    num_branches = len(find_numbers(state, "backbone.branches.#.fc1.weight"))
    for index in range(num_branches):
        prefixes |= _branch_prefixes(state, index, path)
    gate, notes = _gate(state)
    prefixes |= frameexit_gate_prefixes(0) if gate == "frameexit" else {"gates.": "exit_selector."}
    reuse = _reuse(state, path)
    mlp = state.get("mlp.layers.0.weight")
    return Conversion(
        settings={
            "extract.clip_frames": 1,
            "model.method": "tlee",
            "model.backbone": backbone,
            "model.num_branches": num_branches,
            **_branch_settings(state, num_branches),
            "model.mlp": None if mlp is None else mlp.shape[0],
            "model.reuse": reuse,
            "model.readout": "shared",
            "model.gate": gate,
        },
        suggested={
            "extract.frames": 10,
            "extract.short_side": 256,
            "model.input_size": PIXELS,
            "model.order": "coarse_to_fine",
            "model.accumulate": "published",
            "evaluate.first_threshold": 0.99,
            "evaluate.gate_threshold": 0.5,
            "evaluate.stop_threshold": 1.0,
        },
        num_classes=state["classifiers.0.weight"].shape[0],
        normalisation=KINETICS,
        prefixes=prefixes | {"mlp.": "mlp.layers.", "classifiers.": "classifiers.", "reuse.logit": WEIGHT_OF_PAST},
        convert=_convert,
        notes=notes,
    )


def _convert(ours: State) -> None:
    if "gates.0.fc1.weight" in ours:
        linear_to_mlp_gate(ours)
    if "reuse.logit" in ours:
        ours["reuse.logit"] = ours["reuse.logit"].double().logit().float()


def with_reuse(state: State, reuse: str) -> State:
    """Return the same network with the weight of ``REUSE_WEIGHTS``; a learned one in the file has precedence."""
    learned = {WEIGHT_OF_PAST: state[WEIGHT_OF_PAST]} if reuse == "ema" and WEIGHT_OF_PAST in state else {}
    return state | {WEIGHT_OF_PAST: torch.tensor(REUSE_WEIGHTS[reuse])} | learned


def without_branches(state: State) -> State:
    """Return the same network with the full depth as its only exit."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("backbone.branches.")}


def _backbone(state: State, path: Path) -> tuple[str, dict[str, str]]:
    layers = [name for name in state if name.startswith("backbone.fc_layer.")]
    if layers:
        raise UserError(
            f"{path} cannot be imported: it has {join_names(layers)}, linear layers at its full depth, "
            "which no backbone of this kit has"
        )
    for name, tensor in _FEATURES.items():
        if tensor in state:
            return name, {"backbone.body.features.": BODY}
    if f"{BODY}conv1.weight" in state or f"{BODY}4.0.conv1.weight" in state:
        return resnet_name(state, BODY), resnet_prefixes(state, BODY)
    raise UserError(f"{path} has no backbone of this kit under `{BODY}`: {REMEDY}")


def _branch_prefixes(state: State, index: int, path: Path) -> dict[str, str]:
    ours, theirs = f"branches.{index}.", f"backbone.branches.{index}."
    numbers = find_numbers(state, f"{theirs}crm.conv#.weight")
    require_layers(state, [f"{theirs}crm.conv{number}.weight" for number in numbers or [0]], path, "TLEE")
    require_layers(state, [f"{theirs}fc1.weight"], path, "TLEE")
    convolutions = {f"{ours}crm.{2 * layer}.": f"{theirs}crm.conv{number}." for layer, number in enumerate(numbers)}
    return convolutions | {f"{ours}fc.": f"{theirs}fc1.", f"{ours}alpha": f"{theirs}alpha"}


def _branch_settings(state: State, num_branches: int) -> dict[str, Any]:
    """Return the settings of the branches, inferred from the first; none if there is no branch.

    Pooled to a grid, all branches have the same number of cells; in windows, the number for the authors' input size.
    """
    if not num_branches:
        return {}
    numbers = find_numbers(state, "backbone.branches.0.crm.conv#.weight")
    narrowed, channels = state[f"backbone.branches.0.crm.conv{numbers[0]}.weight"].shape[:2]
    scale = (channels // narrowed).bit_length() - 1
    settings = {"model.branch": "crm", "model.crm_convs": len(numbers), "model.crm_scale": scale}
    if all(_reads_a_grid(state, f"backbone.branches.{index}.") for index in range(num_branches)):
        return settings | {"model.crm_pool": "grid"}
    return settings | {"model.crm_pool": "windows", "model.input_size": PIXELS}


def _reads_a_grid(state: State, branch: str) -> bool:
    channels = state[f"{branch}crm.conv{find_numbers(state, f'{branch}crm.conv#.weight')[-1]}.weight"].shape[0]
    return state[f"{branch}fc1.weight"].shape[1] == channels * CRMBranch.side**2


def _reuse(state: State, path: Path) -> str:
    layers = [name for name in state if name.startswith("feature_func.") and name != WEIGHT_OF_PAST]
    if layers:
        raise UserError(
            f"{path} cannot be imported: it has {join_names(layers)}, reuse by `afrm`, which replaces features by the "
            "sum of two scores; train it with another `useFeatureFunc`"
        )
    if WEIGHT_OF_PAST not in state:
        return "max"
    weight = state[WEIGHT_OF_PAST]
    if weight.numel() != 1 or not 0 < weight.item() < 1:
        raise UserError(
            f"{path} cannot be imported: `{WEIGHT_OF_PAST}`, the weight of the past, is not between 0 and 1 as the "
            "`ema` of this kit; train it with another `useFeatureFunc`"
        )
    return "ema"


def _gate(state: State) -> tuple[str, list[str]]:
    if "exit_selector.0.fc1.weight" in state:
        return "mlp", ["the gate is linear: it is written as an equivalent `mlp` gate of the kit"]
    if "exit_selector.0.conv1.weight" in state:
        return "frameexit", ["batch norm of the gate is always applied; the authors' code skips it for a single video"]
    return "confidence", ["there is no gate, so videos stop by confidence only"]
