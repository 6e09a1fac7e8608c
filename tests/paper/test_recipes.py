"""The recipes: complete, valid, equal to what ``tlee.paper.recipes`` writes, and able to run.

Running all of them takes too long. A selection runs that covers every data set, in its own layout, and every pair of
backbone and method, through the calls of the notebooks, on a few tiny videos. Of these a selection is exported and
timed that covers every backbone and every method.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from support.bundles import TENSORRT_8_2, operators
from support.dataset_files import OFFICIAL, TINY, make_tiny

from tlee.clips import load_clips
from tlee.datasets import read_dataset
from tlee.edge.report import time_policy
from tlee.evaluation.evaluate import evaluate_splits
from tlee.evaluation.step_by_step import step_by_step_agreement
from tlee.extraction import extract
from tlee.features import store_features
from tlee.model import TLEE
from tlee.paper.recipe_settings import COMMON
from tlee.paper.recipe_table import RECIPES, Recipe
from tlee.paper.recipes import markdown, render
from tlee.params import load_params
from tlee.paths import EDGE, FRAMES
from tlee.training.backbone import pretrain
from tlee.training.branches import train_branches
from tlee.training.gates import train_gates

ROOT = Path(__file__).parents[2]
FILES = {recipe.name: ROOT / "recipes" / f"{recipe.name}.yaml" for recipe in RECIPES}
PUBLISHED = OFFICIAL.parent / "published" / "results.csv"

every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


# --- the files -----------------------------------------------------------------------------------


def test_each_recipe_has_a_file_and_there_is_no_other():
    assert sorted(ROOT.glob("recipes/*.yaml")) == sorted(FILES.values())


@every_recipe
def test_a_file_agrees_with_the_table(recipe):
    template = (ROOT / "params.yaml").read_text()
    assert FILES[recipe.name].read_text() == render(recipe, template), "run `python -m tlee.paper.recipes`"


@pytest.mark.filterwarnings("error")
@every_recipe
def test_a_recipe_sets_every_parameter_and_no_other(recipe):
    values = load_params(FILES[recipe.name]).model_dump()
    flat = {name: values.pop(name) for name in ("seed", "reproducible")}
    flat |= {f"{section}.{key}": value for section, settings in values.items() for key, value in settings.items()}
    assert flat == recipe.settings  # none is overridden by the method


def test_a_recipe_can_be_rendered_from_another_recipe():
    """``params.yaml`` is the template, even after a recipe has been copied there."""
    first, *_, last = RECIPES
    assert render(last, FILES[first.name].read_text()) == FILES[last.name].read_text()


def test_every_setting_of_a_recipe_is_a_parameter():
    named = {"dataset.name", "dataset.root", "model.method", "model.backbone"}
    assert {key for recipe in RECIPES for key in recipe.settings} == COMMON.keys() | named


def test_the_readme_contains_the_table():
    assert markdown() in (ROOT / "recipes" / "README.md").read_text()


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published numbers are not part of the project")
def test_published_numbers_agree_with_the_papers():
    names = {"activitynet": "activitynet1.3", "mini_kinetics": "minikinetics", "hvu": "hvu"}
    rows = [
        (row["dataset"], row["backbone"], float(row["score"]), float(row["gflops_per_video"]), row["source"])
        for row in csv.DictReader(PUBLISHED.open())
        if row["method"].startswith("FrameExit")
    ]
    for recipe in RECIPES:
        for result in recipe.published:
            row = names[recipe.data_set], recipe.backbone, result.score, result.gmacs, result.source
            assert row in rows


FROM_SCRATCH = {"model.weights": None, "pretrain.batch_norm": "trained"}  # weights and their statistics are downloads


@pytest.mark.slow
@every_recipe
def test_the_network_of_a_recipe_can_be_built(recipe):
    with torch.device("meta"):
        model = TLEE(load_params(FILES[recipe.name], FROM_SCRATCH), classes=3).eval()
        features = model.exit_features(torch.zeros(1, 2, *model.input_shape))
    width = model.backbone.feature_dim if model.params.model.mlp is None else model.params.model.mlp
    assert features.shape == (1, 2, model.params.model.num_branches + 1, width)


# --- running them ----------------------------------------------------------------------------------

SMALL = {
    "dataset.root": "videos",
    "dataset.folds": 2,
    "dataset.val_share": 0.34,
    "extract.short_side": 40,
    "compute.jobs": 1,
    **FROM_SCRATCH,
    "model.input_size": 32,
    "pretrain.epochs": 1,
    "pretrain.frames": 2,
    "branches.epochs": 1,
    "branches.frames": 2,
    "gates.epochs": 1,
    "evaluate.bootstrap": 20,
    "latency.warmup": 0,
    "latency.repeats": 1,
}


def covering(recipes: Sequence[Recipe], features: Callable[[Recipe], set]) -> list[Recipe]:
    """Select few of ``recipes`` that have all of their ``features``, greedily."""
    left = {feature for recipe in recipes for feature in features(recipe)}
    chosen = []
    while left:
        chosen.append(max(recipes, key=lambda recipe: len(features(recipe) & left)))
        left -= features(chosen[-1])
    return chosen


RUN = covering(RECIPES, lambda recipe: {recipe.data_set, recipe.backbone, recipe.method})
EXPORTED = covering(RUN, lambda recipe: {recipe.backbone, recipe.method})


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory) -> Path:
    """A folder with a tiny version of every data set."""
    root = tmp_path_factory.mktemp("data_sets")
    for name in TINY:
        make_tiny(name, root / name)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RUN, ids=lambda recipe: recipe.name)
def test_a_recipe_runs(recipe, data_sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("videos").symlink_to(data_sets / recipe.data_set)
    params = load_params(FILES[recipe.name], SMALL | {"model.mlp": recipe.settings["model.mlp"] and 64})

    extraction = extract(read_dataset(params.dataset, params.seed), params.extract, FRAMES)
    pretrain(params)
    train_branches(params)
    store_features(params)
    train_gates(params)
    evaluation = evaluate_splits(params)
    agreement = step_by_step_agreement(evaluation, params)
    evaluation.write(agreement)

    assert extraction.failed.empty
    assert evaluation.table["score"].between(0, 1).all()
    approximates = recipe.backbone == "mobilenet_v2_tsm"  # its stored features are an approximation
    assert agreement[params.model.method] == 1 or approximates
    if recipe in EXPORTED:
        report = time_policy(params)
        report.write()
        assert report.parity.same == report.parity.videos == len(evaluation.test.table.videos)
        assert operators(EDGE) <= TENSORRT_8_2


@pytest.mark.parametrize(("name", "mirrored"), [("something_v2", {False}), ("ucf101", {True, False})])
def test_clips_are_mirrored_unless_classes_distinguish_left_from_right(
    name, mirrored, data_sets, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("videos").symlink_to(data_sets / name)
    params = load_params(FILES[f"{name}_resnet50"], SMALL)
    extract(read_dataset(params.dataset, params.seed), params.extract, FRAMES)
    view = load_clips("train", params, augment=True).view
    dark_on_the_left = torch.zeros(1, 3, 40, 60, dtype=torch.uint8)
    dark_on_the_left[..., 30:] = 255
    torch.manual_seed(0)
    seen = [view(dark_on_the_left)[0].float() for _ in range(20)]
    assert {bool(each[..., 0].mean() > each[..., -1].mean()) for each in seen} == mirrored
