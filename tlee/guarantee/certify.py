"""Policies with a guarantee: with a given confidence, exits harm at most a given share of all videos.

A video is harmed if the full network is correct and the exit taken is not. Videos that exits correct are not counted
against it. ``val`` is split by group: on one half the policies of the method's own family are searched and ordered, on
the other half they are tested (see ``risk_control``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest

from tlee import intervals
from tlee.evaluation.candidates import candidates
from tlee.evaluation.evaluate import simplest
from tlee.evaluation.replay import Split
from tlee.evaluation.results import Results
from tlee.evaluation.search import NEAR, Candidate, Search, frontier
from tlee.guarantee.risk_control import count_passing, needed_videos, p_values, plan, simulate, upper_bound
from tlee.params import GuaranteeParams, Params
from tlee.paths import GUARANTEED_POLICY
from tlee.policies.files import save_policies
from tlee.policies.given import GivenExits
from tlee.policies.policy import Policy
from tlee.policies.thresholds import Thresholds
from tlee.records import save_metrics, save_table
from tlee.subsets import halves, one_per_group

PLANNED = (59, 100, 299, 500, 1000, 2000, 5000)  #: numbers of test videos planned for, besides those available
LIMITS = (2.0, 10.0, 20.0)  #: limits that are simulated, in points, besides ``guarantee.max_harm``


@dataclass(frozen=True)
class PathResults:
    """Results of each policy of a path on the same ``N`` videos; the first never exits."""

    harm: np.ndarray  #: booleans ``[P, N]``: the full network is correct, the policy is not
    share: np.ndarray  #: mean GMACs as a share of the full network's, ``[P]``
    top1: np.ndarray  #: top-1 accuracy (0..1), ``[P]``
    groups: list[str]  #: group of each video

    @classmethod
    def of(cls, path: list[Policy | GivenExits], split: Split) -> "PathResults":
        """Run the policies of ``path`` on ``split``."""
        full, *others = results = list(split.sweep(path, scored=False))
        return cls(
            harm=torch.stack([_harmed(each, full) for each in results]).numpy(),
            share=np.array([1.0, *((each.gmacs.mean() / full.gmacs.mean()).item() for each in others)]),
            top1=np.array([each.correct.double().mean().item() for each in results]),
            groups=split.table.groups,
        )

    @property
    def num_videos(self) -> int:
        return len(self.groups)


@dataclass(frozen=True)
class Guarantee:
    """A path of policies from conservative to aggressive, and the results of their tests."""

    path: list[Policy | GivenExits]  #: policies; the first never exits, which harms no video and is not tested
    held_out: PathResults  #: results on the testing half of ``val``
    test: PathResults  #: results on split ``test``, on which nothing is chosen
    params: Params

    @property
    def settings(self) -> GuaranteeParams:
        return self.params.guarantee

    @property
    def num_passed(self) -> int:
        """Number of policies that pass before the first failure, which is the place of the chosen one on the path."""
        harmful = self.held_out.harm[1:].sum(1)
        p = p_values(harmful, self.held_out.num_videos, self.settings.max_harm)
        return int(count_passing(p, self.settings.confidence))

    @property
    def policy(self) -> Policy | GivenExits:
        """The last policy that passes, in its simplest form, or never exit."""
        return simplest(self.path[self.num_passed])

    def path_table(self) -> pd.DataFrame:
        """Return the test of each policy: the number of ``videos``, of ``harmful`` exits among them, and ``p_value``.

        ``bound`` is the exact upper bound of the share of all videos that are harmed, for independent videos, and
        ``groups_bound`` the upper end of the 95% interval from resampled groups (``intervals.of_mean``);
        ``share_of_full`` is the mean GMACs as a share of the full network's; ``passed`` is true if this policy and all
        before it pass. ``test_harm`` and ``test_share_of_full`` are harm and cost on split ``test``.
        """
        held_out, test, settings = self.held_out, self.test, self.settings
        harmful = held_out.harm[1:].sum(1)
        return pd.DataFrame(
            {
                "policy": np.arange(1, len(self.path)),
                "videos": held_out.num_videos,
                "harmful": harmful,
                "p_value": p_values(harmful, held_out.num_videos, settings.max_harm),
                "bound": upper_bound(harmful, held_out.num_videos, settings.confidence),
                "groups_bound": self._bounds_of_groups,
                "share_of_full": held_out.share[1:],
                "passed": np.arange(len(harmful)) < self.num_passed,
                "test_harm": test.harm[1:].mean(1),
                "test_share_of_full": test.share[1:],
            }
        ).set_index("policy")

    def verdict(self) -> str:
        """Return the guarantee in one sentence, or the reason why there is none."""
        videos, settings = self.held_out.num_videos, self.settings
        claim = (
            f"exits harm at most {settings.max_harm:g}% of all videos, with {100 * settings.confidence:.4g}% confidence"
        )
        needed, exits = needed_videos(settings.max_harm, settings.confidence), len(self.path) - 1
        if videos < needed:
            return f"To guarantee that {claim} takes {needed} videos without harm; {videos} are available: never exit."
        if not exits:
            return "There are no exits to test: never exit."
        harmful = self.held_out.harm[max(self.num_passed, 1)].sum()
        if not self.num_passed:
            return (
                f"The most conservative policy harms {harmful} of {videos} videos, too many to guarantee that {claim}."
            )
        return (
            f"Policy {self.num_passed} of {exits}: {claim}. It harms {harmful} of {videos} videos, so at most "
            f"{upper_bound(harmful, videos, settings.confidence):.1%} of all, and costs "
            f"{self.held_out.share[self.num_passed]:.0%} of the full network's GMACs."
        )

    def on_test(self) -> pd.DataFrame:
        """Return the results of the chosen policy on split ``test``, in one row.

        ``harm_low`` to ``harm_high`` is the exact 95% interval of the share of harmed videos, for independent videos,
        and ``groups_bound`` the upper end of the 95% interval from resampled groups.
        """
        harm, test = self.test.harm[self.num_passed], self.test
        interval = binomtest(int(harm.sum()), test.num_videos).proportion_ci()
        return pd.DataFrame(
            {
                "videos": test.num_videos,
                "harmful": int(harm.sum()),
                "harm": harm.mean(),
                "harm_low": interval.low,
                "harm_high": interval.high,
                "groups_bound": self._groups_bound(harm, test.groups),
                "share_of_full": test.share[self.num_passed],
                "top1": test.top1[self.num_passed],
                "full_top1": test.top1[0],
            },
            index=["test"],
        )

    def plan(self) -> pd.DataFrame:
        """Return the guarantees that more videos would allow, see ``risk_control.plan``.

        The first two rows are for the available videos, and for one video of each available group.
        """
        available = {"available videos": self.held_out.num_videos, "available groups": len(set(self.held_out.groups))}
        rows = available | {str(videos): videos for videos in PLANNED}
        table = plan([*rows.values()], self.settings.max_harm, self.settings.confidence)
        return table.assign(case=list(rows)).set_index("case")

    def simulate(self) -> pd.DataFrame:
        """Return how often the guarantee is violated with split ``test`` as population, see ``risk_control.simulate``.

        Sets are as large as the testing half of ``val``, ``drawn`` by video, and also by group unless
        ``guarantee.one_per_group``.
        """
        limits, test = sorted({*LIMITS, self.settings.max_harm}), self.test
        drawn: dict[str, Sequence[int] | Sequence[str]] = {"videos": range(test.num_videos)}
        if not self.settings.one_per_group:
            drawn["groups"] = test.groups
        tables = [
            simulate(
                test.harm[1:],
                test.share[1:],
                groups,
                self.held_out.num_videos,
                limits,
                self.settings.confidence,
                self.params.seed,
            ).assign(drawn=name)
            for name, groups in drawn.items()
        ]
        return pd.concat(tables).set_index(["drawn", "max_harm"])

    def write(self, simulated: pd.DataFrame, calibration: dict) -> None:
        """Write the certified policy, the tables, and the metrics of the stage, ``calibration`` included."""
        save_policies({self.params.model.method: self.policy}, GUARANTEED_POLICY)
        for name, table in {"path": self.path_table(), "plan": self.plan(), "simulation": simulated}.items():
            save_table("guarantee", name, table.reset_index())
        chosen, settings = self.num_passed, self.settings
        rates = simulated["violation_rate"].groupby("drawn").max()
        metrics = {
            "max_harm": settings.max_harm,
            "confidence": settings.confidence,
            "videos": self.held_out.num_videos,
            "needed_videos": needed_videos(settings.max_harm, settings.confidence),
            "policies": len(self.path) - 1,
            "passed": chosen,
            "harmful": int(self.held_out.harm[chosen].sum()),
            "share_of_full": self.held_out.share[chosen],
            "test": self.on_test().dropna(axis=1).to_dict("records")[0],
            "allowed_violation_rate": 1 - settings.confidence,
            "simulated_violation_rate": rates["videos"],
            "simulated_violation_rate_of_groups": rates.get("groups"),
            "calibration": calibration,
        }
        save_metrics("guarantee", metrics)

    @cached_property
    def _bounds_of_groups(self) -> list[float]:
        """Upper bound of the harm of each policy but the first, from resampled groups of the held-out videos."""
        return [self._groups_bound(each, self.held_out.groups) for each in self.held_out.harm[1:]]

    def _groups_bound(self, harm: np.ndarray, groups: list[str]) -> float:
        return intervals.of_mean(harm.astype(float), groups, self.params.evaluate.bootstrap, self.params.seed)[1]


def certify(val: Split, test: Split, params: Params) -> Guarantee:
    """Build the path on half of ``val``, test it on the other half, and report it on split ``test``.

    If ``val`` has a single group, none is left for the tests, and never exit is chosen.
    """
    groups, seed = val.table.groups, params.seed
    if len(set(groups)) > 1:
        searched, held_out = halves(groups, seed)
        path = conservative_to_aggressive(val.take(searched), params)
    else:
        held_out, path = np.arange(0), [Thresholds.never(val.num_exits)]
    if params.guarantee.one_per_group:
        held_out = held_out[one_per_group([groups[row] for row in held_out], seed)]
    return Guarantee(path, PathResults.of(path, val.take(held_out)), PathResults.of(path, test), params)


def conservative_to_aggressive(split: Split, params: Params) -> list[Policy | GivenExits]:
    """Return the policies to be tested, never exit first, each at least 5% cheaper (``search.NEAR``) than the last.

    A family whose policies are one path (``Candidate.path``) is ordered along it, by cost alone: on the videos that
    they are fitted to, cheap policies that decide by values seem to do no harm either. Of others they are the policies
    of which no other has both lower cost and lower harm on ``split``. They are ordered by a smooth harm: on videos that
    the full network classifies correctly, the mean of the 0/1 harm and of the loss in the probability of the true
    class. The number of harmed videos is too coarse and noisy: the cheapest policy that happens to harm no video would
    come first, and if it fails no other is tested. The smooth error of the search is unsuitable too, since it balances
    harm against videos that exits correct: if the full network often errs, policies that do harm would come first.
    """
    search = Search(split)
    tried = [each for each in candidates(params.model.method, search, params) if each.policy != search.full.policy]
    if {each.path for each in tried} == {0}:
        ordered = sorted(tried, key=lambda each: each.gmacs, reverse=True)
    else:
        ordered = frontier(_by_harm(tried, search))[::-1]
    path = [search.full]
    for each in ordered:
        if NEAR * each.gmacs <= path[-1].gmacs:
            path.append(each)
    return [each.policy for each in path]


def _by_harm(tried: list[Candidate], search: Search) -> list[Candidate]:
    split, full = search.split, search.full_results
    swept = split.sweep([each.policy for each in tried], scored=False)
    return [replace(each, error=_smooth_harm(split, results, full)) for each, results in zip(tried, swept, strict=True)]


def _harmed(results: Results, full: Results) -> torch.Tensor:
    return full.correct & ~results.correct


def _smooth_harm(split: Split, results: Results, full: Results) -> float:
    loss = (full.likelihood - results.likelihood).double() / split.table.all_labels.counts
    harm = (_harmed(results, full) + loss.clamp(min=0)) / 2
    return (harm * full.correct).mean().item()
