"""What the latency stage reads and writes."""

from pathlib import Path

import pandas as pd
import pytest

from tlee.edge.latency import FULL, IDEAL, REAL, Parity
from tlee.edge.report import LatencyReport
from tlee.records import load_json
from tlee.summary import latency_line


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def report(method: str = "FrameExit, the gate alone") -> LatencyReport:
    milliseconds = {FULL: [8.0, 9.0, 10.0], REAL: [2.0, 3.0, 4.0], IDEAL: [1.0, 2.0, 3.0]}
    times = pd.concat(
        pd.DataFrame({"system": name, "milliseconds": values, "network": [value / 2 for value in values]})
        for name, values in milliseconds.items()
    )
    decoding = pd.DataFrame({"decode": [5.0, 6.0, 7.0], "resize": [1.0, 1.0, 4.0]})
    return LatencyReport(method, Parity(3, 3, 1e-6, 2e-6), times, decoding)


def test_a_report_by_hand():
    assert report().summary["system"].tolist() == ["full network", "FrameExit, the gate alone", "ideal"]
    assert report().summary["p50"].tolist() == [9, 3, 2]
    parts = report().breakdown.set_index("part")["milliseconds"].to_dict()
    assert parts == {"decoding": 6, "resizing": 1, "network": 1.5, "outside the network": 1.5}


@pytest.mark.parametrize("method", ["TLEE", "full network, frame by frame"])
def test_what_is_written_is_read_by_the_summary(method):
    report(method).write()
    latency = load_json(Path("results/metrics/latency.json"), "latency")
    assert list(latency) == ["full network", method, "ideal", "real_to_ideal", "real_to_full", "outside_network"]
    assert (latency["real_to_ideal"], latency["real_to_full"]) == (1.5, pytest.approx(1 / 3, abs=1e-6))
    assert latency_line(latency) == (
        f"Median time of a video without decoding: full network 9.00 ms, {method} 3.00 ms, 1.50 times its ideal."
    )
    assert load_json(Path("results/metrics/edge.json"), "latency")["same"] == 3
