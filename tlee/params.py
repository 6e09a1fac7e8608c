"""``params.yaml`` as typed, validated sections.

Every parameter must be present and no other key may be: a default in this module could change a result without DVC
noticing.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from tlee.errors import UserError
from tlee.param_problems import explain
from tlee.param_types import (
    Count,
    CountOrZero,
    Devices,
    FoldsOrNone,
    GroupPattern,
    Jobs,
    NonNegative,
    Positive,
    Section,
    Share,
    StrictLoader,
    Target,
    Threshold,
    Workers,
)

if TYPE_CHECKING:
    import pandas as pd


class DatasetParams(Section):
    name: Literal["ucf101", "hmdb51", "jhmdb", "something_v2", "mini_kinetics", "activitynet", "hvu", "folder"]
    root: str
    split: Count
    folds: Annotated[int, Field(ge=2)]
    group: GroupPattern
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
    num_branches: CountOrZero
    branch: Literal["crm", "conv", "fc"]
    crm_convs: Count
    crm_scale: CountOrZero
    crm_pool: Literal["grid", "windows"]
    mlp: Count | None
    reuse: Literal["max", "attention", "ema", "mean", "add", "none"]
    accumulate: Literal["exit", "visited", "published"]
    readout: Literal["shared", "per_step"]
    gate: Literal["mlp", "frameexit", "confidence", "random"]


#: Frames per time step of the 3-D backbones; all others read one.
CLIP_FRAMES = {"x3d_s": 13}

#: Values of ``model`` that each method fixes, whatever ``params.yaml`` sets.
METHOD_SETTINGS: dict[str, dict[str, Any]] = {
    "tlee": {},
    "frameexit": {"num_branches": 0, "readout": "per_step", "gate": "frameexit"},
    "layer": {"gate": "confidence"},
    "full": {"num_branches": 0, "gate": "confidence"},
    "random": {"gate": "random"},
}


class TrainingParams(Section):
    epochs: Count
    batch_clips: Count
    learning_rate: Positive
    weight_decay: NonNegative


class ClipTrainingParams(TrainingParams):
    frames: Count
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    compile: bool


class PretrainParams(ClipTrainingParams):
    head_rate: Positive
    batch_norm: Literal["trained", "frozen"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    joint: bool
    distillation: Share
    frozen_layers: CountOrZero


class BranchParams(ClipTrainingParams):
    train_views: Count
    feature_precision: Literal["float32", "float16"]


class GateParams(TrainingParams):
    beta: Positive


class EvaluateParams(Section):
    rule: Literal["optimal_stopping", "thresholds"]
    layer_threshold: Threshold
    first_threshold: Threshold
    gate_threshold: Threshold
    stop_threshold: Threshold
    metric: Literal["top1", "map"]
    max_loss: NonNegative
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    max_gmacs: Positive | None
    folds: FoldsOrNone
    bootstrap: Count


class LatencyParams(Section):
    target: Target
    threads: Count
    opset: Annotated[int, Field(ge=11, le=13)]
    videos: Count
    warmup: CountOrZero
    repeats: Count
    int8: bool


class GuaranteeParams(Section):
    max_harm: Annotated[float, Field(gt=0, lt=100)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    one_per_group: bool


class ComputeParams(Section):
    """What computes, and where; DVC does not see it, since it must not change results."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"]
    devices: Devices
    nodes: Count
    workers: Workers
    jobs: Jobs


class Params(Section):
    """All sections of ``params.yaml``."""

    seed: CountOrZero
    reproducible: bool
    dataset: DatasetParams
    extract: ExtractParams
    model: ModelParams
    pretrain: PretrainParams
    branches: BranchParams
    gates: GateParams
    evaluate: EvaluateParams
    latency: LatencyParams
    guarantee: GuaranteeParams
    compute: ComputeParams

    @model_validator(mode="after")
    def _check_clip_frames(self) -> "Params":
        backbone, given = self.model.backbone, self.extract.clip_frames
        expected = CLIP_FRAMES.get(backbone, 1)
        if given != expected:
            raise ValueError(f"`extract.clip_frames` is {given}, but {backbone} reads {expected} per time step")
        return self

    @model_validator(mode="after")
    def _check_sampled_frames(self) -> "Params":
        for stage in ("pretrain", "branches"):
            sampled = getattr(self, stage).frames
            if sampled > self.extract.frames:
                raise ValueError(f"`{stage}.frames` is {sampled}, more than `extract.frames`, {self.extract.frames}")
        return self

    @model_validator(mode="after")
    def _check_frozen_statistics(self) -> "Params":
        if self.pretrain.batch_norm == "frozen" and not (self.model.weights or self.model.trained):
            raise ValueError("`pretrain.batch_norm` is 'frozen', but `model.weights` is null: it has no statistics yet")
        return self

    @model_validator(mode="after")
    def _check_compiled_bits(self) -> "Params":
        for stage in ("pretrain", "branches"):
            if self.reproducible and getattr(self, stage).compile:
                raise ValueError(
                    f"`{stage}.compile` is true, but compiled code rounds as the processor lets it: "
                    "set `reproducible` to false"
                )
        return self

    @model_validator(mode="after")
    def _check_int8_opset(self) -> "Params":
        if self.latency.int8 and self.latency.opset < 13:
            raise ValueError(f"`latency.int8` needs `latency.opset` 13, but it is {self.latency.opset}")
        return self

    def table(self, *sections: str) -> "pd.DataFrame":
        """Return the values of ``sections`` (of all if none is named) for display, one row per parameter."""
        import pandas as pd  # slow to import, and whoever starts a kernel displays nothing

        values = pd.json_normalize(self.model_dump(include=set(sections) or None)).astype(object).iloc[0]
        return values.rename("value").rename_axis("parameter").to_frame()


def load_params(path: str | Path = "params.yaml", overrides: dict[str, Any] | None = None) -> Params:
    """Read and validate the parameters.

    ``overrides`` maps dotted keys to values that replace those of the file, such as ``{"gates.epochs": 3}``.
    Raises ``UserError`` in one line that names every wrong key or value.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): restore it with `git checkout {path}`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} contains no named sections: restore it with `git checkout {path}`")
    for dotted, value in (overrides or {}).items():
        _override(raw, dotted, value)
    try:
        return _apply_method(Params.model_validate(raw))
    except ValidationError as error:
        problems = "; ".join(explain(problem, Params) for problem in error.errors())
        raise UserError(f"{path}{' with the overrides' if overrides else ''}: {problems}") from None


def change(params: Params, overrides: dict[str, Any]) -> Params:
    """Return a copy of the parameters with ``overrides``, which maps dotted keys to values."""
    raw = params.model_dump()
    for dotted, value in overrides.items():
        _override(raw, dotted, value)
    return _apply_method(Params.model_validate(raw))


def method_settings(method: str, gate: str) -> dict[str, Any]:
    """Return the method and the values of ``model`` that it fixes; a random gate is the random method."""
    method = "random" if gate == "random" else method
    return {"method": method, **METHOD_SETTINGS[method]}


def _apply_method(params: Params) -> Params:
    model = params.model.model_copy(update=method_settings(params.model.method, params.model.gate))
    return params.model_copy(update={"model": model})


def _override(raw: dict, dotted: str, value: Any) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise UserError(f"override `{dotted}`: `{section}` is not a section of the parameters")
    raw[key] = value
