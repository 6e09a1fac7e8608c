"""The figures: titles give the finding of hand-made tables, and the same figure is the same file."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from support.slow import slow_but
from support.titles import states, title

from tlee.figures import style
from tlee.figures.confusion import MATRIX_CLASSES, MOST_FREQUENT, confusion
from tlee.figures.evaluation import (
    chosen_policies,
    exit_heat_map,
    film_strip,
    policy_panels,
    trade_off,
)
from tlee.figures.extraction import sample_clips, split_counts
from tlee.figures.headroom import headroom
from tlee.figures.latency import latency_bars, latency_breakdown, latency_precisions, latency_targets
from tlee.figures.planning import duration_text, forecast_and_taken
from tlee.figures.training import gate_scores, strategy_comparison, training_curves
from tlee.methods import NAMES
from tlee.params import METHOD_SETTINGS

FRAMES = [Image.new("RGB", (32, 24), (25 * index, 80, 120)) for index in range(4)]
SPLITS = pd.DataFrame(
    [("train", "Run", 5), ("val", "Run", 1), ("test", "Run", 2), ("train", "Wave", 6), ("test", "Wave", 3)],
    columns=["split", "class", "videos"],
)
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2],
        "loss": [2.0, 1.0],
        "val top-1, 1 frame": [0.3, 0.625],
        "val top-1, 4 frames": [0.5, 0.875],
    }
)
STRATEGIES = pd.DataFrame(
    [
        ("own_depth", "depth 0", 0.5, False),
        ("own_depth", "mixed depths", 0.8, False),
        ("distilled", "depth 0", 0.6, True),
        ("distilled", "mixed depths", 0.9, True),
    ],
    columns=["strategy", "depths", "accuracy", "kept"],
)
SCORES = pd.DataFrame({"score": [0.9, 0.8, 0.7, 0.2], "correct": [True, True, False, False]})
CURVES = pd.DataFrame(
    [("temporal", 1.0, 0.7), ("temporal", 2.0, 0.9), ("tlee", 0.5, 0.8), ("tlee", 1.0, 0.95)],
    columns=["method", "gmacs", "score"],
)
CHOSEN = pd.DataFrame(
    [("full", 4.0, 0.975, 0.95, 0.99), ("tlee", 1.0, 0.95, 0.92, 0.97), ("oracle", 0.4, 1.0, 1.0, 1.0)],
    columns=["method", "gmacs", "score", "low", "high"],
)
SHARE = np.array([[0.25, 0.75], [0.0, 0.4], [0.0, 0.1]])
CONFUSIONS = pd.DataFrame([(0, 0, 8), (0, 1, 2), (1, 0, 1), (1, 1, 9)], columns=["truth", "prediction", "videos"])
LATENCY = pd.DataFrame(
    [("full network", 9.3, 10.0, 11.0, 9.6), ("TLEE", 3.0, 5.0, 8.0, 4.8), ("ideal", 2.4, 4.0, 7.0, 4.0)],
    columns=["system", "p50", "p90", "p99", "mean"],
)
PRECISIONS = pd.DataFrame(
    [
        ("fp32", "full network", 0.96, 0.9, 0.98, 8.0),
        ("fp32", "TLEE", 0.95, 0.9, 0.98, 2.0),
        ("int8", "full network", 0.96, 0.9, 0.98, 4.0),
        ("int8", "TLEE", 0.94, 0.9, 0.98, 3.0),
    ],
    columns=["precision", "system", "accuracy", "low", "high", "p50"],
)
PARTS = pd.DataFrame(
    [("video", "decoding", 6.0), ("video", "network", 4.0), ("network", "segment 0", 3.0), ("network", "loop", 1.0)],
    columns=["of", "part", "milliseconds"],
)
FORECAST = pd.DataFrame(
    [("extract", 110.0, 55.0), ("branches", 10.0, 25.0), ("gates", 7.0, np.nan)], columns=["stage", "seconds", "took"]
).assign(ratio=lambda table: table["seconds"] / table["took"])
HEADROOM = pd.DataFrame(
    [
        ("method", "as it is", 0.90, 0.4),
        ("choice", "perfect choice", 0.91, 0.35),
        ("exits", "perfect exits", 0.94, 0.3),
        ("gates", "perfect decisions", 0.92, 0.25),
        ("luck", "an oracle", 0.97, 0.1),
    ],
    columns=["case", "meaning", "area", "share_of_full"],
)
HEADROOM_CURVES = pd.concat([HEADROOM.assign(score=0.94), HEADROOM.assign(share_of_full=0.05, score=0.6)])

#: Function that draws each figure, and the numbers and names in its title.
FIGURES: dict[str, tuple[Callable[..., Axes], tuple[str, ...]]] = {
    "sample_clips": (
        lambda **on: sample_clips([("Run", FRAMES), ("Wave", FRAMES)], **on),
        ("2 clips", "4 frames"),
    ),
    "split_counts": (
        lambda **on: split_counts(SPLITS, **on),
        ("17 videos", "2 classes", "11 train", "1 val", "5 test"),
    ),
    "strategy_comparison": (
        lambda **on: strategy_comparison(STRATEGIES, **on),
        ("Distilled", "90.0%", "mixed depths", "80.0%"),
    ),
    "gate_scores": (
        lambda **on: gate_scores(SCORES, auroc=0.9125, **on),
        ("91.2%", "AUROC 0.912"),
    ),
    "trade_off": (
        lambda **on: trade_off(CURVES, CHOSEN, **on),
        ("TLEE", "95.0%", "top-1", "25%", "full network", "97.5%"),
    ),
    "headroom": (
        lambda **on: headroom(HEADROOM_CURVES, HEADROOM, 0.95, 1.0, **on),
        ("1 point", "TLEE", "40.0%", "perfect decisions", "25.0%", "shallow exits", "4.0"),
    ),
    "exit_heat_map": (
        lambda **on: exit_heat_map(SHARE, **on),
        ("60% of videos", "one frame", "83%", "depth 1"),
    ),
    "film_strip": (
        lambda **on: film_strip(FRAMES, {2: (1, 1), 0: (2, 0)}, "Run, classified as Walk", **on),
        ("Run, classified as Walk",),
    ),
    "confusion": (
        lambda **on: confusion(CONFUSIONS, ["Run", "Wave"], **on),
        ("85.0%", "Run", "Wave", "2 of 10"),
    ),
    "confusions of many classes": (
        lambda **on: confusion(CONFUSIONS, many_classes(3142), **on),
        ("85.0%", "class 0", "class 1", "2 of 10"),
    ),
    "latency_bars": (
        lambda **on: latency_bars(LATENCY, **on),
        ("TLEE", "3.1x faster", "full network", "median", "2.0x faster", "mean", "1.25x", "ideal"),
    ),
    "latency_breakdown": (
        lambda **on: latency_breakdown(PARTS, **on),
        ("Decoding", "60%", "10 ms", "75%", "4 ms", "segment 0"),
    ),
    "latency_precisions": (
        lambda **on: latency_precisions(PRECISIONS, **on),
        ("int8", "full network", "2.0x faster", "TLEE", "1.5x slower", "top-1", "-1.0 points"),
    ),
    "forecast_and_taken": (
        lambda **on: forecast_and_taken(FORECAST, **on),
        ("2 min", "80 s", "1.50", "branches", "0.40"),
    ),
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def many_classes(count: int) -> list[str]:
    return [f"class {index}" for index in range(count)]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def legend(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_states_its_finding_within_its_width_and_is_drawn_on_new_axes(name: str):
    draw, finding = FIGURES[name]
    axes = draw()
    assert states(title(axes), *finding)
    assert axes.figure.axes == [axes]
    axes.figure.draw_without_rendering()
    drawn = next(text for text in (axes.title, axes._left_title) if text.get_text())
    assert drawn.get_window_extent().x1 <= axes.figure.bbox.x1


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_on_given_axes(name: str):
    draw, finding = FIGURES[name]
    figure, (axes, _) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    assert draw(axes=axes) is axes
    assert states(title(axes), *finding)
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("name", slow_but(("film_strip", "confusion"), (*FIGURES, "training_curves")))
def test_the_same_figure_is_the_same_file(name: str, tmp_path: Path):
    draw = (lambda: training_curves(HISTORY)) if name == "training_curves" else FIGURES[name][0]
    files = [style.save(draw(), tmp_path / folder / "figure.png") for folder in ("first", "second")]
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert b"Software" not in first


def test_a_forecast_without_a_run_says_so():
    axes = forecast_and_taken(FORECAST.assign(took=np.nan, ratio=np.nan))
    assert title(axes) == "Forecast: 2 min; nothing has run yet"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (150, "2 min"), (12600, "3.5 h")])
def test_durations_are_told_in_the_unit_that_fits(seconds: float, text: str):
    assert duration_text(seconds) == text


def test_a_figure_does_not_change_the_callers_settings():
    before = dict(mpl.rcParams)
    latency_breakdown(PARTS)
    assert dict(mpl.rcParams) == before


def test_the_figure_of_axes_is_the_whole_figure():
    figure = plt.figure()
    axes = figure.subfigures(1, 2)[0].subplots()
    assert style.figure_of(axes) is style.figure_of(figure) is figure
    axes.remove()
    with pytest.raises(ValueError, match="removed"):
        style.figure_of(axes)


def test_every_method_drawn_on_shared_axes_has_a_colour_and_a_marker():
    assert set(METHOD_SETTINGS) <= set(style.COLORS)
    assert set(style.COLORS) == set(style.MARKERS) <= set(NAMES)
    assert len(set(style.COLORS.values())) == len(style.COLORS)


def test_colours_of_a_sequence_grow_darker():
    colors = style.sequence_colors(4)
    assert all(sum(light[:3]) > sum(dark[:3]) for light, dark in pairwise(colors))
    assert len(style.sequence_colors(1)) == 1


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (13, "13th"), (21, "21st")],
)
def test_ordinals(number: int, text: str):
    assert style.ordinal(number) == text


# --- training ------------------------------------------------------------------------------------------


def test_training_curves_label_the_ends_of_the_curves():
    figure = training_curves(HISTORY)
    assert isinstance(figure, Figure)
    assert states(title(figure), "top-1, 4 frames", "87.5%", "2 epochs")
    loss, accuracy = figure.axes
    assert loss.get_ylabel() == "training loss"
    assert accuracy.get_ylabel() == "val top-1 (%)"
    assert sorted(texts(accuracy)) == ["1 frame\n62.5%", "4 frames\n87.5%"]


def test_training_curves_of_one_epoch_and_names_without_a_common_part():
    figure = training_curves(HISTORY.rename(columns={"val top-1, 1 frame": "val, depth 0"}).head(1))
    assert figure.axes[1].get_ylabel() == "accuracy (%)"
    assert "val, depth 0\n30.0%" in texts(figure.axes[1])


def test_labels_of_curves_that_end_together_do_not_overlap():
    names = ["1 frame", "3 frames", "4 frames"]
    axes = training_curves(
        pd.DataFrame({"epoch": [1, 2], "loss": [2, 1]} | {f"val top-1, {name}": [0.1, 0.9] for name in names})
    ).axes[1]
    axes.figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))


@pytest.mark.parametrize(
    ("own_depth", "distilled", "finding"),
    [
        ((0.45, 0.85), (0.6, 0.8), ("Distilled", "70.0%", "all exits", "65.0%")),
        ((0.9, 0.9), (0.4, 0.8), ("Distilled", "80.0%", "mixed depths")),
    ],
)
def test_the_reason_for_a_strategy_follows_the_numbers(own_depth: tuple, distilled: tuple, finding: tuple):
    axes = strategy_comparison(STRATEGIES.assign(accuracy=[*own_depth, *distilled]))
    assert states(title(axes), *finding)


def test_a_single_strategy_is_compared_with_no_other():
    axes = strategy_comparison(STRATEGIES[STRATEGIES["kept"]].assign(strategy="not_trained"))
    assert states(title(axes), "The branches classify", "90.0%", "mixed depths")
    assert not axes.figure.legends and not axes.get_legend()


@pytest.mark.parametrize(("num_correct", "scale"), [(8, "linear"), (800, "log")])
def test_the_scale_of_gate_scores_follows_the_counts(num_correct: int, scale: str):
    table = pd.DataFrame({"score": [0.99] * num_correct + [0.1] * 4, "correct": [True] * num_correct + [False] * 4})
    assert gate_scores(table, auroc=1.0).get_yscale() == scale


# --- evaluation ----------------------------------------------------------------------------------------


def test_the_trade_off_shows_each_method_once_under_its_name():
    axes = trade_off(CURVES, CHOSEN)
    assert legend(axes) == ["full network", "TLEE", "oracle"]
    assert axes.get_xlabel() == "GMACs per video (log scale)"
    assert axes.get_ylabel() == "top-1 (%)"


def test_the_title_of_the_trade_off_is_about_the_method_and_the_metric():
    chosen = CHOSEN.replace({"method": {"tlee": "frameexit"}})
    axes = trade_off(CURVES.replace({"method": {"tlee": "frameexit"}}), chosen, "frameexit", "mAP")
    assert states(title(axes), NAMES["frameexit"], "95.0%", "mAP", "25%", "full network", "97.5%")
    assert axes.get_ylabel() == "mAP (%)"
    assert legend(axes) == ["full network", NAMES["frameexit"], "oracle"]


def test_the_trade_off_of_the_full_network_alone():
    axes = trade_off(CURVES.iloc[:0], CHOSEN[CHOSEN["method"] == "full"], "full")
    assert states(title(axes), "full network", "97.5%", "100%", "full network", "97.5%")


def test_headroom_has_a_curve_of_each_case_and_a_dot_within_the_limit():
    axes = headroom(HEADROOM_CURVES, HEADROOM, 0.95, 1.0)
    assert legend(axes) == ["TLEE", *HEADROOM["meaning"][1:]]
    _, *lines = axes.lines  # the first is the full network
    assert [line.get_xdata().tolist() for line in lines[::2]] == [[0.05, share] for share in HEADROOM["share_of_full"]]
    assert [line.get_xdata().tolist() for line in lines[1::2]] == [[share] for share in HEADROOM["share_of_full"]]
    assert axes.get_xlabel() == "GMACs per video (% of the full network, log scale)"


def test_headroom_of_a_method_that_always_loses_more():
    table = HEADROOM.assign(share_of_full=HEADROOM["share_of_full"].where(HEADROOM["case"] != "method"))
    axes = headroom(HEADROOM_CURVES, table.assign(area=[0.9, 0.95, 0.9, 0.9, 0.9]), 0.95, 2.5, "frameexit")
    assert states(title(axes), "2.5 points", NAMES["frameexit"], "loses more", "25.0%", "choice", "5.0")
    assert len(axes.lines[2].get_xdata()) == 0


def every_policy() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two points of each policy's curve, and the better one as chosen; cost falls in the order of ``NAMES``."""
    gmacs = np.linspace(4.0, 1.0, len(NAMES))
    rows = {"method": list(NAMES), "gmacs": gmacs, "share_of_full": gmacs / 4, "area": 1 - gmacs / 10}
    chosen = pd.DataFrame(rows).assign(score=0.9, low=0.85, high=0.95)
    return pd.concat([chosen, chosen.assign(gmacs=gmacs / 2, score=0.6)]), chosen


