"""What all layouts share: a table of the authors' tensors becomes a table under the kit's names."""

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
NAMED = 3  # of many names in a message
_COUNTER = "num_batches_tracked"  # of batch norm; old files have none, and evaluation needs none


@dataclass(frozen=True)
class Found:
    """What a checkpoint was found to be, and how its tensors become the kit's.

    ``settings`` are parameters by dotted key that the network cannot do without, ``suggested`` those that the authors
    used with it. ``prefixes`` maps how the kit's names begin to how the authors' do; theirs that begin with one of
    ``left_out`` are not needed. ``convert`` changes renamed tensors in place. ``notes`` are for the user.
    """

    settings: dict[str, Any]
    suggested: dict[str, Any]
    classes: int
    normalise: str
    prefixes: dict[str, str]
    left_out: tuple[str, ...] = ()
    convert: Callable[[State], None] = lambda state: None
    notes: list[str] = field(default_factory=list)


def demand(state: State, names: Iterable[str], path: Path, layout: str) -> None:
    """Raise ``UserError`` that names the weights of layers without which a file cannot be of this layout."""
    missing = [name for name in names if name not in state or state[name].dim() < 2]
    if missing:
        raise UserError(f"{path} is not in {layout}'s layout, it has no layer {listed(missing)}: {REMEDY}")


def translate(state: State, found: Found, expected: State, path: Path) -> State:
    """The tensors of ``state`` under the names of ``expected``, whose shapes they must have.

    Dimensions of size 1 may differ, for a 1x1 convolution is a linear layer. Counters of batch norm that the file lacks
    are zero. Raises ``UserError`` that names, as the authors do, what is missing, unknown or of another shape.
    """
    theirs = {name: _their_name(name, found.prefixes) for name in expected}
    needed = {name for name in theirs.values() if not name.endswith(_COUNTER)}
    unknown = [name for name in state if name not in theirs.values() and not name.startswith(found.left_out)]
    fitting = {name: (state[source], expected[name].shape) for name, source in theirs.items() if source in state}
    misshapen = [
        f"`{theirs[name]}` is {tuple(tensor.shape)} instead of {tuple(shape)}"
        for name, (tensor, shape) in fitting.items()
        if _without_ones(tensor.shape) != _without_ones(shape)
    ]
    problems = [
        (f"lacks {listed(sorted(needed - state.keys()))}", needed - state.keys()),
        (f"has unknown {listed(unknown)}", unknown),
        (_several(misshapen), misshapen),
    ]
    if any(names for _, names in problems):
        told = "; ".join(text for text, names in problems if names)
        raise UserError(f"{path} {told}: {REMEDY}")
    ours = {name: torch.zeros((), dtype=torch.long) for name in expected if name.endswith(_COUNTER)}
    ours |= {name: tensor.to(expected[name].dtype).reshape(shape) for name, (tensor, shape) in fitting.items()}
    found.convert(ours)
    return ours


def numbered(state: State, pattern: str) -> list[int]:
    """The numbers that stand for ``#`` in names like ``pattern``, from the smallest."""
    before, after = map(re.escape, pattern.split("#"))
    matches = (re.fullmatch(rf"{before}(\d+){after}", name) for name in state)
    return sorted(int(match[1]) for match in matches if match)


def listed(names: list[str]) -> str:
    """The first few names in backquotes, and how many more there are."""
    return _several([f"`{name}`" for name in names])


def _several(parts: list[str]) -> str:
    more = f" and {len(parts) - NAMED} more" if len(parts) > NAMED else ""
    return ", ".join(parts[:NAMED]) + more


def _their_name(name: str, prefixes: dict[str, str]) -> str:
    ours = max((prefix for prefix in prefixes if name.startswith(prefix)), key=len)
    return prefixes[ours] + name.removeprefix(ours)


def _without_ones(shape: Iterable[int]) -> list[int]:
    return [size for size in shape if size != 1]
