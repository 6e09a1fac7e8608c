"""Actions of the demo clips: their poses, and what the two members of a pair share."""

from __future__ import annotations

import pytest

from tlee.demo.actions import ACTIONS, PAIRS, Pose, common_pose, pair_of, stand


def difference(first: Pose, second: Pose) -> float:
    """Largest difference of an angle, in degrees."""
    return max(abs(a - b) for a, b in zip(first[:-2], second[:-2], strict=True))


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_are_periodic_and_move(action: str):
    pose = ACTIONS[action].pose
    assert pose(0.3) == pytest.approx(pose(1.3))
    assert pose(0.25) != pytest.approx(pose(0.75)) or pose(0.0) != pytest.approx(pose(0.5))


@pytest.mark.parametrize("action", ACTIONS)
def test_no_telling_pose_is_like_standing_or_like_one_of_another_action(action: str):
    others = [other.telling_pose(step / 20) for name, other in ACTIONS.items() if name != action for step in range(20)]
    for step in range(20):
        pose = ACTIONS[action].telling_pose(step / 20)
        assert min(difference(pose, other) for other in [stand(0.0, pose.turn), *others]) > 10


def test_telling_phases_follow_each_other_at_equal_speed():
    walk = ACTIONS["Walk"]  # telling from 0.1 to 0.4 and from 0.6 to 0.9
    for progress, phase in [(0.0, 0.1), (0.25, 0.25), (0.5, 0.4), (0.75, 0.75), (1.25, 0.25)]:
        assert walk.telling_pose(progress) == pytest.approx(walk.pose(phase))


def test_every_action_is_in_one_pair():
    assert sorted(name for pair in PAIRS for name in pair) == sorted(ACTIONS)
    assert all(pair_of(name) == pair for pair in PAIRS for name in pair)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_shared_movement_is_half_way_between_both_but_for_the_arm_held_out(pair: tuple[str, str]):
    first, second = (ACTIONS[name].telling_pose(0.3) for name in pair)
    shared = common_pose(pair, 0.3)
    assert shared.trunk == pytest.approx((first.trunk + second.trunk) / 2)
    assert shared.far_leg == pytest.approx((first.far_leg + second.far_leg) / 2)
    assert shared.near_arm == common_pose(pair, 0.8).near_arm
