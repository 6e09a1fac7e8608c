"""Online predictions on a continuous source, with real exits.

A decision processes time steps as they arrive, at most as many as the network was trained on (``extract.frames``), and
is emitted as soon as the policy stops; the next decision starts with the next time step. Windows therefore do not
overlap, and the earlier the policy is confident, the more often it decides. Where the source ends or is lost within a
window, its last time step is repeated in place of the missing ones.

A stream arrives in temporal order, whatever ``model.order`` the network was trained with. Reuse by maximum, mean or
sum does not depend on the order; for networks that do, see ``order_warning``.
"""

import json
import statistics
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

import torch

from tlee.extraction.videos import upright
from tlee.live.capture import open_capture
from tlee.live.prediction import Prediction, Predictor, as_stored, to_clip
from tlee.live.sampling import Sampler, TimeStep
from tlee.live.streams import Stream, StreamOptions
from tlee.model import TLEE
from tlee.params import Params
from tlee.policies.sources import LiveFeatures
from tlee.records import rounded

_MAX_TIMES = 10_000  # latest decisions that the median time is computed over


def order_warning(params: Params) -> str | None:
    """Return a warning if the network was trained coarse to fine and depends on the order of frames, else None."""
    model = params.model
    order_dependent = {
        "model.readout: per_step": model.readout == "per_step",
        "model.backbone: mobilenet_v2_tsm": model.backbone == "mobilenet_v2_tsm",
        f"model.reuse: {model.reuse}": model.reuse in ("attention", "ema"),
    }
    found = " and ".join(f"`{setting}`" for setting, applies in order_dependent.items() if applies)
    if model.order == "sequential" or not found:
        return None
    return f"with {found} the order of frames matters, and a stream is sequential: train with `model.order: sequential`"


def open_stream(
    name: str, source: str, params: Params, fps: float, options: StreamOptions, warn: Callable[[str], None]
) -> Stream:
    """Open a stream of ``fps`` time steps per second, preprocessed for the network.

    ``name`` is shown in messages, ``source`` is opened.
    """
    extract = params.extract
    return Stream(
        name,
        lambda: open_capture(source, options.timeout),
        lambda: Sampler(fps, extract.clip_frames, extract.clip_stride),
        lambda frame: as_stored(upright(frame), extract),
        options,
        warn,
    )


# --- decisions -------------------------------------------------------------------------------------------


class FrameWindow(LiveFeatures):
    """Exit features of a window of time steps, each of which is awaited when it is first needed.

    The window starts with ``first`` and continues with ``steps``, which yields time steps, or None at an interruption.
    """

    def __init__(self, model: TLEE, first: TimeStep, steps: Iterator[TimeStep | None]):
        super().__init__(model, torch.zeros(model.params.extract.frames, *model.input_shape))
        self.last_step = first  #: the latest time step that has arrived
        self.num_arrived = 0  #: number of time steps that have arrived
        self.waiting_time = 0.0  #: seconds spent waiting for time steps
        self._steps, self._filled = steps, 0
        self._append(first)

    def feature(self, rows: torch.Tensor, t: int, b: int) -> torch.Tensor:
        while self._filled <= t:
            start = time.perf_counter()
            is_interrupted = self.num_arrived < self._filled
            step = None if is_interrupted else next(self._steps, None)
            self.waiting_time += time.perf_counter() - start
            self._append(step)
        return super().feature(rows, t, b)

    def _append(self, step: TimeStep | None) -> None:
        if step is None:
            self.clip[self._filled] = self.clip[self._filled - 1]
        else:
            self.clip[self._filled] = to_clip(step.frames, self.model.params)[0]
            self.last_step, self.num_arrived = step, self.num_arrived + 1
        self._filled += 1


@dataclass(frozen=True)
class Decision:
    """The prediction for one window."""

    prediction: Prediction
    seconds: float  #: timestamp of the last processed frame: position in a recording, or time since the start
    time: datetime  #: time of the decision
    num_frames: int  #: number of processed frames, without repeated ones
    milliseconds: float  #: processing time, without waiting for frames
    dropped: int  #: number of time steps that the stream has dropped so far


