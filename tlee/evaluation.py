"""Policies on one scale: thresholds chosen on ``val``, score and cost reported on ``test``."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch

from tlee import intervals
from tlee.costs import Costs, count_costs
from tlee.features import FeatureTable, load_features
from tlee.frames import load_clips
from tlee.inference import LiveFeatures, Outcomes, Source, StoredFeatures, follow, run
from tlee.metrics import METRICS, confusion, hits, mean_average_precision, top5
from tlee.model import Readout, load_trained
from tlee.params import EvaluateParams, Params
from tlee.paths import POLICY
from tlee.policies import RandomExits, Thresholds
from tlee.records import save_json, save_metrics, save_table
from tlee.search import Search, choose, families, frontier

RANDOM_CHANCES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
RANDOM_DRAWS = 10


@dataclass(frozen=True)
class Split:
    """One split's exit features with what it takes to run policies on them, and the metric that counts."""

    table: FeatureTable
    readout: Readout
    costs: Costs
    metric: str

    @property
    def source(self) -> StoredFeatures:
        return StoredFeatures(self.table.features)

    def run(self, policy: Thresholds | RandomExits) -> Outcomes:
        return run_any(self.source, self.readout, policy, self.costs)

    def score(self, outcomes: Outcomes) -> float:
        return METRICS[self.metric](self.readout.probabilities(outcomes.logits), self.table.truth)

    def point(self, method: str, outcomes: Outcomes) -> dict:
        """Where a policy lies: score, mean GMACs and mean frames of a video."""
        return {
            "method": method,
            "score": self.score(outcomes),
            "gmacs": outcomes.gmacs.mean().item(),
            "frames": outcomes.frames.double().mean().item(),
        }


def run_any(source: Source, readout: Readout, policy: Thresholds | RandomExits, costs: Costs) -> Outcomes:
    """Run a policy that decides by what it sees, or one whose exits are drawn beforehand."""
    if isinstance(policy, Thresholds):
        return run(source, readout, policy, costs)
    return follow(source, readout, policy.paths(source.videos, source.frames, len(costs.segments)), costs)


@dataclass(frozen=True)
class Evaluation:
    """What comes out of the comparison; every number is of ``test`` unless it says ``val``."""

    method: str  #: ``model.method``, whose policy the next stage exports
    test: Split
    policies: dict[str, Thresholds | RandomExits]  #: chosen on val, by method
    outcomes: dict[str, Outcomes]  #: of those policies
    table: pd.DataFrame  #: one row a method
    curves: pd.DataFrame  #: ``method, gmacs, score, frames``: the frontiers found on val

    @property
    def classes(self) -> list[str]:
        return self.test.table.classes

    def thresholds(self) -> pd.DataFrame:
        """The policy of the method: one row a decision, one column a depth; of random exits their chance."""
        policy = self.policies[self.method]
        if isinstance(policy, RandomExits):
            return pd.DataFrame({"chance": [policy.chance]}, index=["every exit"])
        rows = {name: pd.Series(values) for name, values in asdict(policy).items()}
        return pd.DataFrame(rows).T.add_prefix("depth ").rename_axis("threshold")

    def exit_shares(self) -> np.ndarray:
        """``[T, B + 1]``: the share of all videos whose ``t``-th visited frame was left at depth ``b``."""
        exits, depths = self.outcomes[self.method].exits, len(self.test.costs.segments)
        return torch.stack([(exits == depth).double().mean(0) for depth in range(depths)], dim=1).numpy()

    def confusion(self) -> np.ndarray:
        """Counts ``[C, C]``: rows are the truth (the first class of a video), columns the prediction."""
        return confusion(self.outcomes[self.method].logits, self.test.table.labels).numpy()

    def trace(self, method: str) -> pd.DataFrame:
        """One row a video: what a policy said of it, at which cost, and the depth of each exit in visiting order."""
        outcomes, table, names = self.outcomes[method], self.test.table, np.array(self.classes)
        probabilities = self.test.readout.probabilities(outcomes.logits)
        return pd.DataFrame(
            {
                "method": method,
                "video": table.videos,
                "group": table.groups,
                "truth": names[table.labels],
                "prediction": names[outcomes.predictions],
                "right": hits(probabilities, table.truth),
                "confidence": probabilities.amax(1),
                "frames": outcomes.frames,
                "gmacs": outcomes.gmacs,
                "exits": [" ".join(str(b) for b in path if b >= 0) for path in outcomes.exits.tolist()],
            }
        )

    def write(self, agreement: float) -> None:
        """Write metrics, the tables behind the figures, and the policies for the stages that follow."""
        rows = self.table.set_index("method").iterrows()
        metrics = {method: row.dropna().to_dict() for method, row in rows}
        save_metrics("evaluate", metrics | {"step_by_step_agreement": agreement})
        save_json(POLICY, {method: asdict(policy) for method, policy in self.policies.items()})
        shares = pd.DataFrame(self.exit_shares()).add_prefix("depth ").rename_axis("frame").reset_index()
        save_table("evaluate", "methods", self.table)
        save_table("evaluate", "trade_off", self.curves)
        save_table("evaluate", "exits", shares.melt("frame", var_name="exit", value_name="share"))
        save_table("evaluate", "trace", pd.concat([self.trace(method) for method in self.outcomes]))
        save_table("evaluate", "confusion", self.trace(self.method)[["truth", "prediction"]])


