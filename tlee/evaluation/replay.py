"""Replay of any policy on the stored exit features of a split."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tlee.costs import Costs
from tlee.evaluation.results import Results
from tlee.features import FeatureTable
from tlee.metrics import mean_average_precision
from tlee.policies.given import GivenExits
from tlee.policies.inference import CHUNK, Outcomes, follow, run_any, run_together
from tlee.policies.policy import Policy
from tlee.policies.sources import StoredFeatures
from tlee.readout import Readout
from tlee.subsets import spread

AT_ONCE = 32  #: policies of a sweep that run at once

PROBABILITIES = 2**29  #: class probabilities in memory at once, if the metric ranks all videos: 2 GiB


@dataclass(frozen=True)
class Split:
    """Exit features of one split, the readout and costs to run policies on them, and the metric that counts.

    ``temperatures`` calibrate the classifier, one a depth (see ``calibration``).
    """

    table: FeatureTable
    readout: Readout
    costs: Costs
    metric: str
    temperatures: tuple[float, ...] | None = None

    @property
    def source(self) -> StoredFeatures:
        return StoredFeatures(self.table.stored)

    @property
    def num_videos(self) -> int:
        return len(self.table.videos)

    @property
    def num_frames(self) -> int:
        """``T``"""
        return self.table.stored.shape[1]

    @property
    def num_exits(self) -> int:
        """``B + 1``"""
        return len(self.costs.segments)

    def take(self, rows: np.ndarray) -> "Split":
        """Select the videos ``rows``, by position."""
        return replace(self, table=self.table.take(rows))

    def thinned(self, at_most: int) -> "Split":
        """Select ``at_most`` evenly spread videos, but at least one; all if there are no more."""
        if self.num_videos <= at_most:
            return self
        return self.take(np.array(spread(self.num_videos, max(at_most, 1))))

    def chunks(self) -> Iterator[tuple[slice, "Split"]]:
        """Yield the split in parts: positions of some videos, and the split of these; of no video one part."""
        for start in range(0, max(self.num_videos, 1), CHUNK):
            rows = slice(start, start + CHUNK)
            yield rows, replace(self, table=self.table.part(rows))

    def run(self, policy: Policy | GivenExits) -> Outcomes:
        return run_any(self.source, self.readout, policy, self.costs, self.temperatures)

    def sweep(self, policies: Sequence[Policy | GivenExits], scored: bool = True) -> Iterator[Results]:
        """Run policies one after the other; what several have in common is computed once.

        A metric that ranks videos is slow: unless the results are to be ``scored``, it is left out.
        """
        return sweep_parts(self, [(np.arange(self.num_videos), self, policies)], scored)

    def result(self, policy: Policy | GivenExits) -> Results:
        """Run one policy."""
        return next(self.sweep([policy]))

    def judge(self, outcomes: Outcomes) -> Results:
        """Compare outcomes of all videos with the truth."""
        judging = _Judging(self, self.metric == "map")
        for rows, part in self.chunks():
            judging.add(np.arange(self.num_videos)[rows], part, _rows(outcomes, rows))
        return judging.results()

    def score(self, results: Results) -> float:
        """Value of the metric."""
        return results.mean_ap if self.metric == "map" else results.correct.double().mean().item()

    def point(self, method: str, results: Results) -> dict:
        """Point of a policy on the trade-off curve: score, and mean GMACs and frames of a video."""
        return {
            "method": method,
            "score": self.score(results),
            "gmacs": results.gmacs.mean().item(),
            "frames": results.frames.double().mean().item(),
        }


Part = tuple[np.ndarray, Split, Sequence[Policy | GivenExits]]  #: positions of videos, their split, policies for them


def sweep_parts(split: Split, parts: Sequence[Part], scored: bool = True) -> Iterator[Results]:
    """Run on each part of ``split`` its policies, of which each part has the same number.

    Yields the results of the first policy of every part together, then those of the second, and so on. Logits of a
    policy are kept for some videos only or, if the metric needs them all, for a few policies.
    """
    ranked = scored and split.metric == "map"
    fit = PROBABILITIES // max(split.num_videos * split.readout.classes, 1)
    at_once = max(1, min(fit, AT_ONCE)) if ranked else AT_ONCE
    for start in range(0, len(parts[0][2]), at_once):
        together = [_Judging(split, ranked) for _ in parts[0][2][start : start + at_once]]
        for rows, part, policies in parts:
            for chunk, some, outcomes in _run(part, policies[start : start + at_once]):
                for judging, each in zip(together, outcomes, strict=True):
                    judging.add(rows[chunk], some, each)
        while together:
            yield together.pop(0).results()


def _run(split: Split, policies: Sequence[Policy | GivenExits]) -> Iterator[tuple[slice, Split, list[Outcomes]]]:
    """Run policies on one chunk of the videos after the other."""
    deciding = [policy for policy in policies if isinstance(policy, Policy)]
    given = [
        None if isinstance(policy, Policy) else policy.exit_depths(split.num_videos, split.num_frames, split.num_exits)
        for policy in policies
    ]
    for rows, part in split.chunks():
        source, readout, costs = part.source, split.readout, split.costs
        together = iter(run_together(source, readout, deciding, costs, split.temperatures))
        yield (
            rows,
            part,
            [next(together) if depths is None else follow(source, readout, depths[rows], costs) for depths in given],
        )


class _Judging:
    """Collects the results of one policy, some videos at a time."""

    def __init__(self, split: Split, ranked: bool):
        self._split, self._parts, self._rows = split, list[Results](), list[np.ndarray]()
        self._probabilities = torch.empty(split.num_videos, split.readout.classes) if ranked else None

    def add(self, rows: np.ndarray, part: Split, outcomes: Outcomes) -> None:
        """Add the outcomes of the videos ``rows``, which are those of ``part``."""
        self._rows.append(rows)
        probabilities = part.readout.probabilities(outcomes.logits)
        self._parts.append(Results.of(outcomes, probabilities, part.table.all_labels))
        if self._probabilities is not None:
            self._probabilities[rows] = probabilities

    def results(self) -> Results:
        """Return the results of all videos."""
        results = Results.joined(self._parts, torch.from_numpy(np.argsort(np.concatenate(self._rows))))
        if self._probabilities is None:
            return results
        return replace(results, mean_ap=mean_average_precision(self._probabilities, self._split.table.all_labels))


def _rows(outcomes: Outcomes, rows: slice) -> Outcomes:
    return Outcomes(**{name: values[rows] for name, values in vars(outcomes).items()})
