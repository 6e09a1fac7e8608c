"""Calibration of the confidences, by one temperature per depth, and its effect on the policies.

Temperature scaling (Guo et al., On calibration of modern neural networks, ICML 2017): logits are divided by the
number that fits ``val`` best. The predicted class does not change, but confidences at different depths become
comparable, which changes the effect of thresholds (see ``Split.temperatures``).
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar

from tlee import intervals
from tlee.evaluation.candidates import candidates
from tlee.evaluation.evaluate import pick
from tlee.evaluation.per_video import run_frontiers
from tlee.evaluation.replay import Split
from tlee.evaluation.search import COMPARED, Search
from tlee.methods import display_name
from tlee.metrics import calibration_error, is_correct
from tlee.params import Params
from tlee.records import save_table

BINS = 15  #: number of bins of confidence, of equal width, as in Guo et al.
TEMPERATURES = (0.05, 20.0)  #: range of the fit; if no video of ``val`` is misclassified the best fit would be 0
LOGITS = 2**25  #: logits that a temperature is fitted to, at most: 128 MiB, and some copies


@dataclass(frozen=True)
class Calibration:
    """Temperatures fitted on ``val``, and their effect on ``test``."""

    errors: pd.DataFrame  #: one row per depth: ``temperature``, error ``uncalibrated`` and ``calibrated`` (0..1)
    bins: pd.DataFrame  #: see ``reliability``, with the ``state``: ``uncalibrated`` or ``calibrated``
    trade_offs: pd.DataFrame  #: see ``compare_trade_offs``

    def verdict(self) -> str:
        """Return one sentence per policy family: the effect of calibration on its policies."""
        return "\n".join(_verdict(row) for _, row in self.trade_offs.iterrows())

    def metrics(self) -> dict:
        """Return mean errors over depths, and the row of ``trade_offs`` of each family."""
        gains = self.trade_offs.set_index("family")
        means = self.errors[["uncalibrated", "calibrated"]].mean()
        return means.add_prefix("error_").to_dict() | {
            family: row.dropna().to_dict() for family, row in gains.iterrows()
        }

    def write(self) -> None:
        """Write the tables."""
        save_table("guarantee", "calibration", self.errors.reset_index())
        save_table("guarantee", "reliability", self.bins)
        save_table("guarantee", "calibrated_policies", self.trade_offs)


def calibrate(val: Split, test: Split, params: Params) -> Calibration:
    """Fit temperatures on ``val``, and measure their effect on ``test``."""
    temperatures = fit_temperatures(val)
    calibrated = replace(test, temperatures=temperatures)
    errors = {"uncalibrated": calibration_errors(test), "calibrated": calibration_errors(calibrated)}
    states = {"uncalibrated": reliability(test), "calibrated": reliability(calibrated)}
    return Calibration(
        errors=pd.DataFrame({"temperature": temperatures, **errors}).rename_axis("depth"),
        bins=pd.concat([bins.assign(state=state) for state, bins in states.items()], ignore_index=True),
        trade_offs=compare_trade_offs(val, test, temperatures, params),
    )


def fit_temperatures(split: Split) -> tuple[float, ...]:
    """Return the temperature of each depth that minimises the loss over all videos and time steps.

    All frames exit at that depth. With many classes the videos are as many as have ``LOGITS``, evenly spread.
    """
    split = split.thinned(LOGITS // (split.num_frames * split.readout.classes))
    targets = split.table.targets(split.readout.multi_label).unsqueeze(1)
    targets = targets.expand(-1, split.num_frames, *targets.shape[2:])

    def fit(logits: torch.Tensor) -> float:
        def loss(log_temperature: float) -> float:
            return split.readout.loss(logits / np.exp(log_temperature), targets).double().mean().item()

        return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))

    return tuple(fit(_logits(split, depth)) for depth in range(split.num_exits))


def calibration_errors(split: Split) -> list[float]:
    """Return the expected calibration error of each depth: mean ``|confidence - accuracy|`` over bins (0..1)."""
    return [calibration_error(confidence, correct, BINS) for confidence, correct in _predictions(split)]


def reliability(split: Split) -> pd.DataFrame:
    """Return one row per depth and non-empty bin of confidence.

    ``depth``, mean ``confidence``, ``accuracy``, and ``share``, that of the predictions at this depth in the bin. There
    is one prediction per video and time step, with all frames exiting at that depth.
    """
    tables = []
    for depth, (confidence, correct) in enumerate(_predictions(split)):
        predictions = pd.DataFrame({"confidence": confidence.double(), "accuracy": correct.double()})
        bins = predictions.groupby((predictions["confidence"] * BINS).astype(int).clip(upper=BINS - 1))
        tables.append(bins.mean().assign(depth=depth, share=bins.size() / len(predictions)))
    return pd.concat(tables)[["depth", "confidence", "accuracy", "share"]].reset_index(drop=True)


def compare_trade_offs(val: Split, test: Split, temperatures: tuple[float, ...], params: Params) -> pd.DataFrame:
    """Compare policies with and without calibration, searched on ``val`` and run on ``test``.

    Returns one row for the method's own ``family``, if it decides by confidences, and one for a single threshold on the
    confidence. ``score`` and ``gmacs`` are those of the chosen policy, ``area`` is that under the frontier
    (``comparison.area_under`` in top-1); columns of calibrated policies begin with ``calibrated_``. ``gain`` is the
    difference of the areas, with the 95% interval ``gain_low`` to ``gain_high`` from resampled groups of videos.
    """
    own = [params.model.method] if COMPARED[params.model.method] else []
    names, rows = [*own, "confidence"], []
    uncalibrated, calibrated = (
        _trade_offs(names, replace(val, temperatures=each), replace(test, temperatures=each), params)
        for each in (None, temperatures)
    )
    for name in names:
        (row, area), (calibrated_row, calibrated_area) = uncalibrated[name], calibrated[name]
        gains = calibrated_area - area
        low, high = intervals.of_mean(gains, test.table.groups, params.evaluate.bootstrap, params.seed)
        numbers = row | {f"calibrated_{key}": value for key, value in calibrated_row.items()}
        rows.append({"family": name, **numbers, "gain": gains.mean(), "gain_low": low, "gain_high": high})
    return pd.DataFrame(rows)


def _trade_offs(names: list[str], val: Split, test: Split, params: Params) -> dict[str, tuple[dict, np.ndarray]]:
    """Return the results of each family, and each test video's contribution to the area under its frontier."""
    search, found = Search(val), {}
    for name in names:
        tried = candidates(name, search, params)
        point = test.point(name, test.result(pick(tried, search, params.evaluate).policy))
        areas = run_frontiers({name: tried}, test)[name].areas(search)
        found[name] = {"score": point["score"], "gmacs": point["gmacs"], "area": areas.mean()}, areas
    return found


