"""Several runs of one comparison, over splits and seeds: means, with intervals over seeds and groups of videos.

Each run is the table ``videos`` of stage ``evaluate`` (see ``evaluation.per_video``). A resample draws seeds, and
groups of videos with all their results in every run, with replacement; differences and ratios are paired.
"""

import io
import lzma
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tlee.checksums import unsealed_lines
from tlee.errors import UserError
from tlee.evaluation.per_video import LIMITS
from tlee.methods import display_name, in_order

RESAMPLES = 5_000

_COLUMNS = [
    *("split", "seed", "method", "video", "group", "full", "area"),
    *(f"{name}_{limit:g}" for limit in LIMITS for name in ("correct", "share")),
]


def read_replicates(paths: Sequence[Path]) -> pd.DataFrame:
    """Read the tables ``videos.csv`` of several runs, which may be compressed (``.csv.xz``).

    Raises ``UserError`` if one cannot be read, two are of the same run, or they compare different methods.
    """
    tables, runs = [], list[tuple]()
    for path in paths:
        try:
            with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as file:
                table = pd.read_csv(io.StringIO(unsealed_lines(file.read())))
            runs.append(tuple(table.loc[0, ["split", "seed"]]))
            tables.append(table[_COLUMNS])
        except (ValueError, KeyError, EOFError, lzma.LZMAError):
            raise UserError(f"{path} is damaged or of an older kit: run it again") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): name the file of a run") from None
        if runs.index(runs[-1]) < len(runs) - 1:
            raise UserError(f"{path} and {paths[runs.index(runs[-1])]} are of the same split and seed: name each once")
        if set(table["method"]) != set(tables[0]["method"]):
            raise UserError(f"{path} and {paths[0]} compare different methods: name runs of the same parameters")
    return pd.concat(tables, ignore_index=True)


class Replicates:
    """Results of several runs: the same methods on the test videos of each.

    ``own`` is the method with which all others are compared; raises ``UserError`` if it is not among them.
    """

    def __init__(self, videos: pd.DataFrame, own: str = "tlee", seed: int = 0):
        self.own, self.methods = own, in_order(videos["method"])
        if own not in self.methods:
            raise UserError(f"these runs have no policy `{own}`: name runs of model.method {own}")
        rows = ["split", "seed", "video"]
        self._wide = videos.pivot(index=[*rows, "group"], columns="method").sort_index()
        index = self._wide.index
        self.num_runs = len(index.droplevel(["video", "group"]).unique())
        _, groups = np.unique(index.get_level_values("group"), return_inverse=True)
        _, seeds = np.unique(index.get_level_values("seed"), return_inverse=True)
        self.num_groups, self.num_seeds = groups.max() + 1, seeds.max() + 1
        rng = np.random.default_rng(seed)
        drawn = [
            rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)
            for count in (self.num_groups, self.num_seeds)
        ]
        self._cells = groups * self.num_seeds + seeds
        self._weights = np.einsum("rg,rs->rgs", *drawn).reshape(RESAMPLES, -1)

    def areas(self) -> pd.DataFrame:
        """Return one row a method: mean ``area`` with ``low`` and ``high``, and ``gain`` of ``own`` over it.

        ``gain_low`` to ``gain_high`` is the interval of the gain. All are shares, from 0 to 1.
        """
        own = self._column("area", self.own)
        rows = []
        for method in self.methods:
            other = self._column("area", method)
            area, gain = self._mean(other), self._mean(own - other)
            names = ("area", "low", "high", "gain", "gain_low", "gain_high")
            rows.append({"method": method} | dict(zip(names, (*area, *gain), strict=True)))
        return pd.DataFrame(rows)

    def scores(self, limit: float) -> pd.DataFrame:
        """Return one row a method: results of its policies that were expected to lose ``limit`` points at most.

        ``score``, top-1, with ``low`` and ``high``; ``share`` of the full network's GMACs, with ``share_low`` and
        ``share_high``. All are shares, from 0 to 1.
        """
        rows = []
        for method in self.methods:
            score, share = (self._mean(self._column(f"{name}_{limit:g}", method)) for name in ("correct", "share"))
            names = ("score", "low", "high", "share", "share_low", "share_high")
            rows.append({"method": method} | dict(zip(names, (*score, *share), strict=True)))
        return pd.DataFrame(rows)

    def losses(self, limit: float) -> pd.DataFrame:
        """Return one row a method: what its policies lost and cost that were expected to lose ``limit`` points at most.

        ``loss`` in points, with ``loss_low`` and ``loss_high``; ``share`` of the full network's GMACs; ``ratio``, the
        cost of ``own`` as a share of that of the method, with ``ratio_low`` and ``ratio_high``; ``worst_run``, the
        largest loss of a run.
        """
        own = self._column(f"share_{limit:g}", self.own)
        rows = []
        for method in self.methods:
            full, correct = self._column("full", method), self._column(f"correct_{limit:g}", method)
            share, lost = self._column(f"share_{limit:g}", method), 100 * (full - correct)
            by_run = pd.Series(lost, self._wide.index).groupby(["split", "seed"]).mean()
            names = ("loss", "loss_low", "loss_high", "ratio", "ratio_low", "ratio_high")
            numbers = dict(zip(names, (*self._mean(lost), *self._ratio(own, share)), strict=True))
            rows.append({"method": method, "share": share.mean(), "worst_run": by_run.max()} | numbers)
        return pd.DataFrame(rows)

    def _column(self, name: str, method: str) -> np.ndarray:
        return self._wide[name, method].to_numpy(float)

    def _mean(self, values: np.ndarray) -> tuple[float, float, float]:
        return self._ratio(values, np.ones(len(values)))

    def _ratio(self, numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float, float]:
        """Return the ratio of two sums and its 95% interval (percentiles of the resamples that are not empty)."""
        top, bottom = (self._resampled(values) for values in (numerator, denominator))
        drawn = bottom > 0  # a seed that was drawn may not have been run on the groups that were
        low, high = np.percentile(top[drawn] / bottom[drawn], [2.5, 97.5])
        return float(numerator.sum() / denominator.sum()), float(low), float(high)

    def _resampled(self, values: np.ndarray) -> np.ndarray:
        sums = np.bincount(self._cells, values, minlength=self._weights.shape[1])
        return self._weights @ sums


