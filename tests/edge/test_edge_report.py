"""What the latency stage reads and writes."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tlee.edge import runner as jetson
from tlee.edge.latency import Parity, ratios
from tlee.edge.precisions import Precisions
from tlee.edge.report import LatencyReport
from tlee.edge.runner import FULL, IDEAL, REAL
from tlee.paper.summary import latency_line
from tlee.records import load_json


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def result(full: list[float], real: list[float], ideal: list[float], **values: object) -> dict:
    """As ``jetson.report`` tells it, of as many repeats of one video as there are numbers."""
    systems = {FULL: full, REAL: real, IDEAL: ideal}
    repeats = len(full)
    times = {
        "system": [name for name in systems for _ in range(repeats)],
        "video": [0] * 3 * repeats,
        "repeat": [*range(repeats)] * 3,
        "frames": [2] * 3 * repeats,
        "milliseconds": [each for numbers in systems.values() for each in numbers],
        "network": [each / 2 for numbers in systems.values() for each in numbers],
        "preparation": [0.5] * 3 * repeats,
    }
    about = {
        "device": {"name": "NVIDIA Jetson Nano Developer Kit"},
        "runtime": {"backend": "tensorrt", "version": "8.2.1.8", "precision": "fp16", "runs_on": "GPU"},
        "times": times,
        "summary": jetson.summarise(times),
        "check": {"clips": 1, "same": 1, "logits": 0.0},
        "clocks": {"after": {"cpu": [], "gpu": [[921.6, 921.6]]}},
        "power": None,
    }
    return about | values


HERE = result([8.0, 9.0, 10.0], [2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
POWER = {"idle_watts": 1.5, "systems": {"full": {"joules": 0.4}, "real": {"joules": 0.1}}}
NANO = result([80.0], [20.0], [16.0], power=POWER)
ESTIMATE = pd.DataFrame(
    [
        (FULL, 60.0, 60.0, 60.0, 60.0, 40.0, 90.0),
        (REAL, 15.0, 30.0, 60.0, 20.0, 10.0, 20.0),
        (IDEAL, 12.0, 24.0, 60.0, 16.0, 8.0, 18.0),
    ],
    columns=["system", "p50", "p90", "p99", "mean", "low", "high"],
)


def report(method: str = "FrameExit, the gate alone", there: dict | None = None) -> LatencyReport:
    decoding = pd.DataFrame({"decode": [5.0, 6.0, 7.0], "resize": [1.0, 1.0, 4.0]})
    parts = pd.DataFrame(
        {"segments0-1": [1.0, 2.0, 3.0], "segments2-2": [0.0, 0.0, 3.0], "readouts": [0.5] * 3, "loop": [0.25] * 3}
    )
    return LatencyReport(method, Parity(3, 3, 1e-6, 2e-6), HERE, there, ESTIMATE, decoding, parts)


def test_a_report_by_hand():
    assert report().summary["system"].tolist() == ["full network", "FrameExit, the gate alone", "ideal"]
    assert report().summary["p50"].tolist() == [9, 3, 2]
    assert report().breakdown.to_numpy().tolist() == [
        ["video", "decoding", 6],
        ["video", "resizing", 2],
        ["video", "network", 3.75],
        ["network", "segments 0 to 1", 2],
        ["network", "segment 2", 1],
        ["network", "readouts", 0.5],
        ["network", "loop", 0.25],
    ]
    assert list(report().breakdown) == ["of", "part", "milliseconds"]


def test_the_target_is_what_is_summed_up_and_this_machine_stands_beside_it():
    both = report("TLEE", NANO)
    assert both.summary["p50"].tolist() == [80, 20, 16]
    assert both.breakdown.equals(report().breakdown)
    table = both.targets
    assert table["target"].unique().tolist() == ["this machine", "NVIDIA Jetson Nano Developer Kit"]
    nano = table[table["target"].str.contains("Nano")].set_index(["system", "per", "preparation"])
    assert nano.loc[("TLEE", "video", False), "p50"] == 20
    assert nano.loc[("TLEE", "video", True), "p50"] == 20.5
    assert nano.loc[("TLEE", "frame", False), "p50"] == 10
    assert nano["joules"].dropna().to_dict() == {("full network", "video", True): 0.4, ("TLEE", "video", True): 0.1}


def test_what_was_measured_stands_beside_the_estimate():
    table = report("TLEE", NANO).comparison
    names = ["this machine", "NVIDIA Jetson Nano Developer Kit", "Jetson Nano (estimate)"]
    assert table["target"].unique().tolist() == names
    assert table["system"].tolist() == ["full network", "TLEE", "ideal"] * 3
    assert table["p50"].tolist() == [9, 3, 2, 80, 20, 16, 60, 15, 12]
    assert table["low"].isna().tolist() == [True] * 6 + [False] * 3


def test_machines_are_described():
    machines = report("TLEE", NANO).machines
    assert list(machines) == ["this machine", "NVIDIA Jetson Nano Developer Kit"]
    assert machines.loc["runtime"].tolist() == ["tensorrt 8.2.1.8 fp16 GPU"] * 2
    assert machines.loc["videos with the same exits and label"].tolist() == ["1 of 1"] * 2
    assert machines.loc["watts at rest"].tolist() == ["", 1.5]


@pytest.mark.parametrize("method", ["TLEE", "full network, frame by frame"])
def test_what_is_written_is_read_by_the_summary(method):
    report(method).write()
    latency = load_json(Path("results/metrics/latency.json"), "latency")
    found = ["real_to_ideal", "real_to_full", "mean_real_to_full", "outside_network"]
    assert list(latency) == ["full network", method, "ideal", *found]
    assert (latency["real_to_ideal"], latency["real_to_full"]) == (1.5, pytest.approx(1 / 3, abs=1e-6))
    assert latency_line(latency) == (
        f"Time of a video without decoding: full network 9.00 ms; {method} 3.00 ms in the median, "
        "1.50 times its ideal, and 3.00 ms in the mean."
    )
    assert load_json(Path("results/metrics/edge.json"), "latency")["same"] == 3
    assert len(pd.read_csv("results/plots/latency/targets.csv")) == 12
    assert len(pd.read_csv("results/plots/latency/comparison.csv")) == 6


def test_what_batches_do_by_hand():
    """Two frames are needed; the chunk computes three, the batch four."""
    times = {
        "system": ["full", "full, one batch", "real, chunked", "real", "ideal"] * 2,
        "video": [0] * 10,
        "repeat": [0] * 5 + [1] * 5,
        "frames": [4, 4, 3, 2, 2] * 2,
        "milliseconds": [8.0, 6.0, 5.0, 4.0, 3.0, 10.0, 6.0, 5.0, 6.0, 3.0],
        "network": [1.0] * 10,
        "preparation": [0.5] * 10,
    }
    latency = report("TLEE", HERE | {"times": times})
    table = latency.at_once.set_index("system")
    assert table.index.tolist() == ["full network", "full network, one batch", "TLEE, chunked", "TLEE", "ideal"]
    assert table["p50"].tolist() == [9, 6, 5, 5, 3]
    assert table["frames"].tolist() == [4, 4, 3, 2, 2]
    assert table["wasted"].tolist() == [0.5, 0.5, pytest.approx(1 / 3), 0, 0]
    found = ratios(pd.DataFrame(times))
    assert (found["real_to_batch"], found["chunked_to_real"]) == (pytest.approx(5 / 6), 1)


def test_eight_bits_are_written_beside_the_times():
    columns = ["precision", "system", "accuracy", "difference", "difference_low", "difference_high", "same", "p50"]
    rows = [("fp32", FULL, 0.9, None, None, None, 1.0, 8.0), ("fp32", REAL, 0.9, None, None, None, 1.0, 4.0)]
    rows += [("int8", FULL, 0.9, 0.0, -0.1, 0.1, 1.0, 2.0), ("int8", REAL, 0.8, -0.1, -0.2, 0.0, 0.75, 6.0)]
    int8 = Precisions(pd.DataFrame(rows, columns=columns), {"fp32": 8.0, "int8": 2.0})
    replace(report("TLEE"), int8=int8).write()
    latency = load_json(Path("results/metrics/latency.json"), "latency")
    assert (latency["int8_difference"], latency["int8_same"]) == (-0.1, 0.75)
    assert (latency["int8_to_fp32_full"], latency["int8_to_fp32_real"]) == (0.25, 1.5)
    assert (latency["megabytes_fp32"], latency["megabytes_int8"]) == (8, 2)
    assert latency_line(latency).startswith("Time of a video without decoding: full network 9.00 ms; TLEE 3.00 ms")
    table = pd.read_csv("results/plots/latency/int8.csv")
    assert table["system"].tolist() == ["full network", "TLEE"] * 2
