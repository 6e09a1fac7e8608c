"""Cross-validation over groups: results of policies on videos that they were not made from."""

from collections.abc import Callable, Iterator, Sequence

from tlee.evaluation.replay import Split, sweep_parts
from tlee.evaluation.results import Results
from tlee.policies.given import GivenExits
from tlee.policies.policy import Policy
from tlee.subsets import folds


def out_of_fold(
    split: Split, make: Callable[[Split], Sequence[Policy | GivenExits]], count: int, seed: int
) -> Iterator[Results]:
    """Run, on each of ``count`` folds of the groups of ``split``, the policies that ``make`` makes from all others.

    ``make`` always returns the same number of policies; one ``Results`` is yielded for each, of all videos.
    Raises ``ValueError`` for a single group.
    """
    parts = [
        (outside, split.take(outside), make(split.take(inside)))
        for inside, outside in folds(split.table.groups, count, seed)
    ]
    return sweep_parts(split, parts)
