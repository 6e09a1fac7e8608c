"""Is a video of which the network is 90% sure right in 90% of the cases? A temperature for each depth mends it.

Temperature scaling (Guo et al., On calibration of modern neural networks, ICML 2017): logits are divided by the
number that fits ``val`` best. The class that wins stays the same; what changes is how a confidence at one depth
compares with a confidence at another, and so what thresholds do (see ``Split.temperatures``).
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar

import tlee._torchvision  # noqa: F401  torchmetrics imports torchvision, which must be found loadable

# isort: split
from torchmetrics.functional.classification import binary_calibration_error

from tlee import intervals
from tlee.evaluation.comparison import at_budgets, chance_level
from tlee.evaluation.evaluate import candidates, pick
from tlee.evaluation.replay import Split
from tlee.evaluation.search import COMPARED, Candidate, Search, frontier
from tlee.methods import NAMES
from tlee.metrics import is_correct
from tlee.params import Params
from tlee.records import save_table

BINS = 15  #: of equal width, as Guo et al. take
RANGE = (0.05, 20.0)  #: of temperatures; where no video of ``val`` is wrong the best fit would be 0


@dataclass(frozen=True)
class Calibration:
    """Temperatures from ``val``, and what they change on ``test``."""

    errors: pd.DataFrame  #: one row a depth: ``temperature``, and the error ``as_trained`` and ``calibrated``
    bins: pd.DataFrame  #: the points of the diagrams before and after, see ``reliability``
    trade_offs: pd.DataFrame  #: see ``compare_trade_offs``

    def verdict(self) -> str:
        """Whether calibrated confidences make better policies: one sentence a family."""
        return "\n".join(_verdict(row) for _, row in self.trade_offs.iterrows())

    def metrics(self) -> dict:
        """Mean errors over depths, and what policies gain."""
        gains = self.trade_offs.set_index("family")
        means = self.errors[["as_trained", "calibrated"]].mean()
        return means.add_prefix("error_").to_dict() | {
            family: row.dropna().to_dict() for family, row in gains.iterrows()
        }

    def write(self) -> None:
        """Write the tables."""
        save_table("guarantee", "calibration", self.errors.reset_index())
        save_table("guarantee", "reliability", self.bins)
        save_table("guarantee", "calibrated_policies", self.trade_offs)


def calibrate(val: Split, test: Split, params: Params) -> Calibration:
    """Fit temperatures on ``val``, and measure on ``test`` what they are good for."""
    calibrated = replace(test, temperatures=fit_temperatures(val))
    errors = {"as_trained": calibration_errors(test), "calibrated": calibration_errors(calibrated)}
    states = {"as trained": reliability(test), "calibrated": reliability(calibrated)}
    return Calibration(
        errors=pd.DataFrame({"temperature": calibrated.temperatures, **errors}).rename_axis("depth"),
        bins=pd.concat([bins.assign(state=state) for state, bins in states.items()], ignore_index=True),
        trade_offs=compare_trade_offs(val, test, calibrated.temperatures, params),
    )


def fit_temperatures(split: Split) -> tuple[float, ...]:
    """The temperature of each depth with the least loss over all videos and time steps, frames all left there."""
    targets = split.table.targets(split.readout.multi_label).unsqueeze(1)
    targets = targets.expand(-1, split.num_frames, *targets.shape[2:])

    def fit(logits: torch.Tensor) -> float:
        def loss(logarithm: float) -> float:
            return split.readout.loss(logits / np.exp(logarithm), targets).double().mean().item()

        return float(np.exp(minimize_scalar(loss, bounds=np.log(RANGE), method="bounded").x))

    return tuple(fit(_logits(split, depth)) for depth in range(split.num_exits))


def calibration_errors(split: Split) -> list[float]:
    """Expected calibration error of each depth: mean distance of confidence and accuracy over ``BINS`` bins."""
    return [
        binary_calibration_error(confidence, right.long(), n_bins=BINS).item() for confidence, right in _looks(split)
    ]


def reliability(split: Split) -> pd.DataFrame:
    """One row a depth and bin of confidence that is not empty.

    ``depth``, mean ``confidence``, ``accuracy``, and the ``share`` of the looks at this depth that fall into it; a look
    is at one video after one time step, with all frames left at that depth.
    """
    tables = []
    for depth, (confidence, right) in enumerate(_looks(split)):
        looks = pd.DataFrame({"confidence": confidence.double(), "accuracy": right.double()})
        bins = looks.groupby((looks["confidence"] * BINS).astype(int).clip(upper=BINS - 1))
        tables.append(bins.mean().assign(depth=depth, share=bins.size() / len(looks)))
    return pd.concat(tables)[["depth", "confidence", "accuracy", "share"]].reset_index(drop=True)


def compare_trade_offs(val: Split, test: Split, temperatures: tuple[float, ...], params: Params) -> pd.DataFrame:
    """Policies searched on ``val`` and run on ``test`` with calibrated confidences against confidences as trained.

    One row for the method's own ``family``, if it decides by confidences, and one for a single threshold on the
    confidence. ``score`` and ``gmacs`` are of the policy chosen, ``area`` of the frontier (``comparison.area_under`` in
    top-1); those of policies with temperatures begin with ``calibrated_``. ``gain`` is the difference of the areas,
    with the 95% interval ``gain_low`` to ``gain_high`` in which groups of videos are resampled.
    """
    own = [params.model.method] if COMPARED[params.model.method] else []
    names, rows = [*own, "confidence"], []
    plain, calibrated = (
        _trade_offs(names, *(replace(split, temperatures=each) for split in (val, test)), params)
        for each in (None, temperatures)
    )
    for name in names:
        (was, area), (now, calibrated_area) = plain[name], calibrated[name]
        gains = calibrated_area - area
        low, high = intervals.of_mean(gains, test.table.groups, params.evaluate.bootstrap, params.seed)
        numbers = was | {f"calibrated_{key}": value for key, value in now.items()}
        rows.append({"family": name, **numbers, "gain": gains.mean(), "gain_low": low, "gain_high": high})
    return pd.DataFrame(rows)


def _trade_offs(names: list[str], val: Split, test: Split, params: Params) -> dict[str, tuple[dict, np.ndarray]]:
    """Of each family the numbers of its policies, and each test video's share in the area under its frontier."""
    search, chance, found = Search(val), chance_level(val.table.truth), {}
    for name in names:
        tried = candidates(name, search, params)
        point = test.point(name, test.run(pick(tried, search, params.evaluate).policy))
        areas = _areas(frontier(tried), test, search.full.gmacs, chance)
        found[name] = {"score": point["score"], "gmacs": point["gmacs"], "area": areas.mean()}, areas
    return found


