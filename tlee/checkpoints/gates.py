"""Conversion of the authors' two gates to gates of the kit, which stop a video if their score is high."""

import torch

from tlee.checkpoints.layout import State

_LAYERS = {"shared.0": "conv1", "shared.1": "bn1", "shared.3": "conv2", "shared.4": "bn2", "score": "linear"}


def frameexit_gate_prefixes(index: int) -> dict[str, str]:
    """Return prefixes of tensor names of gate ``index``, of kind ``frameexit``: the kit's to the authors'."""
    return {f"gates.{index}.{ours}.": f"exit_selector.{index}.{theirs}." for ours, theirs in _LAYERS.items()}


def negate_gates(state: State, num_gates: int) -> None:
    """Turn gates that stop below one half into gates that stop above it: negate the last layer."""
    for index in range(num_gates):
        for name in ("weight", "bias"):
            state[f"gates.{index}.score.{name}"] = -state[f"gates.{index}.score.{name}"]


def linear_to_mlp_gate(state: State) -> None:
    """Rewrite TLEE's own gate, without an activation after the shared layer, as the kit's ``mlp``, which has one.

    The authors' gate is linear: ``a * current + c * past + d``. Since ``x = relu(x) - relu(-x)``, four hidden units,
    ``a``, ``-a``, ``c`` and ``-c``, compute the same with the activation; the others are zero.
    """
    shared, bias = state["gates.0.fc1.weight"].double(), state["gates.0.fc1.bias"].double()
    of_current, of_past = state["gates.0.fc2.weight"].double().squeeze(0).chunk(2)
    hidden = torch.zeros_like(shared)
    hidden[:4] = torch.stack([of_current @ shared, -of_current @ shared, of_past @ shared, -of_past @ shared])
    score = torch.zeros(2, len(shared))
    score[0, :2] = score[1, 2:4] = torch.tensor([1.0, -1.0])
    constant = state["gates.0.fc2.bias"].double() + (of_current + of_past) @ bias
    state["gates.0.fc1.weight"] = hidden.float()
    state["gates.0.fc1.bias"] = torch.zeros(len(shared))
    state["gates.0.fc2.weight"] = score.reshape(1, -1)
    state["gates.0.fc2.bias"] = constant.float()
