"""Clips of the stored frames as training and evaluation data, and their transforms."""

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import Dataset

from tlee._torchvision import transforms
from tlee.frames import FrameStore, visiting_order
from tlee.params import Params
from tlee.paths import FRAMES

#: Data sets with classes such as "pushing something from left to right", whose mirror image is another class.
DIRECTIONAL_DATASETS = {"something_v2"}


class ClipDataset(Dataset):
    """Clips of a ``FrameStore``: ``(float [T, 3, H, W], target, row)``, time steps in visiting order.

    If a time step is a short clip of ``L`` frames, a clip is ``[T, 3, L, H, W]``. With ``draw``, that many time steps
    are sampled anew at each access, in random order, or in visiting order with ``keep_order``; without it, all are
    returned.
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
        self.multi_label = multi_label

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        frames = np.stack([np.asarray(image) for image in self.store.clip(row, self._sample_steps())])
        clip = self.transform(torch.from_numpy(frames).permute(0, 3, 1, 2))
        if self.store.clip_frames > 1:
            clip = clip.unflatten(0, (-1, self.store.clip_frames)).transpose(1, 2)
        return clip, self.store.targets([row], self.multi_label)[0], row

    def _sample_steps(self) -> list[int]:
        if self.draw is None:
            return self.order
        drawn = torch.randperm(len(self.order))[: self.draw].tolist()
        return [self.order[step] for step in (sorted(drawn) if self.keep_order else drawn)]


def load_clips(split: str, params: Params, *, augment: bool = False, draw: int | None = None) -> ClipDataset:
    """Load the clips of a split in the form that the network reads; ``augment`` and ``draw`` randomise each access.

    A readout per step is trained on all steps in their order, and the temporal shift needs steps in order.
    Raises ``UserError`` if the store is missing or damaged.
    """
    model = params.model
    per_step = model.readout == "per_step"
    mirror = params.dataset.name not in DIRECTIONAL_DATASETS
    return ClipDataset(
        FrameStore(FRAMES / split),
        visiting_order(params.extract.frames, model.order),
        training_transform(model.input_size, mirror) if augment else evaluation_transform(model.input_size),
        draw=None if per_step else draw,
        keep_order=model.backbone == "mobilenet_v2_tsm",
        multi_label=params.dataset.labels == "multi",
    )


def evaluation_transform(size: int) -> transforms.Compose:
    """Return the transform of ``uint8 [T, 3, H, W]`` to ``float [T, 3, size, size]`` in 0..1: a centre crop.

    The crop is 7/8 of the short side, as usual for networks trained on random crops.
    """
    resize = transforms.Resize(round(size * 8 / 7))
    return transforms.Compose([resize, transforms.CenterCrop(size), _to_float()])


def training_transform(size: int, mirror: bool = True) -> transforms.Compose:
    """Return a transform like ``evaluation_transform`` with random crop and colours, the same for all frames of a clip.

    With ``mirror``, half of the clips are mirrored.
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
