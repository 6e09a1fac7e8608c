"""Demo clips: reproducible, complete, and in the layout of UCF101."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from tlee.demo import ClipSpec, all_clips, render_clip, write_clip, write_demo
from tlee.demo.files import write_truth

DATA = Path(__file__).parents[2] / "data"
SAMPLE = [ClipSpec("Bend", 1, 1), ClipSpec("Run", 12, 3), ClipSpec("Wave", 25, 4)]


def test_there_are_800_clips_in_the_order_of_the_lists():
    clips = all_clips()
    assert len(clips) == len(set(clips)) == 800
    assert [spec.path for spec in clips] == sorted(spec.path for spec in clips)
    assert clips[0].path == "Bend/v_Bend_g01_c01.mp4"


def test_train_and_test_share_no_group():
    clips = all_clips()
    test = {(spec.action, spec.group) for spec in clips if spec.is_test}
    train = {(spec.action, spec.group) for spec in clips if not spec.is_test}
    assert not test & train
    assert Counter(spec.is_test for spec in clips) == {False: 544, True: 256}


@pytest.mark.parametrize("spec", [("Fly", 1, 1), ("Run", 26, 1), ("Run", 1, 0)])
def test_a_clip_that_does_not_exist_is_refused(spec: tuple[str, int, int]):
    with pytest.raises(ValueError, match="no demo clip"):
        ClipSpec(*spec)


def test_frames_are_small_images_that_move():
    frames = render_clip(SAMPLE[1])
    assert frames.shape == (24, 96, 96, 3)
    assert frames.dtype == np.uint8
    assert np.abs(frames[0].astype(int) - frames[1]).max() > 20


def test_a_clip_does_not_depend_on_the_clips_rendered_with_it(tmp_path: Path):
    alone = {spec: write_clip(spec, tmp_path / "alone").read_bytes() for spec in SAMPLE}
    assert write_demo(tmp_path / "together", SAMPLE[::-1], jobs=2) == len(SAMPLE)
    for spec in SAMPLE:
        assert write_clip(spec, tmp_path / "again").read_bytes() == alone[spec]
        assert (tmp_path / "together" / "UCF-101" / spec.path).read_bytes() == alone[spec]


def test_a_written_clip_is_h264_of_24_frames_close_to_the_rendered_ones(tmp_path: Path):
    with av.open(write_clip(SAMPLE[0], tmp_path)) as file:
        stream = file.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(stream)])
    assert (stream.codec_context.name, stream.average_rate) == ("h264", 12)
    assert frames.shape == (24, 96, 96, 3)
    assert np.abs(frames.astype(int) - render_clip(SAMPLE[0])).mean() < 6


def test_lists_describe_the_written_clips(tmp_path: Path):
    write_demo(tmp_path, SAMPLE, jobs=1)
    lists = tmp_path / "ucfTrainTestlist"
    classes = b"1 Bend\r\n2 Jump\r\n3 JumpingJack\r\n4 Kick\r\n5 Run\r\n6 Squat\r\n7 Walk\r\n8 Wave\r\n"
    assert (lists / "classInd.txt").read_bytes() == classes
    assert (lists / "trainlist01.txt").read_bytes() == (b"Run/v_Run_g12_c03.mp4 5\r\nWave/v_Wave_g25_c04.mp4 8\r\n")
    assert (lists / "testlist01.txt").read_bytes() == b"Bend/v_Bend_g01_c01.mp4\r\n"
    videos = sorted(path.relative_to(tmp_path / "UCF-101").as_posix() for path in tmp_path.rglob("*.mp4"))
    assert videos == [spec.path for spec in SAMPLE]


def test_the_truth_of_the_written_clips_is_beside_them(tmp_path: Path):
    write_demo(tmp_path, SAMPLE, jobs=1)
    rows = (f"{spec.path},{spec.difficulty.cue},{' '.join(str(frame) for frame in spec.cue_frames)}" for spec in SAMPLE)
    assert (tmp_path / "difficulty.csv").read_bytes() == "\n".join(["video,cue,frames", *rows, ""]).encode()


@pytest.fixture(scope="module")
def shipped() -> Path:
    return DATA / "UCF-101"


def test_shipped_clips_are_those_rendered_by_this_package(shipped: Path, tmp_path: Path):
    assert sum(1 for _ in shipped.rglob("*.mp4")) == 800
    write_truth(tmp_path, all_clips())
    assert (tmp_path / "difficulty.csv").read_bytes() == (DATA / "difficulty.csv").read_bytes()
    for spec in [*SAMPLE, *all_clips()[50::150]]:
        rendered = write_clip(spec, tmp_path).read_bytes()
        assert rendered == (shipped / spec.path).read_bytes(), (
            f"{spec.path} differs: data.dvc is out of date, or PyAV includes another x264 than it was made with"
        )
