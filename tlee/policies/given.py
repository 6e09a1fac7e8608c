"""Exits that are settled before anything is seen."""

from dataclasses import dataclass

import torch


class GivenExits:
    """A policy that does not look: its exits are known beforehand (see ``inference.follow``)."""

    def exit_depths(self, videos: int, frames: int, exits: int) -> torch.Tensor:
        """A depth for each frame and -1 after the last one, ``[N, T]``."""
        raise NotImplementedError

    def num_exits_used(self) -> int:
        """See ``Policy``."""
        return 0


@dataclass(frozen=True)
class FixedExits(GivenExits):
    """The first ``frames`` frames in visiting order, all left at ``depth``."""

    frames: int
    depth: int

    def exit_depths(self, videos: int, frames: int, exits: int) -> torch.Tensor:
        path = torch.where(torch.arange(frames) < self.frames, self.depth, -1)
        return path.expand(videos, frames).clone()


@dataclass(frozen=True)
class RandomExits(GivenExits):
    """The papers' ablation: at each exit on the way the video stops with ``chance``, and so is the frame left."""

    chance: float
    seed: int

    def exit_depths(self, videos: int, frames: int, exits: int) -> torch.Tensor:
        """The same for the same seed."""
        generator = torch.Generator().manual_seed(self.seed)
        stop, leave = (torch.rand(videos, frames, exits, generator=generator) < self.chance for _ in range(2))
        leave[:, :, -1] = True
        depth = (stop | leave).int().argmax(2)  # the first of them
        stops = stop.gather(2, depth[:, :, None]).squeeze(2).int()
        return depth.masked_fill(stops.cumsum(1) > stops, -1)
