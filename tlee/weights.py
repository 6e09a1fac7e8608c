"""Tensors in ``.safetensors`` files, with JSON that describes them; the same content gives the same bytes.

The description has a checksum of itself and of all tensors. A ``.pth`` or ``.pt`` file, a ZIP archive, has checksums of
its own, which PyTorch does not compare.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

from tlee.checksums import crc32, sealed, unsealed
from tlee.errors import UserError

_ABOUT = "tlee"  # a single metadata entry: the order of several would change from run to run
_TENSORS = "tensors"  # key of their checksums in that entry
_PICKLES = (".pth", ".pt")


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> Path:
    """Write ``tensors`` and their description ``about``, which must be JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    content = sealed({"about": about, _TENSORS: _checksums(contiguous)})
    safetensors.torch.save_file(contiguous, path, {_ABOUT: json.dumps(content)})
    return path


def _checksums(tensors: dict[str, torch.Tensor]) -> dict[str, list]:
    """Return data type, shape and checksum of each tensor."""
    return {
        name: [str(tensor.dtype), list(tensor.shape), crc32(_bytes_of(tensor))]
        for name, tensor in sorted(tensors.items())
    }


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def load_tensors(path: str | Path, remedy: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the tensors and their description (empty if another program wrote the file).

    Raises ``UserError`` with ``remedy`` if the file is missing, damaged or of an older kit.
    """
    tensors, metadata = _read_safetensors(path, remedy)
    if not any(key == _ABOUT or f'"{_TENSORS}": ' in text for key, text in metadata.items()):
        return tensors, {}
    try:
        content = unsealed(json.loads(metadata[_ABOUT]))
        if content[_TENSORS] == _checksums(tensors):
            return tensors, content["about"]
    except (KeyError, ValueError, RecursionError):
        pass
    raise UserError(f"{path} is damaged or of an older kit: {remedy}")


def read_weights(path: str | Path, remedy: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the tensors and the raw metadata of a file of any program: ``.safetensors``, ``.pth`` or ``.pt``.

    A ``.pth`` or ``.pt`` file has no metadata, and nothing but tensors is ever loaded from it.
    Raises ``UserError`` with ``remedy`` if the file is missing, damaged or of another kind.
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
    except (safetensors.SafetensorError, OSError, ValueError):
        raise UserError(f"{path} is damaged or not a .safetensors file: {remedy}") from None


def load_pickle(path: str | Path, remedy: str) -> Any:
    """Read a file of ``torch.save``: tensors, plain containers, numbers and text; nothing else is ever loaded.

    Raises ``UserError`` with ``remedy`` if the file is missing, damaged or contains anything else.
    """
    try:
        if zipfile.is_zipfile(path):  # otherwise it is in PyTorch's format before 1.6, which has no checksums
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():
                    raise zipfile.BadZipFile
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {remedy}") from None
    except Exception:  # a damaged pickle can raise any
        suffix = Path(path).suffix
        raise UserError(f"{path} is damaged or not a {suffix} file of nothing but tensors: {remedy}") from None


def _read_pickle(path: str | Path, remedy: str) -> dict[str, torch.Tensor]:
    state = load_pickle(path, remedy)
    if not is_state_dict(state):
        raise UserError(f"{path} is not a dictionary of tensors by name: {remedy}")
    return state


def is_state_dict(content: Any) -> bool:
    """Return True if ``content`` is a dictionary of tensors by name."""
    return isinstance(content, dict) and all(_is_named_tensor(*item) for item in content.items())


def _is_named_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, torch.Tensor)


def load_state(module: nn.Module, state: dict[str, torch.Tensor], path: str | Path, remedy: str) -> None:
    """Load ``state``, read from ``path``, into ``module``.

    Raises ``UserError`` with ``remedy`` that names the first missing, unknown or misshapen tensor.
    """
    own = module.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    state = counters | state  # of batch norm: old files have none, and inference needs none
    for problem, names in (("lacks", own.keys() - state.keys()), ("has an unknown", state.keys() - own.keys())):
        if names:
            raise UserError(f"{path} {problem} tensor `{min(names)}`, so it belongs to another network: {remedy}")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            shapes = f"{tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            raise UserError(f"{path}: `{name}` is {shapes}, so it was made with other parameters: {remedy}")
    module.load_state_dict(state)
