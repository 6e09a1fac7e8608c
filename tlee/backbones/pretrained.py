"""Pretrained weights: torchvision's for ImageNet, or a file, with their normalisation."""

import math
from pathlib import Path

import torch

from tlee._torchvision import models
from tlee.backbones.cut import Backbone
from tlee.backbones.normalise import IMAGENET_MEAN, IMAGENET_STD
from tlee.errors import UserError
from tlee.weights import load_state, read_weights

REMEDY = "correct model.weights (null trains from scratch)"
CLASSIFIERS = ("classifier.", "fc.", "blocks.5.proj.")  #: prefixes in torchvision's networks and PyTorchVideo's X3D


def load_imagenet(backbone: Backbone, name: str) -> None:
    """Load torchvision's first ImageNet weights of the architecture, the ones available to the papers.

    They are downloaded once, into the folder of ``torch.hub``. Raises ``UserError`` if torchvision has none for
    backbone ``name``, or if they cannot be downloaded.
    """
    if backbone.imagenet is None:
        raise UserError(f"there are no ImageNet weights for {name}: set model.weights to your own file, or to null")
    weights = models.get_model_weights(backbone.imagenet)["IMAGENET1K_V1"]
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        state = weights.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:  # a network or a damaged pickle can raise any
        problem = "are damaged" if path.exists() else f"cannot be downloaded ({' '.join(str(error).split())})"
        raise UserError(
            f"the ImageNet weights of {name} {problem}: put {weights.url} at {path}, "
            "or set model.weights to your own file"
        ) from None
    preprocessing = weights.transforms()
    _load(backbone, state, path)
    backbone.normalise.set(preprocessing.mean, preprocessing.std)


def load_file(backbone: Backbone, path: str | Path) -> None:
    """Load a ``.safetensors``, ``.pth`` or ``.pt`` file in torchvision's layout; its classifier is ignored.

    ``mean`` and ``std`` in the metadata of a ``.safetensors`` file, such as ``0.5,0.5,0.5`` (RGB in 0..1), set the
    normalisation; otherwise it is ImageNet's.
    Raises ``UserError`` if the file is missing, damaged or belongs to another network.
    """
    state, metadata = read_weights(path, REMEDY)
    mean, std = _statistics(metadata, path)
    _load(backbone, state, path)
    backbone.normalise.set(mean, std)


def _load(backbone: Backbone, state: dict[str, torch.Tensor], path: str | Path) -> None:
    headless = {name: value for name, value in state.items() if not name.startswith(CLASSIFIERS)}
    load_state(backbone.body, headless, path, REMEDY)


def _statistics(metadata: dict[str, str], path: str | Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if "mean" not in metadata and "std" not in metadata:
        return IMAGENET_MEAN, IMAGENET_STD
    mean, std = (_three_numbers(metadata, key, path) for key in ("mean", "std"))
    if min(std) <= 0:
        raise UserError(f"{path}: `std` in its metadata is {metadata['std']!r}, should be above 0: {REMEDY}")
    return mean, std


def _three_numbers(metadata: dict[str, str], key: str, path: str | Path) -> tuple[float, ...]:
    text = metadata.get(key)
    if text is None:
        raise UserError(f"{path} has no `{key}` in its metadata, but mean and std must both be there: {REMEDY}")
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise UserError(f"{path}: `{key}` in its metadata is {text!r}, should be like 0.5,0.5,0.5: {REMEDY}")
    return numbers
