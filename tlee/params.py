"""``params.yaml`` as typed, validated sections.

Every knob must be present and nothing else may be: a default that lived here could change a result
without DVC noticing.
"""

import difflib
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from tlee.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _auto_or_share(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto":
        return value
    if is_number and 0 <= value <= 1:
        return float(value)  # also of `1`, of which pydantic would warn
    raise ValueError("should be `auto` or a number from 0 to 1")


def _pattern(value: str | None) -> str | None:
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"should be a regular expression ({error})") from None
    return value


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("should be a number of processes, or -1 for one per core")
    return value


def _none_or_several(value: int) -> int:
    if value != 0 and value < 2:
        raise ValueError("should be 2 or more, or 0 for none")
    return value


#: ``latency.target``. A folder that begins with ``/~/`` is below the home folder.
TARGET = re.compile(
    r"local|file:(?P<file>.*\S)"
    r"|ssh://((?P<user>[A-Za-z_][\w.-]*)@)?(?P<host>[A-Za-z0-9][\w.-]*)(:(?P<port>\d{1,5}))?"
    r"(?P<folder>/(?!~/?$)[^\s?#]*[^\s?#/])/?",
    re.ASCII,
)


def _target(value: str) -> str:
    found = TARGET.fullmatch(value)
    if not found or not 0 < int(found["port"] or 22) < 65536:
        raise ValueError("should be `local`, `ssh://user@host:port/folder` or `file:latency.json`")
    return value


Threshold = Annotated[float | Literal["auto"], PlainValidator(_auto_or_share)]


class Section(BaseModel):
    """A part of the parameters: immutable, strict about types, closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DatasetParams(Section):
    name: Literal["ucf101", "hmdb51", "something_v2", "mini_kinetics", "activitynet", "hvu", "folder"]
    root: str
    split: Count
    folds: Annotated[int, Field(ge=2)]
    group: Annotated[str | None, AfterValidator(_pattern)]
    val_share: Annotated[float, Field(gt=0, lt=1)]
    labels: Literal["single", "multi"]


class ExtractParams(Section):
    frames: Annotated[int, Field(ge=2)]
    fps: Positive | None
    clip_frames: Count
    clip_stride: Count
    short_side: Count
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]
    max_failed_share: Share
    jobs: Annotated[int, AfterValidator(_not_zero)]


class ModelParams(Section):
    method: Literal["tlee", "frameexit", "layer", "full", "random"]
    backbone: Literal[
        "vgg16",
        "bn_inception",
        "resnet18",
        "resnet34",
        "resnet50",
        "mobilenet_v2",
        "mobilenet_v2_tsm",
        "efficientnet_b3",
        "x3d_s",
    ]
    weights: str | None
    trained: str | None
    input_size: Count
    order: Literal["coarse_to_fine", "sequential"]
    exits: Annotated[int, Field(ge=0)]
    branch: Literal["crm", "conv", "fc"]
    crm_convs: Count
    crm_scale: Annotated[int, Field(ge=0)]
    crm_pool: Literal["grid", "windows"]
    mlp: Count | None
    reuse: Literal["max", "attention", "ema", "mean", "add", "none"]
    accumulate: Literal["exit", "visited"]
    readout: Literal["shared", "per_step"]
    gate: Literal["mlp", "frameexit", "confidence", "random"]


#: Frames of a time step where it is not one.
CLIP_FRAMES = {"x3d_s": 13}

#: What each method settles in ``model``, whatever ``params.yaml`` says there.
METHOD_SETTINGS: dict[str, dict[str, Any]] = {
    "tlee": {},
    "frameexit": {"exits": 0, "readout": "per_step", "gate": "frameexit"},
    "layer": {"gate": "confidence"},
    "full": {"exits": 0, "gate": "confidence"},
    "random": {"gate": "random"},
}


class TrainingParams(Section):
    epochs: Count
    batch_clips: Count
    learning_rate: Positive
    weight_decay: NonNegative


class ClipTrainingParams(TrainingParams):
    frames: Count


class PretrainParams(ClipTrainingParams):
    joint: bool
    frozen_layers: Annotated[int, Field(ge=0)]


class BranchParams(ClipTrainingParams):
    train_views: Count


class GateParams(TrainingParams):
    beta: Positive


class EvaluateParams(Section):
    layer_threshold: Threshold
    first_threshold: Threshold
    gate_threshold: Threshold
    stop_threshold: Threshold
    metric: Literal["top1", "map"]
    max_loss: NonNegative
    max_gmacs: Positive | None
    folds: Annotated[int, AfterValidator(_none_or_several)]
    bootstrap: Count


class LatencyParams(Section):
    target: Annotated[str, AfterValidator(_target)]
    threads: Count
    opset: Annotated[int, Field(ge=11, le=13)]
    videos: Count
    warmup: Annotated[int, Field(ge=0)]
    repeats: Count
    int8: bool


class GuaranteeParams(Section):
    max_loss: Annotated[float, Field(gt=0, lt=100)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    one_per_group: bool


class Params(Section):
    """All of ``params.yaml``."""

    seed: Annotated[int, Field(ge=0)]
    dataset: DatasetParams
    extract: ExtractParams
    model: ModelParams
    pretrain: PretrainParams
    branches: BranchParams
    gates: GateParams
    evaluate: EvaluateParams
    latency: LatencyParams
    guarantee: GuaranteeParams

    @model_validator(mode="after")
    def _time_steps_fit_the_backbone(self) -> "Params":
        backbone, given = self.model.backbone, self.extract.clip_frames
        wanted = CLIP_FRAMES.get(backbone, 1)
        if given != wanted:
            raise ValueError(f"`extract.clip_frames` is {given}, but {backbone} reads {wanted} a time step")
        return self

    @model_validator(mode="after")
    def _draw_frames_that_exist(self) -> "Params":
        for stage in ("pretrain", "branches"):
            drawn = getattr(self, stage).frames
            if drawn > self.extract.frames:
                raise ValueError(f"`{stage}.frames` is {drawn}, more than `extract.frames`, {self.extract.frames}")
        return self

    @model_validator(mode="after")
    def _quantise_what_can_be(self) -> "Params":
        if self.latency.int8 and self.latency.opset < 13:
            raise ValueError(f"`latency.int8` needs `latency.opset` 13, which is {self.latency.opset}")
        return self

    def table(self, *sections: str) -> pd.DataFrame:
        """The values of ``sections`` (all of them if none is named), one row a knob, for showing."""
        values = pd.json_normalize(self.model_dump(include=set(sections) or None)).astype(object).iloc[0]
        return values.rename("value").rename_axis("parameter").to_frame()


def load_params(path: str | Path = "params.yaml", overrides: dict[str, Any] | None = None) -> Params:
    """Read and validate the parameters.

    ``overrides`` maps dotted keys to values that replace the file's, such as ``{"gates.epochs": 3}``.
    Raises ``UserError`` in one line that names every wrong key or value.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): restore it with `git checkout {path}`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} holds no named sections: restore it with `git checkout {path}`")
    for dotted, value in (overrides or {}).items():
        _override(raw, dotted, value)
    try:
        return _settle(Params.model_validate(raw))
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        raise UserError(f"{path}{' with the overrides' if overrides else ''}: {problems}") from None


