"""Agreement of the run in the work tree with a committed one: the same bits, what seeds make of it, or neither.

Numbers are judged by those of the committed seeds. Each is a share of one: an accuracy, a share of the GMACs.
"""

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import scipy.stats

from tlee.checksums import unsealed
from tlee.errors import UserError
from tlee.methods import display_name, in_order
from tlee.metrics import METRIC_NAMES
from tlee.paper.differences import Difference, find_differences, first_other_output
from tlee.paper.integrity import find_problems
from tlee.paper.run_files import PARAMS, Files, Metrics, Revision, Stage, WorkTree, read_metrics, read_stages, read_yaml
from tlee.params import load_params
from tlee.paths import METRICS, SEEDS

#: Confidence of the interval of each number. Of some fifty numbers together, one run in twenty has one outside by
#: chance, or fewer: numbers of one run go together. At 0.99 three of the first five committed seeds had one outside
#: what the other four made of it, at 0.999 none.
CONFIDENCE = 0.999

FEWEST_SEEDS = 3

#: Metrics of times, and of what ONNX Runtime computes, which chooses its code by the processor.
OF_THIS_MACHINE = ("latency", "edge")

LEFT_OUT = (
    "Left out, since they differ from run to run: latencies and other times, what ONNX Runtime rounds, executed "
    "notebooks and pictures."
)

_ROUNDING = 1e-6  # metrics have six digits
_SHOWN_PROBLEMS = 8


@dataclass(frozen=True)
class Number:
    """A headline number of two runs, None where a run lacks it, beside those of the committed seeds.

    ``step`` is the change that one video makes, of the split that the number is of.
    """

    name: str
    committed: float | None
    yours: float | None
    seeds: tuple[float, ...]
    step: float

    @property
    def is_judged(self) -> bool:
        return self.committed is None or self.yours is None or len(self.seeds) >= FEWEST_SEEDS

    @property
    def is_inside(self) -> bool:
        """True if seeds explain your number. One that only one of the runs has is outside."""
        if self.committed is None or self.yours is None:
            return False
        low, high = one_more_seed(self.seeds, self.step)
        return low <= self.yours <= high


def one_more_seed(values: Sequence[float], step: float) -> tuple[float, float]:
    """Return the prediction interval for the number of one more run, from those of at least two seeds.

    It is the mean of the ``k`` seeds plus and minus ``t * s * sqrt(1 + 1/k)``, where ``s`` is their standard deviation
    and ``t`` the quantile of Student's distribution with ``k - 1`` degrees of freedom, at ``CONFIDENCE``: the spread of
    one more run, and the uncertainty of the mean. The half width is at least ``step``, for seeds that happen to be
    equal, and the rounding of the metrics is added to it.
    """
    k = len(values)
    quantile = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, k - 1)
    spread = float(quantile) * statistics.stdev(values) * math.sqrt(1 + 1 / k)
    half, mean = max(spread, step) + _ROUNDING, statistics.fmean(values)
    return mean - half, mean + half


@dataclass(frozen=True)
class Agreement:
    """Result of a comparison. ``same`` is the committed run or seed whose metrics are equal; None if there is none."""

    title: str  #: of the committed run
    problems: list[str]
    same: str | None
    numbers: list[Number]  #: those that differ
    num_compared: int
    num_seeds: int
    differences: list[Difference]
    parted: tuple[str, str] | None  #: first stage and output with other bits

    @property
    def outside(self) -> list[Number]:
        return [number for number in self.numbers if number.is_judged and not number.is_inside]

    @property
    def agrees(self) -> bool:
        """True if the run has the same numbers, or each number is inside what seeds make of it."""
        if self.problems:
            return False
        return self.same is not None or (self.num_seeds >= FEWEST_SEEDS and not self.outside)

    def verdict(self) -> str:
        """State the result in one line."""
        if self.problems:
            count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
            return f"Damaged or incomplete: {count}, so the numbers are not compared with {self.title}."
        kinds = ", ".join(dict.fromkeys(each.kind for each in self.differences))
        cause = f"what differs: {kinds}" if kinds else "nothing else that is recorded differs"
        if self.same == self.title:
            same = f"numbers as {self.same}, other bits in {self.parted[1]}" if self.parted else f"bits as {self.same}"
            return f"The same {same}{f'; {cause}' if kinds or self.parted else ''}."
        if self.same:
            return f"The same numbers as {self.same}; {cause}."
        counted = f"{len(self.numbers)} of {self.num_compared} headline numbers differ from {self.title}"
        if self.num_seeds < FEWEST_SEEDS:
            seeds = (
                f"{self.num_seeds} committed seed{'s' if self.num_seeds > 1 else ''} of the same code and parameters"
            )
            return f"Different: {counted}; with {seeds} only equality can be judged (`make seeds`); {cause}."
        if self.outside:
            return f"Outside: {counted}, {len(self.outside)} of them by more than seeds make of it; {cause}."
        return f"Inside: {counted}, all within what {self.num_seeds} seeds make of it; {cause}."


