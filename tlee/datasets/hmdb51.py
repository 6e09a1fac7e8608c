"""HMDB51: 51 classes, 6,766 clips, three splits.

https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/
"""

from pathlib import Path

from tlee.datasets.class_lists import read_class_lists
from tlee.datasets.files import find_folder
from tlee.datasets.manifest import Dataset, make_manifest
from tlee.params import DatasetParams

_FOLDERS = ("testTrainMulti_7030_splits", "annotations", ".")
_MARKS = {"0": None, "1": "train", "2": "test"}


def read_hmdb51(params: DatasetParams, _seed: int) -> Dataset:
    """Read HMDB51 from its files ``<class>_test_split<number>.txt``; clips marked 0 are in neither split.

    A group is one source video. The official splits keep the clips of one class and source together, but not those of
    different classes. Raises ``UserError`` for missing files, and for a malformed line, with its number.
    """
    classes, videos = read_class_lists(params, _FOLDERS, _MARKS)
    return Dataset(find_folder(Path(params.root), "hmdb51_org", "videos", "."), classes, make_manifest(videos))
