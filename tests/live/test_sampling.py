"""Sampling of live frames: which frames become time steps."""

import pytest

from tlee.live.sampling import Sampler


def sampled(sampler: Sampler, timestamps: list[float]) -> list[int]:
    """Indices of the frames that are sampled."""
    return [index for index, seconds in enumerate(timestamps) if sampler.take(seconds, index)]


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(12, list(range(12))), (6, [0, 2, 4, 6, 8, 10]), (5, [0, 3, 5, 8, 10]), (1, [0]), (100, list(range(12)))],
)
def test_the_first_frame_of_each_slot_is_sampled(fps, expected):
    assert sampled(Sampler(fps), [index / 12 for index in range(12)]) == expected


def test_rounded_timestamps_lose_no_frame():
    assert sampled(Sampler(30), [round(index / 30, 3) for index in range(300)]) == list(range(300))


def test_jumping_timestamps_do_not_stop_the_sampling():
    assert sampled(Sampler(2), [0, 0.25, 0.5, 100, 100.25, 100.5, 3, 3.25, 3.5]) == [0, 2, 3, 5, 6, 8]


def test_a_short_clip_ends_with_the_sampled_frame_and_is_padded_with_the_first():
    sampler = Sampler(0.2, clip_frames=3, clip_stride=2)
    steps = [step for second in range(11) if (step := sampler.take(second, second))]
    assert steps == [[0, 0, 0], [1, 3, 5], [6, 8, 10]]