def compare(revision: str = "HEAD") -> Agreement:
    """Compare the run in the work tree with that of ``revision``; the working folder is the project's root.

    Raises ``UserError`` without a git repository, for an unknown revision, and for one without a run.
    """
    metric = METRIC_NAMES[load_params().evaluate.metric]
    committed, yours = Revision.find(revision), WorkTree()
    theirs, damaged = read_metrics(committed)
    if damaged or not theirs:
        problem = f"has a damaged {damaged[0]}" if damaged else f"has no run in {METRICS}"
        raise UserError(f"{committed.title} {problem}: name another revision")
    problems = find_problems(theirs)
    mine, _ = read_metrics(yours)
    own = str(read_yaml(committed, PARAMS).get("seed"))
    seeds = {own: theirs} | {seed: each for seed, each in read_seeds(committed).items() if seed != own}
    numbers = headline_numbers(theirs, mine, list(seeds.values()), metric)
    return Agreement(
        title=committed.title,
        problems=problems,
        same=_same(mine, seeds, committed.title),
        numbers=[number for number in numbers if number.committed != number.yours],
        num_compared=len(numbers),
        num_seeds=len(seeds),
        differences=find_differences(committed, yours),
        parted=first_other_output(committed, yours),
    )


# --- seeds -------------------------------------------------------------------------------------------


