"""Decisions on a source that goes on, with real exits.

A decision takes time steps as they come, up to as many as the network has learnt (``extract.frames``), and is told
as soon as the policy stops; the next one begins with the next step that is fresh. So windows do not overlap, and the
sooner the policy is sure, the more often it decides. Where the source ends or is lost within a window, its last step
stands for those that are missing.

A stream comes in temporal order, whatever ``model.order`` the network was trained with. To reuse by maximum, mean
or sum any order is the same; for what is not see ``warning``.
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
from tlee.live.prediction import Answer, Predictor, as_stored, to_clip
from tlee.live.streams import Following, Sampler, Step, Stream, open_source
from tlee.model import TLEE
from tlee.params import Params
from tlee.policies.sources import LiveFeatures
from tlee.records import rounded

_REMEMBERED = 10_000  # decisions whose times the median is of


def warning(params: Params) -> str | None:
    """What tells the order of frames in a network that has learnt them coarse to fine; None if nothing does."""
    model = params.model
    tells = {
        "model.readout: per_step": model.readout == "per_step",
        "model.backbone: mobilenet_v2_tsm": model.backbone == "mobilenet_v2_tsm",
        f"model.reuse: {model.reuse}": model.reuse in ("attention", "ema"),
    }
    found = " and ".join(f"`{part}`" for part, is_so in tells.items() if is_so)
    if model.order == "sequential" or not found:
        return None
    return f"with {found} the order of frames matters, and a stream is sequential: train with `model.order: sequential`"


def open_stream(
    name: str, file: str, params: Params, fps: float, following: Following, tell: Callable[[str], None]
) -> Stream:
    """``fps`` time steps a second of a source, with pictures as the network knows them; it is called ``name``."""
    extract = params.extract
    return Stream(
        name,
        lambda: open_source(file, following.timeout),
        lambda: Sampler(fps, extract.clip_frames, extract.clip_stride),
        lambda frame: as_stored(upright(frame), extract),
        following,
        tell,
    )


# --- deciding --------------------------------------------------------------------------------------------


class Window(LiveFeatures):
    """Exit features of a window of time steps, each of which is waited for when it is first needed.

    It begins with ``first`` and goes on with ``steps``, which must give one, or None where it is to be cut.
    """

    def __init__(self, model: TLEE, first: Step, steps: Iterator[Step | None]):
        super().__init__(model, torch.zeros(model.params.extract.frames, *model.input_shape))
        self.last = first  #: the latest that has come
        self.arrived = 0  #: how many have
        self.waited = 0.0  #: seconds
        self._steps, self._filled = steps, 0
        self._take(first)

    def feature(self, rows: torch.Tensor, t: int, b: int) -> torch.Tensor:
        while self._filled <= t:
            begin = time.perf_counter()
            is_cut = self.arrived < self._filled
            step = None if is_cut else next(self._steps, None)
            self.waited += time.perf_counter() - begin
            self._take(step)
        return super().feature(rows, t, b)

    def _take(self, step: Step | None) -> None:
        if step is None:
            self.clip[self._filled] = self.clip[self._filled - 1]
        else:
            self.clip[self._filled] = to_clip(step.pictures, self.model.params)[0]
            self.last, self.arrived = step, self.arrived + 1
        self._filled += 1


@dataclass(frozen=True)
class Decision:
    """What was said of one window."""

    answer: Answer
    seconds: float  #: of the last frame that was looked at: into a recording, or since watching began
    time: datetime  #: when it was said
    frames: int  #: that were looked at, without those that stood for missing ones
    milliseconds: float  #: it took, without waiting for frames
    dropped: int  #: time steps that the source has lost so far


def watch(predictor: Predictor, stream: Stream) -> Generator[Decision, None, None]:
    """Decide on one window after the other until the source ends. Raises ``UserError`` as the stream does."""
    model, steps_of_window = predictor.model, predictor.params.extract.frames
    predictor.run(LiveFeatures(model, torch.zeros(steps_of_window, *model.input_shape)))  # the first run is slow
    with closing(iter(stream)) as steps:
        number = 0
        for first in steps:
            if first is None:
                continue
            begin = time.perf_counter()
            window = Window(model, first, steps)
            answer = predictor.run(window, number)
            seconds = time.perf_counter() - begin - window.waited
            frames = min(len(answer.exits), window.arrived)
            now = datetime.now().astimezone()
            yield Decision(answer, window.last.seconds, now, frames, 1000 * seconds, stream.dropped)
            number += 1


# --- telling it ------------------------------------------------------------------------------------------


@dataclass
class Log:
    """How decisions are told, and what is said of all of them at the end."""

    name: str  #: of the source
    label: int  #: characters of the longest class
    decisions: int = 0
    frames: int = 0
    dropped: int = 0
    share: float = 0.0  #: of the full network's GMACs, summed
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    @classmethod
    def of(cls, name: str, classes: list[str]) -> "Log":
        return cls(name, max(map(len, ["label", *classes])))

    def add(self, decision: Decision) -> None:
        self.decisions += 1
        self.frames += decision.frames
        self.dropped = decision.dropped
        self.share += decision.answer.share
        self.times.append(decision.milliseconds)

    def heading(self) -> str:
        return self._line("at", "label", "sure", "frames", "ms", "dropped")

    def line(self, decision: Decision, live: bool) -> str:
        """At: the time of day of a live source, minutes and seconds into a recording."""
        answer = decision.answer
        minutes, seconds = divmod(decision.seconds, 60)
        return self._line(
            f"{decision.time:%H:%M:%S}" if live else f"{minutes:.0f}:{seconds:05.2f}",
            ", ".join(answer.labels),
            f"{answer.confidence:.3f}",
            str(decision.frames),
            f"{decision.milliseconds:.1f}",
            str(decision.dropped),
        )

    def _line(self, at: str, label: str, sure: str, frames: str, milliseconds: str, dropped: str) -> str:
        return f"{at:>9}  {label:{self.label}}  {sure:>5}  {frames:>6}  {milliseconds:>7}  {dropped:>7}"

    def summary(self) -> str:
        counts = f"{self.name}: decisions {self.decisions}, frames looked at {self.frames}, dropped {self.dropped}"
        if not self.decisions:
            return counts
        share = self.share / self.decisions
        return f"{counts}; a decision: {statistics.median(self.times):.1f} ms, {share:.0%} of the full network's GMACs"


def to_json(decision: Decision) -> str:
    """A decision as one line of JSON, numbers rounded as in the tables of the pipeline."""
    answer = decision.answer
    values = {
        "time": decision.time.isoformat(timespec="milliseconds"),
        "seconds": decision.seconds,
        "label": answer.label,
        "confidence": answer.confidence,
        "labels": answer.labels,
        "frames": decision.frames,
        "exits": answer.exits[: decision.frames],
        "gmacs": answer.gmacs,
        "milliseconds": decision.milliseconds,
        "dropped": decision.dropped,
    }
    return json.dumps(rounded(values))
