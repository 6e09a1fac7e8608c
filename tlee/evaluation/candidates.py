"""The policies of each family, run on the split that the choice is made on."""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from tlee import intervals
from tlee.evaluation import baselines
from tlee.evaluation.cross_validation import out_of_fold
from tlee.evaluation.per_video import video_areas
from tlee.evaluation.replay import Split
from tlee.evaluation.search import Candidate, Coordinate, PolicyPath, Search, families, frontier
from tlee.evaluation.value_iteration import PRICES, ValueIteration
from tlee.params import EvaluateParams, Params
from tlee.policies.given import GivenExits
from tlee.policies.policy import Policy
from tlee.policies.thresholds import Thresholds


def family_names(params: Params, split: Split) -> list[str]:
    """Return the families compared: the full network, those of the method, and those of the literature."""
    own, spaces = params.model.method, threshold_families(params, split)
    learned = [own] if decides_by_value(params) else []
    return ["full", *spaces, *learned, *(name for name in baselines.FAMILIES if name not in spaces)]


def decides_by_value(params: Params) -> bool:
    """True if the method's policies are those of ``optimal_stopping``, which only TLEE's can be."""
    return params.model.method == "tlee" and params.evaluate.rule == "optimal_stopping"


def can_cross_validate(split: Split, params: Params) -> bool:
    """True if ``evaluate.folds`` asks for cross-validation and the split has more than one group."""
    return params.evaluate.folds > 0 and len(set(split.table.groups)) > 1


def candidates(family: str, search: Search, params: Params) -> list[Candidate]:
    """Run all policies of a family on the split of ``search``."""
    split, spaces = search.split, threshold_families(params, search.split)
    if family in spaces:
        return search.explore(spaces[family], fixed_thresholds(params.evaluate))
    if family in baselines.FAMILIES:
        return _judge([_run(path, split) for path in baselines.FAMILIES[family](split, params.seed)], search)
    if family == params.model.method and decides_by_value(params):
        return optimal_stopping(search, params)
    return [search.full]


def optimal_stopping(search: Search, params: Params) -> list[Candidate]:
    """Return TLEE's own policies on the split of ``search``, and the full network.

    They are those of ``ValueIteration``, one for each price, if these are better beyond doubt: if the 95% interval over
    groups of their gain in area (``comparison.at_budgets``) is above zero. Where too few videos teach them more than
    confidence knows, they are those with one confidence threshold, from each depth on. With ``evaluate.folds``, and
    more than one group, the former are judged by cross-validation: by the results, on each fold, of the policy that is
    fitted at its price on the groups of the other folds.
    """
    split, settings = search.split, params.evaluate

    def fit(part: Split) -> list[Policy]:
        return [*ValueIteration(part, params.seed).policies(PRICES)]

    crosses = can_cross_validate(split, params)
    policies = fit(split)
    judged_by = out_of_fold(split, fit, settings.folds, params.seed) if crosses else split.sweep(policies)
    by_value = list(zip(policies, judged_by, strict=True))
    by_confidence = [
        _run([Thresholds.one_confidence(level, shallowest, split.num_exits) for level in baselines.LEVELS], split)
        for shallowest in range(split.num_exits)
    ]
    values, thresholds = _judge([by_value], search), _judge(by_confidence, search)
    gains = _areas(values, [by_value], search) - _areas(thresholds, by_confidence, search)
    low, _ = intervals.of_mean(gains, split.table.groups, settings.bootstrap, params.seed)
    never = replace(search.full, path_score=search.score(search.full))
    return [never, *(values if low > 0 else thresholds)]


def _run(path: Sequence[Policy | GivenExits], split: Split) -> PolicyPath:
    return list(zip(path, split.sweep(path), strict=True))


def _judge(paths: Sequence[PolicyPath], search: Search) -> list[Candidate]:
    return [each for number, path in enumerate(paths) for each in search.judge_path(path, number)]


def _areas(judged: list[Candidate], paths: Sequence[PolicyPath], search: Search) -> np.ndarray:
    """Return the area under the frontier of the candidates of ``paths`` for each video of the split, ``[N]``."""
    results, curve = dict(each for path in paths for each in path), frontier(judged)
    correct = np.stack([results[each.policy].correct for each in curve])
    return video_areas(np.array([each.gmacs for each in curve]), correct, search)


def threshold_families(params: Params, split: Split) -> dict[str, tuple[Coordinate, ...]]:
    """Families of thresholds of the method, see ``search.families``; its own has another name if values decide."""
    own = params.model.method
    spaces = families(own, split.num_exits, gated=bool(split.readout.gates))
    return {f"{name}_thresholds" if name == own and decides_by_value(params) else name: spaces[name] for name in spaces}


def fixed_thresholds(params: EvaluateParams) -> dict[str, float]:
    """Thresholds that the user has set to one number for all depths, by field of ``Thresholds``."""
    values = {field.name: getattr(params, f"{field.name}_threshold") for field in fields(Thresholds)}
    return {name: float(value) for name, value in values.items() if value != "auto"}
