"""Analysis of the exits: the tables of small hand-made traces, and their figures."""

import json
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support.labels import sparse
from support.refusals import one_line
from support.small import COSTS, T, identity_readout, small_params
from support.stores import write_small_stores
from support.titles import states
from support.titles import title as title_of

from tlee.evaluation.evaluate import Evaluation
from tlee.evaluation.replay import Split
from tlee.evaluation.search import Search
from tlee.explanation.explain import (
    Explanation,
    by_class,
    by_difficulty,
    by_policy,
    changed_predictions,
    explain,
    pick_examples,
    rank_correlation,
)
from tlee.explanation.film_strips import strip, strips_of
from tlee.explanation.trace import COLUMNS, Trace, read_trace
from tlee.features import FeatureTable
from tlee.figures import explanation as figures
from tlee.methods import NAMES
from tlee.paths import METRICS, PLOTS, TRACE
from tlee.policies.inference import Outcomes
from tlee.records import save_table

SEGMENTS = np.array([1.0, 1.0, 2.0])  #: GMACs of each segment in these tests


def part(
    paths: list[str], truth: str = "", prediction: str = "", confidence: list[float] | None = None, overhead: float = 0
) -> pd.DataFrame:
    """Return the rows of a policy: one letter of ``truth`` and ``prediction`` per video; ``overhead`` is per frame."""
    truth = truth or "a" * len(paths)
    prediction = prediction or truth
    depths = [[int(depth) for depth in path.split()] for path in paths]
    return pd.DataFrame(
        {
            "video": [f"{row}.mp4" for row in range(len(paths))],
            "group": "g",
            "truth": list(truth),
            "prediction": list(prediction),
            "correct": [one == other for one, other in zip(truth, prediction, strict=True)],
            "confidence": confidence or [0.9] * len(paths),
            "frames": [len(path) for path in depths],
            "gmacs": [sum(SEGMENTS[: depth + 1].sum() + overhead for depth in path) for path in depths],
            "exit_depths": paths,
        }
    )


FULL = ["2 2 2 2"] * 4  # 16 GMACs
TRUTH = "aabb"


@pytest.fixture
def trace() -> Trace:
    """Four videos: two easy ones of class a, one of b that needs three frames, one of b that is never correct."""
    return {
        "full": part(FULL, TRUTH, "aaba", [0.9, 0.9, 0.8, 0.7]),
        "fixed_frames": part(["2 2"] * 4, TRUTH, "aaba"),
        "temporal": part(["2", "2", "2 2 2", "2 2"], TRUTH, "aaba", overhead=1),
        "tlee": part(["0", "1", "2 1", "2 2 2 2"], TRUTH, "abba", [0.6, 0.99, 0.9, 0.8]),
        "oracle": part(["0", "1", "1 1 1", "2 2 2 2"], TRUTH, "aaba"),
    }


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def explained(trace: Trace, method: str = "tlee") -> Explanation:
    tables = (
        by_policy(trace),
        by_class(trace, method),
        by_difficulty(trace, method),
        changed_predictions(trace),
        pick_examples(trace, method),
    )
    return Explanation(method, *tables)


def random_trace(videos: int, classes: int, exits: int, methods: tuple[str, ...] = tuple(NAMES)) -> Trace:
    rng = np.random.default_rng(0)
    truth = rng.integers(classes, size=videos)
    made = {}
    for name in methods:
        frames = rng.integers(1, T + 1, videos)
        paths = [" ".join(map(str, rng.integers(0, exits, count))) for count in frames]
        if name in ("full", "fixed_depth"):
            paths = [" ".join([str(exits - 1)] * T)] * videos
        guess = np.where(rng.random(videos) < 0.7, truth, rng.integers(classes, size=videos))
        rows = part(paths, "a" * videos)
        made[name] = rows.assign(
            truth=[f"class {each}" for each in truth],
            prediction=[f"class {each}" for each in guess],
            correct=guess == truth,
            confidence=rng.random(videos),
        )
    return made


# --- savings -----------------------------------------------------------------------------------------


