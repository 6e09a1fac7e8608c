"""What the latency stage does: export the chosen policy, check it, time it, write it down."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from tlee.datasets import read_dataset
from tlee.edge.engine import Engine, UncutNetwork
from tlee.edge.export import export, export_uncut
from tlee.edge.latency import FULL, IDEAL, REAL, Parity, Paths, measure, parity, percentiles, ratios, time_decoding
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


@dataclass(frozen=True)
class LatencyReport:
    """Latency of the method's policy on this machine, over test videos."""

    method: str  #: its name
    parity: Parity
    times: pd.DataFrame  #: see ``latency.measure``
    decoding: pd.DataFrame  #: see ``latency.time_decoding``

    @property
    def summary(self) -> pd.DataFrame:
        """``system``, ``p50``, ``p90``, ``p99``: milliseconds a video."""
        names = {FULL: "full network", REAL: self.method, IDEAL: "ideal"}
        return percentiles(self.times).rename(names).reset_index()

    @property
    def breakdown(self) -> pd.DataFrame:
        """Where the policy's time goes, medians of a video: ``part``, ``milliseconds``."""
        real = self.times[self.times["system"] == REAL]
        parts = {
            "decoding": self.decoding["decode"],
            "resizing": self.decoding["resize"],
            "network": real["network"],
            "outside the network": real["milliseconds"] - real["network"],
        }
        medians = {part: times.median() for part, times in parts.items()}
        return pd.DataFrame(medians.items(), columns=["part", "milliseconds"])

    def write(self) -> None:
        """Write what is the same in each run (``edge``) apart from the times (``latency``)."""
        save_metrics("edge", asdict(self.parity))
        systems = self.summary.set_index("system").to_dict("index")
        save_metrics("latency", systems | ratios(self.times))
        save_table("latency", "systems", self.summary)
        save_table("latency", "breakdown", self.breakdown)


def time_policy(params: Params) -> LatencyReport:
    """Export the method's policy to ``results/edge``, compare it with PyTorch and time it.

    That is on ``latency.videos`` test videos of those that could be read, evenly spread over the split.

    Raises ``UserError`` if the models or the policy have not been made.
    """
    model, _ = load_trained(params, "pretrain", "branches", "gates")
    method, frames, latency = params.model.method, params.extract.frames, params.latency
    test = load_clips("test", params)
    rows = spread(len(test), latency.videos)
    clips = [np.ascontiguousarray(test[row][0]) for row in rows]
    policy = read_policy(method)
    paths: Paths = [None] * len(clips)
    if isinstance(policy, RandomExits):
        paths = policy.paths(len(test), frames, model.exits)[rows].tolist()
    engine = Engine(export(model, policy, frames, EDGE, latency.opset), latency.threads)
    uncut = UncutNetwork(export_uncut(model, frames, EDGE, latency.opset), latency.threads)
    folder = read_dataset(params.dataset, params.seed).videos
    return LatencyReport(
        NAMES[method] if method != "full" else "full network, frame by frame",
        parity(engine, uncut, model, policy, clips, paths),
        measure(engine, uncut, clips, paths, latency.warmup, latency.repeats),
        time_decoding(
            [folder / test.store.videos[row] for row in rows[:DECODED_VIDEOS]],
            Sampling.of(params.extract),
            evaluation_transform(params.model.input_size),
        ),
    )