def _verdict(row: pd.Series) -> str:
    helps = "helps" if row["gain_low"] > 0 else "hurts" if row["gain_high"] < 0 else "makes no clear difference"
    return (
        f"{display_name(row['family'])}: calibration {helps}: {100 * row['gain']:+.1f} points of top-1 at equal cost "
        f"({100 * row['gain_low']:+.1f} to {100 * row['gain_high']:+.1f}); the chosen policy changes from "
        f"{row['score']:.1%} at {row['gmacs']:.4f} GMACs to {row['calibrated_score']:.1%} at "
        f"{row['calibrated_gmacs']:.4f}."
    )


def _predictions(split: Split) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return, for each depth, the confidence and correctness of every prediction, ``[N * T]`` each."""
    temperatures = split.temperatures or (1.0,) * split.num_exits
    shape = (split.num_exits, split.num_videos, split.num_frames)
    confidence, correct = torch.empty(shape), torch.empty(shape, dtype=torch.bool)
    for rows, part in split.chunks():
        truth = part.table.truth.repeat_interleave(part.num_frames, 0)
        for depth, temperature in enumerate(temperatures):
            probabilities = part.readout.probabilities(_logits(part, depth).flatten(0, 1) / temperature)
            confidence[depth, rows] = probabilities.amax(1).view(-1, part.num_frames)
            correct[depth, rows] = is_correct(probabilities, truth).view(-1, part.num_frames)
    return list(zip(confidence.flatten(1), correct.flatten(1), strict=True))


def _logits(split: Split, depth: int) -> torch.Tensor:
    """Return the logits after each time step with all frames exiting at ``depth``, ``[N, T, C]``."""
    with torch.inference_mode():
        return torch.cat([split.readout.prefix_logits(part.table.features, depth) for _, part in split.chunks()])