def test_every_policy_has_a_panel():
    curves, chosen = every_policy()
    figure = policy_panels(curves, chosen)
    panels = [title(axes).split(" area")[0] for axes in figure.axes]
    assert panels == [name for method, name in NAMES.items() if method not in ("full", "tlee")]
    assert states(title(figure), "TLEE", "76.0", "random exits", "88.0")


def test_the_title_names_the_cheapest_other_policy():
    _, chosen = every_policy()
    figure = chosen_policies(chosen)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == list(NAMES.values())[::-1]
    assert states(title(figure), "TLEE", "90.0%", "60%", "cheapest", "random exits", "90.0%", "30%")


def test_the_full_network_may_be_the_only_other_policy():
    figure = chosen_policies(CHOSEN.assign(share_of_full=CHOSEN["gmacs"] / 4))
    assert states(title(figure), "TLEE", "25%", "full network", "97.5%", "100%")


def test_small_shares_are_not_shown_as_none():
    axes = exit_heat_map(np.array([[0.999, 0.001], [0.0, 0.3]]))
    assert texts(axes) == ["100%", "<1%", "", "30%"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["visited frame 1", "visited frame 2"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["depth 0", "depth 1"]


def test_no_video_stops_after_one_frame():
    assert states(title(exit_heat_map(np.array([[0.0, 1.0], [0.0, 1.0]]))), "0% of videos", "100%", "depth 1")


def test_a_film_strip_labels_the_processed_frames():
    axes = film_strip(FRAMES, {2: (1, 1), 0: (2, 0)}, "Run")
    assert sorted(texts(axes)) == ["1st\ndepth 1", "2nd\ndepth 0"]
    assert len(axes.patches) == 2
    assert len(axes.images) == 4


@pytest.mark.parametrize("classes", [2, 1000])
def test_no_confusion(classes: int):
    right = CONFUSIONS[CONFUSIONS["truth"] == CONFUSIONS["prediction"]]
    assert title(confusion(right, many_classes(classes))).startswith("No confusion: all 17 videos")


def test_rows_of_the_matrix_are_the_truth_and_classes_without_videos_have_one_too():
    axes = confusion(CONFUSIONS, ["Run", "Wave", "Sit"])
    assert texts(axes) == ["8", "2", "", "1", "9", "", "", "", ""]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Run", "Wave", "Sit"]


def test_a_matrix_of_more_than_twenty_classes_has_no_numbers():
    axes = confusion(CONFUSIONS, many_classes(MATRIX_CLASSES))
    assert axes.get_ylabel() == "true class"
    assert not texts(axes)


def test_of_many_classes_the_most_frequent_confusions_are_drawn():
    axes = confusion(CONFUSIONS, many_classes(MATRIX_CLASSES + 1))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["class 0 as class 1", "class 1 as class 0"]
    assert texts(axes) == ["20% of the class", "10% of the class"]
    assert [bar.get_width() for bar in axes.patches] == [2, 1]
    everywhere = pd.DataFrame({"truth": range(100), "prediction": [99, *range(99)], "videos": 1})
    assert len(confusion(everywhere, many_classes(100)).patches) == MOST_FREQUENT


# --- latency -------------------------------------------------------------------------------------------


def test_the_title_states_that_a_policy_is_slower():
    slow = LATENCY.assign(p50=[3.0, 6.0, 5.0], mean=[4.0, 6.0, 5.0])
    assert states(title(latency_bars(slow)), "TLEE", "2.0x slower", "median", "1.5x slower", "mean", "1.20x", "ideal")


@pytest.mark.parametrize("method", style.COLORS)
def test_bars_are_named_after_the_method(method: str):
    axes = latency_bars(LATENCY.assign(system=["full network", NAMES[method], "ideal"]), method)
    assert states(title(axes), NAMES[method], "3.1x faster", "full network", "median")
    assert [label.get_text() for label in axes.get_yticklabels()][1] == f"{NAMES[method]}\n3 ms"
    color = style.MUTED if method == "full" else style.COLORS[method]
    assert axes.patches[1].get_facecolor() == mpl.colors.to_rgba(color)


def test_the_full_network_frame_by_frame_has_a_bar_too():
    system = ["full network", "full network, frame by frame", "ideal"]
    axes = latency_bars(LATENCY.assign(system=system), "full")
    assert states(title(axes), "full network, frame by frame", "3.1x faster")
    colors = [bar.get_facecolor() for bar in axes.patches]
    assert colors == [mpl.colors.to_rgba(each) for each in (style.COLORS["full"], style.MUTED, style.MUTED)]


def test_each_machine_has_a_panel_and_an_estimate_is_hatched_with_its_range():
    measured = LATENCY.assign(target="this machine", low=float("nan"), high=float("nan"))
    estimate = LATENCY.assign(target="Jetson Nano (estimate)", p50=[50.0, 10.0, 8.0], low=[40.0, 7.0, 6.0], high=90.0)
    figure = latency_targets(pd.concat([measured, estimate]))
    here, nano = figure.axes
    finding = ("TLEE", "3.1x faster", "this machine", "5.0x faster", "Jetson Nano", "full network", "median")
    assert states(title(figure), *finding)
    assert [title(axes) for axes in (here, nano)] == ["this machine", "Jetson Nano (estimate)"]
    assert [bool(axes.patches[0].get_hatch()) for axes in (here, nano)] == [False, True]
    assert texts(nano)[1] == "10 (7 to 90)"
    assert [label.get_text() for label in here.get_yticklabels()] == ["full network", "TLEE", "ideal"]
    assert nano.get_xlim()[1] > 90


def test_a_system_missing_on_a_machine_leaves_its_place_empty():
    batch = pd.DataFrame([("full network, one batch", 6.0, 7.0, 8.0, 6.5)], columns=LATENCY.columns)
    more = pd.concat([LATENCY[:1], batch, LATENCY[1:]], ignore_index=True)
    measured = more.assign(target="this machine", low=float("nan"), high=float("nan"))
    estimate = LATENCY.assign(target="Jetson Nano (estimate)", low=1.0, high=20.0)
    here, nano = latency_targets(pd.concat([measured, estimate])).axes
    assert [round(bar.get_y() + bar.get_height() / 2) for bar in here.patches] == [0, 1, 2, 3]
    assert [round(bar.get_y() + bar.get_height() / 2) for bar in nano.patches] == [0, 2, 3]


def test_one_machine_is_enough():
    figure = latency_targets(LATENCY.assign(target="this machine", low=float("nan"), high=float("nan")))
    assert len(figure.axes) == 1
