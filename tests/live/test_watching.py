"""`python -m tlee watch`: what a decision is on a source that goes on, and how it is told."""

import json
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from support.clips import encode
from support.projects import CLASSES, make_project
from support.small import T, random_network, small_params
from support.stores import noisy
from typer.testing import CliRunner, Result

from tlee.__main__ import app
from tlee.backbones.cut import Backbone
from tlee.costs import count_costs
from tlee.errors import UserError
from tlee.levels import ALWAYS, NEVER
from tlee.live import streams, watching
from tlee.live.prediction import Answer, Predictor, load_predictor, predict, to_clip
from tlee.live.streams import Capture, Following, LostError, Step
from tlee.live.watching import Decision, Log, Window, open_stream, to_json, warning, watch
from tlee.params import change, load_params
from tlee.policies.given import RandomExits
from tlee.policies.sources import LiveFeatures
from tlee.policies.thresholds import Thresholds

OFF = (NEVER,) * 3
AT_ONCE = Thresholds(OFF[1:], (ALWAYS, NEVER, NEVER), OFF, OFF)  # stops at the first exit of the first frame
AFTER_TWO = Thresholds(OFF[1:], OFF, OFF, (NEVER, NEVER, ALWAYS))


class Steps:
    """A stream of given time steps, None where it is cut; an error ends it."""

    live, dropped = True, 0

    def __init__(self, *steps: int | Exception | None):
        self.left = list(steps)

    def __iter__(self) -> Generator[Step | None, None, None]:
        while self.left:
            step = self.left.pop(0)
            if isinstance(step, Exception):
                raise step
            yield None if step is None else Step(step / 10, [picture(step)])


def picture(number: int) -> Any:
    return noisy(number % 3, seed=number)


@pytest.fixture
def predictor(five_layer_backbone: None) -> Predictor:
    """A random network that looks at everything."""
    params = small_params()
    model = random_network(params)
    return Predictor(params, model, CLASSES, Thresholds.never(3), count_costs(model))


def expected(predictor: Predictor, numbers: Sequence[int]) -> Answer:
    """The answer for a clip of these pictures."""
    clip = torch.cat([to_clip([picture(number)], predictor.params) for number in numbers])
    return predictor.run(LiveFeatures(predictor.model, clip))


def agree(answer: Answer, other: Answer) -> None:
    assert (answer.exit_depths, answer.gmacs, answer.label) == (other.exit_depths, other.gmacs, other.label)
    assert answer.confidence == pytest.approx(other.confidence, abs=1e-5)


# --- what a decision is ----------------------------------------------------------------------------------


def test_windows_follow_on_each_other_and_do_not_overlap(predictor):
    decisions = list(watch(predictor, Steps(*range(2 * T), None)))
    assert [(decision.frames, decision.seconds) for decision in decisions] == [(T, (T - 1) / 10), (T, (2 * T - 1) / 10)]
    agree(decisions[0].answer, expected(predictor, range(T)))
    agree(decisions[1].answer, expected(predictor, range(T, 2 * T)))
    assert decisions[0].answer.confidence != decisions[1].answer.confidence