def evaluate_splits(params: Params) -> Evaluation:
    """The comparison on the stored exit features, with the trained gate."""
    model, _ = load_trained(params, "pretrain", "branches", "gates")
    costs = count_costs(model)
    val, test = (Split(load_features(split), model.readout, costs, params.evaluate.metric) for split in ("val", "test"))
    return evaluate(val, test, params)


def evaluate(val: Split, test: Split, params: Params) -> Evaluation:
    """Search the method's families of policies on ``val``, run what was chosen and the frontiers on ``test``."""
    method, settings, seed = params.model.method, params.evaluate, params.seed
    search = Search(val.source, val.table.truth, val.readout, val.costs, val.metric)
    chosen, frontiers = {"full": search.full}, {"full": [search.full]}
    for name, coordinates in families(method, len(val.costs.segments), gated=bool(val.readout.gates)).items():
        candidates = search.explore(coordinates, fixed_thresholds(settings))
        frontiers[name] = frontier(candidates)
        chosen[name] = choose(candidates, search.full, settings.max_loss, search.score)
    policies = {name: candidate.policy.reachable() for name, candidate in chosen.items()}
    if method == "random":
        policies["random"] = choose_random(val, search.score(search.full.policy) - settings.max_loss / 100, seed)
    outcomes = {name: test.run(policy) for name, policy in policies.items()}
    full = outcomes["full"]
    rows = [
        compare(name, test, outcome, full, settings, seed) | _on_val(val, policies[name])
        for name, outcome in outcomes.items()
    ]
    randoms = random_curve(test, seed)
    if method != "random":
        nearest = (randoms["gmacs"] - outcomes[method].gmacs.mean().item()).abs().idxmin()
        rows.append(randoms.loc[nearest].to_dict())
    rows.append(compare("oracle", test, oracle(test), full, settings, seed))
    points = [test.point(name, test.run(candidate.policy)) for name, found in frontiers.items() for candidate in found]
    table = pd.DataFrame(rows)
    table.insert(7, "share_of_full", table["gmacs"] / full.gmacs.mean().item())
    return Evaluation(method, test, policies, outcomes, table, pd.concat([pd.DataFrame(points), randoms]))


def _on_val(val: Split, policy: Thresholds | RandomExits) -> dict[str, float]:
    point = val.point("", val.run(policy))
    return {"val_score": point["score"], "val_gmacs": point["gmacs"]}


def choose_random(val: Split, at_least: float, seed: int) -> RandomExits:
    """The cheapest random exits whose score on val is ``at_least`` this; the most careful ones if none is."""
    for chance in reversed(RANDOM_CHANCES):
        policy = RandomExits(chance, seed)
        if val.score(val.run(policy)) >= at_least:
            return policy
    return RandomExits(RANDOM_CHANCES[0], seed)


def step_by_step_agreement(evaluation: Evaluation, params: Params) -> float:
    """Share of test videos on which the network, run frame by frame with real exits, does as the replay did.

    The same exits, the same prediction and the same cost; nothing of the stored features is used. A temporal
    shift makes features depend on earlier exits, so there, and only there, the replay is an approximation.
    """
    model, _ = load_trained(params, "pretrain", "branches", "gates")
    clips = load_clips("test", params)
    split, method = evaluation.test, evaluation.method
    replayed, policy = evaluation.outcomes[method], evaluation.policies[method]
    same = []
    for clip, _, row in clips:
        source = LiveFeatures(model, clip)
        if isinstance(policy, Thresholds):
            live = run(source, model.readout, policy, split.costs)
        else:
            live = follow(source, model.readout, replayed.exits[row : row + 1], split.costs)
        same.append(
            torch.equal(live.exits[0], replayed.exits[row])
            and torch.equal(live.predictions[0], replayed.predictions[row])
            and torch.equal(live.macs[0], replayed.macs[row])
        )
    return float(np.mean(same))