def test_savings_by_hand(trace):
    rows = by_policy(trace).set_index("method")
    tlee = rows.loc["tlee"]  # 8 frames and 1 + 2 + 6 + 16 GMACs, of 16 frames and 64 GMACs
    assert (tlee["saving"], tlee["by_frames"]) == (64 / 25, 2)
    assert tlee["by_depth"] == pytest.approx((64 / 16) / (25 / 8))
    assert tlee["gmacs_per_frame"] == 25 / 8
    assert tlee["frames_share"] == pytest.approx(np.log(2) / np.log(64 / 25))
    assert rows.loc["fixed_frames", ["saving", "by_frames", "by_depth", "frames_share"]].tolist() == [2, 2, 1, 1]
    assert rows.loc["full", ["saving", "by_frames", "by_depth"]].tolist() == [1, 1, 1]
    assert np.isnan(rows.at["full", "frames_share"])


def test_the_cost_of_gates_counts_as_depth(trace):
    """All frames run at full depth, with a gate at each."""
    temporal = by_policy(trace).set_index("method").loc["temporal"]
    assert temporal["by_frames"] == 16 / 7
    assert temporal["by_depth"] == pytest.approx(4 / 5)
    assert temporal["frames_share"] > 1


@pytest.mark.parametrize("exits", [1, 3])
def test_frames_and_depth_make_up_the_saving(exits):
    rows = by_policy(random_trace(50, 4, exits))
    np.testing.assert_allclose(rows["by_frames"] * rows["by_depth"], rows["saving"], rtol=1e-12)
    cheaper = rows[rows["saving"] > 1]
    depth_share = np.log(cheaper["by_depth"]) / np.log(cheaper["saving"])
    np.testing.assert_allclose(cheaper["frames_share"] + depth_share, 1)
    if exits == 1:
        np.testing.assert_allclose(rows["by_depth"], 1)


# --- classes and difficulty ---------------------------------------------------------------------------


def test_classes_by_hand(trace):
    table = by_class(trace, "tlee").set_index("class")
    assert list(table.index) == ["a", "b"]
    a, b = table.loc["a"], table.loc["b"]
    assert (a["videos"], a["frames"], a["depth"], a["score"], a["full_score"]) == (2, 1, 0.5, 0.5, 1)
    assert (b["videos"], b["frames"], b["depth"], b["score"], b["full_score"]) == (2, 3, 11 / 6, 0.5, 0.5)
    assert (a["share_of_full"], b["share_of_full"]) == (1.5 / 16, 11 / 16)
    assert (a["oracle_share_of_full"], b["oracle_share_of_full"]) == (1.5 / 16, 11 / 16)
    assert (a["low"], a["high"]) == pytest.approx((1.1 / 16, 1.9 / 16))


def test_difficulty_by_hand(trace):
    """The oracle costs 1/16 and 1/8 for the first two, 6/16 for the third and misclassifies the fourth."""
    table = by_difficulty(trace, "tlee").set_index("difficulty")
    assert list(table.index) == ["up to 1/16", "up to 1/8", "up to 1/2", "never correct"]
    assert table["videos"].tolist() == [1, 1, 1, 1]
    assert table["share_of_full"].tolist() == [1 / 16, 2 / 16, 6 / 16, 1]
    assert table["score"].tolist() == [1, 0, 1, 0]
    assert table["frames"].tolist() == [1, 1, 2, 4]
    assert set(table["fixed"]) == {"fixed_frames"}
    assert set(table["fixed_share_of_full"]) == {0.5}
    assert table["fixed_score"].tolist() == [1, 1, 1, 0]


def test_every_video_has_its_difficulty():
    trace = random_trace(200, 3, 3)
    for method in trace:
        table = by_difficulty(trace, method)
        assert table["videos"].sum() == 200
        mean = (table["videos"] * table["share_of_full"]).sum() / 200
        assert mean == pytest.approx(trace[method]["gmacs"].mean() / trace["full"]["gmacs"].mean())


def test_an_oracle_may_cost_more_than_the_full_network(trace):
    """Heads passed on the way count too, and six digits are not exact."""
    expensive = trace["oracle"].assign(gmacs=[16.00001, 16.0, 15.99999, 17.0], correct=True)
    table = by_difficulty(trace | {"oracle": expensive}, "tlee")
    assert table["difficulty"].tolist() == ["up to 1", "up to 2"]
    assert table["videos"].tolist() == [3, 1]


def test_the_full_network_is_the_fixed_policy_if_there_is_no_other(trace):
    del trace["fixed_frames"]
    assert set(by_difficulty(trace, "tlee")["fixed"]) == {"full"}


