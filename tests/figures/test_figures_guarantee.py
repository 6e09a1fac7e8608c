"""The figures of the guarantee: what they say of hand-made tables, and that every policy is where its test put it."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.axes import Axes
from support.titles import title

from tlee.figures.guarantee import path_of_tests, reliability_diagrams
from tlee.figures.style import save

BINS = pd.DataFrame(
    [
        (0, "as trained", 0.5, 0.9, 0.75),
        (0, "as trained", 0.9, 1.0, 0.25),
        (0, "calibrated", 0.9, 0.95, 1.0),
        (1, "as trained", 0.9, 0.8, 1.0),
        (1, "calibrated", 0.8, 0.8, 1.0),
    ],
    columns=["depth", "state", "confidence", "accuracy", "share"],
)
ERRORS = pd.DataFrame({"as_trained": [0.325, 0.1], "calibrated": [0.05, 0.0]})
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
    """What is drawn under each name of the legend."""
    handles, names = axes.get_legend_handles_labels()
    drawn = {name: handle for name, handle in zip(names, handles, strict=True) if not name.startswith("limit")}
    return {name: [tuple(map(float, xy)) for xy in handle.lines[0].get_xydata()] for name, handle in drawn.items()}


def test_a_path_shows_what_became_of_each_policy():
    axes = path_of_tests(TESTS, 5.0, 0.95)
    assert points(axes) == {
        "never exit": [(100, 0)],
        "passed": [(50, 0)],
        "chosen": [(25, 0)],
        "failed": [(20, 2.5)],
        "not tested any more": [(10, 0), (5, 11.25)],
    }
    assert "limit: 5%" in axes.get_legend_handles_labels()[1]
    assert title(axes) == "95% sure that exits harm at most 5% of videos, at 25% of the GMACs: 0 of 80 were harmed"


def test_a_path_of_which_all_pass():
    axes = path_of_tests(TESTS.assign(passed=True), 25.0, 0.9)
    assert points(axes)["chosen"] == [(5, 11.25)]
    assert {"failed", "not tested any more"}.isdisjoint(points(axes))
    assert title(axes).startswith("90% sure that exits harm at most 25% of videos, at 5% of the GMACs")


@pytest.mark.parametrize(
    ("tests", "finding"),
    [
        (TESTS, "80 videos are too few to promise 1%: never exit"),
        (TESTS[2:], "The most careful policy harms 2 of 80 videos, too many for 1%: never exit"),
        (TESTS[:0], "There are no exits to test: never exit"),
    ],
)
def test_where_nothing_passes_never_exit_is_chosen(tests: pd.DataFrame, finding: str):
    axes = path_of_tests(tests.assign(passed=False), 1.0, 0.95)
    assert title(axes) == finding
    assert points(axes)["chosen"] == [(100, 0)]
    assert "passed" not in points(axes)


def test_the_bars_end_at_the_bound():
    (segments,) = (
        container.lines[2][0].get_segments()
        for container in path_of_tests(TESTS, 5.0, 0.95).containers
        if container.get_label() == "failed"
    )
    assert segments[0].tolist() == [[20, 2.5], [20, pytest.approx(7.7)]]


def test_a_path_is_drawn_on_given_axes():
    _, (axes, _) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    assert path_of_tests(TESTS, 5.0, 0.95, axes=axes) is axes


@pytest.mark.parametrize(("worst", "finding"), [(0, "right more often than it is sure"), (1, "surer than it is right")])
def test_diagrams_speak_of_the_worst_depth(worst: int, finding: str):
    errors = ERRORS if worst == 0 else ERRORS.assign(as_trained=[0.01, 0.1])
    figure = reliability_diagrams(BINS, errors)
    before, after = 100 * errors.loc[worst, ["as_trained", "calibrated"]]
    expected = f"Depth {worst} is {finding}: off by {before:.1f} points, {after:.1f} once calibrated"
    assert figure.get_suptitle().replace("\n", " ") == expected


def test_diagrams_have_a_panel_a_depth_and_a_dot_a_bin():
    panels = reliability_diagrams(BINS, ERRORS).axes
    assert [title(axes) for axes in panels] == [
        "depth 0: off by 32.5 points, 5.0 once calibrated",
        "depth 1: off by 10.0 points, 0.0 once calibrated",
    ]
    trained, calibrated = panels[0].collections
    assert trained.get_offsets().tolist() == [[50, 90], [90, 100]]
    assert calibrated.get_offsets().tolist() == [[90, 95]]
    large, small = trained.get_sizes()
    assert large > small


def test_a_single_depth_has_a_diagram_too():
    figure = reliability_diagrams(BINS[BINS["depth"] == 1], ERRORS.loc[[1]])
    assert len(figure.axes) == 1
    assert figure.get_suptitle().startswith("Depth 1")


@pytest.mark.parametrize("draw", [lambda: path_of_tests(TESTS, 5.0, 0.95), lambda: reliability_diagrams(BINS, ERRORS)])
def test_the_same_figure_is_the_same_file(draw, tmp_path: Path):
    files = [save(draw(), tmp_path / folder / "figure.png") for folder in ("first", "second")]
    assert files[0].read_bytes() == files[1].read_bytes()
