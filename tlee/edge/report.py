"""What the latency stage does: export the chosen policy, check it, time it, write it down."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from tlee.datasets import read_dataset
from tlee.edge.engine import Engine, UncutNetwork
from tlee.edge.export import export, export_uncut
from tlee.edge.latency import FULL, IDEAL, REAL, Parity, measure, parity, percentiles, ratios, time_decoding
from tlee.extraction import Sampling
from tlee.frames import evaluation_transform, load_clips
from tlee.model import load_trained
from tlee.params import Params
from tlee.paths import EDGE, POLICY
from tlee.policies import Thresholds
from tlee.records import load_json, save_metrics, save_table

SYSTEM_NAMES = {FULL: "full network", REAL: "TLEE", IDEAL: "ideal"}
DECODED_VIDEOS = 50


@dataclass(frozen=True)
class LatencyReport:
    """Latency of the chosen policy on this machine, over the test videos."""

    parity: Parity
    times: pd.DataFrame  #: see ``latency.measure``
    decoding: pd.DataFrame  #: see ``latency.time_decoding``

    @property
    def summary(self) -> pd.DataFrame:
        """``system``, ``p50``, ``p90``, ``p99``: milliseconds a video."""
        return percentiles(self.times).rename(SYSTEM_NAMES).reset_index()

    @property
    def breakdown(self) -> pd.DataFrame:
        """Where TLEE's time goes, medians of a video: ``part``, ``milliseconds``."""
        tlee = self.times[self.times["system"] == REAL]
        parts = {
            "decoding": self.decoding["decode"],
            "resizing": self.decoding["resize"],
            "network": tlee["network"],
            "outside the network": tlee["milliseconds"] - tlee["network"],
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
    """Export TLEE's policy to ``results/edge``, compare it with PyTorch and time it on the test videos.

    Raises ``UserError`` if the models or the policy have not been made.
    """
    model, _ = load_trained(params.model, "pretrain", "branches", "gates")
    policy = Thresholds(**{name: tuple(values) for name, values in load_json(POLICY, "evaluate")["tlee"].items()})
    frames, latency = params.extract.frames, params.latency
    engine = Engine(export(model, policy, frames, EDGE, latency.opset), latency.threads)
    uncut = UncutNetwork(export_uncut(model, frames, EDGE, latency.opset), latency.threads)
    clips = [np.ascontiguousarray(clip) for clip, _, _ in load_clips("test", params.extract, params.model)]
    dataset = read_dataset(params.dataset, params.seed)
    test = dataset.manifest[dataset.manifest["split"] == "test"]["video"].head(DECODED_VIDEOS)
    return LatencyReport(
        parity(engine, uncut, model, policy, clips),
        measure(engine, uncut, clips, latency.warmup, latency.repeats),
        time_decoding(
            [dataset.videos / video for video in test],
            Sampling.of(params.extract),
            evaluation_transform(params.model.input_size),
        ),
    )
