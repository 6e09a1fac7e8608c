"""The real pipeline, through ``dvc repro``, on a few of the demo clips."""

import csv
import json
import re

import nbformat
import pytest
from support.pipelines import CLASSES, CLIPS, ROOT, Project
from support.torture import Torture

from tlee.evaluation.baselines import FAMILIES

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
AFTER_EXTRACT = {"pretrain", "branches", "gates", "evaluate", "latency", "guarantee", "explain"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose pipeline has been run."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.output = project.call("dvc", "repro")
    return project


def test_every_stage_runs_and_shows_its_progress(project):
    assert "epoch   3/3" in project.output
    assert project.metrics("extract") == {"train": 32, "val": 16, "test": 8, "share_read": 1.0}


def test_executed_notebooks_show_the_parameters_and_figures(project):
    notebooks = sorted((project.folder / "results/notebooks").glob("*.ipynb"))
    assert len(notebooks) == 8
    for path in notebooks:
        cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        outputs = [output for cell in cells for output in cell.outputs]
        assert "parameter" in outputs[0].data["text/html"]
        for cell in cells:
            shown = sum("image/png" in output.get("data", {}) for output in cell.outputs)
            assert shown >= cell.source.count("show("), f"{path.name}: {cell.source}"


def test_stored_features_and_the_real_network_agree_on_every_test_video(project):
    assert project.metrics("evaluate")["step_by_step_agreement"] == 1.0


def test_the_exported_network_agrees_on_every_test_video(project):
    edge = project.metrics("edge")
    assert edge["same"] == edge["videos"] == CLASSES * len(CLIPS["test"])
    assert edge["max_feature_difference"] < 1e-4


def test_a_prediction_agrees_with_the_table(project):
    with (project.folder / "results/plots/evaluate/trace.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "tlee"]
    videos = [f"data/UCF-101/{row['video']}" for row in rows]
    predictions = [
        json.loads(line) for line in project.call("python", "-m", "tlee", "predict", "--json", *videos).splitlines()
    ]
    assert [each["video"] for each in predictions] == videos
    for each, row in zip(predictions, rows, strict=True):
        assert (each["label"], " ".join(map(str, each["exit_depths"]))) == (row["prediction"], row["exit_depths"])
        assert (each["frames"], each["gmacs"]) == (int(row["frames"]), float(row["gmacs"]))
        assert each["confidence"] == pytest.approx(float(row["confidence"]), abs=1e-5)


def test_a_second_run_has_nothing_to_do(project):
    assert "up to date" in project.call("dvc", "repro")


@pytest.mark.parametrize(
    ("section", "key", "value", "stages"),
    [
        ("evaluate", "layer_threshold", 0.8, {"evaluate", "guarantee"}),
        ("guarantee", "max_harm", 2.0, {"guarantee"}),
        ("latency", "repeats", 2, {"latency"}),
        ("gates", "beta", 0.3, {"gates"}),
        ("model", "method", "frameexit", AFTER_EXTRACT),
        ("extract", "short_side", 80, {"extract", "latency"}),
    ],
)
def test_a_changed_parameter_reruns_only_its_stages(project, section, key, value, stages):
    path = project.folder / "params.yaml"
    before = path.read_text()
    project.change(section, key, value)
    try:
        assert project.would_run() == stages
    finally:
        path.write_text(before)


def test_saving_a_notebook_with_outputs_trains_nothing(project):
    path = project.folder / "notebooks/2_pretrain_backbone.ipynb"
    before = path.read_bytes()
    executed = nbformat.read(project.folder / "results/notebooks/2_pretrain_backbone.ipynb", 4)
    source = nbformat.read(path, 4)
    for cell, run in zip(source.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = run.outputs, run.execution_count
    source.metadata["language_info"] = {"name": "python", "version": "3.99"}
    nbformat.write(source, path)
    try:
        output = project.call("dvc", "repro")
        assert "Running stage 'strip'" in output
        assert "Running stage 'pretrain'" not in output
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(("stage", "victim"), [("extract", "worker"), ("pretrain", "everything")])
def test_killed_stages_go_on_and_end_the_same(project, stage, victim):
    """``make torture`` does so to all stages, with all victims."""
    torture = Torture(project)
    torture.kill(stage, 1, 8.0, (victim,))
    (trial,) = torture.trials
    assert (trial.failure, trial.lost <= 1) == ("", True), trial


def test_running_everything_again_gives_the_same_to_the_last_digit(project):
    """In a process that has imported and run other things before."""
    before = project.contents()
    for name in before:
        if not re.match(r"results/(stripped|code|environment)/|.*\.gitignore$", name):
            (project.folder / name).unlink()
    project.run_cells(*NOTEBOOKS)
    after = project.contents()
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == set()


def test_frameexit_runs_through_the_same_stages(project):
    project.change("model", "method", "frameexit")
    project.change("latency", "int8", False)
    project.run_cells(*NOTEBOOKS[1:])
    rows = project.metrics("evaluate")
    assert {name for name in rows if isinstance(rows[name], dict)} == {
        "frameexit",
        "temporal",
        "full",
        "oracle",
        *FAMILIES,
    }
    assert rows["step_by_step_agreement"] == 1.0
    assert project.metrics("edge")["same"] == CLASSES


def test_a_corrupt_clip_is_listed_and_skipped_or_named(project):
    clip = project.folder / "data/UCF-101/Walk/v_Walk_g09_c01.mp4"
    clip.write_bytes(b"no video")
    project.change("extract", "max_failed_share", 0.1)
    project.call("dvc", "repro", "--single-item", "extract")
    metrics = project.metrics("extract")
    assert metrics["train"] + metrics["val"] + metrics["test"] == 32 + 16 + 8 - 1
    assert metrics["share_read"] == pytest.approx(55 / 56, abs=1e-6)
    assert "v_Walk_g09_c01.mp4" in (project.folder / "results/failed_videos.csv").read_text()

    project.change("extract", "max_failed_share", 0.0)
    output = project.call("dvc", "repro", "--single-item", "extract", expect=1)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "v_Walk_g09_c01.mp4" in errors[0]
    assert "extract.max_failed_share" in errors[0]
    assert "Traceback" not in output


def test_a_typo_in_the_parameters_is_one_line(project):
    path = project.folder / "params.yaml"
    path.write_text(path.read_text().replace("max_loss:", "max_los:"))
    output = project.call("dvc", "repro", "--single-item", "--force", "gates", expect=1)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "unknown key `evaluate.max_los`, did you mean `max_loss`?" in errors[0]
    assert "Traceback" not in output
