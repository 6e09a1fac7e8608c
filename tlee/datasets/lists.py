"""Lists of videos as many papers pass them on: lines ``path frames label``, classes numbered from 0."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tlee.datasets.files import read_lines
from tlee.errors import UserError

CLASS_FILE = "classes.txt"


class Entry(NamedTuple):
    """One line of a list; ``where`` names its file and line number."""

    where: str
    split: str
    path: str
    labels: list[int]


def read_lists(train: Path, test: Path, *, several: bool = False) -> list[Entry]:
    """The lines of both lists; with ``several``, a line may end with more than one label.

    Paths may hold spaces. The number of frames is not used: extraction counts what is there. Raises ``UserError``
    for a line of another form, and where no video has label 0, since such lists count from 1.
    """
    pattern = re.compile(r"(.+?)\s+\d+\s+(\d+(?:[\s,]+\d+)*)" if several else r"(.+)\s+\d+\s+(\d+)")
    entries = []
    for split, file in (("train", train), ("test", test)):
        for number, line in read_lines(file):
            where = f"{file} line {number}"
            parts = pattern.fullmatch(line)
            if not parts:
                raise UserError(f"{where}: `{line}` is not a path, a number of frames and a class number")
            labels = [int(label) for label in re.split(r"[\s,]+", parts[2])]
            entries.append(Entry(where, split, parts[1], labels))
    if not any(0 in entry.labels for entry in entries):
        raise UserError(f"no video in {train} and {test.name} has label 0: number the classes from 0")
    return entries


def name_classes(
    entries: list[Entry], known: list[str] | None, name_of: Callable[[str], str | None] = lambda path: None
) -> list[str]:
    """The class names in the order of their numbers: ``known``, or those that paths carry, or the numbers themselves.

    ``name_of`` tells the class name that a path carries. Raises ``UserError`` where names and numbers disagree;
    case and underscores may differ.
    """
    named = dict(enumerate(known or []))
    count = len(known) if known else 1 + max(label for entry in entries for label in entry.labels)
    for entry in entries:
        if max(entry.labels) >= count:
            raise UserError(f"{entry.where}: there is no class {max(entry.labels)}, {count} are named from 0 on")
        label, name = entry.labels[0], name_of(entry.path)
        if name and _plain(name) != _plain(named.setdefault(label, name)):
            raise UserError(f"{entry.where}: `{name}` has label {label}, the number of `{named[label]}` (from 0)")
    return [named.get(label, str(label)) for label in range(count)]


def read_class_names(folder: Path, *names: str) -> list[str] | None:
    """The lines of ``classes.txt``, or the first of ``names``, in ``folder``; None where there is no such file."""
    for name in (CLASS_FILE, *names):
        if (folder / name).is_file():
            return [line for _, line in read_lines(folder / name)]
    return None


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()