def markdown(replicates: Replicates) -> str:
    """Format the areas, and for each limit the losses, as Markdown."""
    runs = (
        f"{replicates.num_runs} runs, {replicates.num_seeds} seeds, {replicates.num_groups} groups of test videos; "
        "95% intervals over seeds and groups."
    )
    return "\n\n".join([runs, areas_table(replicates), *(losses_table(replicates, limit) for limit in LIMITS)])


def areas_table(replicates: Replicates) -> str:
    """Format ``Replicates.areas``, in points, as a Markdown table."""
    lines = [
        f"| policy | area | interval | {display_name(replicates.own)}'s gain | interval |",
        "|---|---|---|---|---|",
    ]
    for row in replicates.areas().itertuples():
        gain = cells(row.gain, row.gain_low, row.gain_high, "+.1f")
        lines.append(f"| {display_name(row.method)} | {cells(row.area, row.low, row.high, '.1f')} | {gain} |")
    return "\n".join(lines)


def losses_table(replicates: Replicates, limit: float) -> str:
    """Format ``Replicates.losses`` as a Markdown table, with a line above it."""
    lines = [
        f"Expected by `val` to lose at most {limit:g} {'point' if limit == 1 else 'points'}:",
        "",
        "| policy | points lost | interval | worst run | GMACs | "
        f"{display_name(replicates.own)}'s as a share | interval |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in replicates.losses(limit).itertuples():
        loss = cells(row.loss / 100, row.loss_low / 100, row.loss_high / 100, ".1f")
        ratio = cells(row.ratio, row.ratio_low, row.ratio_high, ".0f", "%")
        lines.append(f"| {display_name(row.method)} | {loss} | {row.worst_run:.1f} | {row.share:.0%} | {ratio} |")
    return "\n".join(lines)


def cells(share: float, low: float, high: float, digits: str, unit: str = "") -> str:
    """Format two cells of a Markdown table: a share in percent or points, and its interval."""
    value, low_end, high_end = (f"{100 * each:{digits}}{unit}" for each in (share, low, high))
    return f"{value} | {low_end} to {high_end}"
