"""Conversion shared by all layouts: from the authors' tensor names to the kit's."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tlee.errors import UserError

State = dict[str, torch.Tensor]

KINETICS = "kinetics"
IMAGENET = "imagenet"

REMEDY = "check --as; docs/checkpoints.md describes the files that can be imported"
MAX_LISTED = 3  #: longest list of names in a message
_COUNTER = "num_batches_tracked"  # of batch norm: old files have none, and inference needs none


@dataclass(frozen=True)
class Conversion:
    """Settings inferred from a checkpoint, and the conversion of its tensors to the kit's.

    ``settings`` are the parameters by dotted key that the network requires, ``suggested`` those that the authors used
    with it. ``prefixes`` maps prefixes of the kit's names to those of the authors'; tensors of theirs that begin with
    one of ``ignored`` are not needed. ``convert`` changes renamed tensors in place. ``notes`` are for the user.
    """

    settings: dict[str, Any]
    suggested: dict[str, Any]
    num_classes: int
    normalisation: str
    prefixes: dict[str, str]
    ignored: tuple[str, ...] = ()
    convert: Callable[[State], None] = lambda state: None
    notes: list[str] = field(default_factory=list)


def require_layers(state: State, names: Iterable[str], path: Path, layout: str) -> None:
    """Raise ``UserError`` that names the missing weights of layers that every file of this layout has."""
    missing = [name for name in names if name not in state or state[name].dim() < 2]
    if missing:
        raise UserError(f"{path} is not in {layout}'s layout, it has no layer {join_names(missing)}: {REMEDY}")


def translate(state: State, conversion: Conversion, expected: State, path: Path) -> State:
    """Return the tensors of ``state`` under the names of ``expected``, whose shapes they must have.

    Dimensions of size 1 may differ, for a 1x1 convolution is a linear layer. Missing counters of batch norm are zero.
    Raises ``UserError`` that lists the missing, unknown and misshapen tensors by the authors' names.
    """
    theirs = {name: _their_name(name, conversion.prefixes) for name in expected}
    needed = {name for name in theirs.values() if not name.endswith(_COUNTER)}
    unknown = [name for name in state if name not in theirs.values() and not name.startswith(conversion.ignored)]
    fitting = {name: (state[source], expected[name].shape) for name, source in theirs.items() if source in state}
    misshapen = [
        f"`{theirs[name]}` is {tuple(tensor.shape)} instead of {tuple(shape)}"
        for name, (tensor, shape) in fitting.items()
        if _squeezed(tensor.shape) != _squeezed(shape)
    ]
    problems = [
        (f"lacks {join_names(sorted(needed - state.keys()))}", needed - state.keys()),
        (f"has unknown {join_names(unknown)}", unknown),
        (_join_some(misshapen), misshapen),
    ]
    if any(names for _, names in problems):
        message = "; ".join(text for text, names in problems if names)
        raise UserError(f"{path} {message}: {REMEDY}")
    ours = {name: torch.zeros((), dtype=torch.long) for name in expected if name.endswith(_COUNTER)}
    ours |= {name: tensor.to(expected[name].dtype).reshape(shape) for name, (tensor, shape) in fitting.items()}
    conversion.convert(ours)
    return ours


def find_numbers(state: State, pattern: str) -> list[int]:
    """Return the numbers in place of ``#`` in names like ``pattern``, in ascending order."""
    before, after = map(re.escape, pattern.split("#"))
    matches = (re.fullmatch(rf"{before}(\d+){after}", name) for name in state)
    return sorted(int(match[1]) for match in matches if match)


def join_names(names: list[str]) -> str:
    """Join the first few names in backquotes, with the number of the others."""
    return _join_some([f"`{name}`" for name in names])


def _join_some(parts: list[str]) -> str:
    more = f" and {len(parts) - MAX_LISTED} more" if len(parts) > MAX_LISTED else ""
    return ", ".join(parts[:MAX_LISTED]) + more


def _their_name(name: str, prefixes: dict[str, str]) -> str:
    ours = max((prefix for prefix in prefixes if name.startswith(prefix)), key=len)
    return prefixes[ours] + name.removeprefix(ours)


def _squeezed(shape: Iterable[int]) -> list[int]:
    return [size for size in shape if size != 1]
