"""Tensors in ``.safetensors`` files, with what they are about; the same content gives the same bytes."""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from tlee.errors import UserError

_ABOUT = "tlee"  # one entry: the order of several would change from run to run
_PICKLES = (".pth", ".pt")


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> Path:
    """Write ``tensors`` and ``about``, which must be JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(whole, path, {_ABOUT: json.dumps(about)})
    return path


def load_tensors(path: str | Path, remedy: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and what they are about (nothing, if another program wrote them).

    Raises ``UserError`` with ``remedy`` if the file is missing or not whole.
    """
    tensors, metadata = _read_safetensors(path, remedy)
    return tensors, json.loads(metadata.get(_ABOUT, "{}"))


def read_weights(path: str | Path, remedy: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the raw metadata of a file that any program wrote: ``.safetensors``, ``.pth`` or ``.pt``.

    A ``.pth`` or ``.pt`` file has no metadata, and nothing in it but tensors is ever loaded.
    Raises ``UserError`` with ``remedy`` if the file is missing, not whole or of another kind.
    """
    if Path(path).suffix in _PICKLES:
        return _read_pickle(path, remedy), {}
    return _read_safetensors(path, remedy)


def _read_safetensors(path: str | Path, remedy: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {remedy}") from None
    except (safetensors.SafetensorError, OSError):
        raise UserError(f"{path} is not a whole .safetensors file: {remedy}") from None


def load_pickle(path: str | Path, remedy: str) -> Any:
    """What ``torch.save`` wrote: tensors and plain containers, numbers and text; nothing else is ever loaded.

    Raises ``UserError`` with ``remedy`` if the file is missing, not whole or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {remedy}") from None
    except Exception:  # a damaged pickle can raise any
        raise UserError(f"{path} is not a whole {Path(path).suffix} file of tensors alone: {remedy}") from None


def _read_pickle(path: str | Path, remedy: str) -> dict[str, torch.Tensor]:
    state = load_pickle(path, remedy)
    if not is_table_of_tensors(state):
        raise UserError(f"{path} is not a table of named tensors: {remedy}")
    return state


def is_table_of_tensors(content: Any) -> bool:
    """Whether it is a dictionary of tensors by name."""
    return isinstance(content, dict) and all(_is_named_tensor(*item) for item in content.items())


def _is_named_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, torch.Tensor)


def load_state(module: nn.Module, state: dict[str, torch.Tensor], path: str | Path, remedy: str) -> None:
    """Load ``state``, read from ``path``, into ``module``.

    Raises ``UserError`` with ``remedy`` that names the first missing, unknown or misshapen tensor.
    """
    own = module.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    state = counters | state  # of batch norm; old files have none, and evaluation needs none
    for problem, names in (("lacks", own.keys() - state.keys()), ("has an unknown", state.keys() - own.keys())):
        if names:
            raise UserError(f"{path} {problem} tensor `{min(names)}`, so it is of another network: {remedy}")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            shapes = f"{tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            raise UserError(f"{path}: `{name}` is {shapes}, so it was made with other parameters: {remedy}")
    module.load_state_dict(state)
