"""Eight actions: joint angles of a stick figure over the course of a movement.

An action maps its *phase*, counted in cycles of the movement, to a :class:`Pose`. At phase 0 most poses are close to
standing; the phases in which a single pose tells the action are listed with it. The actions form pairs, whose members
share a movement half way between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin
from typing import NamedTuple


class Pose(NamedTuple):
    """Joint angles in degrees, and position and orientation of the whole body.

    Angles of trunk, arms and legs are relative to the vertical: 0 is upright (trunk) or hanging down (limbs), positive
    is towards the side that the figure faces. An elbow bends the forearm further to that side, a knee bends the shin
    backwards. Seen from the side, the *near* limbs cover the *far* ones; seen from the front, the near limbs are those
    on the side that the figure faces.
    """

    trunk: float = 0.0
    near_arm: float = 0.0
    near_elbow: float = 0.0
    far_arm: float = 0.0
    far_elbow: float = 0.0
    near_leg: float = 0.0
    near_knee: float = 0.0
    far_leg: float = 0.0
    far_knee: float = 0.0
    lift: float = 0.0  #: height of the lower foot above the ground, in body heights
    turn: float = 0.2  #: 0 shows the figure from the side, 1 from the front

    def blend(self, other: Pose, share: float) -> Pose:
        """Interpolate between this pose (share 0) and the other one (share 1)."""
        return Pose(*(own + share * (target - own) for own, target in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Action:
    """Periodic movement."""

    pose: Callable[[float], Pose]  #: pose at a phase in cycles
    seconds: float  #: duration of one cycle at normal speed
    telling: tuple[tuple[float, float], ...] = ((0.0, 1.0),)  #: intervals of phases whose pose tells the action

    def telling_pose(self, progress: float) -> Pose:
        """Return the pose at a progress in cycles, which pass through the telling phases only, at equal speed."""
        lengths = [end - start for start, end in self.telling]
        distance = progress % 1 * sum(lengths)
        for (start, _), length in zip(self.telling, lengths, strict=True):
            if distance <= length:
                return self.pose(start + distance)
            distance -= length
        return self.pose(self.telling[-1][1])


def stand(phase: float, turn: float, fidget: float = 0.0) -> Pose:
    """Idle pose, swaying slightly; ``fidget`` (0 to 1) adds aimless movements of one arm."""
    sway = _swing(phase)
    raised = fidget * _rise(phase)
    return Pose(
        trunk=2 * sway,
        near_arm=9 + 3 * sway - 14 * raised,
        near_elbow=8 + 70 * raised,
        far_arm=-9 + 3 * sway,
        far_elbow=6,
        near_leg=4,
        far_leg=-4,
        turn=turn,
    )


def _swing(phase: float) -> float:
    """Sine: from 0 up to 1, down to -1 and back, once per cycle."""
    return sin(2 * pi * phase)


def _rise(phase: float) -> float:
    """Smooth rise from 0 to 1 and back, once per cycle, with a long time near 1."""
    rest = (1 + cos(2 * pi * phase)) / 2
    return 1 - rest * rest


def _bend(phase: float) -> Pose:
    down = _rise(phase)
    return Pose(
        trunk=118 * down,
        near_arm=8 + 14 * down,
        near_elbow=4,
        far_arm=-6 + 18 * down,
        far_elbow=4,
        near_leg=3 - 14 * down,
        far_leg=-3 - 9 * down,
        turn=0.15,
    )


def _jump(phase: float) -> Pose:
    progress = phase % 1  # crouching until 0.25, in the air until 0.85, then standing
    crouch = max(0.0, sin(4 * pi * progress)) if progress < 0.25 else 0.0
    height = max(0.0, sin(pi * (progress - 0.25) / 0.6))
    arms = 150 * height - 50 * crouch
    return Pose(
        trunk=24 * crouch + 8 * height,
        near_arm=8 + arms,
        near_elbow=12,
        far_arm=-8 + arms,
        far_elbow=12,
        near_leg=45 * crouch + 58 * height,
        near_knee=75 * crouch + 105 * height,
        far_leg=40 * crouch + 40 * height,
        far_knee=75 * crouch + 95 * height,
        lift=0.27 * height,
    )


def _jumping_jack(phase: float) -> Pose:
    spread = _rise(phase)
    arm, leg = 14 + 134 * spread, 5 + 29 * spread
    return Pose(
        near_arm=arm,
        near_elbow=10,
        far_arm=-arm,
        far_elbow=-10,
        near_leg=leg,
        far_leg=-leg,
        lift=0.05 * abs(_swing(phase)),
        turn=1.0,
    )


def _kick(phase: float) -> Pose:
    high = _rise(phase)
    wind_up = max(0.0, _swing(phase)) * (1 - high)
    return Pose(
        trunk=4 - 24 * high,
        near_arm=-10 - 45 * high,
        near_elbow=25,
        far_arm=10 + 40 * high,
        far_elbow=30,
        near_leg=108 * high - 60 * wind_up,
        near_knee=8 + 100 * wind_up,
        far_leg=-4 - 6 * high,
        far_knee=4,
    )


def _run(phase: float) -> Pose:
    def leg(phase: float) -> tuple[float, float]:
        return 22 + 52 * _swing(phase), 62 + 48 * _swing(phase + 0.12)

    (near_leg, near_knee), (far_leg, far_knee) = leg(phase), leg(phase + 0.5)
    arms = 52 * _swing(phase)
    return Pose(
        trunk=24,
        near_arm=-8 - arms,
        near_elbow=98,
        far_arm=-8 + arms,
        far_elbow=98,
        near_leg=near_leg,
        near_knee=near_knee,
        far_leg=far_leg,
        far_knee=far_knee,
        lift=0.09 * abs(_swing(phase)),
    )


def _squat(phase: float) -> Pose:
    low = _rise(phase)
    return Pose(
        trunk=20 * low,
        near_arm=8 + 80 * low,
        near_elbow=4,
        far_arm=-6 + 88 * low,
        far_elbow=4,
        near_leg=4 + 92 * low,
        near_knee=120 * low,
        far_leg=-4 + 92 * low,
        far_knee=112 * low,
    )


def _walk(phase: float) -> Pose:
    stride, lag = _swing(phase), 10 * (1 - cos(2 * pi * phase))
    return Pose(
        trunk=3,
        near_arm=-26 * stride,
        near_elbow=14,
        far_arm=26 * stride,
        far_elbow=14,
        near_leg=27 * stride,
        near_knee=24 - lag,
        far_leg=-27 * stride,
        far_knee=4 + lag,
    )


def _wave(phase: float) -> Pose:
    return Pose(
        near_arm=128,
        near_elbow=38 + 42 * _swing(phase),
        far_arm=-10,
        far_elbow=-6,
        near_leg=6,
        far_leg=-6,
        turn=0.9,
    )


#: Actions by class name, in the order of their class indices (1, 2, …).
ACTIONS = {
    "Bend": Action(_bend, seconds=1.5, telling=((0.25, 0.75),)),
    "Jump": Action(_jump, seconds=1.0, telling=((0.38, 0.72),)),
    "JumpingJack": Action(_jumping_jack, seconds=1.0, telling=((0.25, 0.75),)),
    "Kick": Action(_kick, seconds=1.1, telling=((0.3, 0.7),)),
    "Run": Action(_run, seconds=0.64),
    "Squat": Action(_squat, seconds=1.5, telling=((0.25, 0.75),)),
    "Walk": Action(_walk, seconds=1.05, telling=((0.1, 0.4), (0.6, 0.9))),
    "Wave": Action(_wave, seconds=0.75),
}

#: Actions that share a movement; a ring stands for the first of a pair, a cross for the second.
PAIRS = (("Bend", "Squat"), ("Jump", "JumpingJack"), ("Walk", "Run"), ("Kick", "Wave"))


def pair_of(action: str) -> tuple[str, str]:
    """Return the pair that an action belongs to."""
    return next(pair for pair in PAIRS if action in pair)


def common_pose(pair: tuple[str, str], progress: float) -> Pose:
    """Return the pose that a pair shares at a progress in cycles: half way between both, the near arm held out."""
    first, second = (ACTIONS[name].telling_pose(progress) for name in pair)
    return first.blend(second, 0.5)._replace(near_arm=115.0, near_elbow=25.0)
