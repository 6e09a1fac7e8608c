"""True difficulty of the clips: which cue tells the class, and in which frames it can be seen.

Only a generator knows it: ``python -m tlee demo`` writes it to ``difficulty.csv`` in ``dataset.root``. Other data sets
have no such file.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from tlee.errors import UserError
from tlee.frame_format import StoredSplit
from tlee.frames import visiting_order
from tlee.params import Params
from tlee.paths import FRAMES

COLUMNS = ["video", "cue", "frames"]

#: Cues from the easiest to the hardest: the pose or movement of the whole body; a small detail, where the pose is
#: shared by several classes; nothing, in clips that cannot be told.
CUES = ("coarse", "fine", "none")


class ClipTruth(NamedTuple):
    """Row of the file: the cue of a clip, and the indices of the frames of the video in which it can be seen."""

    cue: str
    frames: frozenset[int]


@dataclass(frozen=True)
class SplitTruth:
    """True difficulty of the ``N`` videos of a split."""

    cues: Sequence[str]  #: one of ``CUES`` for each video
    informative: torch.Tensor  #: ``[N, T]`` booleans in visiting order: the cue can be seen at the time step

    @property
    def counts(self) -> torch.Tensor:
        """Number of informative time steps of each video, ``[N]``."""
        return self.informative.sum(1)

    def with_cue(self, cue: str) -> torch.Tensor:
        """Return the positions of the videos with this cue."""
        return torch.tensor([each == cue for each in self.cues], dtype=torch.bool).nonzero().squeeze(1)

    def take(self, rows: torch.Tensor) -> "SplitTruth":
        """Select the videos ``rows``, by position."""
        return SplitTruth([self.cues[row] for row in rows.tolist()], self.informative[rows])


def truth_file(params: Params) -> Path | None:
    """Return the path of the file, None if the data set has none."""
    path = Path(params.dataset.root) / "difficulty.csv"
    return path if path.exists() else None


def read_truth(path: Path) -> dict[str, ClipTruth]:
    """Read the file, by video. Raises ``UserError`` if it is damaged."""
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines(), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise _damaged(path, f"cannot be read ({error})") from None
    if not lines or lines[0] != COLUMNS:
        raise _damaged(path, f"does not begin with the columns {','.join(COLUMNS)}")
    truth: dict[str, ClipTruth] = {}
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(COLUMNS):
            raise _damaged(path, f"has {len(line)} instead of {len(COLUMNS)} values in line {number}")
        video, cue, frames = line
        if video in truth:
            raise _damaged(path, f"lists {video} again in line {number}")
        if cue not in CUES:
            raise _damaged(path, f"has the unknown cue `{cue}` in line {number} (known: {', '.join(CUES)})")
        if not all(frame.isdecimal() for frame in frames.split()):
            raise _damaged(path, f"has the frames `{frames}` in line {number}, which are no indices")
        if bool(frames.split()) == (cue == "none"):
            raise _damaged(path, f"has the cue `{cue}` with the frames `{frames}` in line {number}")
        truth[video] = ClipTruth(cue, frozenset(map(int, frames.split())))
    return truth


def split_truth(path: Path, split: str, videos: Sequence[str], order: str) -> SplitTruth:
    """Return the true difficulty of the ``videos`` of a split, from the file and the frames sampled in extraction.

    A time step is informative if the cue can be seen in any of its frames. Raises ``UserError`` if the file is damaged
    or lacks a video, or if the frame store is damaged or contains other videos.
    """
    known = read_truth(path)
    missing = [video for video in videos if video not in known]
    if missing:
        raise _damaged(path, f"has no row for {missing[0]}")
    store = StoredSplit(FRAMES / split)
    if list(store.videos) != list(videos):
        raise UserError(f"{store.path} contains other videos than the evaluation: run `dvc repro evaluate`")
    seen = torch.tensor(
        [[index in known[video].frames for index in store.indices(row)] for row, video in enumerate(videos)]
    )
    steps = seen.unflatten(1, (-1, store.clip_frames)).any(2)
    return SplitTruth([known[video].cue for video in videos], steps[:, visiting_order(steps.shape[1], order)])


def _damaged(path: Path, fault: str) -> UserError:
    return UserError(f"{path} {fault}: write it again with `python -m tlee demo`, or delete it")