def _areas(curve: list[Candidate], test: Split, full_gmacs: float, chance: float) -> np.ndarray:
    """``comparison.area_under`` in top-1 for each test video alone, ``[N]``; their mean is the area."""
    outcomes = test.sweep([each.policy for each in curve])
    right = np.stack([is_correct(test.readout.probabilities(each.logits), test.table.truth) for each in outcomes])
    gmacs = np.array([each.gmacs for each in curve])
    return at_budgets(gmacs, right, full_gmacs, chance).mean(axis=0)


def _verdict(row: pd.Series) -> str:
    helps = "helps" if row["gain_low"] > 0 else "hurts" if row["gain_high"] < 0 else "makes no clear difference"
    return (
        f"{NAMES[row['family']]}: calibration {helps}: {100 * row['gain']:+.1f} points of top-1 at equal cost "
        f"({100 * row['gain_low']:+.1f} to {100 * row['gain_high']:+.1f}); the policy chosen goes from "
        f"{row['score']:.1%} at {row['gmacs']:.4f} GMACs to {row['calibrated_score']:.1%} at "
        f"{row['calibrated_gmacs']:.4f}."
    )


def _looks(split: Split) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each depth, the confidence at every look and whether the video has that class, ``[N * T]`` each."""
    temperatures = split.temperatures or (1.0,) * split.num_exits
    truth = split.table.truth.repeat_interleave(split.num_frames, 0)
    looks = []
    for depth, temperature in enumerate(temperatures):
        probabilities = split.readout.probabilities(_logits(split, depth).flatten(0, 1) / temperature)
        looks.append((probabilities.amax(1), is_correct(probabilities, truth)))
    return looks


def _logits(split: Split, depth: int) -> torch.Tensor:
    """After each time step with all frames left at ``depth``, ``[N, T, C]``."""
    with torch.inference_mode():
        return torch.cat([split.readout.prefix_logits(features, depth) for _, features in split.chunks()])
