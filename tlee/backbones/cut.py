"""A backbone: a network without its classifier, cut into segments after which a frame may exit."""

from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from tlee.backbones.normalise import Normalise
from tlee.errors import UserError

Memory = tuple[torch.Tensor, ...]  #: what a segment remembers of the frame before


@dataclass(frozen=True)
class Cuts:
    """Where a backbone is cut: ``after`` how many of its layers, and the channels of each tap."""

    after: tuple[int, ...]
    tap_channels: tuple[int, ...]


class Backbone(nn.Module):
    """Time steps of RGB in 0..1 to features of size ``D``, in ``B + 1`` segments.

    A time step is a frame ``[3, H, W]``, or for a 3-D backbone a short clip of ``clip_frames`` frames
    ``[3, L, H, W]``. Segment 0 begins with the normalisation, whose buffers are saved with the weights.

    ``body`` holds the parameters under the names that published weights give them, whatever the cuts.
    ``layers`` is the same network as a sequence that ends with features ``[N, D]``; the ``num_branches`` (``B``)
    deepest of ``cuts`` are used. ``imagenet`` names the torchvision architecture with whose ImageNet
    weights ``body`` can begin.

    Raises ``UserError`` if there are fewer cuts than ``num_branches``.
    """

    def __init__(
        self,
        body: nn.Module,
        layers: nn.Sequential,
        cuts: Cuts,
        feature_dim: int,
        num_branches: int,
        *,
        imagenet: str | None = None,
        clip_frames: int = 1,
    ):
        super().__init__()
        if num_branches > len(cuts.after):
            raise UserError(
                f"model.num_branches is {num_branches}, but this backbone has {len(cuts.after)} cuts: lower it"
            )
        self.body = body
        self.normalise = Normalise()
        self.feature_dim = feature_dim
        self.imagenet = imagenet
        self.clip_frames = clip_frames
        first = len(cuts.after) - num_branches
        self.tap_channels = cuts.tap_channels[first:]
        spans = [layers[start:end] for start, end in pairwise([0, *cuts.after[first:], len(layers)])]
        spans[0] = nn.Sequential(self.normalise, *spans[0])
        self._layers = tuple(layers)
        self._segments = tuple(spans)  # views of `body` and `normalise`: registered there, not again here

    @property
    def segments(self) -> tuple[nn.Sequential, ...]:
        """The ``B + 1`` parts. What each but the last returns is a tap, what the last returns the features."""
        return self._segments

    def first_layers(self, count: int) -> nn.ModuleList:
        """The first ``count`` layers, numbered as the cuts. Raises ``UserError`` if there are fewer."""
        if count > len(self._layers):
            raise UserError(f"pretrain.frozen_layers is {count}, but this backbone has {len(self._layers)}: lower it")
        return nn.ModuleList(self._layers[:count])

    def input_shape(self, size: int) -> tuple[int, ...]:
        """Shape of one time step at ``size`` pixels: ``(3, S, S)``, for a 3-D backbone ``(3, L, S, S)``."""
        return (3, size, size) if self.clip_frames == 1 else (3, self.clip_frames, size, size)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """``[N, T, *input_shape]`` to the features of the full depth ``[N, T, D]``."""
        return self.taps(clips)[-1].unflatten(0, clips.shape[:2])

    def taps(self, clips: torch.Tensor) -> list[torch.Tensor]:
        """What each segment returns for ``[N, T, *input_shape]``, videos and steps in one dimension.

        ``B`` maps ``[N * T, C, H, W]`` (3-D backbones: ``[N * T, C, L, H, W]``, see ``to_map``), then the
        features ``[N * T, D]``.
        """
        tap, outputs = clips.flatten(0, 1), []
        for segment in self.segments:
            tap = segment(tap)
            outputs.append(tap)
        return outputs

    def map_shapes(self, size: int) -> list[torch.Size]:
        """Of what a branch head reads of each tap at ``size`` pixels, ``[C, H, W]``. Nothing is computed for it."""
        network = deepcopy(self).to("meta").eval()
        taps = network.taps(torch.zeros(1, 1, *self.input_shape(size), device="meta"))[:-1]
        return [network.to_map(tap).shape[1:] for tap in taps]

    def start_memory(self, size: int) -> list[Memory]:
        """What each segment remembers before the first frame of one video of ``size`` pixels: nothing."""
        return [() for _ in self.segments]

    def step(self, depth: int, tap: torch.Tensor, memory: Memory) -> tuple[torch.Tensor, Memory]:
        """Run segment ``depth`` on one time step of ``n`` videos.

        ``tap`` is ``[n, ...]``: the time step itself at depth 0, else what the segment before returned.
        Returns what the segment returns, and what it is to remember for the next time step.
        """
        return self.segments[depth](tap), ()

    def to_map(self, tap: torch.Tensor) -> torch.Tensor:
        """What a branch head reads of a tap, ``[N, C, H, W]``: the mean over time where a tap has time."""
        return tap.mean(2) if tap.dim() == 5 else tap
