"""Policies whose exits do not depend on the video."""

from dataclasses import dataclass

import torch


class GivenExits:
    """A policy whose exits are known before the video is processed (see ``inference.follow``)."""

    def exit_depths(self, videos: int, frames: int, num_exits: int) -> torch.Tensor:
        """Return a depth for each frame and -1 after the last one, ``[N, T]``."""
        raise NotImplementedError

    def num_exits_used(self) -> int:
        """Zero, see ``Policy``: no exit is used to decide."""
        return 0


@dataclass(frozen=True)
class FixedExits(GivenExits):
    """The first ``frames`` frames in visiting order, all left at ``depth``."""

    frames: int
    depth: int

    def exit_depths(self, videos: int, frames: int, num_exits: int) -> torch.Tensor:
        depths = torch.where(torch.arange(frames) < self.frames, self.depth, -1)
        return depths.expand(videos, frames).clone()


@dataclass(frozen=True)
class RandomExits(GivenExits):
    """The papers' ablation: at each exit the video stops with probability ``chance``, and so is the frame left."""

    chance: float
    seed: int

    def exit_depths(self, videos: int, frames: int, num_exits: int) -> torch.Tensor:
        """Draw them; the same seed gives the same exits."""
        generator = torch.Generator().manual_seed(self.seed)
        stop, leave = (torch.rand(videos, frames, num_exits, generator=generator) < self.chance for _ in range(2))
        leave[:, :, -1] = True
        depth = (stop | leave).int().argmax(2)  # the first of them
        stops = stop.gather(2, depth[:, :, None]).squeeze(2).int()
        return depth.masked_fill(stops.cumsum(1) > stops, -1)
