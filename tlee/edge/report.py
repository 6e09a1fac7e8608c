"""The latency stage: export the chosen policy, check it, time it, and write the results."""

from dataclasses import asdict, dataclass

import pandas as pd

from tlee.clips import load_clips
from tlee.datasets import read_dataset
from tlee.edge.bundle import Videos, write_bundle
from tlee.edge.estimate import NANO, estimate_nano
from tlee.edge.failures import as_user_errors
from tlee.edge.graphs import Exportable, Program
from tlee.edge.latency import Parity, measure_parity, ratios, time_decoding, time_parts
from tlee.edge.precisions import FP32, INT8, Precisions, compare_precisions
from tlee.edge.quantise import quantise
from tlee.edge.runner import (
    FULL,
    FULL_BATCH,
    IDEAL,
    MEDIAN,
    PER_VIDEO,
    REAL,
    REAL_CHUNKED,
    STATISTICS,
    Column,
    LatencyResult,
    Runner,
    fixed_depth,
    measure_latency,
)
from tlee.edge.targets import measure_target
from tlee.extraction import Sampling
from tlee.methods import display_name
from tlee.model import load_trained
from tlee.params import Params
from tlee.paths import EDGE
from tlee.policies.files import read_policy
from tlee.policies.given import RandomExits
from tlee.records import save_metrics, save_table
from tlee.subsets import spread
from tlee.views import evaluation_transform

DECODED_VIDEOS = 50
CALIBRATION_VIDEOS = 16  #: of val
THIS_MACHINE = "this machine"


@dataclass(frozen=True)
class LatencyReport:
    """Latency of the method's policy on this machine and on the target device, over test videos."""

    method: str  #: display name
    program: Program  #: ``bundle.json``
    parity: Parity
    local: LatencyResult  #: of this machine
    device: LatencyResult | None  #: of the target, if it is another machine
    estimate: pd.DataFrame  #: for a Jetson Nano, see ``estimate.estimate_nano``
    decoding: pd.DataFrame  #: on this machine, see ``latency.time_decoding``
    parts: pd.DataFrame  #: likewise, see ``latency.time_parts``
    int8: Precisions | None = None  #: int8 against single precision on this machine, if it was requested

    @property
    def target(self) -> LatencyResult:
        """Result of ``latency.target``."""
        return self.device or self.local

    @property
    def measured(self) -> dict[str, LatencyResult]:
        """Results by the display names of the machines."""
        return {THIS_MACHINE: self.local} | ({self.device.device.name: self.device} if self.device else {})

    @property
    def system_names(self) -> dict[str, str]:
        """Display names of the systems."""
        return {
            FULL: "full network",
            FULL_BATCH: "full network, one batch",
            **{fixed_depth(depth): f"depth {depth}" for depth, _ in enumerate(self.program["prefixes"][:-1])},
            REAL_CHUNKED: f"{self.method}, chunked",
            REAL: self.method,
            IDEAL: "ideal",
        }

    @property
    def targets(self) -> pd.DataFrame:
        """Percentiles on every machine that was measured.

        ``target``, then the columns of ``runner.summarise``, and ``joules`` per video where they are known.
        """
        table = pd.concat([_summary(name, result) for name, result in self.measured.items()], ignore_index=True)
        return self._with_names(table)

    @property
    def comparison(self) -> pd.DataFrame:
        """Milliseconds per video without the preparation of frames: ``target``, ``system`` and ``runner.STATISTICS``.

        The last target is the estimate for a Jetson Nano, for which ``low`` and ``high`` are the range of the median.
        """
        measured = _per_video(self.targets)
        table = pd.concat([measured, self._with_names(self.estimate).assign(target=NANO)], ignore_index=True)
        return table[["target", Column.SYSTEM, *STATISTICS, "low", "high"]]

    @property
    def machines(self) -> pd.DataFrame:
        """The machines that were measured: one column each."""
        return pd.DataFrame({name: _describe_machine(result) for name, result in self.measured.items()})

    @property
    def summary(self) -> pd.DataFrame:
        """Milliseconds per video on the target: ``system`` and ``runner.STATISTICS``."""
        table = _per_video(_summary("", self.target)).set_index(Column.SYSTEM)
        return self._with_names(table.loc[[FULL, REAL, IDEAL], list(STATISTICS)].reset_index())

    @property
    def batching(self) -> pd.DataFrame:
        """Effect of several frames in one call, on the target: ``system``, median milliseconds per video, ``frames``.

        ``frames`` is the mean number of frames computed, ``wasted`` the share of them that the policy does not process.
        """
        times = pd.DataFrame(self.target.times).groupby(Column.SYSTEM, sort=False)
        columns = {MEDIAN: times[Column.MILLISECONDS].median(), Column.FRAMES: times[Column.FRAMES].mean()}
        systems = [FULL, FULL_BATCH, REAL_CHUNKED, REAL, IDEAL]
        table = pd.DataFrame(columns).reindex([name for name in systems if name in times.groups])
        table["wasted"] = 1 - table.loc[REAL, Column.FRAMES] / table[Column.FRAMES]
        return self._with_names(table.rename_axis(Column.SYSTEM).reset_index())

    @property
    def precisions(self) -> pd.DataFrame | None:
        """``Precisions.table`` with display names; None without int8."""
        return self.int8 and self._with_names(self.int8.table)

    @property
    def breakdown(self) -> pd.DataFrame:
        """Mean time of the policy's parts on this machine.

        ``of`` (video, network), ``part``, ``milliseconds``; the network's parts make up the ``network`` of a video.
        """
        network = self.parts.mean().rename(self._part_name)
        video = self.decoding[["decode", "resize"]].mean().rename({"decode": "decoding", "resize": "resizing"})
        video["network"] = network.sum()
        wholes = {"video": video, "network": network}
        rows = [(name, part, time) for name, whole in wholes.items() for part, time in whole.items()]
        return pd.DataFrame(rows, columns=["of", "part", "milliseconds"])

    def write(self) -> None:
        """Write the results that are the same in each run (``edge``) and the times (``latency``)."""
        save_metrics("edge", asdict(self.parity))
        systems = self.summary.set_index(Column.SYSTEM).to_dict("index")
        quantised = self.int8.metrics if self.int8 else {}
        save_metrics("latency", systems | ratios(pd.DataFrame(self.target.times)) | quantised)
        if self.int8:
            save_table("latency", "int8", self.precisions)
        save_table("latency", "systems", self.summary)
        save_table("latency", "targets", self.targets)
        save_table("latency", "comparison", self.comparison)
        save_table("latency", "breakdown", self.breakdown)

    def _with_names(self, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{Column.SYSTEM: table[Column.SYSTEM].map(self.system_names)})

    def _part_name(self, part: str) -> str:
        """Display name of a column of ``parts``."""
        if part not in self.program["graphs"]:
            return part
        start, depth = self.program["graphs"][part]["segments"]
        return f"segment {start}" if start == depth else f"segments {start} to {depth}"


