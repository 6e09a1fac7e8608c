"""Annotation files of the benchmarks, read into one manifest; docs/data_sets.md tells which files, and where.

The manifest is a table with one row a video:

==========  ==================================================================================
``video``   path below ``Dataset.videos``: a video file, or a folder of extracted frames
``labels``  list of class indices
``split``   ``train``, ``val`` or ``test``; ``val`` is cut from the groups of the training list
``group``   videos that share people, place or source, never found both in ``train`` and ``val``
``start``   seconds from which the video counts; NaN where the whole file is meant
``end``     seconds up to which it counts, NaN likewise
==========  ==================================================================================

A new data set is one reader, a function of the parameters and the seed that yields ``train`` and ``test``, and one
line in ``READERS`` (and its name in ``DatasetParams``).
"""

from collections.abc import Callable
from dataclasses import replace

from tlee.datasets.activitynet import read_activitynet
from tlee.datasets.folder import read_folder
from tlee.datasets.hmdb51 import read_hmdb51
from tlee.datasets.hvu import read_hvu
from tlee.datasets.manifest import Dataset, check
from tlee.datasets.mini_kinetics import read_mini_kinetics
from tlee.datasets.something_v2 import read_something_v2
from tlee.datasets.ucf101 import read_ucf101
from tlee.datasets.val import cut_val
from tlee.params import DatasetParams

__all__ = ["READERS", "Dataset", "cut_val", "read_dataset"]

READERS: dict[str, Callable[[DatasetParams, int], Dataset]] = {
    "activitynet": read_activitynet,
    "folder": read_folder,
    "hmdb51": read_hmdb51,
    "hvu": read_hvu,
    "mini_kinetics": read_mini_kinetics,
    "something_v2": read_something_v2,
    "ucf101": read_ucf101,
}


def read_dataset(params: DatasetParams, seed: int) -> Dataset:
    """Read the data set that ``params`` names; ``seed`` decides which training groups become ``val``.

    Raises ``UserError`` where an annotation file is missing or contradicts itself, ``dataset.split`` is beyond
    the splits of the data set, a video is listed twice, or a class has test videos but none to train on.
    """
    dataset = READERS[params.name](params, seed)
    check(dataset, params.name)
    return replace(dataset, manifest=cut_val(dataset.manifest, params.val_share, seed))
