"""Annotation files of the benchmarks, read into one manifest; docs/data_sets.md lists the files and folders.

The manifest is a table with one row per video:

==========  ==================================================================================
``video``   path below ``Dataset.videos``: a video file, or a folder of extracted frames
``labels``  list of class indices
``split``   ``train``, ``val`` or ``test``; ``val`` is split off the groups of the training list
``group``   videos that share people, place or source; no group is in both ``train`` and ``val``
``start``   start of the video in its file, in seconds; NaN for the whole file
``end``     end of the video in its file, in seconds; NaN likewise
==========  ==================================================================================

A new data set is one reader, a function of the parameters and the seed that returns ``train`` and ``test``, and one
line in ``READERS`` (and its name in ``DatasetParams``).
"""

from collections.abc import Callable
from dataclasses import replace

from tlee.datasets.activitynet import read_activitynet
from tlee.datasets.folder import read_folder
from tlee.datasets.hmdb51 import read_hmdb51
from tlee.datasets.hvu import read_hvu
from tlee.datasets.jhmdb import read_jhmdb
from tlee.datasets.manifest import Dataset, check_dataset
from tlee.datasets.mini_kinetics import read_mini_kinetics
from tlee.datasets.something_v2 import read_something_v2
from tlee.datasets.ucf101 import read_ucf101
from tlee.datasets.validation_split import split_off_val
from tlee.params import DatasetParams

__all__ = ["READERS", "Dataset", "read_dataset", "split_off_val"]

READERS: dict[str, Callable[[DatasetParams, int], Dataset]] = {
    "activitynet": read_activitynet,
    "folder": read_folder,
    "hmdb51": read_hmdb51,
    "hvu": read_hvu,
    "jhmdb": read_jhmdb,
    "mini_kinetics": read_mini_kinetics,
    "something_v2": read_something_v2,
    "ucf101": read_ucf101,
}


def read_dataset(params: DatasetParams, seed: int) -> Dataset:
    """Read the data set named in ``params``; ``seed`` decides which training groups become ``val``.

    Raises ``UserError`` if an annotation file is missing or inconsistent, ``dataset.split`` exceeds the number of
    splits of the data set, a video is listed twice, or a class has test videos but no training videos.
    """
    dataset = READERS[params.name](params, seed)
    check_dataset(dataset, params.name)
    return replace(dataset, manifest=split_off_val(dataset.manifest, params.val_share, seed))
