"""Search and reading of annotation files and videos, shared by all data sets."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from tlee.errors import UserError
from tlee.params import DatasetParams

VIDEO_SUFFIXES = frozenset(
    [".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"]
)
REMEDY = "correct dataset.root and dataset.split, or fetch the demo clips with `dvc pull data.dvc`"


def check_split(params: DatasetParams, count: int) -> None:
    """Raise ``UserError`` if ``dataset.split`` exceeds the ``count`` splits of the data set."""
    if params.split > count:
        remedy = f"choose 1 to {count}" if count > 1 else "set it to 1"
        raise UserError(
            f"dataset.split is {params.split}, but {params.name} has {count} split{'s'[: count > 1]}: {remedy}"
        )


def find_annotations(root: Path, folders: Sequence[str], formats: Sequence[Sequence[str]]) -> tuple[int, list[Path]]:
    """Find the first of ``formats`` (file names) that is complete in one of ``folders`` below ``root``.

    Returns the position of the format and its files. Raises ``UserError`` that names the missing files of the most
    complete format, or all formats if there is no file at all.
    """
    candidates = [(root / folder, position) for folder in folders for position in range(len(formats))]
    for folder, position in candidates:
        files = [folder / name for name in formats[position]]
        if all(file.is_file() for file in files):
            return position, files
    folder, position = max(candidates, key=lambda pair: sum((pair[0] / name).is_file() for name in formats[pair[1]]))
    missing = [folder / name for name in formats[position] if not (folder / name).is_file()]
    if len(missing) < len(formats[position]):
        others = "".join(f", nor does {file}" for file in missing[1:])
        raise UserError(f"{missing[0]} does not exist{others}: {REMEDY}")
    raise UserError(
        f"no annotation files: looked for {'; or '.join(', '.join(names) for names in formats)} "
        f"in {', '.join(str(root / folder) for folder in folders)}: {REMEDY}"
    )


def find_folder(root: Path, *names: str) -> Path:
    """Return the first of the folders ``names`` below ``root`` that exists; the first of all if none does."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])


def find_videos(folder: Path, stems: set[str]) -> dict[str, str]:
    """Find the videos named ``stems`` below ``folder``, at any depth: video files, or folders of their frames.

    Returns relative paths by name without suffix; of two videos with the same name, the first in alphabetical order.
    """
    found: dict[str, str] = {}
    for current, folders, files in os.walk(folder):
        below = Path(current).relative_to(folder)
        names = {name: name for name in folders if name in stems}
        names |= {file: Path(file).stem for file in files if Path(file).suffix.lower() in VIDEO_SUFFIXES}
        for name in sorted(names):
            if names[name] in stems:
                found.setdefault(names[name], (below / name).as_posix())
        folders[:] = sorted(set(folders) - stems)  # folders of frames are not searched
    return found


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return the non-empty lines with their numbers from 1. Raises ``UserError`` if the file is not UTF-8 text."""
    lines = enumerate(_read(file).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_json(file: Path) -> Any:
    """Read a JSON file. Raises ``UserError`` if it is not valid."""
    try:
        return json.loads(_read(file))
    except json.JSONDecodeError as error:
        raise UserError(f"{file} line {error.lineno} is not valid JSON ({error.msg}): download it again") from None


@contextmanager
def parsing(file: Path, expected: str) -> Iterator[None]:
    """Turn an error in the block that parses ``file``, such as a missing key, into ``UserError``."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{file} is not {expected} ({type(error).__name__}: {error}): download it again") from None


def read_table(file: Path, columns: Sequence[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Read ``columns`` of a CSV file as text, those in ``numbers`` as finite numbers.

    Raises ``UserError`` if a column is missing or contains something else than a number.
    """
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a CSV file ({' '.join(str(error).split())}): download it again") from None
    missing = [column for column in columns if column not in table]
    if missing:
        raise UserError(f"{file} has no column {', '.join(missing)}: its first line should name them")
    table = table[list(columns)].copy()
    for column in numbers:
        values = pd.to_numeric(table[column], errors="coerce")
        if values.isna().any():
            row = values.isna().argmax()
            raise UserError(f"{file} row {row + 1}: {column} is `{table[column].iloc[row]}`, not a number of seconds")
        table[column] = values
    return table


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
