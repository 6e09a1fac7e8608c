"""Int8 against single precision: the same policy on the same videos, timed together on this machine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from tlee import intervals
from tlee.edge.estimate import work_of_videos
from tlee.edge.latency import MILLISECOND
from tlee.edge.runner import FULL, MEDIAN, REAL, Bundle, Column, Runner, summary_statistics, take_turns
from tlee.metrics import is_correct
from tlee.model import TLEE

FP32, INT8 = "fp32", "int8"
RESAMPLES = 2000

Runners = dict[str, Runner]  #: by ``FP32`` and ``INT8``, of the same policy and videos


@dataclass(frozen=True)
class Precisions:
    """Comparison of int8 with single precision.

    ``table`` has one row per ``precision`` and ``system`` (``FULL``, ``REAL``): ``accuracy``, the share of videos whose
    highest logit is of one of their classes; in int8 the ``difference`` from the same system in single precision,
    paired by video; both with 95% intervals (``low`` to ``high``); ``same``, the share of videos with the exits and
    label that the system has in single precision; mean ``gmacs`` per video; and its milliseconds, by
    ``runner.STATISTICS``.
    """

    table: pd.DataFrame
    megabytes: dict[str, float]  #: of the graphs that both have, by precision

    @property
    def metrics(self) -> dict[str, float]:
        """Accuracy, results and times of int8 against single precision, and sizes.

        Accuracy and results are of the policy with its exits; ``int8_to_fp32``: ratio of median times.
        """
        real = self._row(REAL)
        return {
            "int8_difference": real["difference"],
            "int8_difference_low": real["difference_low"],
            "int8_difference_high": real["difference_high"],
            "int8_same": real["same"],
            **{f"int8_to_fp32_{system}": self.time_ratio(system) for system in (FULL, REAL)},
            **{f"megabytes_{precision}": size for precision, size in self.megabytes.items()},
        }

    def time_ratio(self, system: str) -> float:
        """Median time in int8 as a share of that in single precision."""
        return self._row(system)[MEDIAN] / self._row(system, FP32)[MEDIAN]

    def _row(self, system: str, precision: str = INT8) -> pd.Series:
        return self.table.set_index(["precision", Column.SYSTEM]).loc[(precision, system)]


def compare_precisions(
    runners: Runners, model: TLEE, truth: torch.Tensor, groups: Sequence[str], seed: int
) -> Precisions:
    """Run and time ``runners`` on the videos of their bundles, whose classes are ``truth [N, C]`` (booleans)."""
    times, results = time_in_turns(runners), {name: _results(runner) for name, runner in runners.items()}
    rows = []
    for name, runner in runners.items():
        work = work_of_videos(model, runner.bundle.program)
        for system, (exit_depths, logits) in results[name].items():
            base_depths, base_logits = results[FP32][system]
            correct, base_correct = (is_correct(each, truth).double().numpy() for each in (logits, base_logits))
            same_label = (logits.argmax(1) == base_logits.argmax(1)).numpy()
            same_exits = np.equal(exit_depths, base_depths).all(axis=1)
            mine = times[(times["precision"] == name) & (times[Column.SYSTEM] == system)]
            rows.append(
                {
                    "precision": name,
                    Column.SYSTEM: system,
                    "accuracy": correct.mean(),
                    **_interval("", correct, groups, seed),
                    **({} if name == FP32 else _difference(correct - base_correct, groups, seed)),
                    "same": (same_exits & same_label).mean(),
                    "gmacs": work[system][:, 0].mean(),
                    **summary_statistics(mine[Column.MILLISECONDS]),
                }
            )
    graphs = set.intersection(*(set(runner.bundle.program["graphs"]) for runner in runners.values()))
    return Precisions(pd.DataFrame(rows), {name: _megabytes(runner.bundle, graphs) for name, runner in runners.items()})


def time_in_turns(runners: Runners) -> pd.DataFrame:
    """Time prepared videos: ``precision``, system, video, repeat, milliseconds.

    All take turns on each video, so that anything that slows the machine down affects all of them.
    """
    rows, timing = [], runners[FP32].bundle.program["timing"]
    for repeat in range(timing["repeats"]):
        for video in range(len(runners[FP32].bundle.videos)):
            for name, runner in runners.items():
                turns = take_turns(runner, video, (FULL, REAL))
                rows += [(name, turn.system, video, repeat, turn.seconds / MILLISECOND) for turn in turns]
    columns = ["precision", Column.SYSTEM, Column.VIDEO, Column.REPEAT, Column.MILLISECONDS]
    return pd.DataFrame(rows, columns=columns)


def _results(runner: Runner) -> dict[str, tuple[list[list[int]], torch.Tensor]]:
    """Exit depths and logits ``[N, C]`` of each system."""
    bundle = runner.bundle
    found: dict[str, list[tuple[list[int], np.ndarray]]] = {FULL: [], REAL: []}
    for video in range(len(bundle.videos)):
        clip = bundle.clip(video)
        decision = runner.engine.run(clip, bundle.given_exits(video))
        found[REAL].append((decision.exit_depths, decision.logits))
        found[FULL].append(([runner.uncut.deepest] * len(clip), runner.uncut.run(clip)))
    return {
        system: ([depths for depths, _ in each], torch.from_numpy(np.stack([logits for _, logits in each])))
        for system, each in found.items()
    }


def _difference(values: np.ndarray, groups: Sequence[str], seed: int) -> dict[str, float]:
    return {"difference": float(values.mean()), **_interval("difference_", values, groups, seed)}


def _interval(name: str, values: np.ndarray, groups: Sequence[str], seed: int) -> dict[str, float]:
    ends = intervals.of_mean(values, groups, RESAMPLES, seed)
    return dict(zip((f"{name}low", f"{name}high"), ends, strict=True))


def _megabytes(bundle: Bundle, graphs: Iterable[str]) -> float:
    return sum((bundle.folder / f"{name}.onnx").stat().st_size for name in graphs) / 1e6
