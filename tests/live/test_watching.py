"""`python -m tlee watch`: decisions on a continuous source, and their output."""

import json
import re
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
from tlee.live.capture import Capture, CaptureError
from tlee.live.prediction import Prediction, Predictor, load_predictor, predict, to_clip
from tlee.live.sampling import TimeStep
from tlee.live.streams import StreamOptions
from tlee.live.watching import Decision, DecisionLog, FrameWindow, open_stream, order_warning, to_json, watch
from tlee.params import change, load_params
from tlee.policies.given import RandomExits
from tlee.policies.sources import LiveFeatures
from tlee.policies.thresholds import Thresholds

OFF = (NEVER,) * 3
AT_ONCE = Thresholds(OFF[1:], (ALWAYS, NEVER, NEVER), OFF, OFF)  # stops at the first exit of the first frame
AFTER_TWO = Thresholds(OFF[1:], OFF, OFF, (NEVER, NEVER, ALWAYS))


class FakeStream:
    """A stream of the given time steps, None at an interruption; an error ends it."""

    is_live, dropped = True, 0

    def __init__(self, *steps: int | Exception | None):
        self.left = list(steps)

    def __iter__(self) -> Generator[TimeStep | None, None, None]:
        while self.left:
            step = self.left.pop(0)
            if isinstance(step, Exception):
                raise step
            yield None if step is None else TimeStep(step / 10, [image(step)])


def image(number: int) -> Any:
    return noisy(number % 3, seed=number)


@pytest.fixture
def predictor(five_layer_backbone: None) -> Predictor:
    """A random network under a policy that never exits."""
    params = small_params()
    model = random_network(params)
    return Predictor(params, model, CLASSES, Thresholds.never(3), count_costs(model))


def expected(predictor: Predictor, numbers: Sequence[int]) -> Prediction:
    """The prediction for a clip of these images."""
    clip = torch.cat([to_clip([image(number)], predictor.params) for number in numbers])
    return predictor.run(LiveFeatures(predictor.model, clip))


def assert_agree(one: Prediction, other: Prediction) -> None:
    assert (one.exit_depths, one.gmacs, one.label) == (other.exit_depths, other.gmacs, other.label)
    assert one.confidence == pytest.approx(other.confidence, abs=1e-5)


# --- decisions -------------------------------------------------------------------------------------------


def test_windows_are_consecutive_and_do_not_overlap(predictor):
    decisions = list(watch(predictor, FakeStream(*range(2 * T), None)))
    assert [(decision.num_frames, decision.seconds) for decision in decisions] == [
        (T, (T - 1) / 10),
        (T, (2 * T - 1) / 10),
    ]
    assert_agree(decisions[0].prediction, expected(predictor, range(T)))
    assert_agree(decisions[1].prediction, expected(predictor, range(T, 2 * T)))
    assert decisions[0].prediction.confidence != decisions[1].prediction.confidence


