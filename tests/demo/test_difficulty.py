"""Difficulty of the demo clips: as its table says, the same for all classes, and what is listed is what is seen."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tlee.demo import ClipSpec, all_clips, render_clip
from tlee.demo.actions import ACTIONS, pair_of
from tlee.demo.difficulty import CUES, FILLERS, SIGN_RADIUS, TIMINGS, deal
from tlee.demo.rendering import scene_of
from tlee.extraction.sampling import sample_indices

CLIPS = all_clips()


def one_of_each_kind() -> list[ClipSpec]:
    """Return the first clip of each difficulty, each of another class as far as possible."""
    firsts: dict = {}
    for position in range(100):
        for spec in CLIPS[position::100]:
            firsts.setdefault(spec.difficulty, spec)
    return list(firsts.values())


def as_partner(spec: ClipSpec) -> np.ndarray:
    """Render a clip with the other action of its pair."""
    (partner,) = set(pair_of(spec.action)) - {spec.action}
    return render_clip(spec, partner)


def changes(spec: ClipSpec) -> np.ndarray:
    """Return True for each pixel of each frame that depends on which action of the pair is shown, ``[T, H, W]``."""
    return (render_clip(spec) != as_partner(spec)).any(axis=-1)


@pytest.mark.parametrize("shares", [CUES.values(), FILLERS.values(), [timing.share for timing in TIMINGS]])
def test_shares_sum_to_1(shares):
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("clips", [1, 7, 32, 68, 1000])
def test_difficulties_are_dealt_in_the_numbers_that_their_shares_give(clips: int):
    counts = Counter(deal(clips))
    assert counts.total() == clips
    for cue in ("coarse", "fine"):
        for timing in TIMINGS:
            dealt = sum(count for each, count in counts.items() if (each.cue, each.timing) == (cue, timing))
            assert abs(dealt - clips * CUES[cue] * timing.share) < 1


@pytest.mark.parametrize("is_test", [False, True])
def test_difficulties_do_not_tell_the_class(is_test: bool):
    counts = {
        name: Counter(spec.difficulty for spec in CLIPS if spec.action == name and spec.is_test == is_test)
        for name in ACTIONS
    }
    assert all(count == counts["Bend"] for count in counts.values())
    assert len(counts["Bend"]) == 1 + 2 * len(TIMINGS)


@pytest.mark.parametrize("is_test", [False, True])
def test_train_and_test_have_the_shares_of_cues_of_the_table(is_test: bool):
    clips = [spec for spec in CLIPS if spec.is_test == is_test]
    counts = Counter(spec.difficulty.cue for spec in clips)
    assert {cue: counts[cue] / len(clips) for cue in CUES} == pytest.approx(CUES, abs=0.02)


def test_place_and_performer_do_not_tell_the_class():
    assert scene_of(ClipSpec("Bend", 3, 2)) == scene_of(ClipSpec("Run", 3, 2))
    assert scene_of(ClipSpec("Bend", 3, 2)) != scene_of(ClipSpec("Bend", 4, 2))


def test_the_cue_is_seen_in_as_many_frames_as_the_timing_allows():
    for spec in CLIPS:
        assert len(spec.timeline) == 24
        timing, frames = spec.difficulty.timing, spec.cue_frames
        assert frames == sorted(frames)
        if timing is None:
            assert set(spec.timeline) <= {"idle", "hidden", "misleading"}
        else:
            assert timing.frames[0] <= len(frames) <= timing.frames[1]


def test_one_of_ten_sampled_frames_at_least_shows_the_cue():
    sampled = set(sample_indices(24, 10))
    assert all(sampled & set(spec.cue_frames) for spec in CLIPS if spec.difficulty.timing)


def test_the_cue_is_seen_at_all_times_alike():
    seen = np.mean([[moment == "cue" for moment in spec.timeline] for spec in CLIPS], axis=0)
    assert np.ptp(seen) < 0.1


@pytest.mark.parametrize("spec", one_of_each_kind(), ids=lambda spec: spec.path)
def test_only_the_listed_frames_show_which_action_of_the_pair_it_is(spec: ClipSpec):
    assert np.flatnonzero(changes(spec).any(axis=(1, 2))).tolist() == spec.cue_frames


@pytest.mark.parametrize("spec", [spec for spec in one_of_each_kind() if spec.difficulty.cue == "fine"], ids=str)
def test_a_fine_cue_is_no_larger_than_the_sign(spec: ClipSpec):
    for frame in changes(spec)[spec.cue_frames]:
        rows, columns = np.nonzero(frame)
        assert max(np.ptp(rows), np.ptp(columns)) <= 2 * SIGN_RADIUS[1]


@pytest.mark.parametrize("spec", [spec for spec in one_of_each_kind() if spec.difficulty.cue == "coarse"], ids=str)
def test_a_coarse_cue_is_larger_than_a_sign(spec: ClipSpec):
    rows, columns = np.nonzero(changes(spec).any(axis=0))
    assert max(np.ptp(rows), np.ptp(columns)) > 2 * SIGN_RADIUS[1]
