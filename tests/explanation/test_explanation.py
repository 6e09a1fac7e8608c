"""Where policies exit, and why: the tables from small traces by hand, and the figures drawn of them."""

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
from support.refusals import one_line
from support.small import COSTS, T, identity_readout, small_params
from support.stores import write_small_stores

from tlee.evaluation.evaluate import Evaluation
from tlee.evaluation.replay import Split
from tlee.explanation.explain import (
    COLUMNS,
    Explanation,
    Trace,
    by_class,
    by_difficulty,
    by_policy,
    explain,
    flipped,
    pick_examples,
    rank_correlation,
    read_trace,
)
from tlee.explanation.film_strips import strips_of
from tlee.features import FeatureTable
from tlee.figures.explanation import class_costs, effort, flips, savings
from tlee.methods import NAMES
from tlee.paths import METRICS, PLOTS, TRACE
from tlee.policies.inference import Outcomes
from tlee.records import save_table

SEGMENTS = np.array([1.0, 1.0, 2.0])  #: GMACs of each depth in these tests


def part(
    paths: list[str], truth: str = "", prediction: str = "", confidence: list[float] | None = None, overhead: float = 0
) -> pd.DataFrame:
    """The rows of a policy: one letter of ``truth`` and ``prediction`` a video; ``overhead`` is added to each frame."""
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
    """Four videos: two easy ones of class a, one of b that takes three frames, one of b that nothing gets right."""
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
        flipped(trace),
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


def test_what_runs_beside_the_frames_counts_as_depth(trace):
    """Frames as deep as the full network's, and a gate at each of them."""
    temporal = by_policy(trace).set_index("method").loc["temporal"]
    assert temporal["by_frames"] == 16 / 7
    assert temporal["by_depth"] == pytest.approx(4 / 5)
    assert temporal["frames_share"] > 1


@pytest.mark.parametrize("exits", [1, 3])
def test_frames_and_depth_are_all_of_a_saving(exits):
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
    """The oracle pays 1/16 and 1/8 for the first two, 6/16 for the third and is wrong on the fourth."""
    table = by_difficulty(trace, "tlee").set_index("difficulty")
    assert list(table.index) == ["up to 1/16", "up to 1/8", "up to 1/2", "never right"]
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
    """Where visited exits count too, the heads on the way do; and six digits are not exact."""
    dear = trace["oracle"].assign(gmacs=[16.00001, 16.0, 15.99999, 17.0], correct=True)
    table = by_difficulty(trace | {"oracle": dear}, "tlee")
    assert table["difficulty"].tolist() == ["up to 1", "up to 2"]
    assert table["videos"].tolist() == [3, 1]


def test_the_full_network_stands_in_where_no_other_policy_is_fixed(trace):
    del trace["fixed_frames"]
    assert set(by_difficulty(trace, "tlee")["fixed"]) == {"full"}


def test_cost_follows_difficulty_in_rank(trace):
    rows = by_policy(trace).set_index("method")["difficulty_correlation"]
    assert rows["tlee"] == rows["oracle"] == pytest.approx(1)
    assert rows["temporal"] == pytest.approx(np.corrcoef([1, 2, 3, 4], [1.5, 1.5, 4, 3])[0, 1])
    assert np.isnan(rows["full"]) and np.isnan(rows["fixed_frames"])
    assert np.isnan(rank_correlation(pd.Series([1.0]), pd.Series([2.0])))


# --- flips and examples -------------------------------------------------------------------------------


def test_flips_by_hand(trace):
    trace["random"] = part(FULL, TRUTH, "bbbb")
    found = flipped(trace)
    assert found[found["method"] == "tlee"].to_numpy().tolist() == [["tlee", "harmful", "a", "b", 1]]
    assert found[found["method"] == "random"].to_numpy().tolist() == [
        ["random", "harmful", "a", "b", 2],
        ["random", "helpful", "b", "a", 1],
    ]
    counts = by_policy(trace).set_index("method")
    assert counts.loc["random", ["harmful", "helpful"]].tolist() == [2, 1]
    assert counts.loc["full", ["harmful", "helpful"]].tolist() == [0, 0]
    assert set(found["method"]) == {"tlee", "random"}


def test_any_class_of_a_video_is_right(trace):
    """A video of several classes stands under its first, and its answer may be another of them."""
    trace["full"] = trace["full"].assign(prediction=["c", "a", "b", "a"])
    assert flipped(trace)["truth"].tolist() == ["a"]
    assert by_class(trace, "full").set_index("class").at["a", "score"] == 1


def test_flips_count_each_video_once():
    trace = random_trace(300, 5, 2)
    pairs = flipped(trace).groupby(["method", "kind"])["videos"].sum().unstack(fill_value=0)
    counts = by_policy(trace).set_index("method").loc[pairs.index]
    assert (pairs["harmful"] == counts["harmful"]).all() and (pairs["helpful"] == counts["helpful"]).all()
    gained = counts["score"] - by_policy(trace).set_index("method").at["full", "score"]
    np.testing.assert_allclose((pairs["helpful"] - pairs["harmful"]) / 300, gained)


