"""What the latency stage does: export the chosen policy, check it, time it, write it down."""

from dataclasses import asdict, dataclass

import pandas as pd

from tlee.datasets import read_dataset
from tlee.edge import runner as jetson
from tlee.edge.bundle import Videos, write_bundle
from tlee.edge.estimate import NANO, estimate_nano
from tlee.edge.latency import Parity, parity, ratios, time_decoding, time_parts
from tlee.edge.precisions import FP32, INT8, Precisions, compare_precisions
from tlee.edge.quantise import quantise
from tlee.edge.runner import BATCH, CHUNKED, FULL, IDEAL, REAL, STATISTICS
from tlee.edge.targets import Result, measure_there
from tlee.errors import UserError
from tlee.extraction import Sampling
from tlee.frames import evaluation_transform, load_clips
from tlee.methods import NAMES
from tlee.model import load_trained
from tlee.params import Params
from tlee.paths import EDGE
from tlee.policies.files import read_policy
from tlee.policies.given import RandomExits
from tlee.records import save_metrics, save_table
from tlee.subsets import spread

DECODED_VIDEOS = 50
CALIBRATION_VIDEOS = 16  #: of val


HERE = "this machine"


@dataclass(frozen=True)
class LatencyReport:
    """Latency of the method's policy on this machine and on the device that is the target, over test videos."""

    method: str  #: its name
    parity: Parity
    here: Result  #: of this machine
    there: Result | None  #: of the target, if it is another
    estimate: pd.DataFrame  #: for a Jetson Nano, see ``estimate.estimate_nano``
    decoding: pd.DataFrame  #: on this machine, see ``latency.time_decoding``
    parts: pd.DataFrame  #: likewise, see ``latency.time_parts``
    int8: Precisions | None = None  #: single precision against eight bits on this machine, if it was asked for

    @property
    def target(self) -> Result:
        """What ``latency.target`` tells."""
        return self.there or self.here

    @property
    def names(self) -> dict[str, str]:
        """What systems are called."""
        return {
            FULL: "full network",
            BATCH: "full network, one batch",
            CHUNKED: f"{self.method}, chunked",
            REAL: self.method,
            IDEAL: "ideal",
        }

    @property
    def measured(self) -> dict[str, Result]:
        """By what the machines are called."""
        return {HERE: self.here} | ({self.there["device"]["name"]: self.there} if self.there else {})

    @property
    def targets(self) -> pd.DataFrame:
        """Percentiles on every machine that was measured, one row a system and way of counting.

        ``target``, then as ``jetson.summarise`` tells them, and ``joules`` a video where they are known.
        """
        table = pd.concat([_table(name, result) for name, result in self.measured.items()], ignore_index=True)
        return table.assign(system=table["system"].replace(self.names))

    @property
    def comparison(self) -> pd.DataFrame:
        """Milliseconds a video, frames prepared: ``target``, ``system`` and ``jetson.STATISTICS``.

        The last target is the estimate for a Jetson Nano, for which ``low`` and ``high`` are the spread of ``p50``.
        """
        measured = self.targets
        measured = measured[(measured["per"] == "video") & ~measured["preparation"]]
        estimate = self.estimate.assign(target=NANO, system=self.estimate["system"].replace(self.names))
        table = pd.concat([measured, estimate], ignore_index=True)
        return table[["target", "system", *STATISTICS, "low", "high"]]

    @property
    def machines(self) -> pd.DataFrame:
        """One column a machine that was measured: what it is, what ran on it, and whether the results were right."""
        rows = {
            name: {
                "machine": result["device"]["name"],
                "runtime": " ".join(result["runtime"][key] for key in ("backend", "version", "precision", "runs_on")),
                "videos with the same exits and label": "{same} of {clips}".format(**result["check"]),
                "power mode": result["device"].get("power_mode", ""),
                "clocks of the GPU, MHz (now, most)": result["clocks"]["after"]["gpu"] or "",
                "watts at rest": (result["power"] or {}).get("idle_watts", ""),
            }
            for name, result in self.measured.items()
        }
        return pd.DataFrame(rows)

    @property
    def summary(self) -> pd.DataFrame:
        """``system`` and ``jetson.STATISTICS``: milliseconds a video on the target."""
        table = _table("", self.target)
        table = table[(table["per"] == "video") & ~table["preparation"]].set_index("system")
        return table.loc[[FULL, REAL, IDEAL], list(STATISTICS)].rename(self.names).reset_index()

    @property
    def at_once(self) -> pd.DataFrame:
        """What batches do on the target: ``system``, ``p50`` in milliseconds a video, and how many frames it computes.

        ``frames`` is the mean, ``wasted`` the share of them that the policy does not look at.
        """
        times = pd.DataFrame(self.target["times"]).groupby("system", sort=False)
        table = pd.DataFrame({"p50": times["milliseconds"].median(), "frames": times["frames"].mean()})
        table = table.reindex([name for name in self.names if name in table.index])
        table["wasted"] = 1 - table.loc[REAL, "frames"] / table["frames"]
        return table.rename(self.names).rename_axis("system").reset_index()

    @property
    def precisions(self) -> pd.DataFrame | None:
        """``Precisions.table`` by the names of systems; none without eight bits."""
        return self.int8 and self.int8.table.assign(system=self.int8.table["system"].replace(self.names))

    @property
    def breakdown(self) -> pd.DataFrame:
        """Where the policy's time goes on this machine, in the mean.

        ``of`` (video, network), ``part``, ``milliseconds``; the network's parts make up the ``network`` of a video.
        """
        network = self.parts.mean().rename(_segment_name)
        video = self.decoding[["decode", "resize"]].mean().rename({"decode": "decoding", "resize": "resizing"})
        video["network"] = network.sum()
        wholes = {"video": video, "network": network}
        rows = [(name, part, time) for name, whole in wholes.items() for part, time in whole.items()]
        return pd.DataFrame(rows, columns=["of", "part", "milliseconds"])

    def write(self) -> None:
        """Write what is the same in each run (``edge``) apart from the times (``latency``)."""
        save_metrics("edge", asdict(self.parity))
        systems = self.summary.set_index("system").to_dict("index")
        quantised = self.int8.metrics if self.int8 else {}
        save_metrics("latency", systems | ratios(pd.DataFrame(self.target["times"])) | quantised)
        if self.int8:
            save_table("latency", "int8", self.precisions)
        save_table("latency", "systems", self.summary)
        save_table("latency", "targets", self.targets)
        save_table("latency", "comparison", self.comparison)
        save_table("latency", "breakdown", self.breakdown)


