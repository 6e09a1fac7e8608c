"""Policies on one scale: chosen on ``val``, score and cost reported on ``test``."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from tlee.costs import count_costs
from tlee.evaluation.candidates import can_cross_validate, candidates, decides_by_value, family_names
from tlee.evaluation.comparison import Measured, area_under, chance_level, measure, paired, policy_row
from tlee.evaluation.cross_validation import out_of_fold
from tlee.evaluation.oracle import oracle, oracle_curve
from tlee.evaluation.per_video import per_video, run_frontiers
from tlee.evaluation.replay import Split
from tlee.evaluation.results import Results
from tlee.evaluation.search import Candidate, Search, afford, choose
from tlee.features import load_features
from tlee.model import load_trained
from tlee.params import EvaluateParams, Params
from tlee.policies.files import save_policies
from tlee.policies.given import GivenExits, RandomExits
from tlee.policies.optimal_stopping import OptimalStopping
from tlee.policies.policy import Policy
from tlee.policies.thresholds import Thresholds
from tlee.records import save_metrics, save_table

Policies = dict[str, Policy | GivenExits]


@dataclass(frozen=True)
class Evaluation:
    """Result of the comparison; every number is of ``test`` unless its name has ``val``."""

    method: str  #: ``model.method``, whose policy the next stage exports
    search: Search  #: on ``val``
    tried: list[Candidate]  #: the method's policies that were run on val
    test: Split
    policies: Policies  #: chosen on val, by name
    results: dict[str, Results]  #: of those policies and of the oracle
    table: pd.DataFrame  #: one row a policy
    curves: pd.DataFrame  #: ``method, gmacs, score, frames, val_gmacs``: the frontiers found on val
    paired: pd.DataFrame  #: the method against each other policy, see ``comparison.paired``
    videos: pd.DataFrame  #: see ``per_video``

    @property
    def classes(self) -> list[str]:
        return self.test.table.classes

    def policy_parameters(self) -> pd.DataFrame:
        """Parameters of the method's policy: thresholds, one row a decision and one column a depth, or one number."""
        policy = self.policies[self.method]
        if isinstance(policy, OptimalStopping):
            return pd.DataFrame({"price": [policy.price]}, index=["full network"])
        if isinstance(policy, RandomExits):
            return pd.DataFrame({"chance": [policy.chance]}, index=["every exit"])
        rows = {name: pd.Series(values) for name, values in vars(policy).items()}
        return pd.DataFrame(rows).T.add_prefix("depth ").rename_axis("threshold")

    def decisions(self) -> pd.DataFrame:
        """Decisions of the method's policy, one row for each depth at which it leaves the first, later or last frames.

        ``reached`` is the number of frames that run to this depth; ``answer``, ``next frame`` and ``deeper`` are the
        shares of these where the video ends there, continues with the next frame, or runs deeper.
        """
        depths, last = self.results[self.method].exit_depths, self.test.num_frames - 1
        stops = torch.cat([depths[:, 1:] < 0, torch.ones(len(depths), 1, dtype=torch.bool)], dim=1)
        rows = []
        for frame, steps in {"first": slice(0, 1), "later": slice(1, last), "last": slice(max(last, 1), None)}.items():
            left, stopped = depths[:, steps], stops[:, steps]
            for depth in sorted({*left.flatten().tolist()} - {-1}):
                here, reached = left == depth, int((left >= depth).sum())
                counts = (here & stopped).sum(), (here & ~stopped).sum(), (left > depth).sum()
                shares = [count.item() / reached for count in counts]
                rows.append((frame, depth, reached, *shares))
        columns = ["frame", "depth", "reached", "answer", "next frame", "deeper"]
        return pd.DataFrame(rows, columns=columns).set_index(["frame", "depth"])

    def exit_shares(self) -> np.ndarray:
        """Share of all videos whose ``t``-th visited frame was left at depth ``b``, ``[T, B + 1]``."""
        exits = self.results[self.method].exit_depths
        return torch.stack([(exits == depth).double().mean(0) for depth in range(self.test.num_exits)], dim=1).numpy()

    def confusions(self) -> pd.DataFrame:
        """Number of ``videos`` of each pair of ``truth`` (the first class of a video) and ``prediction`` that occurs.

        Classes by index; one row a pair, in their order.
        """
        labels, predictions = self.test.table.labels, self.results[self.method].predictions
        pairs = pd.DataFrame({"truth": labels, "prediction": predictions})
        return pairs.value_counts(sort=False).rename("videos").reset_index()

    def trace(self, method: str) -> pd.DataFrame:
        """Predictions of a policy, one row a video, with its cost and the depths of its exits in visiting order."""
        results, table, names = self.results[method], self.test.table, np.array(self.classes)
        return pd.DataFrame(
            {
                "method": method,
                "video": table.videos,
                "group": table.groups,
                "truth": names[table.labels],
                "prediction": names[results.predictions],
                "correct": results.correct,
                "confidence": results.confidence,
                "frames": results.frames,
                "gmacs": results.gmacs,
                "exit_depths": [" ".join(str(b) for b in path if b >= 0) for path in results.exit_depths.tolist()],
            }
        )

    def write(self, agreement: pd.Series) -> None:
        """Write metrics, the tables behind the figures, and the policies for the stages that follow."""
        rows = self.table.set_index("method").iterrows()
        metrics = {method: row.dropna().to_dict() for method, row in rows}
        save_metrics("evaluate", metrics | {"step_by_step_agreement": agreement.min().item()})
        save_policies(self.policies)
        shares = pd.DataFrame(self.exit_shares()).add_prefix("depth ").rename_axis("frame").reset_index()
        save_table("evaluate", "methods", self.table)
        save_table("evaluate", "paired", self.paired)
        save_table("evaluate", "trade_off", self.curves)
        save_table("evaluate", "videos", self.videos, checked=True)
        save_table("evaluate", "agreement", agreement.rename_axis("method").reset_index())
        save_table("evaluate", "exits", shares.melt("frame", var_name="exit", value_name="share"))
        save_table("evaluate", "trace", pd.concat([self.trace(method) for method in self.results]), checked=True)
        save_table("evaluate", "confusion", self.trace(self.method)[["truth", "prediction"]])