@pytest.mark.parametrize(("policy", "frames"), [(AT_ONCE, 1), (AFTER_TWO, 2)])
def test_a_policy_that_stops_early_decides_at_once_and_starts_a_new_window(predictor, policy, frames):
    stream = FakeStream(*range(6))
    decisions = watch(replace(predictor, policy=policy), stream)
    for number in range(1, 1 + 6 // frames):
        decision = next(decisions)
        assert (decision.num_frames, decision.seconds) == (frames, (number * frames - 1) / 10)
        assert len(stream.left) == 6 - number * frames  # no frame is awaited that is not processed
    assert next(decisions, None) is None


def test_the_last_frame_is_repeated_for_missing_ones(predictor):
    (decision,) = watch(predictor, FakeStream(0, 1, None))
    assert (decision.num_frames, decision.seconds) == (2, 0.1)
    assert_agree(decision.prediction, expected(predictor, [0, 1, 1, 1]))


def test_an_interruption_ends_the_window_and_a_new_one_starts(predictor):
    decisions = list(watch(predictor, FakeStream(0, 1, 2, None, None, *range(5, 5 + T), None)))
    assert [decision.num_frames for decision in decisions] == [3, T]
    assert_agree(decisions[1].prediction, expected(predictor, range(5, 5 + T)))


def test_frames_before_a_loss_are_decided_on_before_the_error_is_raised(predictor):
    decisions = watch(predictor, FakeStream(0, None, UserError("gone")))
    assert next(decisions).num_frames == 1
    with pytest.raises(UserError, match="gone"):
        next(decisions)


def test_a_segment_that_is_skipped_is_never_run(predictor, monkeypatch):
    ran, step = [], Backbone.step

    def counted(self: Backbone, depth: int, *rest: torch.Tensor) -> tuple:
        ran.append(depth)
        return step(self, depth, *rest)

    monkeypatch.setattr(Backbone, "step", counted)
    decisions = watch(replace(predictor, policy=AT_ONCE), FakeStream(0, 1, 2))
    next(decisions)  # includes the warm-up
    ran.clear()
    next(decisions)
    assert ran == [0]


def test_random_exits_differ_between_windows(predictor):
    random_exits = replace(predictor, policy=RandomExits(0.5, seed=0))
    assert len({tuple(decision.prediction.exit_depths) for decision in watch(random_exits, FakeStream(*range(40)))}) > 3


def test_waiting_does_not_count_as_processing_time(predictor):
    class Slow(FakeStream):
        def __iter__(self) -> Iterator[TimeStep | None]:
            for step in super().__iter__():
                threading.Event().wait(0.05)
                yield step

    (decision,) = watch(predictor, Slow(*range(T)))
    assert 0 < decision.milliseconds < 50 * (T - 1)


def test_dropped_frames_are_reported(predictor):
    stream = FakeStream(*range(2 * T))
    decisions = watch(predictor, stream)
    stream.dropped = 3
    assert next(decisions).dropped == 3
    stream.dropped = 5
    assert next(decisions).dropped == 5


def test_a_window_contains_short_clips_where_time_steps_are_clips(five_layer_backbone):
    params = small_params({"extract.clip_frames": 13}, backbone="x3d_s", input_size=16, num_branches=0)
    model = random_network(small_params())
    model.params, model.backbone.clip_frames = params, 13
    step = TimeStep(0.0, [image(number) for number in range(13)])
    assert FrameWindow(model, step, iter(())).clip.shape == (T, *model.input_shape) == (T, 3, 13, 16, 16)


# --- networks that depend on the order of frames ---------------------------------------------------------


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
def test_a_network_that_depends_on_the_order_of_frames_gives_a_warning(model, named):
    line = order_warning(small_params(**model))
    assert f"`{named}`" in line and "`model.order: sequential`" in line
    assert "\n" not in line
    assert order_warning(small_params(**model, order="sequential")) is None


@pytest.mark.parametrize("reuse", ["max", "mean", "add", "none"])
def test_other_networks_give_no_warning(reuse):
    assert order_warning(small_params(reuse=reuse)) is None


# --- output ----------------------------------------------------------------------------------------------


def decision(**changes: Any) -> Decision:
    prediction = Prediction({"blue": 0.98765432}, exit_depths=[2, 0, 0], gmacs=0.0123456789, share_of_full=0.25)
    at = datetime(2024, 5, 1, 14, 3, 7, 123456, tzinfo=UTC)
    return replace(Decision(prediction, 62.5, at, num_frames=2, milliseconds=3.25, dropped=7), **changes)


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
    log = DecisionLog.of("clip.mp4", CLASSES)
    heading, recorded, live = log.heading(), log.line(decision(), is_live=False), log.line(decision(), is_live=True)
    assert heading.split() == ["time", "label", "confidence", "frames", "ms", "dropped"]
    assert recorded.split() == ["1:02.50", "blue", "0.988", "2", "3.2", "7"]
    assert live.split()[0] == "14:03:07"
    for column, value in (("time", "1:02.50"), ("confidence", "0.988"), ("ms", "3.2"), ("dropped", "7")):
        assert heading.index(column) + len(column) == recorded.rindex(value) + len(value)


def test_the_summary_has_totals_median_time_and_mean_cost():
    log = DecisionLog.of("clip.mp4", CLASSES)
    assert log.summary() == "clip.mp4: 0 decisions, 0 frames used, 0 dropped"
    for milliseconds, dropped in ((1.0, 0), (2.0, 3), (9.0, 7)):
        log.add(decision(milliseconds=milliseconds, dropped=dropped))
    summary = log.summary()
    assert summary.startswith("clip.mp4: 3 decisions, 6 frames used, 7 dropped")
    assert "2.0 ms" in summary and "25%" in summary


# --- the command -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    return root


@pytest.fixture
def project(trained: Path, monkeypatch: pytest.MonkeyPatch, five_layer_backbone: None) -> Path:
    """A project that has been run, as the working folder."""
    monkeypatch.chdir(trained)
    return trained


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["watch", *arguments])


def test_a_file_is_processed_to_its_end(project):
    done = call("videos/0.mp4", "--policy", "full", "--fps", "12")
    assert (done.exit_code, done.stderr) == (0, "")
    heading, *lines, summary = done.stdout.splitlines()
    assert heading.split()[:2] == ["time", "label"]
    assert [line.split()[0] for line in lines] == [
        "0:00.25",
        "0:00.58",
        "0:00.92",
    ]  # 12 frames per second, 4 per decision
    assert summary.startswith("videos/0.mp4: 3 decisions, 12 frames used, 0 dropped")


