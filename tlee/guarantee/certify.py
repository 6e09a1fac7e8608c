"""A policy with a promise: 95% sure, exits harm at most so many points of all videos.

A video is harmed if the full network is right and the exit taken is wrong. What exits put right is not set off.
``val`` is split by group: on one half the policies of the method's own family are searched and put in order, on the
other they are tested (see ``risk_control``).
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest

from tlee import intervals
from tlee.evaluation.evaluate import candidates, simplest
from tlee.evaluation.replay import Split
from tlee.evaluation.search import NEAR, Search, frontier
from tlee.guarantee.risk_control import needed_videos, p_values, passing, plan, simulate, upper_bound
from tlee.metrics import is_correct
from tlee.params import GuaranteeParams, Params
from tlee.paths import GUARANTEED_POLICY
from tlee.policies.files import save_policies
from tlee.policies.given import GivenExits
from tlee.policies.inference import Outcomes
from tlee.policies.policy import Policy
from tlee.policies.thresholds import Thresholds
from tlee.records import save_metrics, save_table
from tlee.subsets import halves, one_per_group

PLANNED = (59, 100, 299, 500, 1000, 2000, 5000)  #: videos to test on, besides those at hand
LIMITS = (2.0, 10.0, 20.0)  #: points that are simulated, besides the one that is asked for


@dataclass(frozen=True)
class Trial:
    """What each policy of a path does with the same ``N`` videos; the first never exits."""

    harm: np.ndarray  #: booleans ``[P, N]``: the full network is right, the policy is not
    share: np.ndarray  #: ``[P]``, mean GMACs, of the full network's
    top1: np.ndarray  #: ``[P]``
    groups: list[str]  #: of the videos

    @classmethod
    def of(cls, path: list[Policy | GivenExits], split: Split) -> "Trial":
        full, *others = outcomes = list(split.sweep(path))
        return cls(
            harm=torch.stack([_harmed(split, each, full) for each in outcomes]).numpy(),
            share=np.array([1.0, *((each.gmacs.mean() / full.gmacs.mean()).item() for each in others)]),
            top1=np.array([_right(split, each).double().mean().item() for each in outcomes]),
            groups=split.table.groups,
        )

    @property
    def videos(self) -> int:
        return len(self.groups)


@dataclass(frozen=True)
class Guarantee:
    """A path of policies from careful to thrifty, and how many of them pass."""

    path: list[Policy | GivenExits]  #: the first never exits, which harms nothing and is not tested
    tested: Trial  #: on the testing half of ``val``
    test: Trial  #: on ``test``, which decides nothing
    params: Params

    @property
    def settings(self) -> GuaranteeParams:
        return self.params.guarantee

    @property
    def passed(self) -> int:
        """How many policies pass before the first that fails: the last of them is chosen, at this place of the path."""
        harmful = self.tested.harm[1:].sum(1)
        return int(passing(p_values(harmful, self.tested.num_videos, self.settings.max_harm), self.settings.confidence))

    @property
    def policy(self) -> Policy | GivenExits:
        """The cheapest that passes, or never exit."""
        return simplest(self.path[self.passed])

    def tests(self) -> pd.DataFrame:
        """One row a policy: on how many ``videos``, how many of them ``harmful``, and the ``p_value`` of so few.

        ``bound`` is the exact upper bound of the share of all videos that are harmed, of independent videos, and
        ``groups_bound`` the upper end of the 95% interval in which whole groups are resampled (``intervals.of_mean``);
        ``share_of_full`` are the GMACs, ``passed`` whether this and all before it pass. ``test_harm`` and
        ``test_share_of_full`` are what it does on ``test``.
        """
        tested, test, settings = self.tested, self.test, self.settings
        harmful = tested.harm[1:].sum(1)
        return pd.DataFrame(
            {
                "policy": np.arange(1, len(self.path)),
                "videos": tested.num_videos,
                "harmful": harmful,
                "p_value": p_values(harmful, tested.num_videos, settings.max_harm),
                "bound": upper_bound(harmful, tested.num_videos, settings.confidence),
                "groups_bound": [self._grouped_bound(each, tested.groups) for each in tested.harm[1:]],
                "share_of_full": tested.share[1:],
                "passed": np.arange(len(harmful)) < self.passed,
                "test_harm": test.harm[1:].mean(1),
                "test_share_of_full": test.share[1:],
            }
        ).set_index("policy")

    def verdict(self) -> str:
        """What can be promised, or why nothing can."""
        videos, settings = self.tested.num_videos, self.settings
        promise = f"exits harm at most {settings.max_harm:g}% of all videos, {100 * settings.confidence:.4g}% sure"
        needed, exits = needed_videos(settings.max_harm, settings.confidence), len(self.path) - 1
        if videos < needed:
            return f"To promise that {promise}, takes {needed} videos without harm; {videos} are at hand: never exit."
        if not exits:
            return "There are no exits to test: never exit."
        harmful = self.tested.harm[max(self.passed, 1)].sum()
        if not self.passed:
            return f"The most careful policy harms {harmful} of {videos} videos, too many to promise that {promise}."
        return (
            f"Policy {self.passed} of {exits}: {promise}. It harms {harmful} of {videos} videos, so at most "
            f"{upper_bound(harmful, videos, settings.confidence):.1%} of all, and takes "
            f"{self.tested.share[self.passed]:.0%} of the full network's GMACs."
        )

    def on_test(self) -> pd.DataFrame:
        """What the chosen policy does on ``test``, in one row.

        ``harm_low`` to ``harm_high`` is the exact 95% interval of the share harmed, of independent videos, and
        ``groups_bound`` the upper end of that in which whole groups are resampled.
        """
        harm, test = self.test.harm[self.passed], self.test
        interval = binomtest(int(harm.sum()), test.num_videos).proportion_ci()
        return pd.DataFrame(
            {
                "videos": test.num_videos,
                "harmful": int(harm.sum()),
                "harm": harm.mean(),
                "harm_low": interval.low,
                "harm_high": interval.high,
                "groups_bound": self._grouped_bound(harm, test.groups),
                "share_of_full": test.share[self.passed],
                "top1": test.top1[self.passed],
                "full_top1": test.top1[0],
            },
            index=["test"],
        )

    def plan(self) -> pd.DataFrame:
        """What more videos would allow to promise, see ``risk_control.plan``; the first rows are those at hand.

        One row for all of them, one for one video of each group.
        """
        at_hand = {"videos at hand": self.tested.num_videos, "groups at hand": len(set(self.tested.groups))}
        rows = at_hand | {str(videos): videos for videos in PLANNED}
        table = plan([*rows.values()], self.settings.max_harm, self.settings.confidence)
        return table.assign(case=list(rows)).set_index("case")

    def simulate(self) -> pd.DataFrame:
        """How often a promise is broken where ``test`` is all the videos there are, see ``risk_control.simulate``.

        Sets are as large as the one that was tested on, ``drawn`` video by video, or by whole groups unless
        one video of each is asked for.
        """
        limits, test = sorted({*LIMITS, self.settings.max_harm}), self.test
        drawn = {"videos": range(test.num_videos)}
        if not self.settings.one_per_group:
            drawn["groups"] = test.groups
        tables = [
            simulate(
                test.harm[1:],
                test.share[1:],
                groups,
                self.tested.num_videos,
                limits,
                self.settings.confidence,
                self.params.seed,
            ).assign(drawn=name)
            for name, groups in drawn.items()
        ]
        return pd.concat(tables).set_index(["drawn", "max_harm"])

    def write(self, simulated: pd.DataFrame, calibration: dict) -> None:
        """Write the certified policy, the tables, and the metrics of the stage, those of the calibration among them."""
        save_policies({self.params.model.method: self.policy}, GUARANTEED_POLICY)
        for name, table in {"path": self.tests(), "plan": self.plan(), "simulation": simulated}.items():
            save_table("guarantee", name, table.reset_index())
        chosen, settings = self.passed, self.settings
        rates = simulated["violation_rate"].groupby("drawn").max()
        found = {
            "max_harm": settings.max_harm,
            "confidence": settings.confidence,
            "videos": self.tested.num_videos,
            "needed_videos": needed_videos(settings.max_harm, settings.confidence),
            "policies": len(self.path) - 1,
            "passed": chosen,
            "harmful": int(self.tested.harm[chosen].sum()),
            "share_of_full": self.tested.share[chosen],
            "test": self.on_test().dropna(axis=1).to_dict("records")[0],
            "allowed_violation_rate": 1 - settings.confidence,
            "simulated_violation_rate": rates["videos"],
            "simulated_violation_rate_of_groups": rates.get("groups"),
            "calibration": calibration,
        }
        save_metrics("guarantee", found)

    def _grouped_bound(self, harm: np.ndarray, groups: list[str]) -> float:
        return intervals.of_mean(harm.astype(float), groups, self.params.evaluate.bootstrap, self.params.seed)[1]


def certify(val: Split, test: Split, params: Params) -> Guarantee:
    """Settle the path on half of ``val``, test it on the other half, and look at it on ``test``.

    Where ``val`` has a single group no other is left to test on, and nothing can be promised.
    """
    groups, seed = np.array(val.table.groups), params.seed
    if len(set(groups)) > 1:
        searched, tested = halves(groups, seed)
        path = careful_to_thrifty(val.take(searched), params)
    else:
        tested, path = np.arange(0), [Thresholds.never(val.num_exits)]
    if params.guarantee.one_per_group:
        tested = tested[one_per_group(groups[tested], seed)]
    return Guarantee(path, Trial.of(path, val.take(tested)), Trial.of(path, test), params)


def careful_to_thrifty(split: Split, params: Params) -> list[Policy | GivenExits]:
    """The policies to be tested, from never exit on: each at least 5% cheaper (``search.NEAR``) than the one before.

    Those of which no other both costs less and does less harm on ``split``. What orders them is a smooth harm: where
    the full network is right, the mean of the 0/1 harm and of what is lost of the true class's probability. Counted
    harm moves in steps and by luck: the cheapest policy that has harmed no video yet would come first, and when it
    fails nothing after it is tested. The smooth error that leads the search sets off harm with what exits put right:
    where the full network often errs its best policies do harm, and they would come first too.
    """
    search = Search(split)
    full = split.run(search.full.policy)
    tried = candidates(params.model.method, search, params)
    outcomes = split.sweep([each.policy for each in tried])
    led_by_harm = [
        replace(each, error=_smooth_harm(split, outcome, full)) for each, outcome in zip(tried, outcomes, strict=True)
    ]
    path = [search.full]
    for each in reversed(frontier(led_by_harm)):
        if NEAR * each.gmacs <= path[-1].gmacs:
            path.append(each)
    return [each.policy for each in path]


def _right(split: Split, outcomes: Outcomes) -> torch.Tensor:
    return is_correct(split.readout.probabilities(outcomes.logits), split.table.truth)


def _harmed(split: Split, outcomes: Outcomes, full: Outcomes) -> torch.Tensor:
    return _right(split, full) & ~_right(split, outcomes)


def _smooth_harm(split: Split, outcomes: Outcomes, full: Outcomes) -> float:
    truth = split.table.truth
    gone = split.readout.probabilities(full.logits) - split.readout.probabilities(outcomes.logits)
    lost = (gone * truth).sum(1).double() / truth.sum(1)
    harm = (_harmed(split, outcomes, full) + lost.clamp(min=0)) / 2
    return (harm * _right(split, full)).mean().item()
