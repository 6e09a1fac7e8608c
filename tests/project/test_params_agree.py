"""params.yaml: values that must fit each other, and those that the method settles."""

from pathlib import Path
from typing import Any, get_args

import pytest
from support.refusals import one_line

from tlee.evaluation.search import COMPARED
from tlee.params import METHOD_SETTINGS, ModelParams, Params, load_params


@pytest.fixture
def shipped(root: Path) -> Path:
    return root / "params.yaml"


def refusal(path: Path, overrides: dict[str, Any]) -> str:
    """The one line with which the overrides are refused, without its beginning."""
    return one_line(lambda: load_params(path, overrides)).removeprefix(f"{path} with the overrides: ")


# --- the method --------------------------------------------------------------------------------------


def settled(path: Path, **values: Any) -> Params:
    return load_params(path, {f"model.{name}": value for name, value in values.items()})


def test_every_method_can_be_set_and_compared():
    methods = get_args(ModelParams.model_fields["method"].annotation)
    assert set(METHOD_SETTINGS) == set(COMPARED) == set(methods)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("tlee", {"num_branches": 2, "readout": "shared", "gate": "mlp"}),
        ("frameexit", {"num_branches": 0, "readout": "per_step", "gate": "frameexit"}),
        ("layer", {"num_branches": 2, "readout": "shared", "gate": "confidence"}),
        ("full", {"num_branches": 0, "readout": "shared", "gate": "confidence"}),
        ("random", {"num_branches": 2, "readout": "shared", "gate": "random"}),
    ],
)
def test_a_method_sets_only_its_own_parameters(shipped, method, values):
    as_written = {"num_branches": 2, "readout": "shared", "gate": "mlp"}
    before = settled(shipped, **as_written).model.model_dump()
    after = settled(shipped, method=method, **as_written).model.model_dump()
    assert after == before | {"method": method} | values


def test_parameters_set_by_a_method_are_shown_in_the_table(shipped):
    table = settled(shipped, method="frameexit", num_branches=3).table("model")
    assert table.at["model.num_branches", "value"] == 0
    assert table.at["model.readout", "value"] == "per_step"


@pytest.mark.parametrize("method", METHOD_SETTINGS)
def test_a_random_gate_is_the_random_method(shipped, method):
    params = settled(shipped, method=method, gate="random", num_branches=2)
    assert params.model == settled(shipped, method="random", num_branches=2).model


def test_a_method_leaves_the_other_parameters_unchanged(shipped):
    plain, frameexit = load_params(shipped).model_dump(), settled(shipped, method="frameexit").model_dump()
    del plain["model"], frameexit["model"]
    assert plain == frameexit


def test_a_wrong_value_is_refused_even_where_the_method_sets_it(shipped):
    assert refusal(shipped, {"model.method": "frameexit", "model.num_branches": -1}).startswith(
        "`model.num_branches` is -1"
    )


# --- time steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "frames", "wanted"),
    [("x3d_s", 1, 13), ("x3d_s", 12, 13), ("resnet18", 13, 1), ("mobilenet_v2_tsm", 2, 1)],
)
def test_a_time_step_must_be_what_the_backbone_reads(shipped, backbone, frames, wanted):
    message = refusal(shipped, {"model.backbone": backbone, "extract.clip_frames": frames})
    assert message == f"`extract.clip_frames` is {frames}, but {backbone} reads {wanted} per time step"


@pytest.mark.parametrize("backbone", get_args(ModelParams.model_fields["backbone"].annotation))
def test_every_backbone_has_its_time_step(shipped, backbone):
    frames = 13 if backbone == "x3d_s" else 1
    params = load_params(shipped, {"model.backbone": backbone, "extract.clip_frames": frames})
    assert params.extract.clip_frames == frames


# --- the data set --------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [None, r"g\d+", "(?<=_)[a-z]+"])
def test_groups_are_found_by_a_pattern_or_not_at_all(shipped, group):
    assert load_params(shipped, {"dataset.group": group}).dataset.group == group


@pytest.mark.parametrize("group", ["g(", "[a", "*"])
def test_what_is_no_pattern_is_refused(shipped, group):
    message = refusal(shipped, {"dataset.group": group})
    assert message.startswith(f"`dataset.group` is {group!r}, should be a regular expression (")


@pytest.mark.parametrize("labels", ["single", "multi"])
def test_videos_have_one_label_or_several(shipped, labels):
    assert load_params(shipped, {"dataset.labels": labels}).dataset.labels == labels


@pytest.mark.parametrize(
    ("dotted", "values"),
    [("extract.fps", (None, 12, 29.97)), ("model.mlp", (None, 4096)), ("model.trained", (None, "a.safetensors"))],
)
def test_what_may_be_left_out_may_be_given(shipped, dotted, values):
    section, key = dotted.split(".")
    for value in values:
        assert getattr(getattr(load_params(shipped, {dotted: value}), section), key) == value
