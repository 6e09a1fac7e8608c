"""List of the demo clips, each with its difficulty."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from tlee.demo.actions import ACTIONS
from tlee.demo.difficulty import Difficulty, Moment, deal
from tlee.demo.timeline import draw_timeline

SEED = 101  #: seed of all random numbers
GROUPS = 25  #: groups per class, each one performer; groups of one number have the same in all classes
CLIPS = 4  #: clips per group
FRAMES = 24  #: frames per clip
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
        """Difficulty of the clip: each class has the same number of clips of each in train, and in test."""
        cards = _dealt(self.action, self.is_test)
        first = 1 if self.is_test else TEST_GROUPS + 1
        return cards[(self.group - first) * CLIPS + self.clip - 1]

    @property
    def timeline(self) -> list[Moment]:
        """What can be seen in each frame."""
        return draw_timeline(self.difficulty, FRAMES, self.rng(self.clip, 1))

    @property
    def cue_frames(self) -> list[int]:
        """Indices of the frames in which the cue can be seen."""
        return [frame for frame, moment in enumerate(self.timeline) if moment == "cue"]

    def rng(self, *stream: int) -> np.random.Generator:
        """Return a stream of random numbers that depends only on the seed, class, group and the given numbers."""
        return np.random.default_rng([SEED, CLASS_INDEX[self.action], self.group, *stream])

    def shared_rng(self, *stream: int) -> np.random.Generator:
        """Return a stream that is the same for the groups of this number in all classes."""
        return np.random.default_rng([SEED, 0, self.group, *stream])


@cache
def _dealt(action: str, is_test: bool) -> list[Difficulty]:
    """Return the difficulties of the clips of a class in train or test, shuffled."""
    groups = TEST_GROUPS if is_test else GROUPS - TEST_GROUPS
    cards = deal(groups * CLIPS)
    order = np.random.default_rng([SEED, CLASS_INDEX[action], 0, int(is_test)]).permutation(len(cards))
    return [cards[index] for index in order]


def all_clips() -> list[ClipSpec]:
    """Return all clips in the order of the list files: by class, group and number."""
    return [
        ClipSpec(action, group, clip)
        for action in ACTIONS
        for group in range(1, GROUPS + 1)
        for clip in range(1, CLIPS + 1)
    ]