def evaluate_splits(params: Params) -> Evaluation:
    """Compare policies on the stored exit features, with the trained gates.

    With ``evaluate.folds``, and more than one group in ``val``, the row of a method that decides by thresholds also has
    the cross-validated score and cost of its search (``cv_score``, ``cv_gmacs``, see ``cross_validate``); the
    estimates on ``val`` of one that decides by values are cross-validated themselves, see ``optimal_stopping``.
    """
    val, test = load_splits(params)
    evaluation = evaluate(val, test, params)
    if can_cross_validate(val, params) and not decides_by_value(params):
        unseen = val.point(params.model.method, cross_validate(val, params))
        row = evaluation.table["method"] == params.model.method
        evaluation.table.loc[row, ["cv_score", "cv_gmacs"]] = unseen["score"], unseen["gmacs"]
    return evaluation


def load_splits(params: Params) -> tuple[Split, Split]:
    """Load ``val`` and ``test`` with the trained readout; ``UserError`` if an earlier stage has not been run."""
    model, _ = load_trained(params, "pretrain", "branches", "gates")
    costs = count_costs(model)
    val, test = (Split(load_features(split), model.readout, costs, params.evaluate.metric) for split in ("val", "test"))
    return val, test


def evaluate(val: Split, test: Split, params: Params) -> Evaluation:
    """Search every family of policies on ``val``, run the chosen policies and the frontiers on ``test``."""
    method, settings, seed = params.model.method, params.evaluate, params.seed
    search = Search(val)
    found = {name: candidates(name, search, params) for name in family_names(params, val)}
    chosen = {name: pick(tried, search, settings) for name, tried in found.items()}
    policies = {name: simplest(candidate.policy) for name, candidate in chosen.items()}
    measured = _measure(policies, test, params)
    results, full = {name: each.results for name, each in measured.items()}, measured["full"]
    rows = [
        policy_row(name, test, each, full, settings.bootstrap, seed)
        | ({"val_score": search.score(chosen[name]), "val_gmacs": chosen[name].gmacs} if name in chosen else {})
        for name, each in measured.items()
    ]
    fronts = run_frontiers(found, test)
    points = [
        point | {"val_gmacs": gmacs}
        for front in fronts.values()
        for point, gmacs in zip(front.points, front.val_gmacs.tolist(), strict=True)
    ]
    bound = [oracle_curve(test, results["oracle"])] if settings.metric == "top1" else []
    curves = pd.concat([pd.DataFrame(points), *bound], ignore_index=True)
    table = pd.DataFrame(rows).merge(_areas(curves, val, full.results), on="method", how="left")
    versus = paired(method, test.table.groups, results, settings.bootstrap, seed)
    videos = per_video(found, fronts, search, test).assign(split=params.dataset.split, seed=seed)
    return Evaluation(method, search, found[method], test, policies, results, table, curves, versus, videos)


def _measure(policies: Policies, test: Split, params: Params) -> dict[str, Measured]:
    """Run policies and the oracle, one after the other: logits of one may be in memory, not those of all."""
    measured = {}
    for name, policy in [*policies.items(), ("oracle", None)]:
        outcomes = oracle(test) if policy is None else test.run(policy)
        measured[name] = measure(test, outcomes, params.evaluate.bootstrap, params.seed)
    return measured


def pick(tried: list[Candidate], search: Search, settings: EvaluateParams) -> Candidate:
    """Choose the policy within the user's budget: of GMACs, or of points to lose."""
    if settings.max_gmacs is not None:
        return afford(tried, settings.max_gmacs, settings.confidence)
    return choose(tried, search.full, settings.max_loss, settings.confidence, search.score)


def simplest(policy: Policy | GivenExits) -> Policy | GivenExits:
    """Remove thresholds that cannot be reached; the decisions are the same."""
    return policy.reachable() if isinstance(policy, Thresholds) else policy


def cross_validate(val: Split, params: Params) -> Results:
    """Cross-validate the choice of the method's policy on ``val``, in ``evaluate.folds`` folds of its groups."""

    def search_in(part: Split) -> list[Policy | GivenExits]:
        search = Search(part)
        return [pick(candidates(params.model.method, search, params), search, params.evaluate).policy]

    return next(out_of_fold(val, search_in, params.evaluate.folds, params.seed))


def _areas(curves: pd.DataFrame, val: Split, full: Results) -> pd.DataFrame:
    """Area under each curve of more than one point, see ``comparison.area_under``."""
    gmacs, chance = full.gmacs.mean().item(), chance_level(val.table.all_labels)
    areas = {name: area_under(curve, gmacs, chance) for name, curve in curves.groupby("method") if len(curve) > 1}
    return pd.DataFrame(areas.items(), columns=["method", "area"])