def test_rank_correlation_of_cost_and_difficulty(trace):
    rows = by_policy(trace).set_index("method")["difficulty_correlation"]
    assert rows["tlee"] == rows["oracle"] == pytest.approx(1)
    assert rows["temporal"] == pytest.approx(np.corrcoef([1, 2, 3, 4], [1.5, 1.5, 4, 3])[0, 1])
    assert np.isnan(rows["full"]) and np.isnan(rows["fixed_frames"])
    assert np.isnan(rank_correlation(pd.Series([1.0]), pd.Series([2.0])))


# --- changed predictions and examples -------------------------------------------------------------------------------


def test_changed_predictions_by_hand(trace):
    trace["random"] = part(FULL, TRUTH, "bbbb")
    found = changed_predictions(trace)
    assert found[found["method"] == "tlee"].to_numpy().tolist() == [["tlee", "harmful", "a", "b", 1]]
    assert found[found["method"] == "random"].to_numpy().tolist() == [
        ["random", "harmful", "a", "b", 2],
        ["random", "helpful", "b", "a", 1],
    ]
    counts = by_policy(trace).set_index("method")
    assert counts.loc["random", ["harmful", "helpful"]].tolist() == [2, 1]
    assert counts.loc["full", ["harmful", "helpful"]].tolist() == [0, 0]
    assert set(found["method"]) == {"tlee", "random"}


def test_any_class_of_a_video_is_correct(trace):
    """A video of several classes is listed under its first, and its prediction may be another of them."""
    trace["full"] = trace["full"].assign(prediction=["c", "a", "b", "a"])
    assert changed_predictions(trace)["truth"].tolist() == ["a"]
    assert by_class(trace, "full").set_index("class").at["a", "score"] == 1


def test_changed_predictions_count_each_video_once():
    trace = random_trace(300, 5, 2)
    pairs = changed_predictions(trace).groupby(["method", "kind"])["videos"].sum().unstack(fill_value=0)
    counts = by_policy(trace).set_index("method").loc[pairs.index]
    assert (pairs["harmful"] == counts["harmful"]).all() and (pairs["helpful"] == counts["helpful"]).all()
    gained = counts["score"] - by_policy(trace).set_index("method").at["full", "score"]
    np.testing.assert_allclose((pairs["helpful"] - pairs["harmful"]) / 300, gained)


def test_examples_by_hand(trace):
    examples = pick_examples(trace, "tlee").set_index("name")
    assert examples["row"].to_dict() == {"cheapest_correct": 0, "most_expensive_correct": 2, "early_error_1": 1}
    assert examples["finding"].tolist() == ["a, classified correctly", "b, classified correctly", "a, classified as b"]
    assert examples.at["most_expensive_correct", "share_of_full"] == 6 / 16
    assert explained(trace).early_errors().endswith("1 of 4 videos")


def test_the_most_confident_errors_are_shown_first(trace):
    trace["full"] = part(FULL)
    trace["tlee"] = part(["0", "1", "2", "0"], TRUTH.replace("b", "a"), "bbbb", [0.5, 0.8, 0.7, 0.6])
    names = pick_examples(trace, "tlee").set_index("name")["row"].to_dict()
    assert [names[f"early_error_{number}"] for number in (1, 2, 3)] == [1, 2, 3]
    assert "early_error_4" not in names


def test_without_errors_the_least_confident_early_exit_is_shown(trace):
    trace["tlee"] = part(["0", "2 2 2 2", "2 1", "2"], TRUTH, "aaba", [0.9, 0.3, 0.6, 0.1])
    explanation = explained(trace)
    assert explanation.examples["name"].tolist() == ["cheapest_correct", "most_expensive_correct", "least_confident"]
    assert explanation.examples["row"].tolist()[-1] == 2  # 1 does not exit early, 3 is never correct
    assert states(explanation.early_errors(), "0 of 4 videos", "least confident")


def test_examples_of_the_full_network_and_of_a_policy_that_is_never_correct(trace):
    assert pick_examples(trace, "full")["name"].tolist() == ["cheapest_correct", "most_expensive_correct"]
    trace["tlee"] = part(["0", "1", "2", "2 2"], TRUTH, "bbaa")
    examples = pick_examples(trace, "tlee").set_index("name")
    assert examples.loc[["cheapest_correct", "most_expensive_correct"], "row"].tolist() == [0, 3]
    assert examples.at["most_expensive_correct", "finding"] == "b, classified as a"


# --- files --------------------------------------------------------------------------------------------


