"""ActivityNet 1.3: 200 classes, 10,024 training and 4,926 validation videos. http://activity-net.org"""

from pathlib import Path

from tlee.datasets.files import check_split, find_annotations, find_folder, find_videos, parsing, read_json
from tlee.datasets.lists import name_classes, read_class_names, read_lists
from tlee.datasets.manifest import Dataset, Video, make_manifest
from tlee.params import DatasetParams

_SUBSETS = {"training": "train", "validation": "test"}  # the labels of `testing` were never released


def read_activitynet(params: DatasetParams, _seed: int) -> Dataset:
    """Read ActivityNet 1.3, whole untrimmed videos, from its JSON file or from lists of frame folders.

    ``test`` is the official validation set. Labels are the distinct classes of a video in the order of their
    annotations. Two class orders are in use: the JSON file gives the alphabetical one, which FrameExit's checkpoints
    use; lists keep their own numbers, whose names are read from ``classes.txt`` in the same folder. Every video is its
    own group. Raises ``UserError`` for missing files and for class numbers without a name.
    """
    check_split(params, 1)
    root = Path(params.root)
    file_format, files = find_annotations(
        root,
        ("annotations", "."),
        (
            ("activity_net.v1-3.min.json",),
            ("frameexit_anet_train_video.txt", "frameexit_anet_val_video_multi_label.txt"),
            ("anet_train_video.txt", "anet_val_video_multi_label.txt"),
        ),
    )
    return _read_official(root, *files) if file_format == 0 else _read_frame_lists(root, *files)


def _read_official(root: Path, file: Path) -> Dataset:
    with parsing(file, "ActivityNet's `database` of videos with `subset` and `annotations`"):
        database = {name: video for name, video in read_json(file)["database"].items() if video["subset"] in _SUBSETS}
        labels = {name: [part["label"] for part in video["annotations"]] for name, video in database.items()}
    classes = sorted({label for names in labels.values() for label in names})
    numbers = {name: number for number, name in enumerate(classes)}
    folder = find_folder(root, "videos", ".")
    found = find_videos(folder, {f"v_{name}" for name in database})
    videos = [
        Video(
            found.get(f"v_{name}", f"v_{name}.mp4"),
            [numbers[label] for label in dict.fromkeys(labels[name])],
            _SUBSETS[video["subset"]],
            name,
        )
        for name, video in database.items()
    ]
    return Dataset(folder, classes, make_manifest(videos))


def _read_frame_lists(root: Path, train: Path, test: Path) -> Dataset:
    entries = read_lists(train, test, multi_label=True)
    classes = name_classes(entries, read_class_names(train.parent))
    videos = [
        Video(entry.path, entry.labels, entry.split, Path(entry.path).name.removeprefix("v_")) for entry in entries
    ]
    return Dataset(find_folder(root, "frames", "videos", "."), classes, make_manifest(videos))
