"""Eight bits beside single precision: the same policy, the same videos, timed together on this machine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from tlee import intervals
from tlee.edge import runner as jetson
from tlee.edge.estimate import work_of_videos
from tlee.edge.latency import MILLISECOND
from tlee.edge.runner import FULL, REAL
from tlee.metrics import is_correct
from tlee.model import TLEE

FP32, INT8 = "fp32", "int8"
RESAMPLES = 2000

Runners = dict[str, jetson.Runner]  #: by ``FP32`` and ``INT8``, of the same policy and videos


@dataclass(frozen=True)
class Precisions:
    """What eight bits change.

    ``table`` has one row a ``precision`` and ``system`` (``FULL``, ``REAL``): ``accuracy``, the share of videos whose
    highest logit is of one of their classes; in eight bits the ``difference`` from the same system in single precision,
    paired by video; both with 95% intervals (``low`` to ``high``); ``same``, the share of videos with the exits and
    label that the system has in single precision; mean ``gmacs`` a video; and its milliseconds, by
    ``jetson.STATISTICS``.
    """

    table: pd.DataFrame
    megabytes: dict[str, float]  #: of the graphs that all have, by precision

    @property
    def metrics(self) -> dict[str, float]:
        """Of the policy with its exits; ``int8_to_fp32``: ratio of median times."""
        real = self._rows(REAL)
        return {
            "int8_difference": real["difference"],
            "int8_difference_low": real["difference_low"],
            "int8_difference_high": real["difference_high"],
            "int8_same": real["same"],
            **{f"int8_to_fp32_{system}": self.time_ratio(system) for system in (FULL, REAL)},
            **{f"megabytes_{precision}": size for precision, size in self.megabytes.items()},
        }

    def time_ratio(self, system: str) -> float:
        """Median time in eight bits as a share of that in single precision."""
        return self._rows(system)["p50"] / self._rows(system, FP32)["p50"]

    def _rows(self, system: str, precision: str = INT8) -> pd.Series:
        return self.table.set_index(["precision", "system"]).loc[(precision, system)]


def compare_precisions(
    runners: Runners, model: TLEE, truth: torch.Tensor, groups: Sequence[str], seed: int
) -> Precisions:
    """Run and time ``runners`` on the videos of their bundles, whose classes are ``truth [N, C]`` (booleans)."""
    times, results = time_together(runners), {name: _results(runner) for name, runner in runners.items()}
    rows = []
    for name, runner in runners.items():
        work = work_of_videos(model, runner.bundle.program)
        for system, (exits, logits) in results[name].items():
            base_exits, base_logits = results[FP32][system]
            right, right_before = (is_correct(each, truth).double().numpy() for each in (logits, base_logits))
            labels = (logits.argmax(1) == base_logits.argmax(1)).tolist()
            mine = times[(times["precision"] == name) & (times["system"] == system)]["milliseconds"]
            rows.append(
                {
                    "precision": name,
                    "system": system,
                    "accuracy": right.mean(),
                    **_interval("", right, groups, seed),
                    **({} if name == FP32 else _difference(right - right_before, groups, seed)),
                    "same": np.mean([a == b and label for a, b, label in zip(exits, base_exits, labels, strict=True)]),
                    "gmacs": work[system][:, 0].mean(),
                    **jetson.statistics(mine),
                }
            )
    graphs = set.intersection(*(set(runner.bundle.program["graphs"]) for runner in runners.values()))
    return Precisions(pd.DataFrame(rows), {name: _megabytes(runner.bundle, graphs) for name, runner in runners.items()})


def time_together(runners: Runners) -> pd.DataFrame:
    """Milliseconds of prepared videos: ``precision``, ``system``, ``video``, ``repeat``, ``milliseconds``.

    On each video all take turns, so that whatever slows the machine down hits all of them.
    """
    rows, timing = [], runners[FP32].bundle.program["timing"]
    for repeat in range(timing["repeats"]):
        for video in range(len(runners[FP32].bundle.videos)):
            for name, runner in runners.items():
                for system, _, seconds, *_ in jetson.take_turns(runner, video, (FULL, REAL)):
                    rows.append((name, system, video, repeat, seconds / MILLISECOND))
    return pd.DataFrame(rows, columns=["precision", "system", "video", "repeat", "milliseconds"])


def _results(runner: jetson.Runner) -> dict[str, tuple[list[list[int]], torch.Tensor]]:
    """Exits and logits ``[N, C]`` of each system."""
    bundle, found = runner.bundle, {FULL: [], REAL: []}
    for video in range(len(bundle.videos)):
        clip = jetson.prepare(bundle.frames(video))
        logits, exits, _ = runner.engine.run(clip, bundle.path_taken(video))
        found[REAL].append((exits, logits))
        found[FULL].append(([runner.uncut.deepest] * len(clip), runner.uncut.run(clip)))
    return {
        system: ([exits for exits, _ in each], torch.from_numpy(np.stack([logits for _, logits in each])))
        for system, each in found.items()
    }


def _difference(values: np.ndarray, groups: Sequence[str], seed: int) -> dict[str, float]:
    return {"difference": float(values.mean()), **_interval("difference_", values, groups, seed)}


def _interval(name: str, values: np.ndarray, groups: Sequence[str], seed: int) -> dict[str, float]:
    ends = intervals.of_mean(values, groups, RESAMPLES, seed)
    return dict(zip((f"{name}low", f"{name}high"), ends, strict=True))


def _megabytes(bundle: jetson.Bundle, graphs: Iterable[str]) -> float:
    return sum((bundle.folder / f"{name}.onnx").stat().st_size for name in graphs) / 1e6
