"""True difficulty: its file, the informed policy by hand, and the policies beside it."""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from support.refusals import one_line
from support.small import T, identity_readout, small_params
from support.splits import planted
from support.stores import write_rows, write_small_stores
from support.titles import states, title

from tlee.costs import GIGA, Costs
from tlee.evaluation.replay import Split
from tlee.explanation import comparison
from tlee.explanation.comparison import by_true_difficulty, compare_with_informed, count_groups
from tlee.explanation.explain import explain
from tlee.explanation.informed import Plan, choose_plans, plans_of, run_informed
from tlee.explanation.trace import Trace, read_trace
from tlee.explanation.true_difficulty import ClipTruth, SplitTruth, read_truth, split_truth, truth_file
from tlee.figures.true_difficulty import true_difficulty_costs
from tlee.frame_format import VideoRow
from tlee.levels import NEVER
from tlee.params import Params
from tlee.paths import FRAMES, METRICS, PLOTS, TRACE
from tlee.policies.inference import follow
from tlee.records import save_table

A, B = (3.0, 0.0), (0.0, 3.0)  #: exit features that are classified as one class or the other, at 95% confidence
WEAK = (1.0, 0.0)  #: the first class, at 73% confidence
HAND_COSTS = Costs(segments=(10, 20), heads=(1, 0), reuse=3, classifier=5, gate=7)
SHALLOW, DEEP = 10 + 1, 10 + 20  #: cost of a frame by the depth at which it exits


def truth_of(*videos: tuple[str, str]) -> SplitTruth:
    """The cue of each video, and a digit for each frame in visiting order: 1 if it is informative."""
    cues, frames = zip(*videos, strict=True)
    return SplitTruth(cues, torch.tensor([[digit == "1" for digit in each] for each in frames]))


def split_of(features: list, labels: list[int] | None = None, reuse: str = "none") -> Split:
    labels = labels or [0] * len(features)
    data = planted(torch.tensor(features), torch.tensor(labels), identity_readout(reuse=reuse), HAND_COSTS)
    return replace(data, table=replace(data.table, videos=[f"{row}.mp4" for row in range(len(features))]))


# --- the file -----------------------------------------------------------------------------------------


