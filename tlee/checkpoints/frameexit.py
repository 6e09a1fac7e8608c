"""FrameExit's checkpoints (CVPR 2021): a ResNet, an MLP, a classifier per time step and a gate for all but one."""

from pathlib import Path

from tlee.checkpoints.gates import frameexit_gate_prefixes, negate_gates
from tlee.checkpoints.layout import IMAGENET, Conversion, State, find_numbers, require_layers
from tlee.checkpoints.resnets import resnet_name, resnet_prefixes


def frameexit(state: State, path: Path) -> Conversion:
    """Infer the settings. Raises ``UserError`` if tensors that every such checkpoint has are missing.

    The authors' gates stop below one half, the kit's above: the last layer of each is negated. Their network has one
    gate more than it uses, since no gate is used after the last frame.
    """
    require_layers(state, ("backbone.0.weight", "mlp.layers.0.weight", "classifiers.0.weight"), path, "FrameExit")
    num_frames = len(find_numbers(state, "classifiers.#.weight"))
    num_gates = len(find_numbers(state, "exit_selector.#.linear.weight"))
    num_used = max(num_frames - 2, 0)
    prefixes = resnet_prefixes(state, "backbone.") | {"mlp.": "mlp.layers.", "classifiers.": "classifiers."}
    for index in range(num_used):
        prefixes |= frameexit_gate_prefixes(index)
    notes = ["evaluate.first_threshold is 0.99 for ActivityNet, 0.95 for Mini-Kinetics"]
    if num_gates > num_used:
        notes.insert(0, f"`exit_selector.{num_used}` is ignored: no gate is used after the last frame")
    return Conversion(
        settings={
            "extract.frames": num_frames,
            "extract.clip_frames": 1,
            "model.method": "frameexit",
            "model.backbone": resnet_name(state, "backbone."),
            "model.num_branches": 0,
            "model.mlp": state["mlp.layers.0.weight"].shape[0],
            "model.reuse": "max",
            "model.readout": "per_step",
            "model.gate": "frameexit",
        },
        suggested={
            "extract.short_side": 256,
            "model.input_size": 224,
            "model.order": "coarse_to_fine",
            "evaluate.first_threshold": 0.99,
            "evaluate.gate_threshold": 0.5,
            "evaluate.stop_threshold": 1.0,
        },
        num_classes=state["classifiers.0.weight"].shape[0],
        normalisation=IMAGENET,
        prefixes=prefixes,
        ignored=(f"exit_selector.{num_used}.",),
        convert=lambda ours: negate_gates(ours, num_used),
        notes=notes,
    )
