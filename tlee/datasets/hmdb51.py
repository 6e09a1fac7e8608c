"""HMDB51: 51 classes, 6,766 clips, three splits.

https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/
"""

import re
from pathlib import Path

from tlee.datasets.files import REMEDY, check_split, find_folder, read_lines
from tlee.datasets.manifest import Dataset, Video, make_manifest
from tlee.errors import UserError
from tlee.params import DatasetParams

_SPLITS = {"0": None, "1": "train", "2": "test"}
_FOLDERS = ("testTrainMulti_7030_splits", "annotations", ".")


def read_hmdb51(params: DatasetParams, _seed: int) -> Dataset:
    """Read HMDB51 from its files ``<class>_test_split<number>.txt``; clips marked 0 are in neither split.

    A group is one source video, whose name precedes the class in the name of a clip: the clips of a film that shows
    several classes are one group. The official splits keep the clips of one class and source together, but not those
    of different classes. Classes are in alphabetical order. Raises ``UserError`` for missing files, and for a
    malformed line, with its number.
    """
    check_split(params, 3)
    root = Path(params.root)
    ending = f"_test_split{params.split}.txt"
    files = next(filter(None, (sorted((root / folder).glob(f"*{ending}")) for folder in _FOLDERS)), None)
    if not files:
        places = ", ".join(str(root / folder) for folder in _FOLDERS)
        raise UserError(f"no annotation files: looked for <class>{ending} in {places}: {REMEDY}")
    by_class = {file.name.removesuffix(ending): file for file in files}
    classes = sorted(by_class)
    videos = [video for label, name in enumerate(classes) for video in _read_class(by_class[name], name, label)]
    return Dataset(find_folder(root, "hmdb51_org", "videos", "."), classes, make_manifest(videos))


def _read_class(file: Path, name: str, label: int) -> list[Video]:
    videos = []
    for number, line in read_lines(file):
        parts = re.fullmatch(r"(\S.*)\s+([012])", line)
        source, found, _ = parts[1].rpartition(f"_{name}_") if parts else ("", "", "")
        if not parts or not found:
            raise UserError(f"{file} line {number}: `{line}` is not a clip of `{name}` and 0, 1 or 2")
        if split := _SPLITS[parts[2]]:
            videos.append(Video(f"{name}/{parts[1]}", [label], split, source))
    return videos