def watch(predictor: Predictor, stream: Stream) -> Generator[Decision, None, None]:
    """Decide on one window after the other until the source ends. Raises ``UserError`` as the stream does."""
    model, window_size = predictor.model, predictor.params.extract.frames
    predictor.run(LiveFeatures(model, torch.zeros(window_size, *model.input_shape)))  # warm-up
    with closing(iter(stream)) as steps:
        window_index = 0
        for first in steps:
            if first is None:
                continue
            start = time.perf_counter()
            window = FrameWindow(model, first, steps)
            prediction = predictor.run(window, window_index)
            seconds = time.perf_counter() - start - window.waiting_time
            num_frames = min(len(prediction.exit_depths), window.num_arrived)
            now = datetime.now().astimezone()
            yield Decision(prediction, window.last_step.seconds, now, num_frames, 1000 * seconds, stream.dropped)
            window_index += 1


# --- output ----------------------------------------------------------------------------------------------


@dataclass
class DecisionLog:
    """Format decisions as lines of a table, and summarise them at the end."""

    name: str  #: name of the source
    label_width: int  #: characters of the longest class name
    num_decisions: int = 0
    num_frames: int = 0
    dropped: int = 0
    share_of_full: float = 0.0  #: cost relative to the full network, summed over decisions
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_TIMES))  #: milliseconds

    @classmethod
    def of(cls, name: str, classes: list[str]) -> "DecisionLog":
        """Return an empty log, wide enough for these class names."""
        return cls(name, max(map(len, ["label", *classes])))

    def add(self, decision: Decision) -> None:
        self.num_decisions += 1
        self.num_frames += decision.num_frames
        self.dropped = decision.dropped
        self.share_of_full += decision.prediction.share_of_full
        self.times.append(decision.milliseconds)

    def heading(self) -> str:
        return self._line("time", "label", "confidence", "frames", "ms", "dropped")

    def line(self, decision: Decision, is_live: bool) -> str:
        """Format a decision; ``time`` is the time of day for a live source, else minutes and seconds."""
        prediction = decision.prediction
        minutes, seconds = divmod(decision.seconds, 60)
        return self._line(
            f"{decision.time:%H:%M:%S}" if is_live else f"{minutes:.0f}:{seconds:05.2f}",
            ", ".join(prediction.labels),
            f"{prediction.confidence:.3f}",
            str(decision.num_frames),
            f"{decision.milliseconds:.1f}",
            str(decision.dropped),
        )

    def _line(self, at: str, label: str, confidence: str, frames: str, milliseconds: str, dropped: str) -> str:
        return f"{at:>9}  {label:{self.label_width}}  {confidence:>10}  {frames:>6}  {milliseconds:>7}  {dropped:>7}"

    def summary(self) -> str:
        """Return one line with the totals, and the median time and mean cost of a decision."""
        counts = f"{self.name}: {self.num_decisions} decisions, {self.num_frames} frames used, {self.dropped} dropped"
        if not self.num_decisions:
            return counts
        share = self.share_of_full / self.num_decisions
        return f"{counts}; per decision {statistics.median(self.times):.1f} ms, {share:.0%} of the full network's GMACs"


def to_json(decision: Decision) -> str:
    """Format a decision as one line of JSON, numbers rounded as in the tables of the pipeline."""
    prediction = decision.prediction
    values = {
        "time": decision.time.isoformat(timespec="milliseconds"),
        "seconds": decision.seconds,
        "label": prediction.label,
        "confidence": prediction.confidence,
        "labels": prediction.labels,
        "frames": decision.num_frames,
        "exit_depths": prediction.exit_depths[: decision.num_frames],
        "gmacs": prediction.gmacs,
        "milliseconds": decision.milliseconds,
        "dropped": decision.dropped,
    }
    return json.dumps(rounded(values))
