"""Policies on one scale: thresholds chosen on ``val``, accuracy and cost reported on ``test``."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import scipy.stats
import torch

from tlee.costs import Costs, count_costs
from tlee.features import FeatureTable, load_features
from tlee.frames import load_clips
from tlee.metrics import confusion
from tlee.model import Readout, load_trained
from tlee.params import EvaluateParams, Params
from tlee.paths import POLICY
from tlee.policies import LiveFeatures, Outcomes, Policy, RandomExits, StoredFeatures, Thresholds, run
from tlee.records import save_json, save_metrics, save_table
from tlee.search import Search, choose, families, frontier

RANDOM_CHANCES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
RANDOM_DRAWS = 10


@dataclass(frozen=True)
class Split:
    """One split's exit features with what it takes to run policies on them."""

    table: FeatureTable
    readout: Readout
    costs: Costs

    @property
    def source(self) -> StoredFeatures:
        return StoredFeatures(self.table.features)

    def run(self, policy: Policy) -> Outcomes:
        return run(self.source, self.readout, policy, self.costs)


@dataclass(frozen=True)
class Evaluation:
    """What comes out of the comparison; every number is of ``test`` unless it says ``val``."""

    test: Split
    policies: dict[str, Thresholds]  #: chosen on val, by method
    outcomes: dict[str, Outcomes]  #: of those policies
    table: pd.DataFrame  #: one row a method
    curves: pd.DataFrame  #: ``method, gmacs, accuracy, frames``: the frontiers found on val

    @property
    def classes(self) -> list[str]:
        return self.test.table.classes

    def thresholds(self, method: str = "tlee") -> pd.DataFrame:
        """The thresholds of a method: one row a decision, one column a depth."""
        rows = {name: pd.Series(values) for name, values in asdict(self.policies[method]).items()}
        return pd.DataFrame(rows).T.add_prefix("depth ").rename_axis("threshold")

    def exit_shares(self, method: str = "tlee") -> np.ndarray:
        """``[T, B + 1]``: the share of all videos whose ``t``-th visited frame was left at depth ``b``."""
        exits, depths = self.outcomes[method].exits, len(self.test.costs.segments)
        return torch.stack([(exits == depth).double().mean(0) for depth in range(depths)], dim=1).numpy()

    def confusion(self, method: str = "tlee") -> np.ndarray:
        """Counts ``[C, C]``: rows are the truth, columns the prediction."""
        return confusion(self.outcomes[method].logits, self.test.table.labels).numpy()

    def trace(self, method: str = "tlee") -> pd.DataFrame:
        """One row a video: what was said of it, at which cost, and the depth of each exit in visiting order."""
        outcomes, names = self.outcomes[method], np.array(self.classes)
        return pd.DataFrame(
            {
                "video": self.test.table.videos,
                "truth": names[self.test.table.labels],
                "prediction": names[outcomes.predictions],
                "confidence": outcomes.logits.softmax(1).amax(1),
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
        trace = self.trace()
        save_table("evaluate", "methods", self.table)
        save_table("evaluate", "trade_off", self.curves)
        save_table("evaluate", "exits", shares.melt("frame", var_name="exit", value_name="share"))
        save_table("evaluate", "trace", trace)
        save_table("evaluate", "confusion", trace[["truth", "prediction"]])


def evaluate_splits(params: Params) -> Evaluation:
    """The comparison on the stored exit features, with the trained gate."""
    model, _ = load_trained(params.model, "pretrain", "branches", "gates")
    costs = count_costs(model)
    val, test = (Split(load_features(split), model.readout, costs) for split in ("val", "test"))
    return evaluate(val, test, params.evaluate, params.seed)


def evaluate(val: Split, test: Split, params: EvaluateParams, seed: int) -> Evaluation:
    """Search every family of policies on ``val``, run what was chosen and its frontier on ``test``."""
    search = Search(val.source, val.table.labels, val.readout, val.costs)
    chosen, frontiers = {"full": search.full}, {"full": [search.full]}
    for method, coordinates in families(len(val.costs.segments)).items():
        candidates = search.explore(coordinates, fixed_thresholds(params))
        frontiers[method] = frontier(candidates)
        chosen[method] = choose(candidates, search.full, params.max_loss)
    labels = test.table.labels
    outcomes = {method: test.run(candidate.policy) for method, candidate in chosen.items()}
    full = outcomes["full"]
    rows = [
        compare(method, outcome, full, labels, params.bootstrap, seed)
        | {"val_accuracy": chosen[method].accuracy, "val_gmacs": chosen[method].gmacs}
        for method, outcome in outcomes.items()
    ]
    randoms = random_curve(test, seed)
    nearest = (randoms["gmacs"] - outcomes["tlee"].gmacs.mean().item()).abs().idxmin()
    rows.append(randoms.loc[nearest].to_dict())
    rows.append(compare("oracle", oracle(test), full, labels, params.bootstrap, seed))
    points = [
        point(method, test.run(candidate.policy), labels)
        for method, candidates in frontiers.items()
        for candidate in candidates
    ]
    table = pd.DataFrame(rows)
    table.insert(5, "share_of_full", table["gmacs"] / full.gmacs.mean().item())
    curves = pd.concat([pd.DataFrame(points), randoms], ignore_index=True)
    policies = {method: candidate.policy.reachable() for method, candidate in chosen.items()}
    return Evaluation(test, policies, outcomes, table, curves)


def step_by_step_agreement(evaluation: Evaluation, params: Params, method: str = "tlee") -> float:
    """Share of test videos on which the network, run frame by frame with real exits, does as the replay did.

    The same exits, the same prediction and the same cost; nothing of the stored features is used.
    """
    model, _ = load_trained(params.model, "pretrain", "branches", "gates")
    clips = load_clips("test", params.extract, params.model)
    replayed, split = evaluation.outcomes[method], evaluation.test
    same = []
    for frames, _, row in clips:
        live = run(LiveFeatures(model, frames), model.readout, evaluation.policies[method], split.costs)
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
        by_depth = [readout.classifier(readout.prefixes(each)) for each in table.features.unbind(2)]
    logits = torch.stack(by_depth, dim=2)  # [N, T, B + 1, C]
    right = (logits.argmax(-1) == table.labels[:, None, None]).flatten(1)
    frame = torch.tensor(costs.segments).cumsum(0) + torch.tensor(costs.heads)
    count = torch.arange(1, frames + 1)[:, None]
    cost = (count * frame + (count - 1) * costs.reuse + costs.classifier).flatten()
    cheapest = torch.where(right, cost, cost.max() + 1).argmin(1)
    taken = torch.where(right.any(1), cheapest, frames * depths - 1)
    step, depth = taken // depths, taken % depths
    exits = torch.where(torch.arange(frames) <= step[:, None], depth[:, None], -1)
    return Outcomes(logits[torch.arange(videos), step, depth], exits, cost[taken])


def random_curve(split: Split, seed: int) -> pd.DataFrame:
    """Random exits at several chances, each the mean of several draws; one row a chance."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for chance in RANDOM_CHANCES:
        policy = RandomExits(chance, chance, generator)
        drawn = [point("random", split.run(policy), split.table.labels) for _ in range(RANDOM_DRAWS)]
        rows.append({"method": "random", **pd.DataFrame(drawn).drop(columns="method").mean()})
    return pd.DataFrame(rows)


def point(method: str, outcomes: Outcomes, labels: torch.Tensor) -> dict:
    """Where a policy lies: accuracy, mean GMACs and mean frames of a video."""
    return {
        "method": method,
        "accuracy": (outcomes.predictions == labels).double().mean().item(),
        "gmacs": outcomes.gmacs.mean().item(),
        "frames": outcomes.frames.double().mean().item(),
    }


def compare(method: str, outcomes: Outcomes, full: Outcomes, labels: torch.Tensor, resamples: int, seed: int) -> dict:
    """A policy's point with 95% intervals: of its accuracy, and of its gain on the full network (paired by video)."""
    right = (outcomes.predictions == labels).double().numpy()
    difference = right - (full.predictions == labels).double().numpy()
    low, high = interval(right, resamples, seed)
    difference_low, difference_high = interval(difference, resamples, seed)
    where = point(method, outcomes, labels)
    return {
        "method": method,
        "accuracy": where["accuracy"],
        "low": low,
        "high": high,
        "gmacs": where["gmacs"],
        "frames": where["frames"],
        "difference": difference.mean(),
        "difference_low": difference_low,
        "difference_high": difference_high,
    }


def interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """95% interval of the mean of one value a video: bootstrap, percentile method.

    Where all videos have the same value, resampling sees no spread; then the exact binomial interval says how
    often another one might turn up.
    """
    if np.ptp(values) == 0:
        margin = 1 - scipy.stats.binomtest(len(values), len(values)).proportion_ci().low
        return float(values[0] - margin), float(min(values[0] + margin, 1))
    result = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