def test_with_json_only_decisions_are_on_stdout(project):
    done = call("videos/0.mp4", "--policy", "full", "--fps", "12", "--json", "--decisions", "2")
    decisions = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["frames"] for each in decisions] == [T, T]
    assert [each["seconds"] for each in decisions] == pytest.approx([3 / 12, 7 / 12], abs=1e-5)
    (summary,) = done.stderr.splitlines()
    assert summary.startswith("videos/0.mp4: 2 decisions, ")


def test_a_stream_gets_the_same_prediction_as_a_video(project):
    """The clip is as long as a window, and its frames are visited sequentially."""
    sequential = change(load_params(), {"model.order": "sequential"})
    predictor = load_predictor(sequential)
    path = encode(project / "videos" / "short.mp4", length=T)
    stream = open_stream("short", str(path), sequential, 12, StreamOptions(queue_size=5, timeout=5.0, retries=0), print)
    whole = replace(predictor, policy=Thresholds.never(3))
    (found,) = watch(whole, stream)
    result = predict(whole, path, "short")
    assert result.indices == list(range(T))
    assert_agree(found.prediction, result.prediction)


def test_a_file_can_be_played_in_real_time(project):
    encode(project / "videos" / "short.mp4", length=5)
    begin = time.monotonic()
    done = call("videos/short.mp4", "--realtime", "--fps", "12", "--json", "--queue", "100")
    assert time.monotonic() - begin >= 4 / 12
    assert sum(json.loads(line)["frames"] for line in done.stdout.splitlines()) == 5


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace every source by a camera that plays a video and then calls a function."""

    def install(path: Path, then: Callable[[], object]) -> None:
        def shown() -> Generator[tuple[float, av.VideoFrame], None, None]:
            with av.open(path) as container:
                for frame in container.decode(video=0):
                    yield frame.time, frame
            then()

        monkeypatch.setattr(watching, "open_capture", lambda *_: Capture(True, shown()))

    return install


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Make Ctrl-C interrupt: background jobs of a shell ignore it."""
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
    assert re.match(r"0: \d+ decisions, ", summary)
    assert not done.stderr


def test_a_lost_camera_ends_with_the_summary_and_an_error_line(project, camera):
    def unplug() -> None:
        raise CaptureError("it was unplugged")

    camera(project / "videos/0.mp4", unplug)
    done = call("0", "--fps", "100000", "--queue", "100", "--retries", "0", "--json")
    assert done.exit_code == 1
    assert all(part in str(done.exception) for part in ("lost 0 ", "it was unplugged", "--retries"))
    assert done.stdout.splitlines()
    (summary,) = done.stderr.splitlines()
    assert re.match(r"0: \d+ decisions, ", summary)


def test_reconnecting_is_reported_on_stderr(project, camera, monkeypatch):
    monkeypatch.setattr(streams.time, "sleep", lambda _: None)
    camera(project / "videos/0.mp4", lambda: None)
    done = call("0", "--fps", "100000", "--queue", "100", "--policy", "full", "--json", "--decisions", "4")
    assert len(done.stdout.splitlines()) == 4
    first_warning = done.stderr.splitlines()[0]
    assert all(part in first_warning for part in ("warning: ", "lost 0 ", "it has ended", "1 s", "attempt 1"))


def test_a_missing_file_is_one_line(project):
    done = call("none.mp4")
    assert not done.stdout
    assert not done.stderr
    assert all(part in str(done.exception) for part in ("none.mp4", "does not exist", "name a video file"))


def test_passwords_in_addresses_are_not_printed(project):
    done = call("rtsp://user:secret@127.0.0.1:9/x")
    assert all(part in str(done.exception) for part in ("rtsp://user@127.0.0.1:9/x", "Connection refused"))
    assert "secret" not in done.output + str(done.exception)


def test_the_order_warning_is_printed(project, monkeypatch):
    monkeypatch.setattr("tlee.live.watching.order_warning", lambda params: "the order matters")
    done = call("videos/0.mp4")
    assert done.exit_code == 0
    assert done.stderr == "warning: the order matters\n"


def test_paths_are_relative_to_the_current_folder(project, monkeypatch):
    monkeypatch.chdir(project / "videos")
    done = call("0.mp4")
    assert done.exit_code == 0
    assert re.match(r"0\.mp4: \d+ decisions, ", done.stdout.splitlines()[-1])
