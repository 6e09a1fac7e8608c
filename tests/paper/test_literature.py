"""Published results: the file agrees with the papers, is validated, and is drawn apart from measured results."""

import tomllib
from itertools import combinations

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.text import Text
from support.dataset_files import OFFICIAL
from support.refusals import one_line
from support.titles import states, title

from tlee.figures.literature import NETWORKS, published_results
from tlee.figures.style import HIGHLIGHT, save
from tlee.paper.literature import COLUMNS, FILE, NOT_STATED, load_published
from tlee.paper.recipe_table import RECIPES

SOURCES = [OFFICIAL.parent / "published" / name for name in ("results.csv", "activitynet_frontier.csv")]

TABLE = load_published()
HAND_MADE = pd.DataFrame(
    [
        ("activitynet", "map", "FrameExit", "resnet50", "ImageNet", 20.0, 0.70, False, "a"),
        ("activitynet", "map", "FrameExit", "x3d_s", NOT_STATED, 10.0, 0.80, False, "a"),
        ("activitynet", "map", "Late", "mobilenet_v2+resnet50", NOT_STATED, 20.0, 0.75, False, "b"),
        ("activitynet", "map", "Expensive", "resnet50", NOT_STATED, 30.0, 0.90, False, "b"),
        ("activitynet", "map", "FrameExit", "resnet50", "ImageNet", 10.0, 0.60, True, "c"),
        ("activitynet", "map", "FrameExit", "resnet50", "ImageNet", 20.0, 0.71, True, "c"),
        ("hvu", "map", "Other", "resnet", NOT_STATED, 5.0, 0.40, False, "d"),
    ],
    columns=COLUMNS,
)
MEASURED = pd.DataFrame(
    [("activitynet", "tlee", 8.0, 0.74, "TLEE, ours"), ("ucf101", "tlee", 1.0, 0.9, "TLEE, elsewhere")],
    columns=["dataset", "method", "gmacs", "score", "label"],
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# --- the file ------------------------------------------------------------------------------------------


def test_each_data_set_has_one_metric():
    assert TABLE.groupby("dataset", sort=False)["metric"].unique().map(list).to_dict() == {
        "activitynet": ["map"],
        "mini_kinetics": ["top1"],
        "hvu": ["map"],
    }


def test_the_curves_are_frameexits_and_end_at_its_network_without_exits():
    curves = TABLE[TABLE["curve"]]
    assert set(curves["method"]) == {"FrameExit"} and set(curves["dataset"]) == {"activitynet"}
    assert curves.groupby("backbone").size().to_dict() == {"resnet50": 6, "efficientnet_b3": 4}
    whole_videos = TABLE[(TABLE["dataset"] == "activitynet") & (TABLE["method"] == "FrameExit (no exit)")]
    for backbone, curve in curves.groupby("backbone"):
        assert curve["gmacs"].is_monotonic_increasing and curve["score"].is_monotonic_increasing
        whole = whole_videos[whole_videos["backbone"] == backbone]
        assert curve["gmacs"].iloc[-1] == whole["gmacs"].item()
        assert curve["score"].iloc[-1] == pytest.approx(whole["score"].item(), abs=0.001)


def test_the_recipes_quote_the_file():
    printed = set(TABLE[["dataset", "backbone", "score", "gmacs", "source"]].itertuples(index=False, name=None))
    quoted = [
        (recipe.data_set, recipe.backbone, round(result.score / 100, 4), result.gmacs, result.source)
        for recipe in RECIPES
        for result in recipe.published
    ]
    assert quoted and set(quoted) <= printed


@pytest.mark.skipif(not all(path.exists() for path in SOURCES), reason="the sources are not part of the project")
def test_the_file_agrees_with_its_sources():
    names = {"activitynet1.3": "activitynet", "minikinetics": "mini_kinetics", "hvu": "hvu"}
    copied = pd.concat(map(pd.read_csv, SOURCES), ignore_index=True)
    copied["dataset"], copied["score"] = copied["dataset"].map(names), (copied["score"] / 100).round(4)
    copied = copied.rename(columns={"gflops_per_video": "gmacs"})
    columns = ["dataset", "method", "backbone", "gmacs", "score", "source"]
    assert sorted(TABLE[columns].itertuples(index=False)) == sorted(copied[columns].itertuples(index=False))
    stated = copied.dropna(subset="pretraining")[[*columns, "pretraining"]]
    assert len(TABLE.merge(stated)) == len(stated)


def test_the_file_is_part_of_the_package():
    setuptools = tomllib.loads((FILE.parents[3] / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert any(FILE.relative_to(FILE.parents[2]).match(pattern) for pattern in setuptools["package-data"]["tlee"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": ""}, "empty"),
        ({"metric": "mAP"}, "`metric` should be one of top1, map"),
        ({"gmacs": "many"}, "`gmacs` should be a number above 0"),
        ({"gmacs": 0}, "`gmacs` should be a number above 0"),
        ({"score": 75.0}, "`score` should be a number from 0 to 1"),
        ({"curve": "yes"}, "`curve` should be true or false"),
        (HAND_MADE.loc[0, ["method", "backbone", "score"]].to_dict(), "twice"),
    ],
)
def test_an_invalid_row_is_named(tmp_path, change, message):
    table = HAND_MADE.astype(object)
    table["curve"] = table["curve"].map({True: "true", False: "false"})
    for column, value in change.items():
        table.loc[2, column] = value
    table.to_csv(tmp_path / "results.csv", index=False)
    line = one_line(lambda: load_published(tmp_path / "results.csv"))
    assert line.startswith(f"{tmp_path / 'results.csv'}, line 4: ") and message in line


def test_an_unreadable_file_is_named(tmp_path):
    assert "nothing.csv cannot be read" in one_line(lambda: load_published(tmp_path / "nothing.csv"))
    HAND_MADE.drop(columns="source").to_csv(tmp_path / "few.csv", index=False)
    assert "few.csv has the columns dataset, " in one_line(lambda: load_published(tmp_path / "few.csv"))


# --- the figure ----------------------------------------------------------------------------------------


def key(axes: plt.Axes) -> list[str]:
    """The labels beside a panel, from top to bottom."""
    return [text.get_text() for text in axes.texts if text.arrow_patch]


def legend(figure: plt.Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_each_data_set_has_a_panel_with_a_key_of_all_points():
    first, second = published_results(HAND_MADE).axes
    assert (first.get_ylabel(), second.get_ylabel()) == ("ActivityNet 1.3: mAP (%)", "HVU: mAP (%)")
    assert key(first) == [
        "90.0 at 30: Expensive, ResNet-50 (?)",
        "80.0 at 10: FrameExit, X3D-S (?)",
        "75.0 at 20: Late, MobileNetV2 and ResNet-50 (?)",
        "71.0 at 20: FrameExit's curve, ResNet-50 (ImageNet)",
        "70.0 at 20: FrameExit, ResNet-50 (ImageNet)",
    ]
    assert key(second) == ["40.0 at 5: Other, ResNet (?)"]


def test_the_title_states_the_gains_over_frameexit():
    """Not counted: the more expensive method, and the points of the curve."""
    figure = published_results(HAND_MADE)
    assert states(title(figure), "ActivityNet 1.3", "FrameExit", "ResNet-50", "+5.0", "+10.0")
    assert legend(figure) == ["ResNet", "3D network", "two networks", "printed curve"]
    assert states(title(published_results(HAND_MADE.tail(1))), "40.0%", "Other")


def test_published_points_are_hollow_and_curves_are_lines():
    first = published_results(HAND_MADE).axes[0]
    curves = [line for line in first.lines if len(line.get_xdata()) > 1]
    points = [line for line in first.lines if len(line.get_xdata()) == 1]
    assert [list(line.get_ydata()) for line in curves] == [pytest.approx([60.0, 71.0])]
    assert len(points) == 4
    assert {line.get_markerfacecolor() for line in points} == {"white"}


def test_measured_points_are_filled_and_named_in_the_title():
    figure = published_results(HAND_MADE, MEASURED)
    first, second = figure.axes
    assert "74.0 at 8: TLEE, ours" in key(first)
    assert not any("elsewhere" in label for label in key(first) + key(second))
    filled = [line for line in first.lines if line.get_markerfacecolor() == HIGHLIGHT]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in filled] == [(8.0, pytest.approx(74.0))]
    assert "measured here" in legend(figure)
    assert "measured here" in title(figure) and "none of them" not in title(figure)


def test_measurements_on_other_data_sets_are_not_drawn():
    figure = published_results(HAND_MADE, MEASURED.tail(1))
    assert "measured here" not in legend(figure)
    assert title(figure) == title(published_results(HAND_MADE))


@pytest.mark.parametrize("measured", [pytest.param(None, marks=pytest.mark.slow), pd.concat([MEASURED] * 6)])
def test_labels_are_within_the_figure_and_do_not_overlap(measured):
    figure = published_results(TABLE, measured)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for axes in figure.axes for text in axes.texts]  # without the arrows
    assert len(boxes) > len(TABLE[~TABLE["curve"]])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_every_published_network_has_a_name():
    assert set(TABLE["backbone"]) <= set(NETWORKS)


def test_an_unknown_network_is_drawn_too():
    figure = published_results(HAND_MADE.tail(1).assign(backbone="vit"))
    assert key(figure.axes[0]) == ["40.0 at 5: Other, vit (?)"]
    assert legend(figure) == ["other network"]


@pytest.mark.slow
def test_the_same_figure_is_the_same_file(tmp_path):
    first, second = (save(published_results(HAND_MADE, MEASURED), tmp_path / name) for name in ("a.png", "b.png"))
    assert first.read_bytes() == second.read_bytes()