def change(params: Params, overrides: dict[str, Any]) -> Params:
    """The same parameters but for ``overrides``, which maps dotted keys to values."""
    raw = params.model_dump()
    for dotted, value in overrides.items():
        _override(raw, dotted, value)
    return _settle(Params.model_validate(raw))


def method_settings(method: str, gate: str) -> dict[str, Any]:
    """The method and what it settles in ``model``; a random gate is the random method."""
    method = "random" if gate == "random" else method
    return {"method": method, **METHOD_SETTINGS[method]}


def _settle(params: Params) -> Params:
    """Put the settings of the method in force."""
    settled = params.model.model_copy(update=method_settings(params.model.method, params.model.gate))
    return params.model_copy(update={"model": settled})


class _StrictLoader(yaml.SafeLoader):
    """YAML in which no key may stand twice (plain YAML would keep the last in silence) and ``1e-05`` is a number.

    DVC writes numbers so when ``dvc exp run -S`` sets them, but they are text to YAML 1.1.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if key in seen:
                raise yaml.YAMLError(f"`{key}` stands twice{key_node.start_mark}")
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def _override(raw: dict, dotted: str, value: Any) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise UserError(f"override `{dotted}`: `{section}` is not a section of the parameters")
    raw[key] = value


def _explain(problem: dict) -> str:
    location = [str(part) for part in problem["loc"]]
    key, value = ".".join(location), problem["input"]
    if not location:
        return problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(location[-1], _known_keys(location[:-1]), n=1)
        return f"unknown key `{key}`" + (f", did you mean `{close[0]}`?" if close else "; remove it")
    if problem["type"] == "missing":
        return f"`{key}` is missing; `git diff params.yaml` shows what was removed"
    if problem["type"] == "model_type":
        return f"`{key}` is {value!r}, should be a section"
    rule = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    wants_number = problem["type"] in ("float_type", "value_error")
    hint = f" (YAML wants it as {float(value)})" if wants_number and _is_number_as_text(value) else ""
    return f"`{key}` is {value!r}, {rule}{hint}"


def _is_number_as_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def _known_keys(section: list[str]) -> list[str]:
    model: Any = Params
    for name in section:
        model = model.model_fields[name].annotation
    return list(model.model_fields)
