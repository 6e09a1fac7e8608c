"""From the authors' file to one that ``model.trained`` can name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tlee.backbones.normalise import IMAGENET_MEAN, IMAGENET_STD
from tlee.checkpoints.frameexit import frameexit
from tlee.checkpoints.layout import IMAGENET, KINETICS, Found, State, translate
from tlee.checkpoints.tlee import tlee, without_branches
from tlee.errors import UserError
from tlee.model import TLEE, whole, without_initial_weights
from tlee.params import Params, load_params
from tlee.weights import is_table_of_tensors, load_pickle, save_tensors

#: ``--as`` to what finds the settings of a checkpoint; it raises ``UserError``, naming the file, if it is another's.
LAYOUTS: dict[str, Callable[[State, Path], Found]] = {"frameexit": frameexit, "tlee": tlee}

#: Mean and standard deviation of RGB in 0..1 with which frames were normalised.
NORMALISATIONS = {
    IMAGENET: (IMAGENET_MEAN, IMAGENET_STD),
    KINETICS: ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
}

_REMEDY = "download it again, or save its `state_dict` alone where it was made"
_PARALLEL = "module."  # how names begin where the network was trained on several GPUs


@dataclass(frozen=True)
class Imported:
    """What was written and what the user is to know: ``settings`` by dotted key, what ``given`` says of them, notes."""

    file: Path
    classes: list[str]
    settings: dict[str, Any]
    given: Params
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
) -> Imported:
    """Write the network of a published checkpoint as one weight file of the kit.

    Its shape is that of the tensors in the file; what they do not tell is as in ``params_file``. ``normalise`` names
    one of ``NORMALISATIONS``, by default that of the authors' configurations. Without ``branches`` those of TLEE are
    left out. The names in ``class_file``, one a line, are in the order of the classifier; without it numbers are names.

    Raises ``UserError`` in one line if the file is damaged, needs more than tensors to be loaded, is in another layout
    or of a network that the kit cannot compute, and if there are not as many names as classes.
    """
    if to.suffix != ".safetensors":
        raise UserError(f"{to} should end with .safetensors: correct --to")
    given = load_params(params_file)
    state = read_state(path) if branches else without_branches(read_state(path))
    found = LAYOUTS[layout](state, path)
    classes = _class_names(class_file, found.classes)
    params = load_params(params_file, found.settings)
    with torch.device("meta"):
        expected = whole(TLEE(without_initial_weights(params), found.classes)).state_dict()
    mean, std = NORMALISATIONS[normalise or found.normalise]
    constant = {"backbone.normalise.mean": torch.tensor(mean), "backbone.normalise.std": torch.tensor(std)}
    learnt = {name: tensor for name, tensor in expected.items() if name not in constant}
    ours = translate(state, found, learnt, path) | constant
    try:
        save_tensors(
            to, {name: ours[name] for name in expected}, {"classes": classes, "model": params.model.model_dump()}
        )
    except OSError as error:
        raise UserError(f"cannot write {to} ({error.strerror}): name another file with --to") from None
    notes = [f"frames are normalised as for {normalise or found.normalise} (--normalise)", *found.notes]
    if class_file is None:
        notes.append(
            "class k of the network is taken for class k of your data set: compare the orders, or give --classes"
        )
    settings = found.settings | found.suggested | {"model.trained": _as_seen_from(params_file.parent, to)}
    return Imported(to, classes, settings, given, notes)


def read_state(path: Path) -> State:
    """The tensors of a ``.pth`` file by the authors' names: the file itself, or its ``state_dict``.

    Nothing but tensors and plain values is ever loaded. Raises ``UserError`` if there is anything else, or nothing.
    """
    content = load_pickle(path, _REMEDY)
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not is_table_of_tensors(state) or not state:
        raise UserError(f"{path} holds no table of named tensors: {_REMEDY}")
    if all(name.startswith(_PARALLEL) for name in state):
        state = {name.removeprefix(_PARALLEL): tensor for name, tensor in state.items()}
    return dict(state)


def _as_seen_from(folder: Path, file: Path) -> str:
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
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{file} names the class `{twice[0]}` twice: correct --classes")
    return names
