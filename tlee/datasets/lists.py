"""Lists of videos in the format of many papers: lines ``path frames label``, classes numbered from 0."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tlee.datasets.files import read_lines
from tlee.errors import UserError

CLASS_FILE = "classes.txt"


class Entry(NamedTuple):
    """One line of a list; ``location`` is its file and line number."""

    location: str
    split: str
    path: str
    labels: list[int]


def read_lists(train: Path, test: Path, *, multi_label: bool = False) -> list[Entry]:
    """Read both lists; with ``multi_label``, a line may end with more than one label.

    Paths may contain spaces. The number of frames is not used: extraction counts the frames. Raises ``UserError`` for
    a malformed line, and if no video has label 0, since such lists count from 1.
    """
    pattern = re.compile(r"(.+?)\s+\d+\s+(\d+(?:[\s,]+\d+)*)" if multi_label else r"(.+)\s+\d+\s+(\d+)")
    entries = []
    for split, file in (("train", train), ("test", test)):
        for number, line in read_lines(file):
            location = f"{file} line {number}"
            parts = pattern.fullmatch(line)
            if not parts:
                raise UserError(f"{location}: `{line}` is not a path, a number of frames and a class number")
            labels = [int(label) for label in re.split(r"[\s,]+", parts[2])]
            entries.append(Entry(location, split, parts[1], labels))
    if not any(0 in entry.labels for entry in entries):
        raise UserError(f"no video in {train} and {test.name} has label 0: number the classes from 0")
    return entries


def name_classes(
    entries: list[Entry], known: list[str] | None, name_of: Callable[[str], str | None] = lambda path: None
) -> list[str]:
    """Return the class names by number: ``known``, or those contained in paths, or the numbers themselves.

    ``name_of`` extracts the class name from a path. Raises ``UserError`` if names and numbers disagree; case and
    underscores may differ.
    """
    named = dict(enumerate(known or []))
    count = len(known) if known else 1 + max(label for entry in entries for label in entry.labels)
    for entry in entries:
        if max(entry.labels) >= count:
            raise UserError(f"{entry.location}: there is no class {max(entry.labels)}, only {count}, numbered from 0")
        label, name = entry.labels[0], name_of(entry.path)
        if name and _canonical(name) != _canonical(named.setdefault(label, name)):
            raise UserError(f"{entry.location}: `{name}` has label {label}, the number of `{named[label]}` (from 0)")
    return [named.get(label, str(label)) for label in range(count)]


def read_class_names(folder: Path, *names: str) -> list[str] | None:
    """Read the lines of ``classes.txt``, or the first of ``names``, in ``folder``; None if there is no such file."""
    for name in (CLASS_FILE, *names):
        if (folder / name).is_file():
            return [line for _, line in read_lines(folder / name)]
    return None


def _canonical(name: str) -> str:
    return name.replace("_", " ").casefold()
