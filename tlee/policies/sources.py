"""Sources of exit features: a stored table, or the network itself."""

from typing import Protocol

import torch

from tlee.model import TLEE


class FeatureSource(Protocol):
    """Exit features of ``num_videos`` videos of ``num_frames`` frames, on demand."""

    num_videos: int
    num_frames: int

    def feature(self, rows: torch.Tensor, t: int, b: int) -> torch.Tensor:
        """Return ``f[t, b]`` of the videos ``rows``, ``[len(rows), D]``."""
        ...


class StoredFeatures:
    """Exit features from a table ``[N, T, B + 1, D]`` of any precision, which are read in single precision."""

    def __init__(self, table: torch.Tensor):
        self.table = table
        self.num_videos, self.num_frames = table.shape[:2]

    def feature(self, rows: torch.Tensor, t: int, b: int) -> torch.Tensor:
        return self.table[rows, t, b].float()


class LiveFeatures:
    """Exit features of one clip from the network: a segment runs when its output is first needed.

    ``clip`` is ``[T, *input_shape]`` in visiting order, on the device of the network; features are returned on the CPU,
    where readouts and policies run. ``segment_runs[b]`` and ``head_runs[b]`` count runs. Returning to a shallower exit
    or an earlier frame restarts that frame, which is wrong for a network with a memory.
    """

    num_videos = 1

    def __init__(self, model: TLEE, clip: torch.Tensor):
        self.model, self.clip, self.num_frames = model, clip, len(clip)
        self.segment_runs = [0] * model.num_exits
        self.head_runs = [0] * model.num_exits
        self._memory = model.backbone.start_memory(model.params.model.input_size)
        self._step, self._depth, self._tap = -1, -1, clip[:0]

    def feature(self, rows: torch.Tensor, t: int, b: int) -> torch.Tensor:
        if t != self._step or b < self._depth:
            self._step, self._depth, self._tap = t, -1, self.clip[t : t + 1]
        while self._depth < b:
            self._depth += 1
            memory = self._memory[self._depth]
            self._tap, self._memory[self._depth] = self.model.backbone.step(self._depth, self._tap, memory)
            self.segment_runs[self._depth] += 1
        self.head_runs[b] += 1
        return self.model.head(b)(self._tap).cpu()


class Remembered:
    """A source of a single video that computes each exit feature once, for all policies that run on it."""

    def __init__(self, source: FeatureSource):
        self.num_videos, self.num_frames = source.num_videos, source.num_frames
        self._source, self._known = source, dict[tuple[int, int], torch.Tensor]()

    def feature(self, rows: torch.Tensor, t: int, b: int) -> torch.Tensor:
        if (t, b) not in self._known:
            self._known[t, b] = self._source.feature(rows, t, b)
        return self._known[t, b]
