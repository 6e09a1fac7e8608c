"""The report of the latency stage: tables, names and files."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tlee.edge.latency import Parity, ratios
from tlee.edge.precisions import Precisions
from tlee.edge.report import LatencyReport
from tlee.edge.runner import (
    FULL,
    IDEAL,
    REAL,
    Check,
    Clocks,
    Device,
    Energy,
    LatencyResult,
    PowerResult,
    Runtime,
    summarise,
)
from tlee.paper.summary import latency_line
from tlee.records import load_json


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def result(full: list[float], real: list[float], ideal: list[float], power: PowerResult | None = None) -> LatencyResult:
    """A result of one video, with one repeat per number."""
    systems = {FULL: full, REAL: real, IDEAL: ideal}
    repeats = len(full)
    times = {
        "system": [name for name in systems for _ in range(repeats)],
        "video": [0] * 3 * repeats,
        "repeat": [*range(repeats)] * 3,
        "frames": [2] * 3 * repeats,
        "milliseconds": [each for numbers in systems.values() for each in numbers],
        "in_graphs": [each / 2 for numbers in systems.values() for each in numbers],
        "preparation": [0.5] * 3 * repeats,
    }
    return LatencyResult(
        bundle="an id",
        device=Device("NVIDIA Jetson Nano Developer Kit", "aarch64", "Linux", "R32", "MAXN", 4, "3.6.9", "1.13.3"),
        clocks_before=Clocks([], [[76.8, 921.6]]),
        clocks_after=Clocks([], [[921.6, 921.6]]),
        runtime=Runtime("tensorrt", "fp16", 1, "8.2.1.8", "GPU", "10.2"),
        settings={"warmup": 0, "repeats": repeats},
        check=Check(1, 1, 0.0),
        times=times,
        summary=summarise(times),
        power=power,
    )


LOCAL = result([8.0, 9.0, 10.0], [2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
POWER = PowerResult("POM_5V_IN", 1.5, {FULL: Energy(4.0, 0.4, 0.3), REAL: Energy(4.0, 0.1, 0.05)})
NANO = result([80.0], [20.0], [16.0], power=POWER)
#: Names that cannot be mistaken for those that are displayed.
PROGRAM = {
    "prefixes": ["p0", "p1", "p2"],
    "graphs": {"s0": {"kind": "segments", "segments": [0, 1]}, "s1": {"kind": "segments", "segments": [2, 2]}},
}
ESTIMATE = pd.DataFrame(
    [
        (FULL, 60.0, 60.0, 60.0, 60.0, 40.0, 90.0),
        (REAL, 15.0, 30.0, 60.0, 20.0, 10.0, 20.0),
        (IDEAL, 12.0, 24.0, 60.0, 16.0, 8.0, 18.0),
    ],
    columns=["system", "p50", "p90", "p99", "mean", "low", "high"],
)


def report(method: str = "FrameExit, the gate alone", device: LatencyResult | None = None) -> LatencyReport:
    decoding = pd.DataFrame({"decode": [5.0, 6.0, 7.0], "resize": [1.0, 1.0, 4.0]})
    parts = pd.DataFrame({"s0": [1.0, 2.0, 3.0], "s1": [0.0, 0.0, 3.0], "readouts": [0.5] * 3, "loop": [0.25] * 3})
    return LatencyReport(method, PROGRAM, Parity(3, 3, 1e-6, 2e-6), LOCAL, device, ESTIMATE, decoding, parts)


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


def test_the_summary_is_of_the_target_and_the_targets_include_this_machine():
    both = report("TLEE", NANO)
    assert both.summary["p50"].tolist() == [80, 20, 16]
    assert both.breakdown.equals(report().breakdown)
    table = both.targets
    assert table["target"].unique().tolist() == ["this machine", "NVIDIA Jetson Nano Developer Kit"]
    nano = table[table["target"].str.contains("Nano")].set_index(["system", "per", "with_preparation"])
    assert nano.loc[("TLEE", "video", False), "p50"] == 20
    assert nano.loc[("TLEE", "video", True), "p50"] == 20.5
    assert nano.loc[("TLEE", "frame", False), "p50"] == 10
    assert nano["joules"].dropna().to_dict() == {("full network", "video", True): 0.4, ("TLEE", "video", True): 0.1}


def test_the_comparison_includes_the_estimate():
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
    assert machines.loc["idle watts"].tolist() == ["", 1.5]
    assert machines.loc["GPU clocks, MHz (current, maximum)"].tolist() == [[[921.6, 921.6]]] * 2


@pytest.mark.parametrize("method", ["TLEE", "full network, frame by frame"])
def test_the_summary_of_the_run_reads_the_metrics(method):
    report(method).write()
    latency = load_json(Path("results/metrics/latency.json"), "latency")
    found = ["real_to_ideal", "real_to_full", "mean_real_to_full", "outside_graphs"]
    assert list(latency) == ["full network", method, "ideal", *found]
    assert (latency["real_to_ideal"], latency["real_to_full"]) == (1.5, pytest.approx(1 / 3, abs=1e-6))
    line = latency_line(latency)
    assert re.search(rf"full network 9\.00 ms; {method} 3\.00 ms .*1\.50 times .*3\.00 ms ", line)
    edge = load_json(Path("results/metrics/edge.json"), "latency")
    assert edge == {"videos": 3, "same": 3, "max_feature_difference": 1e-6, "max_logit_difference": 2e-6}
    assert len(pd.read_csv("results/plots/latency/targets.csv")) == 12
    assert len(pd.read_csv("results/plots/latency/comparison.csv")) == 6


def test_the_effect_of_batches_by_hand():
    """Two frames are needed; the chunk computes three, the batch four."""
    times = {
        "system": ["full", "full_batch", "depth_0", "real_chunked", "real", "ideal"] * 2,
        "video": [0] * 12,
        "repeat": [0] * 6 + [1] * 6,
        "frames": [4, 4, 4, 3, 2, 2] * 2,
        "milliseconds": [8.0, 6.0, 4.0, 5.0, 4.0, 3.0, 10.0, 6.0, 4.0, 5.0, 6.0, 3.0],
        "in_graphs": [1.0] * 12,
        "preparation": [0.5] * 12,
    }
    latency = report("TLEE", LOCAL._replace(times=times, summary=summarise(times)))
    table = latency.batching.set_index("system")
    assert table.index.tolist() == ["full network", "full network, one batch", "TLEE, chunked", "TLEE", "ideal"]
    assert table["p50"].tolist() == [9, 6, 5, 5, 3]
    assert table["frames"].tolist() == [4, 4, 3, 2, 2]
    assert table["wasted"].tolist() == [0.5, 0.5, pytest.approx(1 / 3), 0, 0]
    found = ratios(pd.DataFrame(times))
    assert (found["real_to_batch"], found["chunked_to_real"]) == (pytest.approx(5 / 6), 1)
    assert "depth 0" in set(latency.targets["system"])


def test_int8_is_written_with_the_times():
    columns = ["precision", "system", "accuracy", "difference", "difference_low", "difference_high", "same", "p50"]
    rows = [("fp32", FULL, 0.9, None, None, None, 1.0, 8.0), ("fp32", REAL, 0.9, None, None, None, 1.0, 4.0)]
    rows += [("int8", FULL, 0.9, 0.0, -0.1, 0.1, 1.0, 2.0), ("int8", REAL, 0.8, -0.1, -0.2, 0.0, 0.75, 6.0)]
    int8 = Precisions(pd.DataFrame(rows, columns=columns), {"fp32": 8.0, "int8": 2.0})
    replace(report("TLEE"), int8=int8).write()
    latency = load_json(Path("results/metrics/latency.json"), "latency")
    assert (latency["int8_difference"], latency["int8_same"]) == (-0.1, 0.75)
    assert (latency["int8_to_fp32_full"], latency["int8_to_fp32_real"]) == (0.25, 1.5)
    assert (latency["megabytes_fp32"], latency["megabytes_int8"]) == (8, 2)
    assert "full network 9.00 ms; TLEE 3.00 ms" in latency_line(latency)
    table = pd.read_csv("results/plots/latency/int8.csv")
    assert table["system"].tolist() == ["full network", "TLEE"] * 2
