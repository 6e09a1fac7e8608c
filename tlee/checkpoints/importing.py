"""Import of a published checkpoint to a file for ``model.trained``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tlee.backbones.normalise import IMAGENET_MEAN, IMAGENET_STD
from tlee.checkpoints.frameexit import frameexit
from tlee.checkpoints.layout import IMAGENET, KINETICS, Conversion, State, translate
from tlee.checkpoints.tlee import tlee, with_reuse, without_branches
from tlee.errors import UserError
from tlee.model import TLEE, whole, without_initial_weights
from tlee.params import Params, load_params
from tlee.weights import is_state_dict, load_pickle, save_tensors

#: Functions that infer the settings of a checkpoint, by ``--as``; they raise ``UserError`` for another layout.
LAYOUTS: dict[str, Callable[[State, Path], Conversion]] = {"frameexit": frameexit, "tlee": tlee}

#: Mean and standard deviation of RGB in 0..1 for the normalisation of frames.
NORMALISATIONS = {
    IMAGENET: (IMAGENET_MEAN, IMAGENET_STD),
    KINETICS: ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
}

_REMEDY = "download it again, or save only its `state_dict`"
_PARALLEL = "module."  # prefix of the names if the network was trained on several GPUs


@dataclass(frozen=True)
class Imported:
    """Result of an import: the written file, the parameters to set, and notes for the user."""

    file: Path
    classes: list[str]
    settings: dict[str, Any]  #: values by dotted key
    current: Params  #: parameters before the change
    notes: list[str]


def import_checkpoint(
    path: Path,
    layout: str,
    params_file: Path,
    to: Path,
    *,
    class_file: Path | None = None,
    normalise: str | None = None,
    branches: bool = True,
    reuse: str | None = None,
) -> Imported:
    """Write the network of a published checkpoint as one weight file of the kit.

    Its architecture is inferred from the tensors in the file, and otherwise taken from ``params_file``. ``normalise``
    is one of ``NORMALISATIONS``, by default that of the authors' configurations. With ``branches`` False, TLEE's
    branches are omitted; ``reuse`` names one of ``tlee.REUSE_WEIGHTS`` if the network was trained with it. The names in
    ``class_file``, one per line, are in the order of the classifier; without it, numbers are names.

    Raises ``UserError`` in one line if the file is damaged, contains more than tensors, is in another layout or of a
    network that the kit cannot compute, and if the number of names is not the number of classes.
    """
    if to.suffix != ".safetensors":
        raise UserError(f"{to} should end with .safetensors: correct --to")
    current = load_params(params_file)
    state = read_state(path) if branches else without_branches(read_state(path))
    if reuse is not None:
        if layout != "tlee":
            raise UserError(
                f"{path}: --reuse is of TLEE's networks, FrameExit's reuse is always the maximum: leave it out"
            )
        state = with_reuse(state, reuse)
    conversion = LAYOUTS[layout](state, path)
    classes = _class_names(class_file, conversion.num_classes)
    params = load_params(params_file, conversion.settings)
    with torch.device("meta"):
        expected = whole(TLEE(without_initial_weights(params), conversion.num_classes)).state_dict()
    normalisation = normalise or conversion.normalisation
    mean, std = NORMALISATIONS[normalisation]
    constant = {"backbone.normalise.mean": torch.tensor(mean), "backbone.normalise.std": torch.tensor(std)}
    learned = {name: tensor for name, tensor in expected.items() if name not in constant}
    ours = translate(state, conversion, learned, path) | constant
    try:
        save_tensors(
            to, {name: ours[name] for name in expected}, {"classes": classes, "model": params.model.model_dump()}
        )
    except OSError as error:
        raise UserError(f"cannot write {to} ({error.strerror}): name another file with --to") from None
    notes = [f"frames are normalised as for {normalisation} (--normalise)", *conversion.notes]
    if class_file is None:
        notes.append(
            "class k of the network is assumed to be class k of your data set: compare the orders, or give --classes"
        )
    settings = conversion.settings | conversion.suggested | {"model.trained": _relative(to, params_file.parent)}
    return Imported(to, classes, settings, current, notes)


def read_state(path: Path) -> State:
    """Read the tensors of a ``.pth`` file by the authors' names: the file itself, or its ``state_dict``.

    Nothing but tensors and plain values is ever loaded. Raises ``UserError`` if there is anything else, or no tensor.
    """
    content = load_pickle(path, _REMEDY)
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not is_state_dict(state) or not state:
        raise UserError(f"{path} contains no dictionary of tensors by name: {_REMEDY}")
    if all(name.startswith(_PARALLEL) for name in state):
        state = {name.removeprefix(_PARALLEL): tensor for name, tensor in state.items()}
    return dict(state)


def _relative(file: Path, folder: Path) -> str:
    folder, file = folder.resolve(), file.resolve()
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def _class_names(file: Path | None, count: int) -> list[str]:
    if file is None:
        return [str(number) for number in range(count)]
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} cannot be read ({getattr(error, 'strerror', 'not UTF-8')}): correct --classes"
        ) from None
    if len(names) != count:
        raise UserError(f"{file} names {len(names)} classes, but the checkpoint has {count}: correct --classes")
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise UserError(f"{file} names the class `{duplicates[0]}` twice: correct --classes")
    return names