def write_truth(*lines: str, header: str = "video,cue,frames") -> Path:
    path = Path("data") / "difficulty.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in (header, *lines)))
    return path


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Change to an empty folder."""
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


def test_the_file_is_read_by_video():
    truth = read_truth(write_truth("Bend/a.mp4,coarse,0 1 23", "Run/b.mp4,fine,7", "Run/c.mp4,none,"))
    assert truth == {
        "Bend/a.mp4": ClipTruth("coarse", frozenset({0, 1, 23})),
        "Run/b.mp4": ClipTruth("fine", frozenset({7})),
        "Run/c.mp4": ClipTruth("none", frozenset()),
    }


@pytest.mark.parametrize(
    ("header", "line", "fault"),
    [
        ("video,cue", "a.mp4,none", "video,cue,frames"),
        ("video,frames,cue", "a.mp4,1,coarse", "video,cue,frames"),
        ("video,cue,frames", "a.mp4,corse,1", "`corse` in line 2"),
        ("video,cue,frames", "a.mp4,coarse", "2 instead of 3 values in line 2"),
        ("video,cue,frames", "a.mp4,coarse,1 x", "`1 x` in line 2"),
        ("video,cue,frames", "a.mp4,coarse,-1", "`-1` in line 2"),
        ("video,cue,frames", "a.mp4,coarse,", "`coarse` with the frames `` in line 2"),
        ("video,cue,frames", "a.mp4,none,3", "`none` with the frames `3` in line 2"),
        ("video,cue,frames", "a.mp4,fine,3\na.mp4,fine,3", "a.mp4 again in line 3"),
        ("video,cue,frames", 'a.mp4,fine,"3', "cannot be read"),
    ],
)
def test_a_damaged_file_is_one_line(header, line, fault):
    path = write_truth(line, header=header)
    one_line(lambda: read_truth(path), path, fault, "`python -m tlee demo`")


def test_what_is_not_text_or_empty_is_one_line():
    path = write_truth()
    for content in (b"", b"\xff\xfe\x00"):
        path.write_bytes(content)
        one_line(lambda: read_truth(path), path, "`python -m tlee demo`")


def test_other_data_sets_have_no_such_file():
    params = small_params({"dataset.root": "data"})
    assert truth_file(params) is None
    assert truth_file(small_params({"dataset.root": str(write_truth().parent)})) == Path("data/difficulty.csv")


def write_store(indices: list[list[int]], clip_frames: int = 1) -> None:
    rows = [VideoRow(f"{row}.mp4", [0], "g", each, [b"jpeg"] * len(each)) for row, each in enumerate(indices)]
    write_rows(FRAMES / "test", rows, ["a", "b"], clip_frames)


def test_informative_time_steps_are_those_whose_sampled_frame_shows_the_cue():
    """Of four frames the third is visited first, then the first, the last and the second."""
    path = write_truth("0.mp4,coarse,5 6 7", "1.mp4,fine,1 2 3", "2.mp4,none,")
    write_store([[0, 6, 12, 23], [0, 6, 12, 23], [0, 1, 2, 3]])
    videos = ["0.mp4", "1.mp4", "2.mp4"]
    truth = split_truth(path, "test", videos, "coarse_to_fine")
    assert list(truth.cues) == ["coarse", "fine", "none"]
    assert truth.informative.int().tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert truth.counts.tolist() == [1, 0, 0]
    assert split_truth(path, "test", videos, "sequential").informative[0].int().tolist() == [0, 1, 0, 0]


def test_a_time_step_of_several_frames_is_informative_if_one_is():
    path = write_truth("0.mp4,coarse,3 4")
    write_store([[0, 1, 2, 3, 4, 5, 6, 7]], clip_frames=2)
    assert split_truth(path, "test", ["0.mp4"], "sequential").informative.int().tolist() == [[0, 1, 1, 0]]


def test_a_video_without_a_row_and_a_store_of_others_are_refused():
    path = write_truth("0.mp4,coarse,1", "1.mp4,none,")
    write_store([[0, 1, 2, 3]])
    one_line(lambda: split_truth(path, "test", ["x.mp4"], "sequential"), path, "no row for x.mp4", "tlee demo")
    one_line(lambda: split_truth(path, "test", ["1.mp4"], "sequential"), FRAMES / "test", "other videos", "evaluate")
    store = FRAMES / "test" / "index.arrow"
    store.write_bytes(store.read_bytes().replace(b"0.mp4", b"1.mp4"))
    one_line(lambda: split_truth(path, "test", ["0.mp4"], "sequential"), store, "dvc repro extract")


# --- the informed policy ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cue", "frames", "plan", "exits"),
    [
        ("coarse", "0101", Plan(1, 1, NEVER), [0, 1, -1, -1]),
        ("coarse", "0101", Plan(1, 0, NEVER), [0, 0, -1, -1]),
        ("coarse", "0101", Plan(2, 1, NEVER), [0, 1, 0, 1]),
        ("coarse", "1000", Plan(2, 1, NEVER), [1, -1, -1, -1]),  # it has one
        ("coarse", "0000", Plan(2, 1, NEVER), [0, -1, -1, -1]),  # none of its frames was sampled
        ("none", "0000", Plan(2, 1, NEVER), [0, -1, -1, -1]),
        ("fine", "1111", Plan(2, 1, NEVER), [0, -1, -1, -1]),  # no plan for this cue
    ],
)
def test_exits_and_costs_by_hand(cue, frames, plan, exits):
    outcomes = run_informed(split_of([[[A, B]] * T]), truth_of((cue, frames)), {"coarse": plan})
    assert outcomes.exit_depths.tolist() == [exits]
    each = [(SHALLOW, DEEP)[depth] for depth in exits if depth >= 0]
    assert outcomes.macs.tolist() == [sum(each) + 3 * (len(each) - 1) + 5]
    assert outcomes.logits.tolist() == [list(A if exits[len(each) - 1] == 0 else B)]


@pytest.mark.parametrize(
    ("confidence", "exits", "classified"),
    [(0.7, [0, 1, -1, -1], 1), (0.9, [0, 1, 0, 1], 2), (0.99, [0, 1, 0, 1], 2), (NEVER, [0, 1, 0, 1], 1)],
)
def test_it_stops_early_where_it_is_confident_and_pays_for_asking(confidence, exits, classified):
    data = split_of([[[A, A], [B, WEAK], [A, A], [B, A]]])
    outcomes = run_informed(data, truth_of(("fine", "0101")), {"fine": Plan(2, 1, confidence)})
    assert outcomes.exit_depths.tolist() == [exits]
    processed = sum(depth >= 0 for depth in exits)
    frames = processed // 2 * (SHALLOW + DEEP) + 3 * (processed - 1)
    assert outcomes.macs.tolist() == [frames + 5 * classified]


@pytest.mark.parametrize("model", [{}, {"reuse": "mean"}, {"accumulate": "visited"}, {"readout": "per_step"}])
def test_it_is_the_replay_of_its_exits(model):
    generator = torch.Generator().manual_seed(0)
    readout = identity_readout(**model)
    data = planted(torch.randn(60, T, 2, 2, generator=generator), torch.arange(60) % 2, readout, HAND_COSTS)
    cues = ["coarse", "fine", "none"] * 20
    informative = torch.rand(60, T, generator=generator) < 0.5
    informative[2::3] = False
    plans = {"coarse": Plan(1, 0, NEVER), "fine": Plan(3, 1, NEVER)}
    outcomes = run_informed(data, SplitTruth(cues, informative), plans)
    again = follow(data.source, readout, outcomes.exit_depths, HAND_COSTS)
    torch.testing.assert_close(outcomes.logits, again.logits)
    assert outcomes.macs.tolist() == again.macs.tolist()


def test_val_chooses_the_shallowest_depth_and_the_fewest_frames_that_suffice():
    """A coarse cue is told at any depth, a fine one at full depth and in the second informative frame alone."""
    coarse, fine = [[B, B], [A, A], [B, B], [B, A]], [[B, B], [B, B], [B, B], [B, A]]
    val = split_of([coarse, fine, coarse])
    truth = truth_of(("coarse", "0101"), ("fine", "0101"), ("coarse", "0100"))
    table = choose_plans(val, truth, max_loss=0.0)
    assert plans_of(table) == {"coarse": Plan(1, 0, NEVER), "fine": Plan(2, 1, NEVER)}
    assert table["val_videos"].tolist() == [2, 1]
    assert table["val_score"].tolist() == table["val_full_score"].tolist() == [1, 1]


def test_points_may_be_lost_to_save():
    shallow, deep = [[B, B], [A, A], [A, A], [A, A]], [[B, B], [B, A], [B, A], [B, A]]
    val = split_of([shallow, deep])
    truth = truth_of(("fine", "0100"), ("fine", "0100"))
    assert plans_of(choose_plans(val, truth, 0.0))["fine"] == Plan(1, 1, NEVER)
    loose = choose_plans(val, truth, 50.0).set_index("cue").loc["fine"]
    assert (loose["depth"], loose["val_score"], loose["val_full_score"]) == (0, 0.5, 1)


def test_where_no_plan_is_within_the_limit_the_least_is_lost():
    """The second informative frame is the only one that helps, and helps one of two."""
    helped, lost = [[B, B], [B, B], [A, A], [A, A]], [[B, B], [B, B], [B, B], [A, A]]
    table = choose_plans(split_of([helped, lost]), truth_of(("fine", "0110"), ("fine", "0110")), 0.0).set_index("cue")
    assert plans_of(table.reset_index())["fine"] == Plan(2, 0, NEVER)
    assert table.at["fine", "val_score"] == 0.5


def test_a_cue_that_val_lacks_runs_all_informative_frames_at_full_depth():
    """A clip whose sampled frames show no cue says nothing about the plan."""
    table = choose_plans(split_of([[[A, A]] * T]), truth_of(("coarse", "0000")), 0.0)
    assert plans_of(table) == {cue: Plan(T, 1, NEVER) for cue in ("coarse", "fine")}
    assert table["val_videos"].tolist() == [0, 0] and table["val_score"].isna().all()


# --- tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "groups"),
    [
        (10, [(10, 10, "all 10"), (6, 9, "6 to 9"), (3, 5, "3 to 5"), (1, 2, "1 or 2"), (0, 0, "no")]),
        (16, [(16, 16, "all 16"), (9, 15, "9 to 15"), (4, 8, "4 to 8"), (1, 3, "1 to 3"), (0, 0, "no")]),
        (4, [(4, 4, "all 4"), (3, 3, "3"), (1, 2, "1 or 2"), (0, 0, "no")]),
        (2, [(2, 2, "all 2"), (1, 1, "1"), (0, 0, "no")]),
    ],
)
def test_numbers_of_informative_frames_are_in_one_group_each(steps, groups):
    found = count_groups(steps)
    assert found == [(low, high, f"{name} informative frame{'' if high == 1 else 's'}") for low, high, name in groups]
    assert sorted(count for low, high, _ in found for count in range(low, high + 1)) == list(range(steps + 1))


def part(gmacs: list[float], correct: list[bool], paths: list[str]) -> pd.DataFrame:
    frames = [len(path.split()) for path in paths]
    return pd.DataFrame({"gmacs": gmacs, "correct": correct, "frames": frames, "exit_depths": paths})


TRUTH = truth_of(("coarse", "1111"), ("fine", "1111"), ("coarse", "0001"), ("none", "0000"))


@pytest.fixture
def table() -> pd.DataFrame:
    parts = {
        "full": part([8.0] * 4, [True, True, True, False], ["1 1 1 1"] * 4),
        "tlee": part([1.0, 3.0, 4.0, 8.0], [True, True, False, False], ["0", "0 1", "1 1", "1 1 1 1"]),
        "informed": part([1.0, 2.0, 2.0, 1.0], [True, True, True, False], ["0", "1", "0 0", "0"]),
    }
    return by_true_difficulty(parts, TRUTH)


def test_groups_by_hand(table):
    own = table[table["method"] == "tlee"].set_index("group")
    groups = ["all 4 informative frames", "1 or 2 informative frames", "no informative frames"]
    assert list(own.index) == [*groups, "coarse cue", "fine cue", "no cue"]
    assert own["by"].tolist() == ["frames"] * 3 + ["cue"] * 3
    assert own["videos"].tolist() == [2, 1, 1, 2, 1, 1]
    assert own["share_of_full"].tolist() == [2 / 8, 4 / 8, 1, 2.5 / 8, 3 / 8, 1]
    assert own["score"].tolist() == [1, 0, 0, 0.5, 1, 0]
    assert own["frames"].tolist() == [1.5, 2, 4, 1.5, 2, 4]
    assert own["depth"].tolist() == pytest.approx([1 / 3, 1, 1, 2 / 3, 1 / 2, 1])
    assert (own.at[groups[0], "low"], own.at[groups[0], "high"]) == pytest.approx((1.2 / 8, 2.8 / 8))
    assert own.at["fine cue", "name"] == "fine cue: TLEE"
    assert table["name"].is_unique and set(table["method"]) == {"full", "tlee", "informed"}


def test_the_figure_states_the_distance(table):
    overall = pd.DataFrame({"score": [0.5, 0.75], "share_of_full": [0.5, 0.2]}, index=["tlee", "informed"])
    figure = true_difficulty_costs(table, overall)
    parts = ("TLEE", "2.5x", "50.0%", "75.0%", "25%", "all 4 informative frames", "50%", "1 or 2 informative frames")
    assert states(title(figure), *parts), title(figure)
    left, right = figure.axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names[0] == "all 4 informative frames (n = 2)" and names[-1] == "no cue (n = 1)"
    assert [text.get_text() for text in left.texts] == ["1.3x", "2.0x", "8.0x", "1.7x", "1.5x", "8.0x"]
    assert len(left.lines) == 2 and len(right.lines) == 3  # the full network's cost is left out
    figure.draw_without_rendering()
    assert figure._suptitle.get_window_extent().x1 <= figure.bbox.x1


def test_the_figure_of_the_full_network_and_of_one_group(table):
    overall = pd.DataFrame({"score": [0.75, 0.75], "share_of_full": [1.0, 0.2]}, index=["full", "informed"])
    figure = true_difficulty_costs(table[table["method"] != "tlee"], overall, "full")
    assert states(title(figure), "full network", "5.0x")
    hopeless = true_difficulty_costs(table[table["group"].str.startswith("no ")], overall, "full")
    assert title(hopeless).endswith(")")


# --- the stage ----------------------------------------------------------------------------------------


def trace_rows(data: Split, exits: list[list[int]]) -> pd.DataFrame:
    outcomes = follow(data.source, data.readout, torch.tensor(exits), data.costs)
    return comparison.rows_of(data, outcomes).assign(
        video=data.table.videos, group="g", truth="a", prediction="a", confidence=0.9
    )


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Trace:
    """Four test videos in the trace, of which the last is hopeless; features and weights are replaced."""
    write_small_stores([0, 0, 1, 1])
    easy, hopeless = [[A, A]] * T, [[B, B]] * T
    data = split_of([easy, easy, easy, hopeless])
    monkeypatch.setattr(comparison, "load_splits", lambda params: (data, data))
    trace = {
        "full": trace_rows(data, [[1] * T] * 4),
        "oracle": trace_rows(data, [[0, -1, -1, -1]] * 4),
        "temporal": trace_rows(data, [[1, -1, -1, -1]] * 4),
        "tlee": trace_rows(data, [[0, 0, -1, -1]] * 3 + [[1] * T]),
    }
    save_table("evaluate", "trace", pd.concat([rows.assign(method=name) for name, rows in trace.items()]), checked=True)
    return read_trace("tlee")


def params_here() -> Params:
    return small_params({"dataset.root": "data"})


ROWS = ("0.mp4,coarse,0 1 2 3", "1.mp4,fine,0 1 2 3", "2.mp4,coarse,0", "3.mp4,none,")


def test_without_the_file_nothing_changes(written):
    explanation = explain(params_here())
    explanation.write()
    assert explanation.truth is None
    assert "informed" not in json.loads((METRICS / "explain.json").read_text())
    assert not (PLOTS / "explain" / "true_difficulty.csv").exists()


def test_with_the_file_the_informed_policy_is_among_metrics_and_tables(written):
    """Video 2 shows its cue in the frame that is visited second."""
    write_truth(*ROWS)
    explanation = explain(params_here())
    explanation.write()
    informed = json.loads((METRICS / "explain.json").read_text(), parse_constant=pytest.fail)["informed"]
    one, two, full = SHALLOW + 5, 2 * SHALLOW + 3 + 5, T * DEEP + 3 * (T - 1) + 5
    cost = (one + one + two + one) / 4
    assert informed["score"] == 0.75
    assert informed["share_of_full"] == pytest.approx(cost / full, rel=1e-5)
    assert informed["cost_ratio"] == pytest.approx((3 * two + full) / 4 / cost, rel=1e-5)
    assert (informed["coarse_frames"], informed["coarse_depth"], informed["coarse_confidence"]) == (1, 0, NEVER)
    table = pd.read_csv(PLOTS / "explain" / "true_difficulty.csv")
    assert list(table["method"].unique()) == ["full", "temporal", "tlee", "informed"]
    assert pd.read_csv(PLOTS / "explain" / "informed_plans.csv")["cue"].tolist() == ["coarse", "fine"]
    ratio = f"{informed['cost_ratio']:.2f}"
    assert states(explanation.truth.sentence(), "TLEE", "75.0%", "75.0%", ratio)


def test_a_damaged_file_and_features_of_other_videos_stop_the_stage(written, monkeypatch):
    path = write_truth(*ROWS[:-1])
    one_line(lambda: explain(params_here()), path, "no row for 3.mp4")
    write_truth(*ROWS)
    data = comparison.load_splits(None)[0].take(np.array([1, 0, 2, 3]))
    monkeypatch.setattr(comparison, "load_splits", lambda params: (data, data))
    one_line(lambda: compare_with_informed(path, written, params_here()), TRACE, "other videos", "evaluate")


def test_costs_are_in_gmacs(written):
    """The share is that of two numbers in the same unit."""
    data = comparison.load_splits(None)[0]
    rows = comparison.rows_of(data, run_informed(data, truth_of(*[("none", "0" * T)] * 4), {}))
    assert rows["gmacs"].tolist() == [(SHALLOW + 5) / GIGA] * 4
