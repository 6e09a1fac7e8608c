"""Clips of the stored frames as training and evaluation data."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import default_collate

from tlee.devices import workers_of
from tlee.frames import FrameStore, visiting_order
from tlee.loading import Batch, Examples, Key, drawn_by
from tlee.params import Params
from tlee.paths import FRAMES
from tlee.views import CentreView, RandomView, finish

#: Data sets with classes such as "pushing something from left to right", whose mirror image is another class.
DIRECTIONAL_DATASETS = {"something_v2"}

View = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  #: ``CentreView``, ``RandomView`` or the like


class Clip(NamedTuple):
    """A clip as it is loaded: ``uint8 [F, S, S, 3]``, its changes of colours ``[K, 3]``, target and row."""

    frames: torch.Tensor
    changes: torch.Tensor
    target: torch.Tensor
    row: int


class ClipDataset(Examples):
    """Clips of a ``FrameStore``; batches are ``(float [N, T, 3, S, S], targets, rows)``, steps in visiting order.

    If a time step is a short clip of ``L`` frames, a batch is ``[N, T, 3, L, S, S]``. With ``draw``, that many time
    steps are drawn for each key, in random order, or in visiting order with ``keep_order``; without it, all are used.
    """

    def __init__(
        self,
        store: FrameStore,
        order: list[int],
        view: View,
        *,
        draw: int | None = None,
        keep_order: bool = False,
        multi_label: bool = False,
        workers: int = 0,
    ):
        self.store, self.order, self.view = store, order, view
        self.draw, self.keep_order, self.workers = draw, keep_order, workers
        self.multi_label = multi_label

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, key: Key) -> Clip:
        with drawn_by(key):
            images = self.store.clip(key.row, self._draw_steps())
            frames = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
            frames, changes = self.view(frames)
        target = self.store.targets([key.row], self.multi_label)[0]
        return Clip(frames.permute(0, 2, 3, 1).contiguous(), changes, target, key.row)

    def finish(self, *batch: torch.Tensor) -> Batch:
        """Map a batch of ``Clip`` to clips, targets and rows, see above."""
        frames, changes, targets, rows = batch
        clips = finish(frames, changes)
        if self.store.clip_frames > 1:
            clips = clips.unflatten(1, (-1, self.store.clip_frames)).transpose(2, 3)
        return clips, targets, rows

    def clip(self, row: int, epoch: int = 0) -> torch.Tensor:
        """Return one clip, ``float [T, 3, S, S]`` or ``[T, 3, L, S, S]``, with the random numbers of an epoch."""
        return self.finish(*default_collate([self[Key(0, epoch, row)]]))[0][0]

    def _draw_steps(self) -> list[int]:
        if self.draw is None:
            return self.order
        drawn = torch.randperm(len(self.order))[: self.draw].tolist()
        return [self.order[step] for step in (sorted(drawn) if self.keep_order else drawn)]


def load_clips(split: str, params: Params, *, augment: bool = False, draw: int | None = None) -> ClipDataset:
    """Load the clips of a split in the form that the network reads; ``augment`` and ``draw`` randomise each epoch.

    A readout per step is trained on all steps in their order, and the temporal shift needs steps in order.
    Raises ``UserError`` if the store is missing or damaged.
    """
    model = params.model
    per_step = model.readout == "per_step"
    mirror = params.dataset.name not in DIRECTIONAL_DATASETS
    return ClipDataset(
        FrameStore(FRAMES / split),
        visiting_order(params.extract.frames, model.order),
        RandomView(model.input_size, mirror) if augment else CentreView(model.input_size),
        draw=None if per_step else draw,
        keep_order=model.backbone == "mobilenet_v2_tsm",
        multi_label=params.dataset.labels == "multi",
        workers=workers_of(params.compute),
    )
