"""Policies on one scale: chosen on ``val``, score and cost reported on ``test``."""

from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
import torch

from tlee.costs import count_costs
from tlee.evaluation import baselines
from tlee.evaluation.comparison import area_under, chance_level, paired, policy_row
from tlee.evaluation.cross_validation import out_of_fold
from tlee.evaluation.oracle import oracle, oracle_curve
from tlee.evaluation.per_video import per_video
from tlee.evaluation.replay import Split
from tlee.evaluation.search import Candidate, Coordinate, Search, afford, choose, families, frontier
from tlee.evaluation.value_iteration import PRICES, ValueIteration
from tlee.features import load_features
from tlee.metrics import confusion, is_correct
from tlee.model import load_trained
from tlee.params import EvaluateParams, Params
from tlee.policies.files import save_policies
from tlee.policies.given import GivenExits, RandomExits
from tlee.policies.inference import Outcomes
from tlee.policies.optimal_stopping import OptimalStopping
from tlee.policies.policy import Policy
from tlee.policies.thresholds import Thresholds
from tlee.records import save_metrics, save_table

Policies = dict[str, Policy | GivenExits]


@dataclass(frozen=True)
class Evaluation:
    """Result of the comparison; every number is of ``test`` unless its name has ``val``."""

    method: str  #: ``model.method``, whose policy the next stage exports
    test: Split
    policies: Policies  #: chosen on val, by name
    outcomes: dict[str, Outcomes]  #: of those policies and of the oracle
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
        depths, last = self.outcomes[self.method].exit_depths, self.test.num_frames - 1
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
        exits = self.outcomes[self.method].exit_depths
        return torch.stack([(exits == depth).double().mean(0) for depth in range(self.test.num_exits)], dim=1).numpy()

    def confusion(self) -> np.ndarray:
        """Counts ``[C, C]``: rows are the truth (the first class of a video), columns the prediction."""
        return confusion(self.outcomes[self.method].logits, self.test.table.labels).numpy()

    def trace(self, method: str) -> pd.DataFrame:
        """Predictions of a policy, one row a video, with its cost and the depths of its exits in visiting order."""
        outcomes, table, names = self.outcomes[method], self.test.table, np.array(self.classes)
        probabilities = self.test.readout.probabilities(outcomes.logits)
        return pd.DataFrame(
            {
                "method": method,
                "video": table.videos,
                "group": table.groups,
                "truth": names[table.labels],
                "prediction": names[outcomes.predictions],
                "correct": is_correct(probabilities, table.truth),
                "confidence": probabilities.amax(1),
                "frames": outcomes.frames,
                "gmacs": outcomes.gmacs,
                "exit_depths": [" ".join(str(b) for b in path if b >= 0) for path in outcomes.exit_depths.tolist()],
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
        save_table("evaluate", "trace", pd.concat([self.trace(method) for method in self.outcomes]), checked=True)
        save_table("evaluate", "confusion", self.trace(self.method)[["truth", "prediction"]])


def evaluate_splits(params: Params) -> Evaluation:
    """Compare policies on the stored exit features, with the trained gates.

    With ``evaluate.folds``, and more than one group in ``val``, the row of a method that decides by thresholds also has
    the cross-validated score and cost of its search (``cv_score``, ``cv_gmacs``, see ``cross_validate``); the
    estimates on ``val`` of one that decides by values are cross-validated themselves, see ``learned``.
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
    outcomes = {name: test.run(policy) for name, policy in policies.items()} | {"oracle": oracle(test)}
    full = outcomes["full"]
    rows = [
        policy_row(name, test, outcome, full, settings.bootstrap, seed)
        | ({"val_score": search.score(chosen[name]), "val_gmacs": chosen[name].gmacs} if name in chosen else {})
        for name, outcome in outcomes.items()
    ]
    fronts = [(name, candidate) for name, tried in found.items() for candidate in frontier(tried)]
    points = [
        test.point(name, outcome) | {"val_gmacs": candidate.gmacs}
        for (name, candidate), outcome in zip(
            fronts, test.sweep([candidate.policy for _, candidate in fronts]), strict=True
        )
    ]
    bound = [oracle_curve(test, outcomes["oracle"])] if settings.metric == "top1" else []
    curves = pd.concat([pd.DataFrame(points), *bound], ignore_index=True)
    table = pd.DataFrame(rows).merge(_areas(curves, val, full), on="method", how="left")
    versus = paired(method, test, outcomes, settings.bootstrap, seed)
    videos = per_video(found, search, test, settings).assign(split=params.dataset.split, seed=seed)
    return Evaluation(method, test, policies, outcomes, table, curves, versus, videos)


def family_names(params: Params, split: Split) -> list[str]:
    """Return the families compared: the full network, those of the method, and those of the literature."""
    own, spaces = params.model.method, threshold_families(params, split)
    learned = [own] if decides_by_value(params) else []
    return ["full", *spaces, *learned, *(name for name in baselines.FAMILIES if name not in spaces)]


def decides_by_value(params: Params) -> bool:
    """True if the method's policy is of the kind ``OptimalStopping``, which only TLEE's can be."""
    return params.model.method == "tlee" and params.evaluate.rule == "optimal_stopping"


def threshold_families(params: Params, split: Split) -> dict[str, tuple[Coordinate, ...]]:
    """Families of thresholds of the method, see ``search.families``; its own has another name if values decide."""
    own = params.model.method
    spaces = families(own, split.num_exits, gated=bool(split.readout.gates))
    return {f"{name}_thresholds" if name == own and decides_by_value(params) else name: spaces[name] for name in spaces}


def candidates(family: str, search: Search, params: Params) -> list[Candidate]:
    """Run all policies of a family on the split of ``search``."""
    split, spaces = search.split, threshold_families(params, search.split)
    if family in spaces:
        return search.explore(spaces[family], fixed_thresholds(params.evaluate))
    if family in baselines.FAMILIES:
        return search.measure_all(baselines.FAMILIES[family](split, params.seed))
    if family == params.model.method and decides_by_value(params):
        return learned(search, params)
    return [search.full]


def learned(search: Search, params: Params) -> list[Candidate]:
    """Return TLEE's own policies on the split of ``search``, as paths from conservative to aggressive.

    They are those of ``ValueIteration``, one for each price, and, since few videos may teach less than confidence
    knows, those with one confidence threshold, from each depth on; and the full network. With ``evaluate.folds``, and
    more than one group, the former are judged by cross-validation: by the outcomes, on each fold, of the policy that is
    fitted at its price on the groups of the other folds.
    """
    split = search.split

    def fit(part: Split) -> list[Policy]:
        iteration = ValueIteration(part, params.seed)
        return [iteration.policy(price) for price in PRICES]

    policies, crosses = fit(split), can_cross_validate(split, params)
    outcomes = out_of_fold(split, fit, params.evaluate.folds, params.seed) if crosses else split.sweep(policies)
    paths: list[list[tuple[Policy | GivenExits, Outcomes]]] = [list(zip(policies, outcomes, strict=True))]
    for shallowest in range(split.num_exits):
        levels = [Thresholds.one_confidence(level, shallowest, split.num_exits) for level in baselines.LEVELS]
        paths.append(list(zip(levels, split.sweep(levels), strict=True)))
    never = replace(search.full, unseen_score=search.score(search.full))
    return [never, *(candidate for path in paths for candidate in search.judge_path(path))]


def can_cross_validate(split: Split, params: Params) -> bool:
    """True if ``evaluate.folds`` asks for cross-validation and the split has more than one group."""
    return params.evaluate.folds > 0 and len(set(split.table.groups)) > 1


def pick(tried: list[Candidate], search: Search, settings: EvaluateParams) -> Candidate:
    """Choose the policy within the user's budget: of GMACs, or of points to lose."""
    if settings.max_gmacs is not None:
        return afford(tried, settings.max_gmacs, settings.confidence)
    return choose(tried, search.full, settings.max_loss, settings.confidence, search.score)


def simplest(policy: Policy | GivenExits) -> Policy | GivenExits:
    """Remove thresholds that cannot be reached; the decisions are the same."""
    return policy.reachable() if isinstance(policy, Thresholds) else policy


def cross_validate(val: Split, params: Params) -> Outcomes:
    """Cross-validate the choice of the method's policy on ``val``, in ``evaluate.folds`` folds of its groups."""

    def search_in(part: Split) -> list[Policy | GivenExits]:
        search = Search(part)
        return [pick(candidates(params.model.method, search, params), search, params.evaluate).policy]

    return out_of_fold(val, search_in, params.evaluate.folds, params.seed)[0]


def fixed_thresholds(params: EvaluateParams) -> dict[str, float]:
    """Thresholds that the user has set to one number for all depths, by field of ``Thresholds``."""
    values = {field.name: getattr(params, f"{field.name}_threshold") for field in fields(Thresholds)}
    return {name: float(value) for name, value in values.items() if value != "auto"}


def _areas(curves: pd.DataFrame, val: Split, full: Outcomes) -> pd.DataFrame:
    """Area under each curve of more than one point, see ``comparison.area_under``."""
    gmacs, chance = full.gmacs.mean().item(), chance_level(val.table.truth)
    areas = {name: area_under(curve, gmacs, chance) for name, curve in curves.groupby("method") if len(curve) > 1}
    return pd.DataFrame(areas.items(), columns=["method", "area"])
