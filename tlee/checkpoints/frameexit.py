"""FrameExit's checkpoints (CVPR 2021): a ResNet, an MLP, a classifier for each time step and a gate for all but one."""

from pathlib import Path

from tlee.checkpoints.gates import frameexit_gate_prefixes, stop_below_to_above
from tlee.checkpoints.layout import IMAGENET, Found, State, demand, numbered
from tlee.checkpoints.resnets import resnet_prefixes, which_resnet


def frameexit(state: State, path: Path) -> Found:
    """Find the settings. Raises ``UserError`` if tensors that every such checkpoint has are missing.

    The authors' gates stop below one half, the kit's above: the last layer of each is negated. Their network has one
    gate more than it asks, since no gate is asked after the last frame.
    """
    demand(state, ("backbone.0.weight", "mlp.layers.0.weight", "classifiers.0.weight"), path, "FrameExit")
    frames, gates = len(numbered(state, "classifiers.#.weight")), len(numbered(state, "exit_selector.#.linear.weight"))
    asked = max(frames - 2, 0)
    prefixes = resnet_prefixes(state, "backbone.") | {"mlp.": "mlp.layers.", "classifiers.": "classifiers."}
    for index in range(asked):
        prefixes |= frameexit_gate_prefixes(index)
    return Found(
        settings={
            "extract.frames": frames,
            "extract.clip_frames": 1,
            "model.method": "frameexit",
            "model.backbone": which_resnet(state, "backbone."),
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
        classes=state["classifiers.0.weight"].shape[0],
        normalise=IMAGENET,
        prefixes=prefixes,
        left_out=(f"exit_selector.{asked}.",),
        convert=lambda ours: stop_below_to_above(ours, asked),
        notes=[
            *([f"`exit_selector.{asked}` is left out: no gate is asked after the last frame"] if gates > asked else []),
            "evaluate.first_threshold is 0.99 for ActivityNet, 0.95 for Mini-Kinetics",
        ],
    )