@pytest.mark.parametrize(("policy", "frames"), [(AT_ONCE, 1), (AFTER_TWO, 2)])
def test_a_policy_that_stops_early_decides_at_once_and_begins_anew(predictor, policy, frames):
    steps = Steps(*range(6))
    decisions = watch(replace(predictor, policy=policy), steps)
    for number in range(1, 1 + 6 // frames):
        decision = next(decisions)
        assert (decision.frames, decision.seconds) == (frames, (number * frames - 1) / 10)
        assert len(steps.left) == 6 - number * frames  # none is waited for that is not looked at
    assert next(decisions, None) is None


def test_the_last_frame_stands_for_those_that_are_missing(predictor):
    (decision,) = watch(predictor, Steps(0, 1, None))
    assert (decision.frames, decision.seconds) == (2, 0.1)
    agree(decision.answer, expected(predictor, [0, 1, 1, 1]))


def test_a_source_that_is_lost_is_decided_upon_and_followed_again(predictor):
    decisions = list(watch(predictor, Steps(0, 1, 2, None, None, *range(5, 5 + T), None)))
    assert [decision.frames for decision in decisions] == [3, T]
    agree(decisions[1].answer, expected(predictor, range(5, 5 + T)))


def test_what_has_come_is_decided_before_the_loss_is_told(predictor):
    decisions = watch(predictor, Steps(0, None, UserError("gone")))
    assert next(decisions).frames == 1
    with pytest.raises(UserError, match="gone"):
        next(decisions)


def test_a_segment_that_is_skipped_is_never_run(predictor, monkeypatch):
    ran, step = [], Backbone.step

    def counted(self: Backbone, depth: int, *rest: torch.Tensor) -> tuple:
        ran.append(depth)
        return step(self, depth, *rest)

    monkeypatch.setattr(Backbone, "step", counted)
    decisions = watch(replace(predictor, policy=AT_ONCE), Steps(0, 1, 2))
    next(decisions)  # and a run before, so that the first is not slow
    ran.clear()
    next(decisions)
    assert ran == [0]


def test_random_exits_are_drawn_anew_for_each_window(predictor):
    by_chance = replace(predictor, policy=RandomExits(0.5, seed=0))
    assert len({tuple(decision.answer.exit_depths) for decision in watch(by_chance, Steps(*range(40)))}) > 3


def test_waiting_is_not_counted_as_work(predictor):
    class Slow(Steps):
        def __iter__(self) -> Iterator[Step | None]:
            for step in super().__iter__():
                threading.Event().wait(0.05)
                yield step

    (decision,) = watch(predictor, Slow(*range(T)))
    assert 0 < decision.milliseconds < 50 * (T - 1)


def test_frames_that_were_dropped_are_told(predictor):
    steps = Steps(*range(2 * T))
    decisions = watch(predictor, steps)
    steps.dropped = 3
    assert next(decisions).dropped == 3
    steps.dropped = 5
    assert next(decisions).dropped == 5


def test_a_window_reads_short_clips_where_time_steps_are_such(five_layer_backbone):
    params = small_params({"extract.clip_frames": 13}, backbone="x3d_s", input_size=16, num_branches=0)
    model = random_network(small_params())
    model.params, model.backbone.clip_frames = params, 13
    step = Step(0.0, [picture(number) for number in range(13)])
    assert Window(model, step, iter(())).clip.shape == (T, *model.input_shape) == (T, 3, 13, 16, 16)


# --- a network that has learnt another order ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ({"readout": "per_step"}, "model.readout: per_step"),
        ({"backbone": "mobilenet_v2_tsm"}, "model.backbone: mobilenet_v2_tsm"),
        ({"reuse": "ema"}, "model.reuse: ema"),
        ({"reuse": "attention", "readout": "per_step"}, "model.readout: per_step` and `model.reuse: attention"),
    ],
    ids=str,
)
def test_what_tells_the_order_of_frames_is_warned_of(model, named):
    line = warning(small_params(**model))
    assert line.startswith(f"with `{named}` the order of frames matters")
    assert "\n" not in line
    assert warning(small_params(**model, order="sequential")) is None


@pytest.mark.parametrize("reuse", ["max", "mean", "add", "none"])
def test_what_does_not_is_not(reuse):
    assert warning(small_params(reuse=reuse)) is None


# --- how it is told ----------------------------------------------------------------------------------------


def decision(**changes: Any) -> Decision:
    answer = Answer({"blue": 0.98765432}, exit_depths=[2, 0, 0], gmacs=0.0123456789, share=0.25)
    at = datetime(2024, 5, 1, 14, 3, 7, 123456, tzinfo=UTC)
    return replace(Decision(answer, 62.5, at, frames=2, milliseconds=3.25, dropped=7), **changes)


def test_a_decision_as_json():
    assert json.loads(to_json(decision())) == {
        "time": "2024-05-01T14:03:07.123+00:00",
        "seconds": 62.5,
        "label": "blue",
        "confidence": 0.987654,
        "labels": {"blue": 0.987654},
        "frames": 2,
        "exit_depths": [2, 0],
        "gmacs": 0.0123457,
        "milliseconds": 3.25,
        "dropped": 7,
    }


def test_a_decision_as_a_line():
    log = Log.of("clip.mp4", CLASSES)
    heading, recorded, live = log.heading(), log.line(decision(), live=False), log.line(decision(), live=True)
    assert heading.split() == ["at", "label", "sure", "frames", "ms", "dropped"]
    assert recorded.split() == ["1:02.50", "blue", "0.988", "2", "3.2", "7"]
    assert live.split()[0] == "14:03:07"
    for column, value in (("at", "1:02.50"), ("sure", "0.988"), ("ms", "3.2"), ("dropped", "7")):
        assert heading.index(column) + len(column) == recorded.rindex(value) + len(value)


def test_all_decisions_are_summed_up():
    log = Log.of("clip.mp4", CLASSES)
    assert log.summary() == "clip.mp4: decisions 0, frames looked at 0, dropped 0"
    for milliseconds, dropped in ((1.0, 0), (2.0, 3), (9.0, 7)):
        log.add(decision(milliseconds=milliseconds, dropped=dropped))
    assert log.summary() == (
        "clip.mp4: decisions 3, frames looked at 6, dropped 7; a decision: 2.0 ms, 25% of the full network's GMACs"
    )


# --- the command -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    return root


@pytest.fixture
def project(trained: Path, monkeypatch: pytest.MonkeyPatch, five_layer_backbone: None) -> Path:
    """A project that has been run, the working folder."""
    monkeypatch.chdir(trained)
    return trained


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["watch", *arguments])


