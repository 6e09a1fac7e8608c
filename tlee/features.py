"""Exit features of every split: computed once, then stored."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tlee.arrays import create_array
from tlee.checksums import crc32_of_file
from tlee.clips import ClipDataset, load_clips
from tlee.devices import device_of
from tlee.distributed.launch import on_all_devices
from tlee.distributed.ranks import only_first
from tlee.errors import UserError
from tlee.labels import SparseLabels
from tlee.loading import Batch, Examples, Key, Loader
from tlee.model import TLEE, load_trained
from tlee.params import Params
from tlee.paths import FEATURES, SPLITS
from tlee.reproducibility import convolution_threads
from tlee.throughput import CLIPS_AT_ONCE, prepare
from tlee.weights import load_tensors, save_tensors

FIRST_VIEW = 1_000_000  #: the views of training clips are numbered beyond all epochs: none was trained on

_REMEDY = "run `dvc repro branches`"
_CHECKSUM = "features"  # its key


@dataclass(frozen=True)
class FeatureTable:
    """Exit features of one split in visiting order, with the classes and names of its videos."""

    stored: torch.Tensor  #: ``[N, T, B + 1, D]``, in ``branches.feature_precision``: to be read, not computed with
    all_labels: SparseLabels
    videos: list[str]
    groups: list[str]
    classes: list[str]

    @property
    def features(self) -> torch.Tensor:
        """Exit features in single precision: a copy if they are ``stored`` in float16, so for a part of the videos."""
        return self.stored.float()

    @property
    def labels(self) -> torch.Tensor:
        """First class of each video, ``[N]``."""
        return self.all_labels.first

    @property
    def truth(self) -> torch.Tensor:
        """All classes of each video, booleans ``[N, C]``: large where both are many, see ``SparseLabels.dense``."""
        return self.all_labels.dense()

    def targets(self, multi_label: bool) -> torch.Tensor:
        """Training targets: class indices ``[N]``, or zeros and ones ``[N, C]`` (see ``Readout.loss``)."""
        return self.truth.float() if multi_label else self.labels

    def take(self, rows: np.ndarray) -> "FeatureTable":
        """Select the videos ``rows``, by position."""
        return FeatureTable(
            self.stored[torch.as_tensor(rows)],
            self.all_labels.take(rows),
            [self.videos[row] for row in rows],
            [self.groups[row] for row in rows],
            self.classes,
        )

    def part(self, rows: slice) -> "FeatureTable":
        """Select consecutive videos; their features are not copied."""
        labels = self.all_labels.take(range(len(self.videos))[rows])
        return FeatureTable(self.stored[rows], labels, self.videos[rows], self.groups[rows], self.classes)


class TableRows(Examples):
    """Videos of a table: batches of exit features ``[n, T, B + 1, D]``, targets and all classes ``[n, C]``.

    For targets see ``FeatureTable.targets``. Only those of a batch are dense.
    """

    def __init__(self, table: FeatureTable, multi_label: bool):
        self._stored, self._labels, self._multi_label = table.stored, table.all_labels, multi_label
        self._first = table.labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int]:
        return self._stored[key.row], key.row

    def finish(self, *batch: torch.Tensor) -> Batch:
        """Map stored exit features and rows to features in single precision, targets and classes."""
        stored, rows = batch
        truth = self._labels.dense(rows.cpu())
        targets = truth.float() if self._multi_label else self._first[rows.cpu()]
        return stored.float(), targets.to(rows.device), truth.to(rows.device)


@on_all_devices
@convolution_threads()
def store_features(params: Params) -> None:
    """Compute the exit features of the trained network and write them below ``results/features``, batch by batch.

    ``<split>.npy`` are the features, ``<split>.safetensors`` is the rest of the table and the checksum of the features.
    Raises ``UserError`` if frames or weights are missing or damaged, or features too large for their precision.
    """
    model, _ = load_trained(params, "pretrain", "branches")
    prepare(model).to(device_of(params.compute))
    FEATURES.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        table, batches = _prepare(model, params, split)
        shape = (len(table.videos), params.extract.frames, model.num_exits, model.readout.width)
        path = FEATURES / f"{split}.npy"
        only_first(partial(create_array, path, np.dtype(params.branches.feature_precision), shape))
        stored = np.load(path, mmap_mode="r+")
        for rows, batch in batches:
            stored[rows] = batch
        stored.flush()
        only_first(partial(save_description, path, table))


def save_description(path: Path, table: FeatureTable) -> None:
    """Write a table without its features, which are already in ``path``, beside them, with their checksum."""
    about = {"videos": table.videos, "groups": table.groups, "classes": table.classes}
    tensors = {"offsets": table.all_labels.offsets, "labels": table.all_labels.classes}
    save_tensors(path.with_suffix(".safetensors"), tensors, about | {_CHECKSUM: crc32_of_file(path)})


def split_features(model: TLEE, params: Params, split: str) -> FeatureTable:
    """Compute the exit features of one split and keep them in memory, with the precision of those on the disk."""
    table, batches = _prepare(model, params, split)
    return replace(table, stored=torch.cat([batch for _, batch in batches]))


Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]  #: rows ``[n]`` and what is stored of them ``[n, T, B + 1, D]``


def _prepare(model: TLEE, params: Params, split: str) -> tuple[FeatureTable, Batches]:
    """Prepare the table of a split without its features, and the features in batches of videos.

    The network has memorised the training clips and would be correct and confident on nearly all of them. ``train``
    therefore contains ``params.branches.train_views`` augmented views of each.
    """
    clips = load_clips(split, params, augment=split == "train")
    views, store = params.branches.train_views if split == "train" else 1, clips.store
    table = FeatureTable(
        stored=torch.empty(0),
        all_labels=store.all_labels.repeat(views),
        videos=[*store.videos] * views,
        groups=[*store.groups] * views,
        classes=store.classes,
    )
    return table, _compute(model, clips, params, views)


def _compute(model: TLEE, clips: ClipDataset, params: Params, views: int) -> Batches:
    """Yield this rank's rows of the views of all clips, one view after the other, in batches."""
    model.eval()
    device = next(model.parameters()).device
    with Loader(clips, CLIPS_AT_ONCE, device, seed=params.seed) as loader:
        for view in range(views):
            for frames, _, rows in loader.epoch(FIRST_VIEW + view):
                with torch.inference_mode():
                    features = rounded(model.exit_features(frames), params.branches.feature_precision)
                    yield view * len(clips) + rows.cpu(), features.cpu()


