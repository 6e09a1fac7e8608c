"""Holistic Video Understanding (HVU): 3,142 tags of six kinds, several per clip.

https://github.com/holistic-video-understanding/HVU-Dataset
"""

from pathlib import Path

from tlee.datasets.clips import Clip, locate_clips
from tlee.datasets.files import check_split, find_annotations, find_folder, read_table
from tlee.datasets.manifest import Dataset, make_manifest
from tlee.errors import UserError
from tlee.params import DatasetParams


def read_hvu(params: DatasetParams, _seed: int) -> Dataset:
    """Read HVU from its CSV files (unzipped); the classes are all tags, in the order of the tag file.

    ``test`` is the official validation set: 31,171 clips of 29,633 videos. Clips are located like those of Kinetics
    (``locate_clips``): the names of trimmed files have seconds without their fraction. A group is a YouTube video.
    Raises ``UserError`` for missing files, and for a tag that is not in the tag file.
    """
    check_split(params, 1)
    root = Path(params.root)
    names = ("HVU_Train_V1.0.csv", "HVU_Val_V1.0.csv", "HVU_Tags_Categories_V1.0.csv")
    _, (train, test, tag_file) = find_annotations(root, ("annotations", "."), (names,))
    classes = read_table(tag_file, ("Tag",))["Tag"].tolist()
    numbers = {name: number for number, name in enumerate(classes)}
    clips = []
    for split, file in (("train", train), ("test", test)):
        times = ("time_start", "time_end")
        for row in read_table(file, ("Tags", "youtube_id", *times), times).itertuples():
            tags = dict.fromkeys(row.Tags.split("|"))
            unknown = [tag for tag in tags if tag not in numbers]
            if unknown:
                raise UserError(f"{file} row {row.Index + 1}: tag `{unknown[0]}` is not in {tag_file.name}")
            labels = [numbers[tag] for tag in tags]
            clips.append(Clip(row.youtube_id, row.time_start, row.time_end, labels, split))
    folder = find_folder(root, "videos", ".")
    return Dataset(folder, classes, make_manifest(locate_clips(folder, clips)))