def _summary(name: str, result: LatencyResult) -> pd.DataFrame:
    energy = result.power.systems if result.power else {}
    table = pd.DataFrame(result.summary)
    joules = table[Column.SYSTEM].map({system: each.joules for system, each in energy.items()})
    table["joules"] = joules.where((table[Column.PER] == PER_VIDEO) & table[Column.WITH_PREPARATION])
    table.insert(0, "target", name)
    return table


def _per_video(summary: pd.DataFrame) -> pd.DataFrame:
    return summary[(summary[Column.PER] == PER_VIDEO) & ~summary[Column.WITH_PREPARATION]]


def _describe_machine(result: LatencyResult) -> dict[str, object]:
    runtime, check = result.runtime, result.check
    return {
        "machine": result.device.name,
        "runtime": f"{runtime.backend} {runtime.version} {runtime.precision} {runtime.runs_on}",
        "videos with the same exits and label": f"{check.same} of {check.videos}",
        "power mode": result.device.power_mode,
        "GPU clocks, MHz (current, maximum)": result.clocks_after.gpu or "",
        "idle watts": result.power.idle_watts if result.power else "",
    }


@as_user_errors()
def time_policy(params: Params) -> LatencyReport:
    """Export the method's policy to ``results/edge``, compare it with PyTorch, and time it here and on the target.

    This uses ``latency.videos`` of the test videos that could be read, evenly spread over the split.

    Raises ``UserError`` if the models or the policy do not exist, if the target cannot be reached, or if the results
    there or here differ from those of PyTorch.
    """
    model, classes = load_trained(params, "pretrain", "branches", "gates")
    method, latency = params.model.method, params.latency
    test = load_clips("test", params)
    rows = spread(len(test), latency.videos)
    names, policy, given_exits = [test.store.videos[row] for row in rows], read_policy(method), None
    assert isinstance(policy, Exportable)  # the kinds of all methods
    if isinstance(policy, RandomExits):
        given_exits = policy.exit_depths(len(test), params.extract.frames, model.num_exits)[rows].tolist()
    videos = Videos(names, lambda row: test.clip(rows[row]), given_exits)
    write_bundle(model, policy, videos, classes, EDGE)
    device = measure_target(latency, EDGE)  # first: if it cannot be reached, this is reported at once
    runner = Runner(EDGE, "onnxruntime")
    local = measure_latency(runner)
    int8 = None
    if latency.int8:
        val = load_clips("val", params)
        calibration = [val.clip(row).numpy() for row in spread(len(val), CALIBRATION_VIDEOS)]
        runners = {FP32: runner, INT8: Runner(quantise(EDGE, calibration), "onnxruntime")}
        groups = [test.store.groups[row] for row in rows]
        int8 = compare_precisions(runners, model, test.store.truth(rows), groups, params.seed)
    folder = read_dataset(params.dataset, params.seed).videos
    return LatencyReport(
        display_name(method) if method != "full" else "full network, frame by frame",
        runner.bundle.program,
        measure_parity(runner, model, local.check),
        local,
        device,
        estimate_nano(model, runner.bundle.program),
        time_decoding(
            [folder / name for name in names[:DECODED_VIDEOS]],
            Sampling.of(params.extract),
            evaluation_transform(params.model.input_size),
        ),
        time_parts(runner),
        int8,
    )
