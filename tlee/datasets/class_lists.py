"""Lists of clips by class in the format of HMDB51: ``<class>_test_split<number>.txt`` with lines ``clip mark``."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlee.datasets.files import REMEDY, check_split, read_lines
from tlee.datasets.manifest import Video
from tlee.errors import UserError
from tlee.params import DatasetParams

_SPLITS = 3


def read_class_lists(
    params: DatasetParams, folders: Sequence[str], marks: Mapping[str, str | None]
) -> tuple[list[str], list[Video]]:
    """Read the lists of split ``params.split`` in the first of ``folders`` below ``params.root`` that contains any.

    ``marks`` maps the mark of a clip to its split; clips with mark None are left out. Returns the class names in
    alphabetical order, and the clips as ``<class>/<clip>``. A group is one source video, whose name precedes the class
    in the name of a clip: the clips of a film that shows several classes are one group. Raises ``UserError`` for
    missing lists, and for a malformed line, with its number.
    """
    check_split(params, _SPLITS)
    root = Path(params.root)
    ending = f"_test_split{params.split}.txt"
    files = next(filter(None, (sorted((root / folder).glob(f"*{ending}")) for folder in folders)), None)
    if not files:
        places = ", ".join(str(root / folder) for folder in folders)
        raise UserError(f"no annotation files: looked for <class>{ending} in {places}: {REMEDY}")
    by_class = {file.name.removesuffix(ending): file for file in files}
    classes = sorted(by_class)
    videos = [video for label, name in enumerate(classes) for video in _read_class(by_class[name], name, label, marks)]
    return classes, videos


def _read_class(file: Path, name: str, label: int, marks: Mapping[str, str | None]) -> list[Video]:
    videos = []
    for number, line in read_lines(file):
        parts = re.fullmatch(r"(.*\S)\s+(\S+)", line)
        source, found, _ = parts[1].rpartition(f"_{name}_") if parts else ("", "", "")
        if not parts or not found or parts[2] not in marks:
            raise UserError(f"{file} line {number}: `{line}` is not a clip of `{name}` and {_one_of(marks)}")
        if split := marks[parts[2]]:
            videos.append(Video(f"{name}/{parts[1]}", [label], split, source))
    return videos


def _one_of(marks: Mapping[str, str | None]) -> str:
    *others, last = sorted(marks)
    return f"{', '.join(others)} or {last}"
