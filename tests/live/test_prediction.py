"""`python -m tlee predict`: predictions for video files, the same as in the evaluation."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from support.clips import encode, seen
from support.projects import CLASSES, make_project
from support.refusals import one_line
from support.small import SIDE, T, random_network, small_params
from support.stores import noisy, write_store
from support.titles import states
from typer.testing import CliRunner, Result

from tlee.__main__ import app
from tlee.backbones.cut import Backbone
from tlee.clips import ClipDataset
from tlee.costs import count_costs
from tlee.explanation.film_strips import strip
from tlee.extraction import sample_indices
from tlee.frames import FrameStore, visiting_order
from tlee.levels import ALWAYS
from tlee.live import prediction
from tlee.live.prediction import (
    Prediction,
    PredictionTable,
    Predictor,
    VideoPrediction,
    film_strip_paths,
    load_predictor,
    predict,
    to_clip,
    to_json,
)
from tlee.model import TLEE
from tlee.params import load_params
from tlee.paths import GUARANTEED_POLICY
from tlee.policies.files import save_policies
from tlee.policies.given import FixedExits, RandomExits
from tlee.policies.thresholds import Thresholds
from tlee.views import CentreView

ORDER = visiting_order(T, "coarse_to_fine")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, pd.DataFrame]]:
    """A project that has been run, and the trace of its test videos for each policy."""
    root = tmp_path_factory.mktemp("project")
    return root, make_project(root)


@pytest.fixture
def project(trained: tuple, monkeypatch: pytest.MonkeyPatch, five_layer_backbone: None) -> Path:
    """That project, as the working folder."""
    monkeypatch.chdir(trained[0])
    return trained[0]


@pytest.fixture
def traces(trained: tuple) -> dict[str, pd.DataFrame]:
    return trained[1]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["predict", *arguments])


# --- predictions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["tlee", "full"])
def test_the_prediction_for_a_test_video_agrees_with_the_trace(project, traces, policy):
    trace = traces[policy]
    assert len(trace["exit_depths"].unique()) > (2 if policy == "tlee" else 0)
    predictor = load_predictor(load_params(), policy)
    for row in trace.itertuples():
        found = predict(predictor, project / "videos" / row.video, row.video).prediction
        assert (found.label, " ".join(map(str, found.exit_depths))) == (row.prediction, row.exit_depths)
        assert (len(found.exit_depths), found.gmacs) == (row.frames, row.gmacs)
        assert found.confidence == pytest.approx(row.confidence, abs=1e-5)
        assert (found.share_of_full == 1) == (policy == "full")


def test_short_clips_are_assembled_as_in_training(tmp_path):
    params = small_params({"extract.clip_frames": 13}, backbone="x3d_s")
    path = write_store(tmp_path / "test", [0], 13 * T, lambda _, frame: noisy(0, frame), "red", clip_frames=13)
    store = FrameStore(path)
    clip = ClipDataset(store, ORDER, CentreView(SIDE)).clip(0)
    assert clip.shape == (T, 3, 13, SIDE, SIDE)
    assert torch.equal(to_clip(store.clip(0, ORDER), params), clip)


@pytest.fixture
def predictor(five_layer_backbone: None) -> Predictor:
    """A random network under a policy that never exits."""
    params = small_params()
    model = random_network(params)
    return Predictor(params, model, CLASSES, Thresholds.never(3), count_costs(model))


def test_processed_frames_are_listed_by_their_index_in_the_file(predictor, tmp_path):
    path = encode(tmp_path / "grey.mp4", length=20)
    found = predict(predictor, path, "grey.mp4")
    sampled = sample_indices(20, T)
    assert found.indices == [sampled[step] for step in ORDER]
    assert seen(found.images) == sampled
    at_first = replace(predictor, policy=Thresholds((1.0, 1.0), (0.0, 1.0, 1.0), (1.0,) * 3, (1.0,) * 3))
    found = predict(at_first, path, "grey.mp4")
    assert (found.prediction.exit_depths, found.indices) == ([0], [sampled[ORDER[0]]])


def test_a_segment_that_is_skipped_is_never_run(predictor, tmp_path, monkeypatch):
    ran = []
    step = Backbone.step

    def counted(self: Backbone, depth: int, *rest: torch.Tensor) -> tuple:
        ran.append(depth)
        return step(self, depth, *rest)

    monkeypatch.setattr(Backbone, "step", counted)
    shallow = Thresholds((1.0, ALWAYS), *((1.0,) * 3,) * 3)
    found = predict(replace(predictor, policy=shallow), encode(tmp_path / "grey.mp4"), "grey.mp4")
    assert found.prediction.exit_depths == [1] * T
    assert ran == [0, 1] * T
    assert found.prediction.share_of_full < 1


def test_random_exits_differ_between_videos_and_are_reproducible(predictor, tmp_path):
    path = encode(tmp_path / "grey.mp4")
    random_exits = replace(predictor, policy=RandomExits(0.3, seed=0))
    first, second = (
        [predict(random_exits, path, "", index).prediction.exit_depths for index in range(20)] for _ in range(2)
    )
    assert first == second
    assert len(set(map(tuple, first))) > 5


def test_a_multi_label_network_predicts_all_probable_labels_and_at_least_one(five_layer_backbone):
    params = small_params({"dataset.labels": "multi"})
    model = TLEE(params, len(CLASSES))
    multi_label = Predictor(params, model, CLASSES, Thresholds.never(3), count_costs(model.eval()))
    assert list(multi_label.labels(torch.tensor([0.1, -1.0, 3.0]))) == ["blue", "red"]
    assert list(multi_label.labels(torch.tensor([-2.0, -1.0, -3.0]))) == ["green"]
    assert multi_label.labels(torch.tensor([0.0, -1.0, -1.0])) == {"red": 0.5}


def test_a_single_label_network_predicts_the_most_probable_label(predictor):
    assert predictor.labels(torch.tensor([0.0, 2.0, 2.0]).log()) == {"green": pytest.approx(0.5)}
    assert predictor.labels(torch.tensor([3.0, 4.0, 2.0]).log()) == {"green": pytest.approx(4 / 9)}


# --- unreadable videos -----------------------------------------------------------------------------------


def test_an_unreadable_video_is_named_with_the_reason(predictor, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    missing, text = (
        one_line(lambda name=name: predict(predictor, tmp_path / name, name)) for name in ("none.mp4", "text.mp4")
    )
    assert "none.mp4" in missing and "does not exist" in missing
    assert "text.mp4" in text and "cannot be decoded" in text


def test_frames_of_different_shapes_are_refused(predictor, tmp_path):
    for number in range(T):
        noisy(0, number, side=20).resize((20 + 10 * (number > 1), 20)).save(tmp_path / f"{number}.png")
    line = one_line(lambda: predict(predictor, tmp_path, "frames"))
    assert line.startswith("frames: ") and "differ in shape" in line


# --- output ----------------------------------------------------------------------------------------------


def example(video: str = "a/wave.mp4", **changes: object) -> VideoPrediction:
    prediction = Prediction({"blue": 0.98765432}, exit_depths=[2, 0], gmacs=0.012345678, share_of_full=0.25)
    return VideoPrediction(video, replace(prediction, **changes), [12, 0], ORDER, [noisy(0, step) for step in range(T)])


def test_a_prediction_as_json():
    assert json.loads(to_json(example())) == {
        "video": "a/wave.mp4",
        "label": "blue",
        "confidence": 0.987654,
        "labels": {"blue": 0.987654},
        "frames": 2,
        "exit_depths": [2, 0],
        "indices": [12, 0],
        "gmacs": 0.0123457,
        "saving": 0.75,
    }


def test_the_columns_of_the_table_are_aligned():
    videos = ["a/wave.mp4", "longer/name/of/a/video.avi"]
    table = PredictionTable.of(videos, CLASSES)
    other = example(video=videos[1], labels={"red": 1.0}, exit_depths=[0], gmacs=12.5, share_of_full=1.001)
    heading, first, second = table.heading(), table.line(example()), table.line(other)
    assert first.split() == ["a/wave.mp4", "blue", "0.988", "2", "of", "4", "0.0123", "75%", "2", "0"]
    assert second.split() == [videos[1], "red", "1.000", "1", "of", "4", "12.5000", "0%", "0"]
    assert heading.index("label") == first.index("blue") == second.index("red")
    columns = {"confidence": ("0.988", "1.000"), "GMACs": ("0.0123", "12.5000"), "saved": ("75%", "0%")}
    for column, values in columns.items():
        ends = {line.rindex(value) + len(value) for line, value in zip((first, second), values, strict=True)}
        assert ends == {heading.index(column) + len(column)}


def test_several_labels_share_a_line():
    line = PredictionTable.of(["a/wave.mp4"], CLASSES).line(example(labels={"blue": 0.9, "red": 0.6}))
    assert "  blue, red  " in line


def test_a_film_strip_shows_the_visited_frames():
    images = example().images
    drawn = strip(images, [2, 0, 3, 1], [1, 2], "wave.mp4: blue", 0.876, 0.254)
    assert drawn.pictures is images
    assert drawn.visits == {2: (1, 1), 0: (2, 2)}  # at which visit, at which depth
    assert states(drawn.title, "wave.mp4: blue", "0.88", "2 of 4 frames", "25%")


def test_film_strips_of_one_name_are_numbered(tmp_path):
    videos = [Path(name) for name in ("a/x.mp4", "b/x.avi", "x-2.mp4", "c/x.mp4", "frames")]
    names = [file.name for file in film_strip_paths(videos, tmp_path)]
    assert names == ["x.png", "x-2.png", "x-2-2.png", "x-3.png", "frames.png"]


# --- the command -----------------------------------------------------------------------------------------


def test_the_command_prints_one_line_per_video(project, traces):
    done = call("videos/0.mp4", "videos/frames")
    assert (done.exit_code, done.stderr) == (0, "")
    heading, *lines = done.stdout.splitlines()
    assert heading.split()[:2] == ["video", "label"]
    trace = traces["tlee"].set_index("video")
    for line, video in zip(lines, ("0.mp4", "frames"), strict=True):
        assert line.split()[:2] == [f"videos/{video}", trace.at[video, "prediction"]]
        assert line.endswith(f"  {trace.at[video, 'exit_depths']}")


def test_videos_that_fail_are_named_and_the_others_are_processed(project):
    done = call("videos/none.mp4", "videos/0.mp4", "params.yaml", "--json", "videos/1.mp4")
    assert done.exit_code == 1
    assert [json.loads(line)["video"] for line in done.stdout.splitlines()] == ["videos/0.mp4", "videos/1.mp4"]
    missing, other = done.stderr.splitlines()
    assert missing.startswith("error: videos/none.mp4: ") and "does not exist" in missing
    assert other.startswith("error: params.yaml: ")


def test_paths_are_relative_to_the_current_folder(project, monkeypatch):
    monkeypatch.chdir(project / "videos")
    done = call("0.mp4", "--json", "--figure", "strips")
    assert json.loads(done.stdout)["video"] == "0.mp4"
    assert (project / "videos" / "strips" / "0.png").read_bytes().startswith(b"\x89PNG")


def test_a_policy_is_selected_by_name(project):
    done = {name: call("videos/0.mp4", "--json", "--policy", name) for name in ("full", "random")}
    exits = {name: json.loads(each.stdout)["exit_depths"] for name, each in done.items()}
    random_exits = load_predictor(load_params(), "random")
    assert exits == {"full": [2] * T, "random": predict(random_exits, Path("videos/0.mp4"), "").prediction.exit_depths}
    refusal = str(call("videos/0.mp4", "--policy", "fast").exception)
    assert refusal.startswith("results/policy.json ")
    assert all(part in refusal for part in ("`fast`", "full, random, tlee", "run `dvc repro evaluate`"))


def test_the_guaranteed_policy_can_be_selected(project):
    assert "guaranteed_policy.json is missing" in str(call("0.mp4", "--policy", "guaranteed").exception)
    save_policies({"tlee": FixedExits(frames=1, depth=1)}, GUARANTEED_POLICY)
    done = call("videos/0.mp4", "--json", "--policy", "guaranteed")
    GUARANTEED_POLICY.unlink()
    assert json.loads(done.stdout)["exit_depths"] == [1]


def test_each_prediction_is_printed_before_the_next_video_is_read(project, monkeypatch):
    stdout, printed_lines = io.StringIO(), []
    read = prediction.decode

    def decode(path: Path, *rest: object, **settings: object) -> tuple:
        printed_lines.append(len(stdout.getvalue().splitlines()))
        return read(path, *rest, **settings)

    monkeypatch.setattr(prediction, "decode", decode)
    monkeypatch.setattr("sys.stdout", stdout)
    app(["predict", "--json", *(f"videos/{row}.mp4" for row in range(3))], standalone_mode=False)
    assert printed_lines == [0, 1, 2]


def test_an_unusable_figure_folder_is_named_before_anything_is_predicted(project):
    done = call("videos/0.mp4", "--figure", "params.yaml")
    assert not done.stdout
    assert all(part in str(done.exception) for part in ("params.yaml", "File exists", "--figure"))


def test_a_missing_network_names_the_stage_that_trains_it(project, tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_bytes((project / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    refusal = str(call("clip.mp4").exception)
    assert "results/models/backbone.safetensors" in refusal and "run `dvc repro pretrain`" in refusal
