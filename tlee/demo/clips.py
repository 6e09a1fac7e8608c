"""List of the demo clips, each with its difficulty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlee.demo.actions import ACTIONS
from tlee.demo.difficulty import DIFFICULTIES, Difficulty

SEED = 101  #: seed of all random numbers
GROUPS = 25  #: groups per class, each one performer at one place
CLIPS = 4  #: clips per group
TEST_GROUPS = 8  #: number of the first groups that are for testing, as in UCF101's first split

CLASS_INDEX = {name: index for index, name in enumerate(ACTIONS, start=1)}  #: class indices of ``classInd.txt``


@dataclass(frozen=True)
class ClipSpec:
    """One clip: an action, its group (from 1) and its number in the group (from 1).

    Raises:
        ValueError: there is no such clip.
    """

    action: str
    group: int
    clip: int

    def __post_init__(self) -> None:
        if not (self.action in CLASS_INDEX and 1 <= self.group <= GROUPS and 1 <= self.clip <= CLIPS):
            raise ValueError(
                f"no demo clip {self.path}: there are {GROUPS} groups of {CLIPS} clips "
                f"for each of {', '.join(CLASS_INDEX)}"
            )

    @property
    def path(self) -> str:
        """Path in the folder ``UCF-101``."""
        return f"{self.action}/v_{self.action}_g{self.group:02d}_c{self.clip:02d}.mp4"

    @property
    def is_test(self) -> bool:
        """True if the clip is in the test list."""
        return self.group <= TEST_GROUPS

    @property
    def difficulty(self) -> Difficulty:
        """Difficulty of the clip, drawn at random but always the same."""
        shares = np.cumsum([level.share for level in DIFFICULTIES])
        draw = self.rng(self.clip, 1).random()
        return DIFFICULTIES[int(np.searchsorted(shares, draw, side="right"))]

    def rng(self, *stream: int) -> np.random.Generator:
        """Return a stream of random numbers that depends only on the seed, the group and the given numbers."""
        return np.random.default_rng([SEED, CLASS_INDEX[self.action], self.group, *stream])


def all_clips() -> list[ClipSpec]:
    """Return all clips in the order of the list files: by class, group and number."""
    return [
        ClipSpec(action, group, clip)
        for action in ACTIONS
        for group in range(1, GROUPS + 1)
        for clip in range(1, CLIPS + 1)
    ]