def fixed_thresholds(params: EvaluateParams) -> dict[str, float]:
    """The thresholds that the user has set to one number for all depths, by field of ``Thresholds``."""
    values = {
        "leave": params.layer_threshold,
        "first": params.first_threshold,
        "gate": params.gate_threshold,
        "sure": params.stop_threshold,
    }
    return {name: float(value) for name, value in values.items() if value != "auto"}


def oracle(split: Split) -> Outcomes:
    """For each video the cheapest exit that is right, among those where all frames leave at one depth.

    A video that no exit gets right costs the full network. No policy can know these exits: a bound.
    """
    table, readout, costs = split.table, split.readout, split.costs
    videos, frames, depths, _ = table.features.shape
    with torch.inference_mode():
        by_depth = [readout.prefix_logits(table.features, depth) for depth in range(depths)]
    logits = torch.stack(by_depth, dim=2).flatten(1, 2)  # [N, T * (B + 1), C]
    right = hits(logits.flatten(0, 1), table.truth.repeat_interleave(frames * depths, 0)).view(videos, -1)
    heads = torch.tensor(costs.heads)
    heads = heads.cumsum(0) if readout.folds_visited else heads
    folds = torch.arange(1, depths + 1) if readout.folds_visited else torch.ones(depths, dtype=torch.long)
    count = torch.arange(1, frames + 1)[:, None]
    frame = torch.tensor(costs.segments).cumsum(0) + heads + folds * costs.reuse
    cost = (count * frame - costs.reuse + costs.classifier).flatten()
    cheapest = torch.where(right, cost, cost.max() + 1).argmin(1)
    taken = torch.where(right.any(1), cheapest, frames * depths - 1)
    step, depth = taken // depths, taken % depths
    exits = torch.where(torch.arange(frames) <= step[:, None], depth[:, None], -1)
    return Outcomes(logits[torch.arange(videos), taken], exits, cost[taken])


def random_curve(split: Split, seed: int) -> pd.DataFrame:
    """Random exits at several chances, each the mean of several draws; one row a chance."""
    rows = []
    for chance in RANDOM_CHANCES:
        draws = [RandomExits(chance, seed + draw) for draw in range(RANDOM_DRAWS)]
        drawn = [split.point("random", split.run(policy)) for policy in draws]
        rows.append({"method": "random", **pd.DataFrame(drawn).drop(columns="method").mean()})
    return pd.DataFrame(rows)


def compare(method: str, split: Split, outcomes: Outcomes, full: Outcomes, params: EvaluateParams, seed: int) -> dict:
    """A policy's point with 95% intervals: of its score, and of its gain on the full network (paired by video)."""
    table = split.table
    probabilities, baseline = (split.readout.probabilities(each.logits) for each in (outcomes, full))
    where = split.point(method, outcomes)
    if split.metric == "top1":
        right, right_full = (hits(each, table.truth).double().numpy() for each in (probabilities, baseline))
        low, high = intervals.of_mean(right, params.bootstrap, seed)
        difference_low, difference_high = intervals.of_mean(right - right_full, params.bootstrap, seed)
    else:
        metric, videos = METRICS[split.metric], len(table.labels)
        low, high = intervals.of_statistic(
            lambda rows: metric(probabilities[rows], table.truth[rows]), videos, params.bootstrap, seed
        )
        difference_low, difference_high = intervals.of_statistic(
            lambda rows: metric(probabilities[rows], table.truth[rows]) - metric(baseline[rows], table.truth[rows]),
            videos,
            params.bootstrap,
            seed,
        )
    return {
        "method": method,
        "score": where["score"],
        "low": low,
        "high": high,
        "top5": top5(probabilities, table.truth),
        "map": mean_average_precision(probabilities, table.truth),
        "gmacs": where["gmacs"],
        "frames": where["frames"],
        "difference": where["score"] - split.score(full),
        "difference_low": difference_low,
        "difference_high": difference_high,
    }