def read_seeds(files: Files) -> dict[str, Metrics]:
    """Read the metrics of the committed seeds, by seed.

    Seeds that were run with other code, data or parameters than the committed run are left out. Raises ``UserError`` if
    a file is damaged.
    """
    seeds, stages = {}, read_stages(files)
    for path in files.names(SEEDS):
        if path.name != "metrics.json":
            continue
        given = files.read(path.with_name("inputs.json"))
        try:
            if given is None or _has_inputs(stages, unsealed(json.loads(given))):
                metrics = unsealed(json.loads(files.read(path) or ""))
                seeds[path.parent.name.removeprefix("seed")] = {name: dict(each) for name, each in metrics.items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise UserError(f"{path.parent} of {files.title} is damaged: `make seeds` makes it again") from None
    return seeds


def _has_inputs(stages: dict[str, Stage], inputs: dict[str, dict[str, str]]) -> bool:
    """Return True if the stages had these inputs: parameters by dotted key, hashes of code and data by path."""
    for name, expected in inputs.items():
        stage = stages.get(name, Stage())
        found = stage.settings | {each.path: each.md5 for each in stage.deps}
        if any(str(found.get(key)) != value for key, value in expected.items()):
            return False
    return True


def _same(mine: Metrics, seeds: dict[str, Metrics], title: str) -> str | None:
    """Name the run among ``seeds``, the first of which is the committed one, with the same metrics."""
    names = [title, *(f"the committed seed {seed}" for seed in list(seeds)[1:])]
    wanted = _compared(mine)
    return next((name for name, each in zip(names, seeds.values(), strict=True) if _compared(each) == wanted), None)


def _compared(metrics: Metrics) -> str:
    """Return the metrics but those of this machine, as text: two that are not numbers are equal."""
    return json.dumps({name: each for name, each in metrics.items() if name not in OF_THIS_MACHINE}, sort_keys=True)


# --- headline numbers --------------------------------------------------------------------------------


def headline_numbers(theirs: Metrics, mine: Metrics, seeds: Sequence[Metrics], metric: str) -> list[Number]:
    """List the headline numbers of either run; ``metric`` is the name of ``evaluate.metric`` in tables."""
    committed, yours = (dict(_headline(each, metric)) for each in (theirs, mine))
    others = [dict(_headline(each, metric)) for each in seeds]
    sizes = theirs.get("extract", {})
    steps = {split: 1 / sizes[split] if sizes.get(split) else 0.0 for split in ("val", "test")}
    return [
        Number(
            name,
            committed.get((name, split)),
            yours.get((name, split)),
            tuple(each[name, split] for each in others if (name, split) in each),
            steps[split],
        )
        for name, split in dict.fromkeys([*committed, *yours])
    ]


def _headline(metrics: Metrics, metric: str) -> Iterator[tuple[tuple[str, str], float]]:
    """Yield name and split of each headline number, and the number; others than finite numbers are left out."""
    rows: list[tuple[str, str, Any]] = []
    for stage in ("pretrain", "branches", "gates"):
        rows += [(f"{stage}: {key}", "val", value) for key, value in metrics.get(stage, {}).items() if key != "loss"]
    policies = {name: row for name, row in metrics.get("evaluate", {}).items() if isinstance(row, dict)}
    for name in in_order(policies):
        for key, title in {"score": metric, "share_of_full": "share of GMACs"}.items():
            rows.append((f"{display_name(name)}: {title}", "test", policies[name].get(key)))
    guaranteed = metrics.get("guarantee", {}).get("test", {})
    for key, title in {"harm": "harm", "share_of_full": "share of GMACs"}.items():
        rows.append((f"guaranteed policy: {title}", "test", guaranteed.get(key)))
    for name, split, value in rows:
        if isinstance(value, int | float) and math.isfinite(value):
            yield (name, split), float(value)


# --- report ------------------------------------------------------------------------------------------


def report(agreement: Agreement) -> str:
    """Format the verdict, and as tables the numbers and the settings that differ, as Markdown."""
    parts = [agreement.verdict()]
    if agreement.problems:
        listed = [f"- {problem}" for problem in agreement.problems[:_SHOWN_PROBLEMS]]
        if hidden := len(agreement.problems) - len(listed):
            listed.append(f"- and {hidden} more")
        return "\n".join([*parts, *listed, "`dvc repro` runs what is missing or has changed."])
    if agreement.same is None and agreement.numbers:
        parts.append(numbers_table(agreement))
    if agreement.parted and agreement.same is None:
        stage, path = agreement.parted
        parts.append(f"The runs have the same bits up to stage {stage}, whose {path} differs.")
    if agreement.differences:
        rows = [each[1:] for each in agreement.differences]
        parts.append(_markdown(rows, ["what differs", "committed", "yours"]))
    return "\n\n".join([*parts, LEFT_OUT])


def numbers_table(agreement: Agreement) -> str:
    """Format the numbers that differ, those outside first."""
    ordered = sorted(agreement.numbers, key=lambda number: number not in agreement.outside)
    return _markdown(
        [[number.name, _percent(number.committed), _percent(number.yours), *_judged(number)] for number in ordered],
        ["number", "committed", "yours", f"one more seed ({CONFIDENCE:.1%})", ""],
    )


def _judged(number: Number) -> tuple[str, str]:
    """Return the cells of the interval and of the judgement."""
    if number.committed is None or number.yours is None:
        return "", "outside"
    if not number.is_judged:
        return "", "not judged"
    low, high = one_more_seed(number.seeds, number.step)
    return f"{_percent(max(low, 0.0))} to {_percent(min(high, 1.0))}", "inside" if number.is_inside else "outside"


def _percent(share: float | None) -> str:
    return "absent" if share is None else f"{share:.2%}"


def _markdown(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> str:
    return pd.DataFrame(rows, columns=columns).to_markdown(index=False, disable_numparse=True)
