"""Mini-Kinetics: 200 of the classes of Kinetics-400.

Classes and lists: https://github.com/mengyuest/AR-Net and https://github.com/LeapLabTHU/OCSampler;
videos and CSV files: https://github.com/cvdfoundation/kinetics-dataset
"""

import re
from pathlib import Path, PurePosixPath

from tlee.datasets.clips import Clip, locate_clips
from tlee.datasets.files import check_split, find_annotations, find_folder, read_lines, read_table
from tlee.datasets.lists import name_classes, read_class_names, read_lists
from tlee.datasets.manifest import Dataset, Video, make_manifest
from tlee.errors import UserError
from tlee.params import DatasetParams

_CLASS_FILE = "minik_classInd.txt"


def read_mini_kinetics(params: DatasetParams, _seed: int) -> Dataset:
    """Read Mini-Kinetics from lists of frame folders, or from the CSV files of Kinetics-400 and a list of classes.

    ``test`` is the validation set of Kinetics. From the CSV files, all videos of the listed classes are used: the
    trimmed file ``<id>_<start>_<end>`` (seconds in six digits) if there is one below the video folder, at any depth,
    else the untrimmed ``<id>`` with ``start`` and ``end`` set. A group is a YouTube video. Raises ``UserError`` for
    missing files, and if labels and class names disagree.
    """
    check_split(params, 1)
    root = Path(params.root)
    file_format, files = find_annotations(
        root,
        ("annotations", "."),
        (
            ("mini_train_videofolder.txt", "mini_val_videofolder.txt"),
            ("mini_kinetics_train.txt", "mini_kinetics_val.txt"),
            ("kinetics-400_train.csv", "kinetics-400_val.csv", _CLASS_FILE),
            ("train.csv", "val.csv", _CLASS_FILE),
        ),
    )
    return _read_frame_lists(root, *files) if file_format < 2 else _read_tables(root, *files)


def _read_frame_lists(root: Path, train: Path, test: Path) -> Dataset:
    entries = read_lists(train, test)
    classes = name_classes(entries, read_class_names(train.parent, _CLASS_FILE), _class_in_path)
    videos = [Video(entry.path, entry.labels, entry.split, _youtube_id(entry.path)) for entry in entries]
    return Dataset(find_folder(root, "frames", "videos", "."), classes, make_manifest(videos))


def _read_tables(root: Path, train: Path, test: Path, class_file: Path) -> Dataset:
    classes = [line for _, line in read_lines(class_file)]
    numbers = {name: number for number, name in enumerate(classes)}
    clips = []
    for split, file in (("train", train), ("test", test)):
        table = read_table(file, ("label", "youtube_id", "time_start", "time_end"), ("time_start", "time_end"))
        absent = sorted(set(classes) - set(table["label"]))
        if absent:
            raise UserError(f"{file} has no video of `{absent[0]}`, a class of {class_file.name}: correct either file")
        rows = table[table["label"].isin(numbers)].itertuples(index=False)
        clips += [Clip(row.youtube_id, row.time_start, row.time_end, [numbers[row.label]], split) for row in rows]
    folder = find_folder(root, "videos", ".")
    return Dataset(folder, classes, make_manifest(locate_clips(folder, clips)))


def _youtube_id(path: str) -> str:
    return re.sub(r"_\d{6}_\d{6}$", "", PurePosixPath(path).name)


def _class_in_path(path: str) -> str | None:
    name = PurePosixPath(path).parent.name
    return None if name in ("", "train", "val") else name