def test_a_file_is_watched_to_its_end(project):
    done = call("videos/0.mp4", "--policy", "full", "--fps", "12")
    assert (done.exit_code, done.stderr) == (0, "")
    heading, *lines, summary = done.stdout.splitlines()
    assert heading.split()[:2] == ["at", "label"]
    assert [line.split()[0] for line in lines] == ["0:00.25", "0:00.58", "0:00.92"]  # 12 frames a second, 4 a decision
    assert summary.startswith("videos/0.mp4: decisions 3, frames looked at 12, dropped 0; a decision: ")


def test_json_is_all_that_is_on_stdout(project):
    done = call("videos/0.mp4", "--policy", "full", "--fps", "12", "--json", "--decisions", "2")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["frames"] for each in told] == [T, T]
    assert [each["seconds"] for each in told] == pytest.approx([3 / 12, 7 / 12], abs=1e-5)
    (summary,) = done.stderr.splitlines()
    assert summary.startswith("videos/0.mp4: decisions 2, ")


def test_frames_of_a_stream_are_seen_as_those_of_a_video(project):
    """As many frames as a window has, in sequence: the answer is that of `predict`."""
    sequential = change(load_params(), {"model.order": "sequential"})
    predictor = load_predictor(sequential)
    path = encode(project / "videos" / "short.mp4", length=T)
    stream = open_stream("short", str(path), sequential, 12, Following(queue=5, timeout=5.0, retries=0), print)
    whole = replace(predictor, policy=Thresholds.never(3))
    (found,) = watch(whole, stream)
    told = predict(whole, path, "short")
    assert told.indices == list(range(T))
    agree(found.answer, told.answer)


def test_a_file_in_real_time_is_watched_too(project):
    encode(project / "videos" / "short.mp4", length=5)
    begin = time.monotonic()
    done = call("videos/short.mp4", "--realtime", "--fps", "12", "--json", "--queue", "100")
    assert time.monotonic() - begin >= 4 / 12
    assert sum(json.loads(line)["frames"] for line in done.stdout.splitlines()) == 5


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let every source be a camera that shows a video and then does something."""

    def install(path: Path, then: Callable[[], object]) -> None:
        def shown() -> Generator[tuple[float, av.VideoFrame], None, None]:
            with av.open(path) as container:
                for frame in container.decode(video=0):
                    yield frame.time, frame
            then()

        monkeypatch.setattr(watching, "open_source", lambda *_: Capture(True, shown()))

    return install


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt: a shell's background jobs would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_with_the_summary(project, camera):
    def press() -> None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        threading.Event().wait(5)

    camera(project / "videos/0.mp4", press)
    done = call("0", "--policy", "full", "--fps", "100000", "--queue", "100")
    assert done.exit_code == 0
    *_, summary = done.stdout.splitlines()
    assert summary.startswith("0: decisions ")
    assert not done.stderr


def test_a_camera_that_is_gone_ends_with_the_summary_and_a_line(project, camera):
    def unplug() -> None:
        raise LostError("it was unplugged")

    camera(project / "videos/0.mp4", unplug)
    done = call("0", "--fps", "100000", "--queue", "100", "--retries", "0", "--json")
    assert done.exit_code == 1
    assert str(done.exception).startswith("0 is lost (it was unplugged): see to it")
    assert done.stdout.splitlines()
    (summary,) = done.stderr.splitlines()
    assert summary.startswith("0: decisions ")


def test_connecting_again_is_told_on_stderr(project, camera, monkeypatch):
    monkeypatch.setattr(streams.time, "sleep", lambda _: None)
    camera(project / "videos/0.mp4", lambda: None)
    done = call("0", "--fps", "100000", "--queue", "100", "--policy", "full", "--json", "--decisions", "4")
    assert len(done.stdout.splitlines()) == 4
    assert done.stderr.startswith("warning: 0 is lost (it has ended); attempt 1 to connect again in 1 s")


def test_a_file_that_is_not_there_is_one_line(project):
    done = call("none.mp4")
    assert not done.stdout
    assert not done.stderr
    assert str(done.exception).startswith("none.mp4 cannot be watched (there is no such file): name a video file, ")


def test_passwords_in_addresses_are_told_to_nobody(project):
    done = call("rtsp://user:secret@127.0.0.1:9/x")
    assert str(done.exception).startswith("rtsp://user@127.0.0.1:9/x cannot be watched (Connection refused)")
    assert "secret" not in done.output


def test_a_network_that_tells_the_order_is_watched_with_a_warning(project, monkeypatch):
    monkeypatch.setattr("tlee.live.watching.warning", lambda params: "the order matters")
    done = call("videos/0.mp4")
    assert done.exit_code == 0
    assert done.stderr == "warning: the order matters\n"


def test_paths_are_those_of_the_folder_one_is_in(project, monkeypatch):
    monkeypatch.chdir(project / "videos")
    done = call("0.mp4")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1].startswith("0.mp4: decisions ")
