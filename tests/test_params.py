"""params.yaml: loading, overrides, and one-line errors that name the parameter."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from support.refusals import one_line

from tlee.params import load_params


@pytest.fixture(scope="module")
def shipped(root: Path) -> Path:
    return root / "params.yaml"


@pytest.fixture
def raw(shipped: Path) -> dict[str, Any]:
    """The shipped parameters as plain YAML, a copy for each test."""
    return yaml.safe_load(shipped.read_text(encoding="utf-8"))


def dotted_keys(raw: dict[str, Any]) -> Iterator[str]:
    """Yield the dotted keys of all values."""
    for section, values in raw.items():
        if isinstance(values, dict):
            yield from (f"{section}.{key}" for key in values)
        else:
            yield section


def locate(raw: dict[str, Any], dotted: str) -> tuple[dict[str, Any], str]:
    """Return the mapping that contains a dotted key, and the last part of the key."""
    *section, key = dotted.split(".")
    return (raw[section[0]] if section else raw), key


def written(folder: Path, content: str | bytes | dict) -> Path:
    path = folder / "params.yaml"
    if isinstance(content, dict):
        content = yaml.safe_dump(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path, overrides: dict[str, Any] | None, *expected: object) -> str:
    """Return the error line of loading the parameters, which must contain the path and ``expected``."""
    return one_line(lambda: load_params(path, overrides), path, *expected)


# --- loading -------------------------------------------------------------------------------------


def test_the_shipped_file_is_loaded_unchanged(shipped, raw):
    assert load_params(shipped).model_dump() == raw


def test_params_yaml_of_the_working_folder_is_the_default(shipped, raw, tmp_path, monkeypatch):
    written(tmp_path, raw | {"seed": 41})
    monkeypatch.chdir(tmp_path)
    assert load_params().seed == 41


def test_parameters_are_immutable(shipped):
    params = load_params(shipped)
    with pytest.raises(ValidationError, match="frozen"):
        params.gates.epochs = 3


def test_an_integer_is_accepted_for_a_decimal_number(shipped):
    assert load_params(shipped, {"pretrain.learning_rate": 1}).pretrain.learning_rate == 1


# --- overrides -----------------------------------------------------------------------------------


def test_an_override_replaces_one_value_and_keeps_the_rest(shipped, raw):
    changed = load_params(shipped, {"gates.epochs": 7, "seed": 5}).model_dump()
    assert changed["gates"].pop("epochs") == 7
    assert changed.pop("seed") == 5
    del raw["gates"]["epochs"], raw["seed"]
    assert changed == raw


def test_an_override_does_not_change_the_file(shipped):
    before = shipped.read_bytes()
    load_params(shipped, {"gates.epochs": 7})
    assert shipped.read_bytes() == before


def test_no_overrides_change_nothing(shipped):
    assert load_params(shipped, {}) == load_params(shipped)


@pytest.mark.parametrize("dotted", ["seed.x", "gates.epochs.x"])
def test_an_override_below_a_plain_value_is_refused(shipped, dotted):
    message = one_line(lambda: load_params(shipped, {dotted: 1}))
    assert f"`{dotted}`" in message
    assert f"`{dotted.split('.')[-2]}` is not a section" in message


# --- wrong keys ----------------------------------------------------------------------------------


def test_every_missing_key_is_named(raw, tmp_path):
    for dotted in dotted_keys(raw):
        changed = deepcopy(raw)
        section, key = locate(changed, dotted)
        del section[key]
        refusal(written(tmp_path, changed), None, f"`{dotted}` is missing", "`git diff params.yaml`")


def test_every_misspelt_key_is_named_with_the_correct_one(raw, tmp_path):
    for dotted in dotted_keys(raw):
        changed = deepcopy(raw)
        section, key = locate(changed, dotted)
        section[f"{key}z"] = section[key]
        refusal(written(tmp_path, changed), None, f"unknown key `{dotted}z`", f"did you mean `{key}`?")


def test_a_misspelt_section_is_named_with_the_correct_one(shipped):
    refusal(shipped, {"gate.epochs": 3}, "overrides", "unknown key `gate`", "did you mean `gates`?")


def test_a_key_unlike_any_other_is_to_be_removed(shipped):
    for dotted, named in (("gates.zzz", "gates.zzz"), ("zzz.qqq", "zzz")):
        refusal(shipped, {dotted: 3}, "overrides", f"unknown key `{named}`", "remove it")


def test_a_duplicate_key_is_refused(shipped, tmp_path):
    text = shipped.read_text(encoding="utf-8")
    for once, twice, key in (
        ("seed: 0", "seed: 0\nseed: 5", "seed"),
        ("  beta: 0.5", "  beta: 0.5\n  beta: 0.6", "beta"),
        ("gates:", "gates:\ngates:", "gates"),
    ):
        assert once in text
        refusal(written(tmp_path, text.replace(once, twice)), None, f"`{key}` appears twice", "line ")


# --- wrong values --------------------------------------------------------------------------------


def test_no_key_takes_a_list(raw, shipped):
    for dotted in dotted_keys(raw):
        refusal(shipped, {dotted: [1]}, "overrides", f"`{dotted}` is [1], should be")


@pytest.mark.parametrize("value", [3, None, "mlp", [1]])
def test_a_value_in_place_of_a_section_is_refused(shipped, value):
    refusal(shipped, {"gates": value}, "overrides", f"`gates` is {value!r}, should be a section")


def test_overrides_are_mentioned_only_if_there_are_some(raw, tmp_path):
    path = written(tmp_path, raw | {"seed": -1})
    rule = "`seed` is -1, should be greater than or equal to 0"
    assert "with the overrides" not in refusal(path, None, rule)
    assert "with the overrides" not in refusal(path, {}, rule)
    refusal(path, {"gates.epochs": 3}, rule, "with the overrides")


@pytest.mark.parametrize(
    ("dotted", "value", "rule"),
    [
        ("gates.epochs", "3", "integer"),
        ("gates.epochs", 3.5, "integer"),
        ("gates.epochs", 3.0, "integer"),
        ("gates.epochs", True, "integer"),
        ("gates.epochs", None, "integer"),
        ("seed", "zero", "integer"),
        ("gates.beta", True, "number"),
        ("gates.beta", "half", "number"),
        ("model.mlp", "wide", "integer"),
        ("pretrain.joint", "yes", "boolean"),
        ("reproducible", 2, "boolean"),
        ("dataset.root", 5, "string"),
        ("model.weights", 5, "string"),
    ],
)
def test_a_value_of_another_type_is_refused(shipped, dotted, value, rule):
    refusal(shipped, {dotted: value}, f"`{dotted}` is {value!r}, should be a valid {rule}")


@pytest.mark.parametrize(
    ("dotted", "value", "rule"),
    [
        ("seed", -1, "greater than or equal to 0"),
        ("extract.frames", 1, "greater than or equal to 2"),
        ("extract.jpeg_quality", 101, "less than or equal to 100"),
        ("extract.max_failed_share", 1.01, "less than or equal to 1"),
        ("extract.max_failed_share", float("nan"), "less than or equal to 1"),
        ("dataset.val_share", 0, "greater than 0"),
        ("dataset.val_share", 1.0, "less than 1"),
        ("dataset.split", 0, "greater than 0"),
        ("dataset.folds", 1, "greater than or equal to 2"),
        ("dataset.labels", "both", "'single' or 'multi'"),
        ("dataset.name", "ucf11", "'hvu' or 'folder'"),
        ("model.order", "random", "'coarse_to_fine' or 'sequential'"),
        ("extract.fps", 0, "greater than 0"),
        ("extract.clip_stride", 0, "greater than 0"),
        ("model.num_branches", -1, "greater than or equal to 0"),
        ("model.method", "adafocus", "'full' or 'random'"),
        ("model.backbone", "resnet99", "'efficientnet_b3' or 'x3d_s'"),
        ("model.branch", "mlp", "'conv' or 'fc'"),
        ("model.crm_scale", -1, "greater than or equal to 0"),
        ("model.crm_pool", "squares", "'grid' or 'windows'"),
        ("model.mlp", 0, "greater than 0"),
        ("model.reuse", "min", "'add' or 'none'"),
        ("model.accumulate", "all", "'exit', 'visited' or 'published'"),
        ("model.readout", "per_frame", "'shared' or 'per_step'"),
        ("model.gate", "conv", "'confidence' or 'random'"),
        ("pretrain.frozen_layers", -1, "greater than or equal to 0"),
        ("evaluate.metric", "top5", "'top1' or 'map'"),
        ("evaluate.rule", "threshold", "'optimal_stopping' or 'thresholds'"),
        ("evaluate.confidence", 0.4, "greater than or equal to 0.5"),
        ("evaluate.confidence", 1, "less than 1"),
        ("evaluate.bootstrap", 0, "greater than 0"),
        ("gates.epochs", 0, "greater than 0"),
        ("gates.learning_rate", 0, "greater than 0"),
        ("latency.opset", 14, "less than or equal to 13"),
        ("latency.int8", "maybe", "a valid boolean"),
        ("guarantee.max_harm", 0, "greater than 0"),
        ("guarantee.max_harm", 100, "less than 100"),
        ("guarantee.confidence", 1.0, "less than 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_range(shipped, dotted, value, rule):
    message = refusal(shipped, {dotted: value}, f"`{dotted}` is {value!r}, should be")
    assert message.endswith(rule)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    "dotted",
    ["gates.beta", "gates.learning_rate", "pretrain.weight_decay", "branches.learning_rate", "evaluate.max_loss"],
)
def test_an_infinite_number_is_refused(shipped, dotted, value):
    refusal(shipped, {dotted: value}, f"`{dotted}` is {value!r}, should be a finite number")


def test_zero_processes_are_refused(shipped):
    refusal(shipped, {"compute.jobs": 0}, "`compute.jobs` is 0", "-1")


def test_a_single_fold_is_refused_for_cross_validation(shipped):
    refusal(shipped, {"evaluate.folds": 1}, "`evaluate.folds` is 1", "2 or more, or 0")


@pytest.mark.parametrize("jobs", [-2, -1, 1, 8])
def test_the_number_of_processes_may_be_negative(shipped, jobs):
    assert load_params(shipped, {"compute.jobs": jobs}).compute.jobs == jobs


@pytest.mark.parametrize("stage", ["pretrain", "branches"])
def test_more_frames_cannot_be_sampled_than_are_extracted(shipped, stage):
    frames = {"extract.frames": 8, "pretrain.frames": 8, "branches.frames": 8, f"{stage}.frames": 9}
    refusal(shipped, frames, f"`{stage}.frames` is 9", "`extract.frames`, 8")


def test_all_extracted_frames_may_be_sampled(shipped):
    params = load_params(shipped, {"extract.frames": 8, "pretrain.frames": 8, "branches.frames": 8})
    assert params.pretrain.frames == params.branches.frames == params.extract.frames


@pytest.mark.parametrize(("text", "value"), [("1e-05", 1e-5), ("5e-1", 0.5), ("2E+1", 20.0)])
def test_a_number_may_be_in_the_format_of_dvc(shipped, tmp_path, text, value):
    """Without a dot it is text in plain YAML, but `dvc exp run -S` writes small numbers in this format."""
    shipped_text = shipped.read_text(encoding="utf-8")
    assert "beta: 0.5" in shipped_text
    assert load_params(written(tmp_path, shipped_text.replace("beta: 0.5", f"beta: {text}"))).gates.beta == value


def test_a_number_in_quotes_is_refused_with_the_correct_form(shipped, tmp_path):
    path = written(tmp_path, shipped.read_text(encoding="utf-8").replace("beta: 0.5", 'beta: "0.5"'))
    refusal(path, None, "`gates.beta` is '0.5', should be a valid number", "as 0.5")


@pytest.mark.parametrize(
    "target",
    [
        "local",
        "file:latency.json",
        "file:/mnt/my results/nano.json",
        "ssh://nano/home/jetson/tlee",
        "ssh://jetson@nano.local:2222/home/jetson/tlee/",
        "ssh://jetson@192.168.1.7/~/tlee",
    ],
)
def test_latency_is_measured_on_this_machine_or_on_a_device(shipped, target):
    assert load_params(shipped, {"latency.target": target}).latency.target == target


@pytest.mark.parametrize(
    "target",
    [
        *("", "Local", "nano", "file:", "file: ", "latency.json", "http://nano/tlee", "ssh:nano/tlee"),
        *("ssh://nano", "ssh://nano/", "ssh://nano/~", "ssh://nano/~/", "ssh:///tlee", "ssh://@nano/tlee"),
        *("ssh://nano:/tlee", "ssh://nano:0/tlee", "ssh://nano:65536/tlee", "ssh://nano:ssh/tlee"),
        *("ssh://-oProxyCommand=true/tlee", "ssh://-l@nano/tlee", "ssh://a:secret@nano/tlee"),
        *("ssh://nano/t lee", "ssh://nano/tlee?a", "ssh://nano/tlee#a", "ssh://nano/tlee\nx"),
    ],
)
def test_any_other_target_is_refused(shipped, target):
    forms = ("`local`", "`ssh://user@host:port/folder`", "`file:latency.json`")
    refusal(shipped, {"latency.target": target}, f"`latency.target` is {target!r}", *forms)


THRESHOLDS = ["layer_threshold", "first_threshold", "gate_threshold", "stop_threshold"]


@pytest.mark.parametrize("value", ["auto", 0, 0.5, 1, 1.0])
@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_threshold_is_searched_or_given(shipped, name, value):
    evaluate = load_params(shipped, {f"evaluate.{name}": value}).evaluate
    assert getattr(evaluate, name) == value


@pytest.mark.parametrize("value", ["atuo", "0.5", True, None, -0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", THRESHOLDS)
def test_any_other_threshold_is_refused(shipped, name, value):
    hint = ["as 0.5"] if value == "0.5" else []
    refusal(shipped, {f"evaluate.{name}": value}, f"`evaluate.{name}` is {value!r}", "`auto`", "from 0 to 1", *hint)


def test_all_errors_are_named_at_once(shipped):
    errors = ("`seed` is -1", "unknown key `gates.epoch`", "`model.order` is 'random'")
    refusal(shipped, {"seed": -1, "gates.epoch": 3, "model.order": "random"}, *errors)


# --- wrong files ---------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_the_command_that_restores_it(tmp_path):
    path = tmp_path / "params.yaml"
    refusal(path, None, "No such file or directory", f"`git checkout {path}`")


def test_a_folder_is_refused(tmp_path):
    refusal(tmp_path, None, "Is a directory", f"`git checkout {tmp_path}`")


@pytest.mark.parametrize("content", ["seed: [1", "a: b: c", "\tseed: 0", b"seed: \xff", b"seed: \x00"])
def test_invalid_yaml_is_refused(tmp_path, content):
    refusal(written(tmp_path, content), None, "not valid YAML")


def test_invalid_yaml_is_named_with_its_line(tmp_path):
    refusal(written(tmp_path, "seed: 0\ngates: a: b\n"), None, "line 2")


@pytest.mark.parametrize("content", ["", "# a comment\n", "- 1\n", "seed\n"])
def test_a_file_without_sections_is_refused(tmp_path, content):
    path = written(tmp_path, content)
    refusal(path, None, "sections", f"`git checkout {path}`")


# --- the table in notebooks ----------------------------------------------------------------------


def test_the_table_lists_every_parameter_with_its_value(shipped, raw):
    table = load_params(shipped).table()
    assert list(table.columns) == ["value"]
    assert sorted(table.index) == sorted(dotted_keys(raw))
    for dotted in dotted_keys(raw):
        section, key = locate(raw, dotted)
        assert table.at[dotted, "value"] == section[key]


def test_the_table_shows_integers_without_decimals(shipped, raw):
    (line,) = (line for line in load_params(shipped).table("gates").to_string().splitlines() if "gates.epochs" in line)
    assert line.split() == ["gates.epochs", str(raw["gates"]["epochs"])]


def test_the_table_lists_only_the_named_sections(shipped, raw):
    table = load_params(shipped).table("seed", "gates")
    assert sorted(table.index) == sorted(["seed", *(f"gates.{key}" for key in raw["gates"])])


def test_the_table_shows_overrides(shipped):
    assert load_params(shipped, {"gates.epochs": 7}).table("gates").at["gates.epochs", "value"] == 7


@pytest.mark.parametrize("stage", ["pretrain", "branches"])
def test_compiled_training_is_not_the_same_everywhere(shipped, stage):
    overrides = {f"{stage}.compile": True, "reproducible": False}
    assert getattr(load_params(shipped, overrides), stage).compile
    overrides["reproducible"] = True
    refusal(shipped, overrides, f"`{stage}.compile`", "rounds as the processor lets it", "set `reproducible` to false")


@pytest.mark.parametrize("opset", [11, 12])
def test_int8_needs_a_newer_opset(shipped, opset):
    load_params(shipped, {"latency.opset": opset, "latency.int8": False})
    overrides = {"latency.opset": opset, "latency.int8": True}
    refusal(shipped, overrides, "`latency.int8`", "`latency.opset` 13", f"is {opset}")