def _segment_name(graph: str) -> str:
    """What ``segments0-2`` is called."""
    first, _, last = graph.removeprefix("segments").partition("-")
    if not last:
        return graph
    return f"segment {first}" if first == last else f"segments {first} to {last}"


def _table(name: str, result: Result) -> pd.DataFrame:
    energy = (result["power"] or {"systems": {}})["systems"]
    table = pd.DataFrame(result["summary"])
    joules = table["system"].map({system: each["joules"] for system, each in energy.items()})
    table["joules"] = joules.where((table["per"] == "video") & table["preparation"])  # frames were prepared, too
    table.insert(0, "target", name)
    return table


def time_policy(params: Params) -> LatencyReport:
    """Export the method's policy to ``results/edge``, compare it with PyTorch, and time it here and on the target.

    That is on ``latency.videos`` test videos of those that could be read, evenly spread over the split.

    Raises ``UserError`` if the models or the policy have not been made, if the target cannot be reached, or if what
    comes out there or here is not what PyTorch says.
    """
    model, classes = load_trained(params, "pretrain", "branches", "gates")
    method, latency = params.model.method, params.latency
    test = load_clips("test", params)
    rows = spread(len(test), latency.videos)
    names, policy, paths = [test.store.videos[row] for row in rows], read_policy(method), None
    if isinstance(policy, RandomExits):
        paths = policy.exit_depths(len(test), params.extract.frames, model.num_exits)[rows].tolist()
    videos = Videos(names, lambda row: test[rows[row]][0], paths)
    write_bundle(model, policy, videos, classes, EDGE)
    there = measure_there(latency, EDGE)  # first: a device that cannot be reached is known at once
    runner = jetson.Runner(EDGE, "onnxruntime")
    try:
        here = jetson.report(runner)
    except jetson.RunnerError as error:
        raise UserError(f"{EDGE}: {error}") from None
    int8 = None
    if latency.int8:
        val = load_clips("val", params)
        calibration = [val[row][0].numpy() for row in spread(len(val), CALIBRATION_VIDEOS)]
        runners = {FP32: runner, INT8: jetson.Runner(quantise(EDGE, calibration), "onnxruntime")}
        groups = [test.store.groups[row] for row in rows]
        int8 = compare_precisions(runners, model, test.store.truth[rows], groups, params.seed)
    folder = read_dataset(params.dataset, params.seed).videos
    return LatencyReport(
        NAMES[method] if method != "full" else "full network, frame by frame",
        parity(runner, model, here["check"]),
        here,
        there,
        estimate_nano(model, runner.bundle.program),
        time_decoding(
            [folder / name for name in names[:DECODED_VIDEOS]],
            Sampling.of(params.extract),
            evaluation_transform(params.model.input_size),
        ),
        time_parts(runner),
        int8,
    )