@pytest.fixture
def written(trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trace:
    """Change to a project folder with the trace of stage ``evaluate``."""
    monkeypatch.chdir(tmp_path)
    write_trace(trace)
    return trace


def write_trace(trace: Trace) -> None:
    table = pd.concat([rows.assign(method=name) for name, rows in trace.items()])
    save_table("evaluate", "trace", table, checked=True)


def test_the_columns_of_a_trace_are_those_that_evaluate_writes():
    table = FeatureTable(torch.zeros(2, T, 3, 2), sparse(torch.eye(2).bool()), ["x", "y"], ["g", "g"], ["a", "b"])
    outcomes = Outcomes(logits=torch.eye(2), exit_depths=torch.full((2, T), 1), macs=torch.tensor([1, 2]))
    split = Split(table, identity_readout(), COSTS, "top1")
    results = split.judge(outcomes)
    empty = pd.DataFrame()
    made = Evaluation("full", Search(split), [], split, {}, {"full": results}, *[empty] * 4).trace("full")
    assert list(made.columns) == list(COLUMNS)


def test_the_trace_is_read_as_it_was_written(written):
    read = read_trace("tlee")
    assert list(read) == list(written)
    for name, rows in written.items():
        pd.testing.assert_frame_equal(read[name][rows.columns], rows, check_dtype=False)


def test_names_of_classes_are_read_unchanged(written):
    """Also those that resemble numbers or missing values."""
    names = ["1", "007", "None", "NA"]
    write_trace({name: rows.assign(truth=names, prediction=names) for name, rows in written.items()})
    assert read_trace("tlee")["full"]["truth"].tolist() == names


def test_an_unusable_trace_is_reported_with_the_stage_to_run(written):
    remedy = "run `dvc repro evaluate`"
    missing = one_line(lambda: read_trace("layer"))
    assert states(missing, str(TRACE), "layer") and missing.endswith(remedy)
    write_trace(written | {"tlee": written["tlee"][:3]})
    differing = one_line(lambda: read_trace("tlee"))
    assert states(differing, str(TRACE), "different videos") and differing.endswith(remedy)
    content = TRACE.read_bytes()
    for damaged in (content[:-30], b"", b"method,video\nfull,x\n", b"\xff\xfe\x00"):
        TRACE.write_bytes(damaged)
        assert remedy in one_line(lambda: read_trace("tlee"))
    TRACE.unlink()
    absent = one_line(lambda: read_trace("tlee"))
    assert states(absent, str(TRACE), "missing") and absent.endswith(remedy)


@pytest.mark.parametrize("method", ["tlee", "full"])
def test_tables_and_metrics_are_written(written, method):
    explain(small_params(method=method)).write()
    metrics = json.loads((METRICS / "explain.json").read_text(), parse_constant=pytest.fail)
    assert metrics["saving"] == (2.56 if method == "tlee" else 1)
    assert metrics["harmful"] == (1 if method == "tlee" else 0)
    assert ("difficulty_correlation" in metrics) == (method == "tlee")
    tables = {path.stem: pd.read_csv(path) for path in (PLOTS / "explain").iterdir()}
    assert set(tables) == {"policies", "classes", "difficulty", "changed_predictions", "examples"}
    assert tables["policies"]["method"].tolist() == list(written)


def test_film_strips_show_the_processed_frames(written):
    write_small_stores([0, 0, 1, 1])
    params = small_params(order="sequential")
    strips = strips_of(pick_examples(written, "tlee"), params)
    assert list(strips) == ["cheapest_correct", "most_expensive_correct", "early_error_1"]
    expensive = strips["most_expensive_correct"]
    assert len(expensive.pictures) == T
    assert expensive.visits == {0: (1, 2), 1: (2, 1)}
    assert states(expensive.title, "b", "correctly", "0.90", f"2 of {T} frames", "38%")
    coarse = strips_of(pick_examples(written, "tlee"), small_params())["most_expensive_correct"]
    assert coarse.visits == {2: (1, 2), 0: (2, 1)}


def test_a_strip_by_hand():
    pictures = [Image.new("RGB", (4, 4))] * 4
    made = strip(pictures, [2, 0, 3, 1], [1, 2], "wave.mp4: blue", 0.876, 0.254)
    assert made.pictures is pictures
    assert made.visits == {2: (1, 1), 0: (2, 2)}
    assert states(made.title, "wave.mp4: blue", "0.88", "2 of 4 frames", "25%")


def test_frames_of_other_videos_are_refused(written):
    write_small_stores([0, 0])
    examples = pick_examples(written, "tlee")
    message = one_line(lambda: strips_of(examples, small_params()))
    assert states(message, "frames/test", "other videos") and message.endswith("run `dvc repro evaluate`")
    assert one_line(lambda: strips_of(examples.assign(video="x.mp4"), small_params())) == message


# --- figures ------------------------------------------------------------------------------------------


def drawn(explanation: Explanation) -> dict[str, plt.Figure]:
    method, correlation = explanation.method, explanation.method_row["difficulty_correlation"]
    changes = figures.changed_predictions(explanation.policies, explanation.changed_predictions, method)
    return {
        "savings": figures.savings(explanation.policies, method).figure,
        "classes": figures.class_costs(explanation.classes, explanation.class_correlation, method),
        "difficulty": figures.difficulty_costs(explanation.difficulty, correlation, method),
        "changes": changes.figure,
    }


def title(figure: plt.Figure) -> str:
    return title_of(figure) or title_of(figure.axes[0])


def assert_findings(explanation: Explanation, findings: dict[str, tuple[str, ...]]) -> None:
    """Compare the numbers and names in the title of each figure."""
    titles = {name: title(figure) for name, figure in drawn(explanation).items()}
    assert titles.keys() == findings.keys()
    for name, parts in findings.items():
        assert states(titles[name], *parts), titles[name]


def test_titles_give_the_findings(trace):
    findings = {
        "savings": ("TLEE", "2.6x cheaper", "2.0x from frames", "1.3x from depth"),
        "classes": ("b", "69%", "a", "9%", "correlation", "1.00"),
        "difficulty": ("TLEE", "6%", "easiest", "100%", "hardest", "correlation", "1.00"),
        "changes": ("TLEE", "1 of 4 videos", "0", "a as b", "(1)"),
    }
    assert_findings(explained(trace), findings)


def test_titles_about_the_full_network(trace):
    findings = {
        "savings": ("full network", "saves nothing"),
        "classes": ("full network", "100%", "every class"),
        "difficulty": ("full network", "100%", "easy and hard"),
        "changes": ("full network", "same videos", "full network"),
    }
    assert_findings(explained(trace, "full"), findings)


def test_titles_about_one_video(trace):
    findings = {
        "savings": ("TLEE", "16.0x cheaper", "4.0x from frames", "4.0x from depth"),
        "classes": ("TLEE", "6%", "every class"),
        "difficulty": ("TLEE", "6%", "all videos"),
        "changes": ("TLEE", "same videos", "full network"),
    }
    assert_findings(explained({name: rows[:1] for name, rows in trace.items()}), findings)


def test_a_policy_that_costs_more_is_called_more_expensive(trace):
    trace["tlee"] = part(FULL, TRUTH, "aaba", overhead=1)
    axes = figures.savings(by_policy(trace))
    assert states(title_of(axes), "TLEE", "1.25x more expensive", "1.0x from frames", "0.8x from depth")
    assert axes.get_xlim()[0] < 0.8


def test_bars_of_frames_and_depth_end_at_the_saving(trace):
    axes = figures.savings(by_policy(trace))
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [NAMES[name] for name in ("tlee", "oracle", "fixed_frames", "temporal")]
    frames, depth = (list(container) for container in axes.containers)
    ends = [bar.get_x() + bar.get_width() for bar in depth]
    assert ends[:3] == pytest.approx([64 / 25, 64 / 25, 2])
    assert [bar.get_x() + bar.get_width() for bar in frames] == pytest.approx([2, 16 / 9, 2, 16 / 7])
    assert (depth[3].get_x(), ends[3]) == pytest.approx((1, 4 / 5))  # to the left of 1
    assert [text.get_text() for text in axes.texts] == ["2.56x", "2.56x", "2.00x", "1.83x"]


@pytest.mark.parametrize(
    ("videos", "classes", "exits"),
    [(60, 8, 3), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((2, 1, 1), (1200, 101, 3)))],
)
def test_figures_stay_legible(videos, classes, exits):
    for name, figure in drawn(explained(random_trace(videos, classes, exits))).items():
        figure.draw_without_rendering()
        assert figure.get_figheight() <= 16, name
        heading = figure._suptitle or figure.axes[0]._left_title
        assert heading.get_window_extent().x1 <= figure.bbox.x1, name
        for axes in figure.axes:
            boxes = [label.get_window_extent() for label in axes.get_yticklabels() if label.get_text()]
            boxes = sorted(boxes, key=lambda box: box.y0)
            assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes)), name
