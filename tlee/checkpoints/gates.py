"""The authors' two gates as gates of the kit, which stop a video where their score is high."""

import torch

from tlee.checkpoints.layout import State

_LAYERS = {"shared.0": "conv1", "shared.1": "bn1", "shared.3": "conv2", "shared.4": "bn2", "score": "linear"}


def frameexit_gate_prefixes(index: int) -> dict[str, str]:
    """How the kit's names of gate ``index``, of kind ``frameexit``, begin, to how the authors' do."""
    return {f"gates.{index}.{ours}.": f"exit_selector.{index}.{theirs}." for ours, theirs in _LAYERS.items()}


def stop_below_to_above(state: State, gates: int) -> None:
    """Turn gates that stop below one half into gates that stop above it: negate the last layer."""
    for index in range(gates):
        for name in ("weight", "bias"):
            state[f"gates.{index}.score.{name}"] = -state[f"gates.{index}.score.{name}"]


def linear_to_mlp_gate(state: State) -> None:
    """Write TLEE's own gate, in which no activation follows the shared layer, as the kit's ``mlp``, in which one does.

    Theirs is linear: ``a * current + c * past + d``. As ``x = relu(x) - relu(-x)``, four of the
    hidden units, ``a``, ``-a``, ``c`` and ``-c``, compute the same with it; the others are zero.
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
