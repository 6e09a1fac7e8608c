"""Folders of numbered images: frames extracted by another tool."""

import re
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from tlee.extraction.limits import check_frame_size
from tlee.extraction.sampling import Timeline

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def read_folder(
    folder: Path, choose: Callable[[Timeline], list[int]], finish: Callable[[Image.Image], Any]
) -> tuple[list[int], list[Any]]:
    """Read the frames selected by ``choose``: their indices, and their RGB images converted by ``finish``.

    Raises ``ValueError`` with the reason if there are none, their order is ambiguous or one is damaged.
    """
    files = list_frames(folder)
    indices = choose(Timeline.constant_rate(len(files), rate=None))
    frames = {index: finish(_read(files[index])) for index in sorted(set(indices))}
    return indices, [frames[index] for index in indices]


def list_frames(folder: Path) -> list[Path]:
    """List the images of ``folder`` in the order of the last number in their names.

    Files without a number are skipped, and so is optical flow, which some tools store with the frames as
    ``flow_x_00001.jpg``. Raises ``ValueError`` if no image is left or two have the same number.
    """
    numbered = []
    for path in folder.iterdir():
        numbers = re.findall(r"\d+", path.stem)
        if path.suffix.lower() in _SUFFIXES and numbers and not path.name.startswith((".", "flow_")):
            numbered.append((int(numbers[-1]), path))
    if not numbered:
        raise ValueError("it is a folder without numbered images")
    numbered.sort()
    for (before, one), (after, other) in pairwise(numbered):
        if before == after:
            raise ValueError(f"it is a folder with two images of the same number, {one.name} and {other.name}")
    return [path for _, path in numbered]


def _own_limit() -> warnings.catch_warnings:
    """Silence Pillow's warning of large images, whose limit is above ours."""
    return warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)


def _read(path: Path) -> Image.Image:
    try:
        with _own_limit(), Image.open(path) as image:
            check_frame_size(*image.size)
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow raises all of them
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())
        raise ValueError(f"its image {path.name} cannot be read ({reason})") from None
