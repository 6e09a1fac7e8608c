"""The figures of the guarantee: titles, and the place of every policy and bin, for hand-made tables."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.axes import Axes
from support.titles import states, title

from tlee.figures.guarantee import policy_path, reliability_diagrams
from tlee.figures.style import save

BINS = pd.DataFrame(
    [
        (0, "uncalibrated", 0.5, 0.9, 0.75),
        (0, "uncalibrated", 0.9, 1.0, 0.25),
        (0, "calibrated", 0.9, 0.95, 1.0),
        (1, "uncalibrated", 0.9, 0.8, 1.0),
        (1, "calibrated", 0.8, 0.8, 1.0),
    ],
    columns=["depth", "state", "confidence", "accuracy", "share"],
)
ERRORS = pd.DataFrame({"uncalibrated": [0.325, 0.1], "calibrated": [0.05, 0.0]})
TESTS = pd.DataFrame(
    {
        "videos": 80,
        "harmful": [0, 0, 2, 0, 9],
        "bound": [0.037, 0.037, 0.077, 0.037, 0.19],
        "share_of_full": [0.5, 0.25, 0.2, 0.1, 0.05],
        "passed": [True, True, False, False, False],
    }
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def points(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Return the points drawn for each name of the legend."""
    handles, names = axes.get_legend_handles_labels()
    drawn = {name: handle for name, handle in zip(names, handles, strict=True) if not name.startswith("limit")}
    return {name: [tuple(map(float, xy)) for xy in handle.lines[0].get_xydata()] for name, handle in drawn.items()}


def test_a_path_shows_the_result_of_each_test():
    axes = policy_path(TESTS, 5.0, 0.95)
    assert points(axes) == {
        "never exit": [(100, 0)],
        "passed": [(50, 0)],
        "chosen": [(25, 0)],
        "failed": [(20, 2.5)],
        "not tested": [(10, 0), (5, 11.25)],
    }
    assert "limit: 5%" in axes.get_legend_handles_labels()[1]
    assert states(title(axes), "95%", "5%", "25%", "0 of 80")


def test_a_path_on_which_all_policies_pass():
    axes = policy_path(TESTS.assign(passed=True), 25.0, 0.9)
    assert points(axes)["chosen"] == [(5, 11.25)]
    assert {"failed", "not tested"}.isdisjoint(points(axes))
    assert states(title(axes), "90%", "25%", "5%", "9 of 80")


@pytest.mark.parametrize(
    ("tests", "finding"),
    [
        (TESTS, ("80 videos", "too few", "1%", "never exit")),
        (TESTS[2:], ("most conservative", "2 of 80", "too many", "1%", "never exit")),
        (TESTS[:0], ("no exits", "never exit")),
    ],
)
def test_never_exit_is_chosen_if_no_policy_passes(tests: pd.DataFrame, finding: tuple[str, ...]):
    axes = policy_path(tests.assign(passed=False), 1.0, 0.95)
    assert states(title(axes), *finding)
    assert points(axes)["chosen"] == [(100, 0)]
    assert "passed" not in points(axes)


def test_the_bars_end_at_the_bound():
    (segments,) = (
        container.lines[2][0].get_segments()
        for container in policy_path(TESTS, 5.0, 0.95).containers
        if container.get_label() == "failed"
    )
    assert segments[0].tolist() == [[20, 2.5], [20, pytest.approx(7.7)]]


def test_a_path_is_drawn_on_given_axes():
    _, (axes, _) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    assert policy_path(TESTS, 5.0, 0.95, axes=axes) is axes


@pytest.mark.parametrize(("worst", "finding"), [(0, "underconfident"), (1, "overconfident")])
def test_the_title_of_the_diagrams_is_about_the_worst_depth(worst: int, finding: str):
    errors = ERRORS if worst == 0 else ERRORS.assign(uncalibrated=[0.01, 0.1])
    figure = reliability_diagrams(BINS, errors)
    before, after = 100 * errors.loc[worst, ["uncalibrated", "calibrated"]]
    assert states(title(figure), f"Depth {worst}", finding, f"{before:.1f} points", f"{after:.1f}")


def test_diagrams_have_one_panel_per_depth_and_one_dot_per_bin():
    panels = reliability_diagrams(BINS, ERRORS).axes
    assert states(title(panels[0]), "depth 0", "32.5 points", "5.0")
    assert states(title(panels[1]), "depth 1", "10.0 points", "0.0")
    uncalibrated, calibrated = panels[0].collections
    assert uncalibrated.get_offsets().tolist() == [[50, 90], [90, 100]]
    assert calibrated.get_offsets().tolist() == [[90, 95]]
    large, small = uncalibrated.get_sizes()
    assert large > small


def test_a_single_depth_has_a_diagram_too():
    figure = reliability_diagrams(BINS[BINS["depth"] == 1], ERRORS.loc[[1]])
    assert len(figure.axes) == 1
    assert figure.get_suptitle().startswith("Depth 1")


@pytest.mark.slow
@pytest.mark.parametrize("draw", [lambda: policy_path(TESTS, 5.0, 0.95), lambda: reliability_diagrams(BINS, ERRORS)])
def test_the_same_figure_is_the_same_file(draw, tmp_path: Path):
    files = [save(draw(), tmp_path / folder / "figure.png") for folder in ("first", "second")]
    assert files[0].read_bytes() == files[1].read_bytes()
