"""JHMDB (Jhuang et al., ICCV 2013): 21 classes, 928 clips of 15 to 40 frames, three splits; a subset of HMDB51.

http://jhmdb.is.tue.mpg.de
"""

from pathlib import Path

from tlee.datasets.class_lists import read_class_lists
from tlee.datasets.files import find_folder
from tlee.datasets.manifest import Dataset, make_manifest
from tlee.params import DatasetParams

_FOLDERS = ("splits", "annotations", ".")
_MARKS = {"1": "train", "2": "test"}


def read_jhmdb(params: DatasetParams, _seed: int) -> Dataset:
    """Read JHMDB from its files ``<class>_test_split<number>.txt``; every clip is in one of the splits.

    A group is one source video. The official splits keep the clips of one class and source together, but not those of
    different classes. Raises ``UserError`` for missing files, and for a malformed line, with its number.
    """
    classes, videos = read_class_lists(params, _FOLDERS, _MARKS)
    return Dataset(find_folder(Path(params.root), "ReCompress_Videos", "videos", "."), classes, make_manifest(videos))
