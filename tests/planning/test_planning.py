"""The forecast of a run: exact sums from made-up measurements, and a rehearsal of a small data set."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.cells import run_cells
from support.commands import call
from support.small import SIDE, T, in_place_of_resnet18, small_params

from tlee.datasets import Dataset, read_dataset
from tlee.demo import ClipSpec, write_demo
from tlee.environment import record_environment
from tlee.errors import UserError
from tlee.params import load_params
from tlee.planning import rehearsal, report
from tlee.planning.comparison import keep_forecast, load_forecast, with_last_run
from tlee.planning.forecast import KERNEL, STAGES, forecast
from tlee.planning.rehearsal import Linear, Rehearsal, rehearse
from tlee.reproducibility import is_pinned

MEASURED = Rehearsal(
    extraction=Linear(start=2.0, each=0.5),
    pretraining=3.0,
    validation=0.1,
    branches=7.0,
    features=0.2,
    gates=0.01,
    evaluation=Linear(10.0, 0.1),
    stepping=0.3,
    latency=Linear(20.0, 1.0),
    guarantee=Linear(5.0, 0.2),
    video_bytes=1e6,
    clip_bytes=2e6,
    model_bytes=5e6,
    bundle_bytes=Linear(3e6, 1e5),
    memory={"pretrain": Linear(8e8, 0), "evaluate": Linear(2e8, 1e6)},
)


def dataset(train: int, val: int, test: int) -> Dataset:
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    return Dataset(Path("videos"), ["a"], pd.DataFrame({"split": splits}))


def settings(**overrides):
    few = {"pretrain.epochs": 6, "pretrain.batch_clips": 10, "branches.epochs": 3, "branches.batch_clips": 25}
    few |= {"branches.train_views": 2, "gates.epochs": 4, "gates.batch_clips": 50, "latency.videos": 64}
    return small_params(few | {"latency.repeats": 3} | overrides)


@pytest.fixture
def table() -> pd.DataFrame:
    return forecast(settings(), dataset(100, 20, 40), MEASURED).set_index("stage")


def test_time_is_that_of_the_steps_videos_and_clips(table):
    expected = {
        "extract": 2 + 160 * 0.5,
        "pretrain": 6 * 10 * 3 + 2 * 20 * 0.1,  # validated after 5 epochs and at the end
        "branches": 3 * 4 * 7 + 20 * 0.1 + 260 * 0.2,
        "gates": 4 * 4 * 0.01,
        "evaluate": 10 + 30 * 0.1 + 40 * 0.3,  # and the network itself on all of test
        "latency": 20 + 40,  # all of test
        "guarantee": 5 + 30 * 0.2,
        "explain": 0.0,
    }
    assert table["seconds"].to_dict() == pytest.approx({stage: KERNEL + value for stage, value in expected.items()})


def test_disk_is_that_of_frames_weights_exit_features_and_exported_networks(table):
    used = table["bytes"][table["bytes"] > 0].to_dict()
    assert used == pytest.approx({"extract": 160e6, "pretrain": 5e6, "branches": 520e6, "latency": 7e6})


def test_memory_is_that_of_a_batch_or_grows_with_the_videos_that_are_evaluated(table):
    assert table["memory"][table["memory"] > 0].to_dict() == pytest.approx({"pretrain": 8e8, "evaluate": 2.3e8})
    shown = table.reset_index().assign(took=np.nan)
    assert "800.0 MB" in report(shown)
    assert "Memory" not in report(shown.assign(memory=0.0))


def test_twice_the_epochs_take_twice_the_training():
    videos = dataset(100, 20, 40)
    once, twice = (
        forecast(settings(**{"gates.epochs": epochs}), videos, MEASURED).set_index("stage")["seconds"]
        for epochs in (5, 10)
    )
    assert twice["gates"] - KERNEL == pytest.approx(2 * (once["gates"] - KERNEL))
    assert twice.drop("gates").equals(once.drop("gates"))


@pytest.mark.parametrize(
    ("small", "large", "expected"),
    [
        ((10, 3.0), (20, 5.0), Linear(1.0, 0.2)),
        ((10, 5.0), (20, 4.0), Linear(4.0, 0.0)),  # noise: no work takes less time if there is more of it
        ((10, 1.0), (20, 4.0), Linear(0.0, 0.2)),  # nor does it begin before it starts
    ],
)
def test_a_line_through_two_measurements_never_falls_below_zero(small, large, expected):
    line = Linear.through(small, large)
    assert (line.start, line.each) == pytest.approx((expected.start, expected.each))


@pytest.fixture
def ran(tmp_path, monkeypatch) -> Path:
    """A project in which stages `extract` and `gates` have run, and the notebook of the second is damaged."""
    monkeypatch.chdir(tmp_path)
    recorded = {
        "extract": {"params": {"params.yaml": {"seed": 0, "extract": settings().extract.model_dump(mode="json")}}},
        "gates": {"params": {"params.yaml": {"gates.epochs": 4}}},
    }
    (tmp_path / "dvc.lock").write_text(json.dumps({"stages": recorded}))
    folder = tmp_path / "results/notebooks"
    folder.mkdir(parents=True)
    for name in ("1_extract_frames", "4_train_gates"):
        (folder / f"{name}.ipynb").write_text(json.dumps({"metadata": {"papermill": {"duration": 46.0}}}))
        record_environment(name)
    (folder / "4_train_gates.ipynb").write_text("damaged")
    return tmp_path


def last_run(table: pd.DataFrame, **overrides) -> pd.DataFrame:
    return with_last_run(settings(**overrides), table.reset_index())


def test_the_last_run_is_told_by_the_executed_notebooks(table, ran):
    found = last_run(table)
    assert found.set_index("stage")["took"].dropna().to_dict() == {"extract": 46.0}
    assert found["ratio"].dropna().tolist() == pytest.approx([2.0])
    assert "46 s" in report(found)


@pytest.mark.parametrize("parameter", [{"seed": 1}, {"extract.short_side": 200}])
def test_a_run_with_other_parameters_is_not_compared(parameter, table, ran):
    assert last_run(table, **{"gates.epochs": 7})["took"].notna().any()
    assert last_run(table, **parameter)["took"].isna().all()


def test_a_run_on_another_machine_is_not_compared(table, ran):
    path = ran / "results/environment/1_extract_frames.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"cores": content["cores"] + 1}))
    assert last_run(table)["took"].isna().all()


def test_a_forecast_is_kept_for_its_parameters(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keep_forecast(settings(), table.reset_index())
    pd.testing.assert_frame_equal(load_forecast(settings()), table.reset_index())
    with pytest.raises(UserError, match=r"no forecast for these parameters: run `python -m tlee plan`"):
        load_forecast(settings(seed=1))


def test_the_notebook_sets_the_forecast_beside_the_last_run(table, ran, root):
    text = (root / "params.yaml").read_text(encoding="utf-8")
    (ran / "params.yaml").write_text(text, encoding="utf-8")
    params = load_params(ran / "params.yaml")
    keep_forecast(params, table.reset_index())
    run_cells(root / "notebooks/plan.ipynb")
    assert (ran / "results/figures/plan/stages.png").exists()
    pd.testing.assert_frame_equal(
        pd.read_csv("results/plots/plan/stages.csv"), with_last_run(params, table.reset_index()), rtol=1e-5
    )


def test_every_stage_has_its_notebook(root):
    assert sorted(STAGES.values()) == sorted(path.stem for path in (root / "notebooks").glob("[1-8]_*.ipynb"))


def test_a_disk_that_is_too_small_is_told(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = last_run(table)
    assert "too small" not in report(shown)
    assert "too small" in report(shown.assign(bytes=1e18))


@pytest.mark.slow
def test_a_rehearsal_measures_every_stage_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    groups = (1, 2, 9, 10, 11, 12)  # the first two are for testing
    write_demo("data", [ClipSpec(action, group, 1) for action in ("Bend", "Wave") for group in groups], jobs=1)
    monkeypatch.setattr(rehearsal, "REPLAYED", (16, 24))
    monkeypatch.setattr(rehearsal, "TIMED", (2, 4))  # of four
    changes = {"compute.jobs": 1, "evaluate.bootstrap": 20, "latency.int8": False, "extract.short_side": 24}
    params = small_params(changes)
    videos, stages = read_dataset(params.dataset, params.seed), []
    with in_place_of_resnet18():
        measured = rehearse(params, videos, stages.append)
    assert stages == [stage for stage in STAGES if stage != "explain"]
    assert measured.bundle_bytes.start > 0 and measured.bundle_bytes.each >= T * 3 * SIDE**2  # a clip
    numbers = {name: value for name, value in vars(measured).items() if isinstance(value, float | int)}
    assert all(np.isfinite(value) and value >= 0 for value in numbers.values())
    assert all(numbers[name] > 0 for name in ("features", "stepping", "video_bytes", "clip_bytes", "model_bytes"))
    assert measured.memory["pretrain"].at(0) > 0
    assert set(measured.memory) == {"pretrain", "branches", "evaluate", "guarantee"}
    assert measured.clip_bytes >= 4 * params.extract.frames * 3  # single precision, two branches and the end
    assert [path.name for path in tmp_path.iterdir()] == ["data", "runs"] and not list((tmp_path / "runs").iterdir())
    assert len(forecast(params, videos, measured)) == len(STAGES)


@pytest.mark.parametrize("reproducible", [True, False])
def test_the_rehearsal_has_the_settings_of_the_kernels_of_notebooks(reproducible, tmp_path, monkeypatch, root):
    text = (root / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(re.sub(r"(?m)^reproducible: \w+", f"reproducible: {reproducible}", text))
    monkeypatch.setattr("tlee.reproducibility.can_pin", lambda: True)
    monkeypatch.setattr("tlee.planning.plan_run", lambda: str(is_pinned()))
    assert call(tmp_path, "plan").stdout == f"{reproducible}\n"
