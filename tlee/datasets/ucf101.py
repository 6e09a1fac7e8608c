"""UCF101: 101 classes, 13,320 clips, three splits. https://www.crcv.ucf.edu/data/UCF101.php"""

import re
from pathlib import Path

from tlee.datasets.files import check_split, find_annotations, find_folder, read_lines
from tlee.datasets.lists import name_classes, read_class_names, read_lists
from tlee.datasets.manifest import Dataset, Video, make_manifest
from tlee.errors import UserError
from tlee.params import DatasetParams

_GROUP = re.compile(r"_(g\d+)_c\d+")


def read_ucf101(params: DatasetParams, _seed: int) -> Dataset:
    """Read UCF101 in its official layout, or from lists of frame folders (TSN's, MMAction2's).

    The clips of a class in one group (``_gNN_`` in their names) show the same people and place. Raises ``UserError``
    for missing files, and for a line that contradicts the classes, with its number.
    """
    check_split(params, 3)
    root, split = Path(params.root), params.split
    file_format, files = find_annotations(
        root,
        ("ucfTrainTestlist", "annotations", "."),
        (
            ("classInd.txt", f"trainlist{split:02d}.txt", f"testlist{split:02d}.txt"),
            (f"ucf101_rgb_train_split_{split}.txt", f"ucf101_rgb_val_split_{split}.txt"),
            (f"ucf101_train_split_{split}_rawframes.txt", f"ucf101_val_split_{split}_rawframes.txt"),
        ),
    )
    return _read_official(root, *files) if file_format == 0 else _read_frame_lists(root, *files)


def _read_official(root: Path, class_file: Path, train: Path, test: Path) -> Dataset:
    classes = _read_class_ind(class_file)
    videos = []
    for split, file in (("train", train), ("test", test)):
        for number, line in read_lines(file):
            video, *label = line.split()
            name = video.split("/")[0]
            location = f"{file} line {number}"
            if name not in classes:
                raise UserError(f"{location}: class `{name}` is not in {class_file.name}; correct either file")
            if label and label != [str(1 + classes.index(name))]:
                raise UserError(f"{location}: label {label[0]} is not the number of `{name}` in {class_file.name}")
            group = _GROUP.search(video)
            if not group or not Path(video).suffix:
                raise UserError(f"{location}: `{video}` has no group (_gNN_cNN) or no suffix in its name")
            videos.append(Video(video, [classes.index(name)], split, f"{name}/{group[1]}"))
    return Dataset(find_folder(root, "UCF-101", "videos"), classes, make_manifest(videos))


def _read_class_ind(file: Path) -> list[str]:
    names: dict[int, str] = {}
    for number, line in read_lines(file):
        entry = re.fullmatch(r"(\d+)\s+(\S+)", line)
        if not entry or int(entry[1]) in names or entry[2] in names.values():
            raise UserError(f"{file} line {number}: `{line}` is not a new number and a new class name")
        names[int(entry[1])] = entry[2]
    if sorted(names) != list(range(1, 1 + len(names))):
        raise UserError(f"{file} must number its classes from 1 without gaps")
    return [names[1 + index] for index in range(len(names))]


def _read_frame_lists(root: Path, train: Path, test: Path) -> Dataset:
    entries = read_lists(train, test)
    class_ind = train.with_name("classInd.txt")
    known = _read_class_ind(class_ind) if class_ind.is_file() else read_class_names(train.parent)
    classes = name_classes(entries, known, _class_in_name)
    videos = []
    for entry in entries:
        group = _GROUP.search(entry.path)
        if not group:
            raise UserError(f"{entry.location}: `{entry.path}` has no group (_gNN_cNN) in its name")
        videos.append(Video(entry.path, entry.labels, entry.split, f"{classes[entry.labels[0]]}/{group[1]}"))
    return Dataset(find_folder(root, "frames", "rawframes", "videos", "."), classes, make_manifest(videos))


def _class_in_name(path: str) -> str | None:
    name = re.search(r"v_([^/]+)_g\d+_c\d+", path)
    return name and name[1]