def test_examples_by_hand(trace):
    examples = pick_examples(trace, "tlee").set_index("name")
    assert examples["row"].to_dict() == {"cheapest_correct": 0, "most_expensive_correct": 2, "early_error_1": 1}
    assert examples["finding"].tolist() == ["a: right", "b: right", "a: taken for b"]
    assert examples.at["most_expensive_correct", "share_of_full"] == 6 / 16
    assert explained(trace).early_errors() == "wrong where the full network is right: 1 of 4 videos"


def test_the_surest_of_the_wrong_are_shown_first(trace):
    trace["full"] = part(FULL)
    trace["tlee"] = part(["0", "1", "2", "0"], TRUTH.replace("b", "a"), "bbbb", [0.5, 0.8, 0.7, 0.6])
    names = pick_examples(trace, "tlee").set_index("name")["row"].to_dict()
    assert [names[f"early_error_{number}"] for number in (1, 2, 3)] == [1, 2, 3]
    assert "early_error_4" not in names


def test_where_none_is_wrong_the_least_sure_that_left_early_is_shown(trace):
    trace["tlee"] = part(["0", "2 2 2 2", "2 1", "2"], TRUTH, "aaba", [0.9, 0.3, 0.6, 0.1])
    explanation = explained(trace)
    assert explanation.examples["name"].tolist() == ["cheapest_correct", "most_expensive_correct", "least_confident"]
    assert explanation.examples["row"].tolist()[-1] == 2  # 1 did not leave early, 3 is wrong anyhow
    assert explanation.early_errors().endswith("0 of 4 videos; in their place the least sure that left early")


def test_examples_of_the_full_network_and_where_none_is_right(trace):
    assert pick_examples(trace, "full")["name"].tolist() == ["cheapest_correct", "most_expensive_correct"]
    trace["tlee"] = part(["0", "1", "2", "2 2"], TRUTH, "bbaa")
    examples = pick_examples(trace, "tlee").set_index("name")
    assert examples.loc[["cheapest_correct", "most_expensive_correct"], "row"].tolist() == [0, 3]
    assert examples.at["most_expensive_correct", "finding"] == "b: taken for a"


# --- files --------------------------------------------------------------------------------------------


