"""Finding and reading annotation files and videos, the same way for every data set."""

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
REMEDY = "correct dataset.root and dataset.split, or bring the demo by `dvc pull data.dvc`"


def check_split(params: DatasetParams, count: int) -> None:
    """Raise ``UserError`` where ``dataset.split`` is beyond the ``count`` splits of the data set."""
    if params.split > count:
        remedy = f"choose 1 to {count}" if count > 1 else "set it to 1"
        raise UserError(f"dataset.split is {params.split}, {params.name} has {count} split{'s'[: count > 1]}: {remedy}")


def find_form(root: Path, folders: Sequence[str], forms: Sequence[Sequence[str]]) -> tuple[int, list[Path]]:
    """The number of the first of ``forms`` that lies complete in one of ``folders`` below ``root``, and its files.

    Raises ``UserError`` that names the missing files of the form that is there in part, or all that was looked for.
    """
    places = [(root / folder, number) for folder in folders for number in range(len(forms))]
    for folder, number in places:
        files = [folder / name for name in forms[number]]
        if all(file.is_file() for file in files):
            return number, files
    folder, number = max(places, key=lambda place: sum((place[0] / name).is_file() for name in forms[place[1]]))
    missing = [folder / name for name in forms[number] if not (folder / name).is_file()]
    if len(missing) < len(forms[number]):
        others = "".join(f", nor does {file}" for file in missing[1:])
        raise UserError(f"{missing[0]} does not exist{others}: {REMEDY}")
    raise UserError(
        f"no annotation files: looked for {'; or '.join(', '.join(form) for form in forms)} "
        f"in {', '.join(str(root / folder) for folder in folders)}: {REMEDY}"
    )


def find_folder(root: Path, *names: str) -> Path:
    """The first of the folders ``names`` below ``root`` that exists; the first of all if none does."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])


def find_videos(folder: Path, stems: set[str]) -> dict[str, str]:
    """Where below ``folder``, at any depth, the videos named ``stems`` lie: video files, or folders of their frames.

    Names are compared without their suffix; of two with one name, the first in alphabetical order counts.
    """
    found: dict[str, str] = {}
    for place, folders, files in os.walk(folder):
        below = Path(place).relative_to(folder)
        names = {name: name for name in folders if name in stems}
        names |= {file: Path(file).stem for file in files if Path(file).suffix.lower() in VIDEO_SUFFIXES}
        for name in sorted(names):
            if names[name] in stems:
                found.setdefault(names[name], (below / name).as_posix())
        folders[:] = sorted(set(folders) - stems)  # not into the frames of a video
    return found


def read_lines(file: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers from 1. Raises ``UserError`` where it is no UTF-8 text."""
    lines = enumerate(_read(file).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_json(file: Path) -> Any:
    """What a JSON file holds. Raises ``UserError`` where it is not valid."""
    try:
        return json.loads(_read(file))
    except json.JSONDecodeError as error:
        raise UserError(f"{file} line {error.lineno} is not valid JSON ({error.msg}): download it again") from None


@contextmanager
def expecting(file: Path, content: str) -> Iterator[None]:
    """Turn what goes wrong while ``file`` is taken apart, for want of a key or a list, into ``UserError``."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{file} is not {content} ({type(error).__name__}: {error}): download it again") from None


def read_table(file: Path, columns: Sequence[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    """``columns`` of a CSV file as text, those in ``numbers`` as finite numbers.

    Raises ``UserError`` where a column is missing, or a number is none.
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
        raise UserError(f"{file} is not UTF-8 text (byte {error.start}): save it as such") from None
