"""Sampled frames: uniform, at a rate, within an interval, as clips."""

import math
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from support.refusals import one_line

from tlee.extraction import Sampling, sample_indices
from tlee.extraction.sampling import Timeline
from tlee.params import load_params

THIRTY = Timeline.constant_rate(300, Fraction(30))


@pytest.mark.parametrize(
    ("length", "frames", "indices"),
    [
        (24, 10, [0, 2, 5, 8, 10, 13, 16, 18, 21, 23]),  # 24 / 9 apart, rounded down, the last one clipped
        (90, 10, [0, 10, 20, 30, 40, 50, 60, 70, 80, 89]),
        (10, 10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (100, 3, [0, 50, 99]),
        (7, 2, [0, 6]),
        (3, 10, [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]),
        (1, 4, [0, 0, 0, 0]),
    ],
)
def test_indices_by_hand(length, frames, indices):
    assert sample_indices(length, frames) == indices


def test_indices_span_the_video_at_equal_distances():
    for length in range(1, 60):
        for frames in range(2, 20):
            indices = sample_indices(length, frames)
            gaps = [after - before for before, after in pairwise(indices)]
            assert len(indices) == frames
            assert (indices[0], indices[-1]) == (0, length - 1)
            assert min(gaps) >= 0
            assert all(abs(gap - length / (frames - 1)) <= 1 for gap in gaps)


def test_the_sampling_follows_the_parameters(root):
    overrides = {"extract.fps": 5.0, "extract.clip_frames": 13, "model.backbone": "x3d_s"}
    params = load_params(root / "params.yaml", overrides).extract
    assert Sampling.of(params) == Sampling(10, 5.0, 13, 1)


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [
        (math.nan, math.nan, range(300)),
        (1, 2, range(30, 60)),
        (0.1, 0.2, range(3, 6)),  # rounded to fractions, unlike the binary numbers
        (1.01, math.nan, range(31, 300)),
        (math.nan, 99, range(300)),
        (-1, 0.05, range(2)),
        (1.01, 1.02, range(30, 31)),  # no frame appears here, but one is visible
        (2, 1, range(60, 61)),
        (9.99, math.nan, range(299, 300)),
        (math.nan, 0, range(1)),
    ],
)
def test_intervals_by_hand(start, end, frames):
    assert THIRTY.frames_between(start, end) == frames


def test_an_interval_after_the_end_is_refused():
    one_line(lambda: THIRTY.frames_between(10, 12), "10.00 s", error=ValueError)


@pytest.mark.parametrize(("sampling", "start"), [(Sampling(2, fps=1), math.nan), (Sampling(2), 1.0)])
def test_without_a_frame_rate_there_are_neither_intervals_nor_rates(sampling, start):
    timeline = Timeline.constant_rate(5, rate=None)
    assert Sampling(2).pick(timeline) == [0, 4]
    one_line(lambda: sampling.pick(timeline, start), "frame rate is unknown", error=ValueError)


@pytest.mark.parametrize(
    ("timeline", "fps", "kept"),
    [
        (Timeline.constant_rate(90, Fraction(30)), 1, [14, 44, 74]),  # the last shown before each half second
        (Timeline.constant_rate(12, Fraction(12)), 4, [1, 4, 7, 10]),
        (Timeline.constant_rate(5, Fraction(1)), 1, [0, 1, 2, 3, 4]),
        (Timeline.constant_rate(3, Fraction(1)), 2, [0, 0, 1, 1, 2, 2]),  # faster than the video: frames repeat
        (Timeline.constant_rate(10, Fraction(30)), 1, [9]),  # a third of a second: at least one
        (Timeline([0, 1, 2, 3, 30, 40], Fraction(1, 10)), 1, [3, 3, 3, 4]),
    ],
)
def test_rates_by_hand(timeline, fps, kept):
    assert timeline.at_rate(fps, timeline.frames_between(math.nan, math.nan)) == kept


@pytest.mark.parametrize("fps", [1, 5, 7.5, 23.976, 30, 50])
@pytest.mark.parametrize("spread", [0, 5, 40])
def test_rates_agree_with_the_fps_filter_of_ffmpeg(fps, spread):
    generator = np.random.default_rng(spread)
    gaps = 20 + generator.integers(0, spread + 1, 200)  # milliseconds; with a spread, the rate is variable
    times = [0, *np.cumsum(gaps).tolist()]
    graph = av.filter.Graph()
    source = graph.add_buffer(width=16, height=16, format="gray", time_base=Fraction(1, 1000))
    rate, sink = graph.add("fps", f"fps={fps}"), graph.add("buffersink")
    source.link_to(rate)
    rate.link_to(sink)
    graph.configure()
    kept = []
    for index in range(201):
        frame = None
        if index < 200:
            frame = av.VideoFrame.from_ndarray(np.full((16, 16), index, np.uint8), format="gray")
            frame.time_base, frame.pts, frame.duration = (
                Fraction(1, 1000),
                times[index],
                times[index + 1] - times[index],
            )
        graph.push(frame)
        kept += pull(graph)
    assert Timeline(times, Fraction(1, 1000)).at_rate(fps, range(200)) == kept


def pull(graph: av.filter.Graph) -> list[int]:
    """Return the grey levels of the frames that are ready."""
    levels = []
    try:
        while True:
            levels.append(int(graph.pull().to_ndarray()[0, 0]))
    except (BlockingIOError, EOFError):
        return levels


def test_with_a_rate_the_sampled_frames_are_among_those_kept():
    kept = THIRTY.at_rate(1, range(300))
    assert kept == list(range(14, 300, 30))
    assert Sampling(4, fps=1).pick(THIRTY) == [kept[index] for index in sample_indices(10, 4)]
    assert Sampling(3, fps=1).pick(THIRTY, 2, 5) == [74, 104, 134]


@pytest.mark.parametrize(
    ("clip_frames", "clip_stride", "indices"),
    [
        (1, 6, [0, 150, 299]),
        (2, 1, [0, 0, 149, 150, 298, 299]),
        (3, 6, [0, 0, 6, 144, 150, 156, 293, 299, 299]),
    ],
)
def test_clips_by_hand(clip_frames, clip_stride, indices):
    assert Sampling(3, None, clip_frames, clip_stride).pick(THIRTY) == indices


def test_clips_stay_within_the_interval():
    indices = Sampling(2, None, clip_frames=13, clip_stride=6).pick(THIRTY, 1, 3)
    assert indices[:13] == [30] * 7 + [36, 42, 48, 54, 60, 66]
    assert indices[13:] == [53, 59, 65, 71, 77, 83] + [89] * 7
