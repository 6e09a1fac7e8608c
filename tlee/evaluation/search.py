"""Search on ``val``: a local search over per-depth thresholds that keeps every policy it has run, and the choice.

The score of a few hundred videos is discrete and noisy, so the search minimises a smooth error: the
mean of the 0/1 error and of ``1 - p(true class)``, averaged where a video has several classes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from scipy.stats import norm

from tlee.evaluation.replay import Split
from tlee.evaluation.results import Results
from tlee.levels import ALWAYS, NEVER
from tlee.policies.given import GivenExits
from tlee.policies.policy import Policy
from tlee.policies.thresholds import Thresholds

#: Values of a threshold: dense where confidences are.
LEVELS = (ALWAYS, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, NEVER)

#: Prices of an error, in runs of the full network per video: from aggressive to conservative.
PRICES = (1.0, 3.0, 10.0, 30.0, 100.0)

NEAR = 1.05  #: policies within this factor of the cheapest cost are equal; the one with fewer exits is chosen

ROUNDING = 1e-9  #: of scores, which are shares of whole numbers of videos

Coordinate = tuple[str, int]  #: field of ``Thresholds``, depth

PolicyPath = Sequence[tuple[Policy | GivenExits, Results]]  #: policies that one number makes more or less aggressive


@dataclass(frozen=True)
class Candidate:
    """A policy with its error and cost on the videos of a search, measured there or by cross-validation."""

    policy: Policy | GivenExits
    error: float  #: smooth error
    added: float  #: smooth error minus that of the full network, on the same videos; of a path: the score lost
    spread: float  #: standard error of ``added``
    gmacs: float  #: mean GMACs of a video
    gmacs_spread: float = 0.0  #: standard error of ``gmacs``
    path_score: float | None = None  #: metric, if it is that of a path, see ``Search.judge_path``
    path: int | None = None  #: number of that path in its family

    def bound(self, confidence: float, policies: int = 1) -> float:
        """Upper bound of the added error that holds for all of ``policies`` policies at once (Bonferroni)."""
        return self.added + _margin(self.spread, confidence, policies)

    def gmacs_bound(self, confidence: float) -> float:
        """Upper bound of the mean cost, for this policy alone."""
        return self.gmacs + _margin(self.gmacs_spread, confidence)


#: Families of policies that are searched for each method; the one of its own name is its policy.
COMPARED = {
    "tlee": ("frameexit", "temporal", "layer", "tlee_gate", "tlee"),
    "frameexit": ("frameexit", "temporal"),
    "layer": ("layer",),
    "full": (),
    "random": (),
}


def families(method: str, num_exits: int, gated: bool) -> dict[str, tuple[Coordinate, ...]]:
    """Families of policies by the thresholds that are searched; all others stay at ``NEVER``.

    ``frameexit`` and ``tlee_gate`` are the systems as published; ``temporal`` and ``tlee`` are the same but may also
    stop later frames by confidence. ``frameexit`` and ``temporal`` stop videos at full depth only, ``layer`` only
    leaves frames. Families that need a gate are left out unless ``gated``.
    """
    layer = tuple(("layer", depth) for depth in range(num_exits - 1))
    first, stop = (tuple((name, depth) for depth in range(num_exits)) for name in ("first", "stop"))
    gate = tuple(("gate", depth) for depth in range(num_exits)) if gated else ()
    all_families = {
        "frameexit": (first[-1], *gate[-1:]),
        "temporal": (first[-1], *gate[-1:], stop[-1]),
        "layer": layer,
        "tlee_gate": layer + first + gate,
        "tlee": layer + first + gate + stop,
    }
    gates_alone = set() if gated else {"frameexit", "tlee_gate"} - {method}
    return {name: all_families[name] for name in COMPARED[method] if name not in gates_alone}


class Search:
    """Runs policies on one split, and keeps the results of all of them."""

    def __init__(self, split: Split, levels: tuple = LEVELS):
        self.split, self.levels = split, levels
        self.seen: dict[Policy | GivenExits, Candidate] = {}
        never = Thresholds.never(split.num_exits)
        self._scores: dict[Policy | GivenExits, float] = {}
        self.full_results = split.result(never)
        self._full_errors = self._errors(self.full_results)
        self.full = self.measure(never)

    def measure(self, policy: Policy | GivenExits) -> Candidate:
        """Run ``policy``, unless it has been run before."""
        return self.measure_all([policy])[0]

    def measure_all(self, policies: Sequence[Policy | GivenExits]) -> list[Candidate]:
        """Run those of ``policies`` that have not been run before; what they have in common is computed once."""
        new = list(dict.fromkeys(policy for policy in policies if policy not in self.seen))
        for policy, results in zip(new, self.split.sweep(new, scored=False), strict=True):
            self.seen[policy] = self._judge(policy, results)
            if self.split.metric == "top1":  # others are slow to compute, and few are asked for
                self._scores[policy] = self.split.score(results)
        return [self.seen[policy] for policy in policies]

    def judge_path(self, path: PolicyPath, number: int = 0) -> list[Candidate]:
        """Judge policies that one number makes more or less aggressive, by results that they were not searched on.

        ``number`` is that of the path in its family.

        The score that each loses is a noisy sample of a function that falls with cost: the loss is that function,
        fitted to all of them and to the full network (isotonic regression), so that no policy is chosen for its luck.
        """
        from sklearn.isotonic import IsotonicRegression  # slow to import

        judged = [self._judge(policy, results) for policy, results in path]
        scores = [self.split.score(results) for results in (self.full_results, *(results for _, results in path))]
        gmacs = [each.gmacs for each in (self.full, *judged)]
        fitted = IsotonicRegression(increasing=False).fit_transform(gmacs, [scores[0] - score for score in scores])
        lost = (fitted - fitted[0]).clip(min=0)  # of policies that cost more than the full network too
        return [
            replace(each, added=loss, spread=self._spread_of_loss(results), path_score=scores[0] - loss, path=number)
            for each, (_, results), loss in zip(judged, path, lost[1:].tolist(), strict=True)
        ]

    def _spread_of_loss(self, results: Results) -> float:
        """Standard error of the loss in the metric, by top-1: a video more has changed than is observed.

        Zero if every video costs what the full network does: then it is the full network.
        """
        full = self.full_results
        if torch.equal(results.macs, full.macs):
            return 0.0
        changed = (results.correct != full.correct).sum().item()
        return math.sqrt(changed + 1) / self.split.num_videos

    def score(self, candidate: Candidate) -> float:
        """Metric of a candidate on the videos of the split."""
        if candidate.path_score is not None:
            return candidate.path_score
        policy = candidate.policy
        if policy not in self._scores:
            self._scores[policy] = self.split.score(self.split.result(policy))
        return self._scores[policy]

    def _judge(self, policy: Policy | GivenExits, results: Results) -> Candidate:
        errors, gmacs = self._errors(results), results.gmacs
        added = errors - self._full_errors
        return Candidate(
            policy,
            error=errors.mean().item(),
            added=added.mean().item(),
            spread=_standard_error(added),
            gmacs=gmacs.mean().item(),
            gmacs_spread=_standard_error(gmacs),
        )

    def _errors(self, results: Results) -> torch.Tensor:
        """Smooth error of each video, ``[N]``."""
        likelihood = results.likelihood.double() / self.split.table.all_labels.counts
        return 1 - (results.correct.double() + likelihood) / 2

    def explore(self, coordinates: tuple[Coordinate, ...], fixed: dict[str, float]) -> list[Candidate]:
        """Search the space of ``coordinates`` at several prices of an error; return all policies run in that space.

        ``fixed`` gives fields of ``Thresholds`` that keep one value at all their coordinates.
        The best policy of this space that an earlier call has run is the starting point, so a larger space never
        gives a worse policy than a part of it that was searched before.
        """
        start = Thresholds.never(self.split.num_exits)
        for name, depth in coordinates:
            if name in fixed:
                start = _with(start, (name, depth), fixed[name])
        self.measure(start)
        free = [coordinate for coordinate in coordinates if coordinate[0] not in fixed]
        for price in PRICES:
            for depth in (depth for name, depth in free if name == "layer"):
                # A truncated network that stops at its last exit alone: many small steps from the full network.
                truncated = _with(start, ("layer", depth), ALWAYS)
                self._descend(truncated, [each for each in free if each[1] == depth and each[0] != "layer"], price)
            found = self._within(start, free)
            self._descend(min(found, key=lambda policy: self._objective(found[policy], price)), free, price)
        return list(self._within(start, free).values())

    def _descend(self, best: Thresholds, free: list[Coordinate], price: float) -> None:
        """Move one threshold at a time to its best value, until none improves."""
        improved = True
        while improved:
            improved = False
            for coordinate in free:
                trials = [_with(best, coordinate, level) for level in self.levels]
                values = [self._objective(candidate, price) for candidate in self.measure_all(trials)]
                if min(values) < self._objective(self.measure(best), price) - 1e-9:
                    best, improved = trials[values.index(min(values))], True

    def _objective(self, candidate: Candidate, price: float) -> float:
        return candidate.gmacs / self.full.gmacs + price * candidate.error

    def _within(self, start: Thresholds, free: list[Coordinate]) -> dict[Thresholds, Candidate]:
        """Return all policies run that differ from ``start`` at ``free`` coordinates only."""
        kept = [
            (name, depth, level)
            for name, levels in vars(start).items()
            for depth, level in enumerate(levels)
            if (name, depth) not in free
        ]
        return {
            policy: candidate
            for policy, candidate in self.seen.items()
            if isinstance(policy, Thresholds) and all(getattr(policy, name)[depth] == at for name, depth, at in kept)
        }


def frontier(candidates: list[Candidate]) -> list[Candidate]:
    """Return the candidates that no other beats in both smooth error and cost, cheapest first."""
    best: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: (candidate.gmacs, candidate.error)):
        if not best or candidate.error < best[-1].error:
            best.append(candidate)
    return best


def choose(
    candidates: list[Candidate],
    full: Candidate,
    max_loss: float,
    confidence: float,
    score: Callable[[Candidate], float],
) -> Candidate:
    """Choose the cheapest policy that loses at most ``max_loss`` points to the full network.

    Both the loss in ``score`` and the upper bound of the added error must be within the limit. Of policies that were
    searched on these videos the cheapest is likely to be a lucky one, so the bound holds for all of them together;
    that of policies on a path (see ``Search.judge_path``) for each alone. Of policies of about the same cost the one
    that uses the fewest exits is chosen, since an exit also takes calls and reads weights, which GMACs do not show. If
    no policy is within the limit, which happens where thresholds are fixed or all exits are poor, the one with the
    lowest bound is chosen.
    """
    limit, tests = max_loss / 100, _tests(candidates)
    allowed = [candidate for candidate in candidates if candidate.bound(confidence, tests) <= limit + ROUNDING]
    for cheapest in sorted(allowed, key=lambda candidate: candidate.gmacs):
        near = [candidate for candidate in allowed if cheapest.gmacs <= candidate.gmacs <= NEAR * cheapest.gmacs]
        near = [candidate for candidate in near if score(candidate) >= score(full) - limit - ROUNDING]
        if near:
            return min(near, key=lambda candidate: (candidate.policy.num_exits_used(), candidate.gmacs))
    return min(candidates, key=lambda candidate: (candidate.bound(confidence, tests), candidate.gmacs))


def afford(candidates: list[Candidate], max_gmacs: float, confidence: float) -> Candidate:
    """Choose the policy with the lowest bound of the added error of those that cost at most ``max_gmacs``.

    The cost counts by its upper bound too: a mean that just fits is exceeded on every other set of videos. If none
    fits, the cheapest is chosen.
    """
    fit, tests = [each for each in candidates if each.gmacs_bound(confidence) <= max_gmacs], _tests(candidates)
    if not fit:
        return min(candidates, key=lambda candidate: candidate.gmacs)
    return min(fit, key=lambda candidate: (candidate.bound(confidence, tests), candidate.gmacs))


def _tests(candidates: list[Candidate]) -> int:
    """Return the number of policies for which a bound must hold at once."""
    return len(candidates) if any(candidate.path_score is None for candidate in candidates) else 1


def _margin(standard_error: float, confidence: float, policies: int = 1) -> float:
    """Return the distance from a mean to its upper bound, where bounds hold for ``policies`` means at once."""
    deviations = _deviations((1 - confidence) / policies)
    return deviations * standard_error if deviations else 0.0  # a standard error may be infinite


@cache  # asked for at every policy of a search, and slow
def _deviations(probability: float) -> float:
    """Return by how many standard deviations a normal variable exceeds its mean with this probability."""
    return float(norm.isf(probability))


def _standard_error(values: torch.Tensor) -> float:
    """Standard error of the mean of ``values``; infinite for a single value."""
    return values.std().item() / len(values) ** 0.5 if len(values) > 1 else math.inf


def _with(policy: Thresholds, coordinate: Coordinate, level: float) -> Thresholds:
    name, depth = coordinate
    values = list(getattr(policy, name))
    values[depth] = level
    return replace(policy, **{name: tuple(values)})
