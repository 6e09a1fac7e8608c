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
from tlee.params import Params
from tlee.paths import FRAMES

#: Data sets with classes such as "pushing something from left to right", whose mirror image is another class.
TELL_LEFT_FROM_RIGHT = {"something_v2"}


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
    """One split of the extracted frames, memory-mapped. Raises ``UserError`` if the file is not whole.

    ``labels [N]`` is the first class of each video, ``truth [N, C]`` (booleans) says all of them.
    """

    def __init__(self, path: str | Path):
        try:
            self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            metadata = self._table.schema.metadata
            self.classes = metadata[b"classes"].decode().split("\n")
            self.clip_frames = int(metadata[b"clip_frames"])
            columns = {name: self._table[name].to_pylist() for name in ("video", "group", "labels")}
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
            raise UserError(f"{path} is missing or damaged: run `dvc repro extract`") from None
        self.videos: list[str] = columns["video"]
        self.groups: list[str] = columns["group"]
        self.labels = torch.tensor([labels[0] for labels in columns["labels"]])
        self.truth = torch.zeros(len(self.videos), len(self.classes), dtype=torch.bool)
        for row, labels in enumerate(columns["labels"]):
            self.truth[row, labels] = True

    def __len__(self) -> int:
        return self._table.num_rows

    @property
    def steps(self) -> int:
        """``T``, time steps of each video."""
        return len(self._table["frames"][0]) // self.clip_frames

    def targets(self, multi_label: bool) -> torch.Tensor:
        """What is trained on: class indices ``[N]``, or zeros and ones ``[N, C]`` (see ``Readout.loss``)."""
        return self.truth.float() if multi_label else self.labels

    def clip(self, row: int, steps: list[int]) -> list[Image.Image]:
        """All frames of some time steps (``0..T-1`` in time) of a video, ``clip_frames`` a step."""
        jpegs, length = self._table["frames"][row], self.clip_frames
        positions = [step * length + offset for step in steps for offset in range(length)]
        return [Image.open(io.BytesIO(jpegs[position].as_py())).convert("RGB") for position in positions]

    def pictures(self, row: int, steps: list[int]) -> list[Image.Image]:
        """One frame a time step, the middle one, for showing."""
        return self.clip(row, steps)[self.clip_frames // 2 :: self.clip_frames]

    def one_of_each_class(self, at_most: int) -> list[tuple[str, list[Image.Image]]]:
        """The first video of each class: its class and its frames in temporal order."""
        labels = self.labels.tolist()
        present = [label for label in range(len(self.classes)) if label in labels]
        return [
            (self.classes[label], self.pictures(labels.index(label), list(range(self.steps))))
            for label in present[:at_most]
        ]


class ClipDataset(Dataset):
    """Clips of a ``FrameStore``: ``(float [T, 3, H, W], target, row)``, time steps in visiting order.

    Where a time step is a short clip of ``L`` frames it is ``[T, 3, L, H, W]``.
    ``draw`` steps of a video are drawn anew each time, without it all are returned; they come in random
    order, or in visiting order if it is kept.
    """

    def __init__(
        self,
        store: FrameStore,
        order: list[int],
        transform: Callable[[torch.Tensor], torch.Tensor],
        *,
        draw: int | None = None,
        keep_order: bool = False,
        multi_label: bool = False,
    ):
        self.store, self.order, self.transform = store, order, transform
        self.draw, self.keep_order = draw, keep_order
        self.targets = store.targets(multi_label)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        frames = np.stack([np.asarray(picture) for picture in self.store.clip(row, self._steps())])
        clip = self.transform(torch.from_numpy(frames).permute(0, 3, 1, 2))
        if self.store.clip_frames > 1:
            clip = clip.unflatten(0, (-1, self.store.clip_frames)).transpose(1, 2)
        return clip, self.targets[row], row

    def _steps(self) -> list[int]:
        if self.draw is None:
            return self.order
        drawn = torch.randperm(len(self.order))[: self.draw].tolist()
        return [self.order[step] for step in (sorted(drawn) if self.keep_order else drawn)]


def load_clips(split: str, params: Params, *, augment: bool = False, draw: int | None = None) -> ClipDataset:
    """The clips of a split as the network sees them; ``augment`` and ``draw`` vary them anew each time.

    A readout per step learns all steps in their order, and temporal shift needs an order.
    Raises ``UserError`` if the store is missing or damaged.
    """
    model = params.model
    per_step = model.readout == "per_step"
    mirror = params.dataset.name not in TELL_LEFT_FROM_RIGHT
    return ClipDataset(
        FrameStore(FRAMES / f"{split}.arrow"),
        visiting_order(params.extract.frames, model.order),
        training_transform(model.input_size, mirror) if augment else evaluation_transform(model.input_size),
        draw=None if per_step else draw,
        keep_order=model.backbone == "mobilenet_v2_tsm",
        multi_label=params.dataset.labels == "multi",
    )


def evaluation_transform(size: int) -> transforms.Compose:
    """``uint8 [T, 3, H, W]`` to ``float [T, 3, size, size]`` in 0..1: the centre of each frame.

    The crop is 7/8 of the short side, as usual for networks that saw random crops.
    """
    resize = transforms.Resize(round(size * 8 / 7))
    return transforms.Compose([resize, transforms.CenterCrop(size), _to_float()])


def training_transform(size: int, mirror: bool = True) -> transforms.Compose:
    """Like ``evaluation_transform`` with a random crop and colours, the same for all frames of a clip.

    Half of the clips are mirrored, unless ``mirror`` forbids it.
    """
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.5, 1.0)),
            transforms.RandomHorizontalFlip(0.5 if mirror else 0.0),
            transforms.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3),
            _to_float(),
        ]
    )


def _to_float() -> transforms.ToDtype:
    return transforms.ToDtype(torch.float32, scale=True)
