"""Backbone: a network without its classifier, cut into segments after which a frame may exit."""

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import nn

from tlee.backbones.normalise import Normalise
from tlee.errors import UserError

Memory = tuple[torch.Tensor, ...]  #: state of a segment that is carried over from the previous frame


@dataclass(frozen=True)
class Cuts:
    """Positions at which a backbone is cut: the number of layers before each cut, and the channels of each tap."""

    after: tuple[int, ...]
    tap_channels: tuple[int, ...]


class Backbone(nn.Module):
    """Network that maps time steps of RGB in 0..1 to features of size ``D``, in ``B + 1`` segments.

    A time step is a frame ``[3, H, W]``, or for a 3-D backbone a short clip of ``clip_frames`` frames
    ``[3, L, H, W]``. Segment 0 begins with the normalisation, whose buffers are saved with the weights.

    ``body`` contains the parameters under their names in published weights, independent of the cuts. ``layers`` is the
    same network as a sequence that ends with features ``[N, D]``; the ``num_branches`` (``B``) deepest of ``cuts`` are
    used. ``imagenet`` is the torchvision architecture whose ImageNet weights fit ``body``.

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
        spans = [
            cast(nn.Sequential, layers[start:end]) for start, end in pairwise([0, *cuts.after[first:], len(layers)])
        ]
        spans[0] = nn.Sequential(self.normalise, *spans[0])
        self._layers = tuple(layers)
        self._segments = tuple(spans)  # views of `body` and `normalise`, which register the parameters

    @property
    def segments(self) -> tuple[nn.Sequential, ...]:
        """Segments, ``B + 1``: the outputs of all but the last are the taps, the output of the last the features."""
        return self._segments

    def first_layers(self, count: int) -> nn.ModuleList:
        """Return the first ``count`` layers, counted as for the cuts. Raises ``UserError`` if there are fewer."""
        if count > len(self._layers):
            raise UserError(f"pretrain.frozen_layers is {count}, but this backbone has {len(self._layers)}: lower it")
        return nn.ModuleList(self._layers[:count])

    def input_shape(self, size: int) -> tuple[int, ...]:
        """Return the shape of one time step at ``size`` pixels: ``(3, S, S)``, for a 3-D backbone ``(3, L, S, S)``."""
        return (3, size, size) if self.clip_frames == 1 else (3, self.clip_frames, size, size)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Map ``[N, T, *input_shape]`` to the features at full depth ``[N, T, D]``."""
        return self.taps(clips)[-1].unflatten(0, clips.shape[:2])

    def taps(self, clips: torch.Tensor) -> list[torch.Tensor]:
        """Return the output of each segment for ``[N, T, *input_shape]``, videos and time steps in one dimension.

        ``B`` maps ``[N * T, C, H, W]`` (3-D backbones: ``[N * T, C, L, H, W]``, see ``to_map``), then the features
        ``[N * T, D]``.
        """
        tap, outputs = clips.flatten(0, 1), []
        for segment in self.segments:
            tap = segment(tap)
            outputs.append(tap)
        return outputs

    def start_memory(self, size: int) -> list[Memory]:
        """Return the state of each segment before the first frame of one video of ``size`` pixels: none."""
        return [() for _ in self.segments]

    def step(self, depth: int, tap: torch.Tensor, memory: Memory) -> tuple[torch.Tensor, Memory]:
        """Run segment ``depth`` on one time step of ``n`` videos.

        ``tap`` is ``[n, ...]``: the time step itself at depth 0, else the output of the previous segment.
        Returns the output of the segment, and its state for the next time step.
        """
        return self.segments[depth](tap), ()

    def to_map(self, tap: torch.Tensor) -> torch.Tensor:
        """Return the map ``[N, C, H, W]`` that a branch head reads from a tap: the mean over time if it has time."""
        return tap.mean(2) if tap.dim() == 5 else tap
