"""ActivityNet 1.3: 200 classes, 10,024 training and 4,926 validation videos. http://activity-net.org"""

from pathlib import Path

from tlee.datasets.files import check_split, expecting, find_folder, find_form, find_videos, read_json
from tlee.datasets.lists import name_classes, read_class_names, read_lists
from tlee.datasets.manifest import Dataset, Video, make_manifest
from tlee.params import DatasetParams

_SUBSETS = {"training": "train", "validation": "test"}  # the labels of `testing` were never given out


def read_activitynet(params: DatasetParams, _seed: int) -> Dataset:
    """ActivityNet 1.3, whole untrimmed videos, by its JSON file or by lists of folders of frames.

    ``test`` is the official validation set. Labels are the distinct classes of a video in the order in which they
    are annotated. Two class orders are in use: the JSON file gives the alphabetical one, which FrameExit's checkpoints
    use; lists keep the numbers that they have, and are named by ``classes.txt`` beside them. Every video is its own
    group. Raises ``UserError`` for missing files and for class numbers that have no name.
    """
    check_split(params, 1)
    root = Path(params.root)
    form, files = find_form(
        root,
        ("annotations", "."),
        (
            ("activity_net.v1-3.min.json",),
            ("frameexit_anet_train_video.txt", "frameexit_anet_val_video_multi_label.txt"),
            ("anet_train_video.txt", "anet_val_video_multi_label.txt"),
        ),
    )
    return _read_official(root, *files) if form == 0 else _read_frame_lists(root, *files)


def _read_official(root: Path, file: Path) -> Dataset:
    with expecting(file, "ActivityNet's `database` of videos with `subset` and `annotations`"):
        database = {name: video for name, video in read_json(file)["database"].items() if video["subset"] in _SUBSETS}
        labels = {name: [part["label"] for part in video["annotations"]] for name, video in database.items()}
    classes = sorted({label for several in labels.values() for label in several})
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
    entries = read_lists(train, test, several=True)
    classes = name_classes(entries, read_class_names(train.parent))
    videos = [
        Video(entry.path, entry.labels, entry.split, Path(entry.path).name.removeprefix("v_")) for entry in entries
    ]
    return Dataset(find_folder(root, "frames", "videos", "."), classes, make_manifest(videos))