def rounded(features: torch.Tensor, precision: str) -> torch.Tensor:
    """Round features to ``precision``, the name of a type; raise ``UserError`` if one is beyond its range."""
    target = getattr(torch, precision)
    if target == features.dtype:
        return features
    largest, limit = features.abs().max().item(), torch.finfo(target).max
    if largest > limit:
        raise UserError(
            f"exit features up to {largest:.3g} are beyond the range of {precision}, {limit:.0f}: "
            "set branches.feature_precision to float32"
        )
    return features.to(target)


def load_features(split: str) -> FeatureTable:
    """Load the table of one split; its features are compared with their checksum, then memory-mapped.

    Raises ``UserError`` if a file is missing, damaged or not one of these.
    """
    path, about_path = FEATURES / f"{split}.npy", FEATURES / f"{split}.safetensors"
    tensors, about = load_tensors(about_path, _REMEDY)
    try:
        if about.pop(_CHECKSUM) != crc32_of_file(path):
            raise ValueError("another checksum")
        stored = torch.from_numpy(np.load(path, mmap_mode="c"))
        labels = SparseLabels(tensors["offsets"], tensors["labels"], len(about["classes"]))
        return FeatureTable(stored, labels, **about)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {_REMEDY}") from None
    except (KeyError, TypeError, ValueError, OSError):
        raise UserError(f"{path} holds no whole table of exit features: {_REMEDY}") from None
