"""Something-Something V2: 174 classes, 168,913 training and 24,777 validation videos.

https://www.qualcomm.com/developer/software/something-something-v-2-dataset
"""

from pathlib import Path

from tlee.datasets.files import check_split, find_annotations, find_folder, find_videos, parsing, read_json
from tlee.datasets.lists import name_classes, read_class_names, read_lists
from tlee.datasets.manifest import Dataset, Video, make_manifest
from tlee.errors import UserError
from tlee.params import DatasetParams

_OFFICIAL = "something-something-v2-"


def read_something_v2(params: DatasetParams, _seed: int) -> Dataset:
    """Read Something-Something V2 from its JSON files, or from lists of frame folders.

    The labels of the test set were never released: ``test`` is the official validation set. Every video is its own
    group. Raises ``UserError`` for missing files, and for a label that is not among the classes.
    """
    check_split(params, 1)
    root = Path(params.root)
    file_format, files = find_annotations(
        root,
        ("annotations", "labels", "."),
        (
            tuple(f"{_OFFICIAL}{part}.json" for part in ("labels", "train", "validation")),
            ("labels.json", "train.json", "validation.json"),
            ("train_videofolder.txt", "val_videofolder.txt"),
        ),
    )
    return _read_official(root, *files) if file_format < 2 else _read_frame_lists(root, *files)


def _read_official(root: Path, label_file: Path, train: Path, test: Path) -> Dataset:
    classes = _read_labels(label_file)
    numbers = {name: number for number, name in enumerate(classes)}
    folder = find_folder(root, "videos", "20bn-something-something-v2")
    listed = []
    for split, file in (("train", train), ("test", test)):
        with parsing(file, "a list of videos with `id` and `template`"):
            entries = [(video["id"], video["template"].replace("[", "").replace("]", "")) for video in read_json(file)]
        for number, name in entries:
            if name not in numbers:
                raise UserError(f"{file}: `{name}`, the label of video {number}, is not in {label_file.name}")
            listed.append((number, numbers[name], split))
    found = find_videos(folder, {number for number, _, _ in listed})
    videos = [Video(found.get(number, f"{number}.webm"), [label], split, number) for number, label, split in listed]
    return Dataset(folder, classes, make_manifest(videos))


def _read_labels(file: Path) -> list[str]:
    with parsing(file, "a table of labels and their numbers"):
        numbers = {name: int(number) for name, number in read_json(file).items()}
    classes = sorted(numbers, key=numbers.__getitem__)
    if [numbers[name] for name in classes] != list(range(len(classes))):
        raise UserError(f"{file} must number its classes from 0 without gaps")
    return classes


def _read_frame_lists(root: Path, train: Path, test: Path) -> Dataset:
    entries = read_lists(train, test)
    candidates = [train.with_name(name) for name in (f"{_OFFICIAL}labels.json", "labels.json")]
    label_file = next(filter(Path.is_file, candidates), None)
    known = _read_labels(label_file) if label_file else read_class_names(train.parent, "category.txt")
    classes = name_classes(entries, known)
    videos = [Video(entry.path, entry.labels, entry.split, Path(entry.path).name) for entry in entries]
    folder = find_folder(root, "frames", "20bn-something-something-v2-frames", "videos", ".")
    return Dataset(folder, classes, make_manifest(videos))
