"""Frames that someone has extracted already: a folder of numbered pictures."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from tlee.extraction.sampling import Timeline

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def read_folder(
    folder: Path, choose: Callable[[Timeline], list[int]], finish: Callable[[Image.Image], Any]
) -> tuple[list[int], list[Any]]:
    """Read the frames that ``choose`` picks: their indices, and what ``finish`` makes of their RGB images.

    Raises ``ValueError`` with the reason where there are none, their order is not clear or one is damaged.
    """
    files = list_frames(folder)
    indices = choose(Timeline.steady(len(files), rate=None))
    found = {index: finish(_read(files[index])) for index in sorted(set(indices))}
    return indices, [found[index] for index in indices]


def list_frames(folder: Path) -> list[Path]:
    """The pictures of ``folder`` in the order of the last number in their names.

    Optical flow, which the tools of that time put beside the frames as ``flow_x_00001.jpg``, is passed over,
    and so is what has no number. Raises ``ValueError`` if nothing is left or two have the same number.
    """
    numbered = []
    for path in folder.iterdir():
        numbers = re.findall(r"\d+", path.stem)
        if path.suffix.lower() in _SUFFIXES and numbers and not path.name.startswith((".", "flow_")):
            numbered.append((int(numbers[-1]), path))
    if not numbered:
        raise ValueError("it is a folder without numbered pictures")
    numbered.sort()
    for (before, one), (after, other) in pairwise(numbered):
        if before == after:
            raise ValueError(f"it is a folder with two pictures of one number, {one.name} and {other.name}")
    return [path for _, path in numbered]


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow raises all of them
        reason = "no picture" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())
        raise ValueError(f"its picture {path.name} cannot be read ({reason})") from None
