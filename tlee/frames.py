"""The frame store, and batches of clips from it."""

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch.utils.data import Dataset

from tlee._torchvision import transforms
from tlee.errors import UserError
from tlee.params import ExtractParams, ModelParams
from tlee.paths import FRAMES

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1, what torchvision's weights expect
IMAGENET_STD = (0.229, 0.224, 0.225)


def visiting_order(frames: int, order: str) -> list[int]:
    """The order in which ``frames`` frames are visited.

    ``sequential`` is temporal order. ``coarse_to_fine`` is middle, last or first, then again and
    again the middle of the widest gap left. For 10 frames this is the papers' own list (FrameExit,
    section 4.1; TLEE's settings), which is kept as printed since its ties follow no single rule.
    """
    if order == "sequential":
        return list(range(frames))
    if frames == 10:
        return [5, 0, 9, 2, 7, 4, 6, 3, 8, 1]
    visited = list(dict.fromkeys([frames // 2, 0, frames - 1]))
    while len(visited) < frames:
        known = sorted(visited)
        left, right = max(pairwise(known), key=lambda gap: gap[1] - gap[0])
        visited.append((left + right) // 2)
    return visited


class FrameStore:
    """One split of the extracted frames, memory-mapped. Raises ``UserError`` if the file is not whole."""

    def __init__(self, path: str | Path):
        try:
            self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            self.classes = self._table.schema.metadata[b"classes"].decode().split("\n")
            columns = {name: self._table[name].to_pylist() for name in ("video", "group", "labels")}
        except (OSError, pa.ArrowInvalid, KeyError, TypeError):
            raise UserError(f"{path} is missing or damaged: run `dvc repro extract`") from None
        self.videos: list[str] = columns["video"]
        self.groups: list[str] = columns["group"]
        self.labels = torch.tensor([labels[0] for labels in columns["labels"]])

    def __len__(self) -> int:
        return self._table.num_rows

    def pictures(self, row: int, positions: list[int]) -> list[Image.Image]:
        """Frames of one video, by their positions in temporal order (``0..T-1``)."""
        jpegs = self._table["frames"][row]
        return [Image.open(io.BytesIO(jpegs[position].as_py())).convert("RGB") for position in positions]

    def one_of_each_class(self) -> list[tuple[str, list[Image.Image]]]:
        """The first clip of each class: its class and its frames in temporal order."""
        labels = self.labels.tolist()
        positions = list(range(len(self._table["frames"][0])))
        return [
            (name, self.pictures(labels.index(label), positions))
            for label, name in enumerate(self.classes)
            if label in labels
        ]


class ClipDataset(Dataset):
    """Clips of a ``FrameStore``: ``(float [T, 3, H, W], label, row)``, frames in visiting order.

    ``draw`` frames of a clip are drawn anew each time, in random order; without it all are returned.
    """

    def __init__(
        self,
        store: FrameStore,
        order: list[int],
        transform: Callable[[torch.Tensor], torch.Tensor],
        draw: int | None = None,
    ):
        self.store, self.order, self.transform, self.draw = store, order, transform, draw

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int, int]:
        order = self.order
        if self.draw is not None:
            order = [order[step] for step in torch.randperm(len(order))[: self.draw].tolist()]
        clip = np.stack([np.asarray(picture) for picture in self.store.pictures(row, order)])
        return self.transform(torch.from_numpy(clip).permute(0, 3, 1, 2)), int(self.store.labels[row]), row


def load_clips(
    split: str, extract: ExtractParams, model: ModelParams, *, augment: bool = False, draw: int | None = None
) -> ClipDataset:
    """The clips of a split as the network sees them; ``augment`` and ``draw`` vary them anew each time.

    Raises ``UserError`` if the store is missing or damaged.
    """
    store = FrameStore(FRAMES / f"{split}.arrow")
    transform = training_transform if augment else evaluation_transform
    order = visiting_order(extract.frames, model.order)
    return ClipDataset(store, order, transform(model.input_size), draw)


def evaluation_transform(size: int) -> transforms.Compose:
    """``uint8 [T, 3, H, W]`` to normalised ``float [T, 3, size, size]``: the centre of each frame.

    The crop is 7/8 of the short side, as usual for networks that saw random crops.
    """
    resize = transforms.Resize(round(size * 8 / 7))
    return transforms.Compose([resize, transforms.CenterCrop(size), *_normalised()])


def training_transform(size: int) -> transforms.Compose:
    """Like ``evaluation_transform`` with a random crop, mirror and colours, the same for all frames of a clip."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.5, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3),
            *_normalised(),
        ]
    )


def _normalised() -> list:
    return [transforms.ToDtype(torch.float32, scale=True), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