@pytest.fixture
def written(trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trace:
    """A project folder, the working one, with the trace of stage ``evaluate``."""
    monkeypatch.chdir(tmp_path)
    write_trace(trace)
    return trace


def write_trace(trace: Trace) -> None:
    save_table("evaluate", "trace", pd.concat([rows.assign(method=name) for name, rows in trace.items()]))


def test_a_trace_is_what_evaluate_writes():
    features, labels = torch.zeros(2, T, 3, 2), torch.tensor([0, 1])
    table = FeatureTable(features, labels, torch.eye(2).bool(), ["x", "y"], ["g", "g"], ["a", "b"])
    outcomes = Outcomes(torch.eye(2), torch.full((2, T), 1), torch.tensor([1, 2]))
    split = Split(table, identity_readout(), COSTS, "top1")
    empty = pd.DataFrame()
    made = Evaluation("full", split, {}, {"full": outcomes}, empty, empty, empty).trace("full")
    assert list(made.columns) == list(COLUMNS)


def test_the_trace_is_read_as_it_was_written(written):
    read = read_trace("tlee")
    assert list(read) == list(written)
    for name, rows in written.items():
        pd.testing.assert_frame_equal(read[name][rows.columns], rows, check_dtype=False)


def test_names_of_classes_stay_as_they_are(written):
    """Also those that look like numbers, or like nothing."""
    names = ["1", "007", "None", "NA"]
    write_trace({name: rows.assign(truth=names, prediction=names) for name, rows in written.items()})
    assert read_trace("tlee")["full"]["truth"].tolist() == names


def test_a_trace_that_does_not_do_names_the_stage(written):
    remedy = "run `dvc repro evaluate`"
    assert one_line(lambda: read_trace("layer")) == f"{TRACE} says nothing of `layer`: {remedy}"
    write_trace(written | {"tlee": written["tlee"][:3]})
    assert one_line(lambda: read_trace("tlee")) == f"{TRACE} is damaged, its policies saw different videos: {remedy}"
    content = TRACE.read_bytes()
    for damaged in (content[:-30], b"", b"method,video\nfull,x\n", b"\xff\xfe\x00"):
        TRACE.write_bytes(damaged)
        assert remedy in one_line(lambda: read_trace("tlee"))
    TRACE.unlink()
    assert one_line(lambda: read_trace("tlee")) == f"{TRACE} is missing or damaged: {remedy}"


@pytest.mark.parametrize("method", ["tlee", "full"])
def test_tables_and_metrics_are_written(written, method):
    explain(small_params(method=method)).write()
    metrics = json.loads((METRICS / "explain.json").read_text(), parse_constant=pytest.fail)
    assert metrics["saving"] == (2.56 if method == "tlee" else 1)
    assert metrics["harmful"] == (1 if method == "tlee" else 0)
    assert ("difficulty_correlation" in metrics) == (method == "tlee")
    tables = {path.stem: pd.read_csv(path) for path in (PLOTS / "explain").iterdir()}
    assert set(tables) == {"policies", "classes", "difficulty", "flips", "examples"}
    assert tables["policies"]["method"].tolist() == list(written)


def test_film_strips_show_the_frames_that_were_looked_at(written):
    write_small_stores([0, 0, 1, 1])
    params = small_params(order="sequential")
    strips = strips_of(pick_examples(written, "tlee"), params)
    assert list(strips) == ["cheapest_correct", "most_expensive_correct", "early_error_1"]
    latest = strips["most_expensive_correct"]
    assert len(latest.pictures) == T
    assert latest.visits == {0: (1, "depth 2"), 1: (2, "depth 1")}
    assert latest.title == f"b: right, 0.90 sure, after 2 of {T} frames, 38% of the full network's GMACs"
    coarse = strips_of(pick_examples(written, "tlee"), small_params())["most_expensive_correct"]
    assert coarse.visits == {2: (1, "depth 2"), 0: (2, "depth 1")}


def test_frames_of_other_videos_are_refused(written):
    write_small_stores([0, 0])
    examples = pick_examples(written, "tlee")
    message = one_line(lambda: strips_of(examples, small_params()))
    assert message.endswith("test.arrow holds other videos than were evaluated: run `dvc repro evaluate`")
    assert one_line(lambda: strips_of(examples.assign(video="x.mp4"), small_params())) == message


# --- figures ------------------------------------------------------------------------------------------


def drawn(explanation: Explanation) -> dict[str, plt.Figure]:
    correlation = explanation.row["difficulty_correlation"]
    return {
        "savings": savings(explanation.policies, explanation.method).figure,
        "classes": class_costs(explanation.classes, explanation.class_correlation, explanation.method),
        "effort": effort(explanation.difficulty, correlation, explanation.method),
        "flips": flips(explanation.policies, explanation.flips, explanation.method).figure,
    }


def title(figure: plt.Figure) -> str:
    return (figure.get_suptitle() or figure.axes[0].get_title(loc="left")).replace("\n", " ")


def test_figures_say_their_findings(trace):
    assert {name: title(figure) for name, figure in drawn(explained(trace)).items()} == {
        "savings": "TLEE is 2.6x cheaper: frames give 2.0x, depth gives 1.3x",
        "classes": "b costs 69% of the full network, a 9%; rank correlation with what the oracle needs: 1.00",
        "effort": "TLEE spends 6% of the full network on the easiest videos, 100% on the hardest; "
        "rank correlation of cost and difficulty: 1.00",
        "flips": "TLEE: exiting early makes 1 of 4 videos wrong and 0 right; most often a is taken for b (1)",
    }


def test_figures_of_the_full_network(trace):
    assert {name: title(figure) for name, figure in drawn(explained(trace, "full")).items()} == {
        "savings": "full network saves nothing: it looks at all frames at full depth",
        "classes": "full network spends 100% of the full network on every class",
        "effort": "full network spends 100% of the full network on easy and hard videos alike",
        "flips": "full network is right on the same videos as the full network",
    }


def test_figures_of_one_video(trace):
    one = {name: rows[:1] for name, rows in trace.items()}
    assert {name: title(figure) for name, figure in drawn(explained(one)).items()} == {
        "savings": "TLEE is 16.0x cheaper: frames give 4.0x, depth gives 4.0x",
        "classes": "TLEE spends 6% of the full network on every class",
        "effort": "TLEE spends 6% of the full network on all videos, which are about as hard",
        "flips": "TLEE is right on the same videos as the full network",
    }


def test_a_policy_that_costs_more_is_called_dearer(trace):
    trace["tlee"] = part(FULL, TRUTH, "aaba", overhead=1)
    axes = savings(by_policy(trace)).figure.axes[0]
    assert title(axes.figure) == "TLEE is 1.25x dearer: frames give 1.0x, depth gives 0.8x"
    assert axes.get_xlim()[0] < 0.8


def test_bars_of_frames_and_depth_end_at_the_saving(trace):
    axes = savings(by_policy(trace)).figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [NAMES[name] for name in ("tlee", "oracle", "fixed_frames", "temporal")]
    frames, depth = (list(container) for container in axes.containers)
    ends = [bar.get_x() + bar.get_width() for bar in depth]
    assert ends[:3] == pytest.approx([64 / 25, 64 / 25, 2])
    assert [bar.get_x() + bar.get_width() for bar in frames] == pytest.approx([2, 16 / 9, 2, 16 / 7])
    assert (depth[3].get_x(), ends[3]) == pytest.approx((1, 4 / 5))  # to the left of 1
    assert [text.get_text() for text in axes.texts] == ["2.56x", "2.56x", "2.00x", "1.83x"]


@pytest.mark.parametrize(("videos", "classes", "exit_depths"), [(2, 1, 1), (60, 8, 3), (1200, 101, 3)])
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
