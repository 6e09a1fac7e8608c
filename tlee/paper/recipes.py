"""The papers' settings as parameter files: ``python -m tlee.paper.recipes`` writes ``recipes/*.yaml``.

A recipe is ``params.yaml``, with its comments, in which every knob has the value given here. The command also prints
the table of ``recipes/README.md``, which tells where the values come from.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlee.paths import find_root

Knobs = dict[str, Any]  #: values by dotted key

#: TLEE's training: its numbers of epochs and sizes of batches, with learning rates that suit our optimiser.
EVERYWHERE: Knobs = {
    "seed": 0,
    "dataset.split": 1,
    "dataset.folds": 5,
    "dataset.group": None,
    "dataset.val_share": 0.1,
    "dataset.labels": "single",
    "extract.frames": 10,
    "extract.fps": None,
    "extract.clip_frames": 1,
    "extract.clip_stride": 1,
    "extract.short_side": 256,
    "extract.jpeg_quality": 95,
    "extract.max_failed_share": 0.02,
    "extract.jobs": -1,
    "model.weights": "imagenet",
    "model.trained": None,
    "model.input_size": 224,
    "model.order": "coarse_to_fine",
    "model.num_branches": 2,
    "model.branch": "crm",
    "model.crm_convs": 3,
    "model.crm_scale": 3,
    "model.crm_pool": "windows",
    "model.mlp": None,
    "model.reuse": "max",
    "model.accumulate": "exit",
    "model.readout": "shared",
    "model.gate": "mlp",
    "pretrain.epochs": 25,
    "pretrain.batch_clips": 8,
    "pretrain.frames": 10,
    "pretrain.learning_rate": 0.0002,
    "pretrain.weight_decay": 0.05,
    "pretrain.joint": False,
    "pretrain.frozen_layers": 0,
    "branches.epochs": 50,
    "branches.batch_clips": 8,
    "branches.frames": 10,
    "branches.learning_rate": 0.0003,
    "branches.weight_decay": 0.01,
    "branches.train_views": 2,
    "gates.epochs": 3,
    "gates.batch_clips": 256,
    "gates.learning_rate": 0.001,
    "gates.weight_decay": 0.01,
    "gates.beta": 0.001,
    "evaluate.layer_threshold": "auto",
    "evaluate.first_threshold": "auto",
    "evaluate.gate_threshold": "auto",
    "evaluate.stop_threshold": "auto",
    "evaluate.metric": "top1",
    "evaluate.max_loss": 1.0,
    "evaluate.max_gmacs": None,
    "evaluate.folds": 4,
    "evaluate.bootstrap": 2000,
    "latency.target": "local",
    "latency.threads": 1,
    "latency.opset": 13,
    "latency.videos": 256,
    "latency.warmup": 20,
    "latency.repeats": 3,
    "latency.int8": False,
    "guarantee.max_harm": 2.0,
    "guarantee.confidence": 0.95,
    "guarantee.one_per_group": False,
}

LARGE: Knobs = {"branches.train_views": 1}  #: exit features are held in memory
FROM_YOUTUBE: Knobs = {"extract.max_failed_share": 0.2, **LARGE}  #: videos there disappear

#: Clips of one's own: a hundred or so, trained on a CPU (docs/real_clips.md).
FEW_CLIPS: Knobs = {
    "dataset.val_share": 0.25,
    "extract.short_side": 146,
    "model.input_size": 128,
    "model.num_branches": 3,
    "model.crm_convs": 2,
    "model.crm_scale": 1,
    "model.crm_pool": "grid",
    "pretrain.epochs": 30,
    "pretrain.frames": 4,
    "pretrain.learning_rate": 0.0005,
    "pretrain.frozen_layers": 12,
    "branches.epochs": 30,
    "branches.frames": 6,
    "branches.learning_rate": 0.001,
    "branches.train_views": 4,
    "gates.epochs": 30,
    "gates.batch_clips": 16,
    "gates.beta": 0.5,
    "evaluate.max_loss": 5.0,  # of some twenty clips in val, one is that much
}

DATA_SETS: dict[str, Knobs] = {
    "ucf101": {"model.mlp": 4096},
    "hmdb51": {},
    "something_v2": {"model.crm_scale": 2, "gates.beta": 0.000001, **LARGE},
    "mini_kinetics": {"extract.fps": 5.0, **FROM_YOUTUBE},
    "activitynet": {"extract.fps": 1.0, "extract.short_side": 350, "evaluate.metric": "map", **FROM_YOUTUBE},
    "hvu": {"dataset.labels": "multi", "evaluate.metric": "map", **FROM_YOUTUBE},
    "folder": FEW_CLIPS,
}

NO_IMAGENET: Knobs = {"model.weights": None}  #: torchvision has none

BACKBONES: dict[str, Knobs] = {
    "vgg16": {"pretrain.learning_rate": 0.0001},
    "bn_inception": NO_IMAGENET,
    "mobilenet_v2_tsm": {"extract.frames": 8, "pretrain.frames": 8, "branches.frames": 8, "model.order": "sequential"},
    "x3d_s": {"extract.clip_frames": 13, "extract.clip_stride": 6, "model.input_size": 160, **NO_IMAGENET},
}

#: The rules by which videos stop, as the papers print them; ``gate_threshold`` is that of either gate's sign.
AS_PUBLISHED: Knobs = {
    "evaluate.first_threshold": 0.99,
    "evaluate.gate_threshold": 0.5,
    "evaluate.stop_threshold": 1,
}

SEARCHED: Knobs = dict.fromkeys(AS_PUBLISHED, "auto")  #: all rules, with thresholds from val

METHODS: dict[str, Knobs] = {
    "tlee": AS_PUBLISHED,
    "frameexit": {
        "model.mlp": 4096,
        "model.num_branches": 0,
        "model.readout": "per_step",
        "model.gate": "frameexit",
        "gates.beta": 0.0001,
        **AS_PUBLISHED,
    },
    "layer": {"model.gate": "confidence"},
    "full": {"model.num_branches": 0, "model.gate": "confidence"},
    "random": {"model.gate": "random"},
}


@dataclass(frozen=True)
class Recipe:
    """One row of a paper's tables.

    ``own``: settings of this row alone. ``published``: score in percent, GMACs a video (the papers print GFLOPs)
    and source of each number to compare with.
    """

    data_set: str
    backbone: str
    method: str = "tlee"
    own: Knobs = field(default_factory=dict)
    published: tuple[tuple[float, float, str], ...] = ()
    remark: str = ""

    @property
    def name(self) -> str:
        """Of its file, without the ending."""
        return f"{self.data_set}_{self.backbone}" + ("" if self.method == "tlee" else f"_{self.method}")

    @property
    def knobs(self) -> Knobs:
        """All values of the parameter file."""
        choices = {
            "dataset.name": self.data_set,
            "dataset.root": "../videos" if self.data_set == "folder" else f"../datasets/{self.data_set}",
            "model.method": self.method,
            "model.backbone": self.backbone,
        }
        layers = (DATA_SETS[self.data_set], METHODS[self.method], BACKBONES.get(self.backbone, {}), self.own)
        knobs = EVERYWHERE | choices
        for layer in layers:
            knobs |= layer
        return knobs

    @property
    def header(self) -> str:
        """The comment that the file begins with."""
        own = ", ".join(f"{key} {_as_yaml(value)}" for key, value in self.own.items()) or "none"
        videos = "videos of your own" if self.data_set == "folder" else self.data_set
        title = METHOD_TITLES[self.method].format(f"on {videos} with {self.backbone}")
        return f"# {title}.\n# Of this row alone: {own}. Sources: recipes/README.md."


METHOD_TITLES = {
    "tlee": "TLEE {} (IEEE IoT Journal 2024)",
    "frameexit": "FrameExit {} (CVPR 2021)",
    "layer": "Layer exits alone {}, for comparison with TLEE",
    "full": "The full network {}, for comparison with TLEE",
    "random": "Random exits {}, TLEE's ablation",
}

TABLE_1, HVU_TABLE = "FrameExit paper table 1", "FrameExit paper HVU table"

SCRATCH = "authors start from ImageNet; no such weights here, so from scratch unless `model.weights` names a file"
KINETICS = "authors start from Kinetics; `model.weights` takes PyTorchVideo's file, null is from scratch"
PIXELS = "300 pixels, since the paper counts 1.8 GMACs a frame"
UPSCALED = f"{PIXELS}; the frames have 256 and are enlarged"

RECIPES = (
    Recipe("ucf101", "vgg16", own={"model.crm_scale": 1, "gates.beta": 0.001}),
    Recipe("ucf101", "bn_inception", remark=SCRATCH),
    Recipe("ucf101", "resnet18"),
    Recipe("ucf101", "resnet50", own={"model.crm_scale": 3, "gates.beta": 0.005, "evaluate.layer_threshold": 0.8}),
    Recipe("ucf101", "mobilenet_v2", own={"model.crm_scale": 1, "gates.beta": 0.001}),
    Recipe(
        "ucf101", "efficientnet_b3", own={"model.crm_scale": 1, "gates.beta": 0.01, "evaluate.layer_threshold": 0.8}
    ),
    Recipe("hmdb51", "vgg16", own={"model.crm_scale": 3, "gates.beta": 0.001}),
    Recipe("hmdb51", "bn_inception", remark=SCRATCH),
    Recipe("hmdb51", "resnet18"),
    Recipe("hmdb51", "resnet50", own={"model.crm_scale": 3, "gates.beta": 0.01}),
    Recipe("hmdb51", "mobilenet_v2", own={"model.crm_scale": 3, "gates.beta": 0.1}),
    Recipe("hmdb51", "efficientnet_b3", own={"model.crm_scale": 3, "gates.beta": 0.2, "evaluate.layer_threshold": 1}),
    Recipe("something_v2", "mobilenet_v2_tsm", remark="8 frames in temporal order, since the shift needs one"),
    Recipe("something_v2", "resnet50", own={"model.crm_scale": 2, "gates.beta": 0.000001}),
    Recipe("mini_kinetics", "mobilenet_v2"),
    Recipe("mini_kinetics", "resnet50"),
    Recipe("mini_kinetics", "efficientnet_b3"),
    Recipe("activitynet", "resnet50"),
    Recipe(
        "activitynet",
        "resnet50",
        "frameexit",
        own={"evaluate.first_threshold": 0.99},
        published=((76.1, 26.1, TABLE_1), (76.12, 24.7, "FrameExit README")),
    ),
    Recipe(
        "activitynet",
        "efficientnet_b3",
        "frameexit",
        own={"model.input_size": 300},
        published=((80.0, 11.4, TABLE_1),),
        remark=PIXELS,
    ),
    Recipe("activitynet", "x3d_s", "frameexit", published=((86.0, 9.8, TABLE_1),), remark=KINETICS),
    Recipe(
        "mini_kinetics",
        "resnet50",
        "frameexit",
        own={"evaluate.first_threshold": 0.95},
        published=((72.8, 19.7, TABLE_1), (73.31, 19.7, "FrameExit README")),
    ),
    Recipe(
        "mini_kinetics",
        "efficientnet_b3",
        "frameexit",
        own={"model.input_size": 300, "evaluate.first_threshold": 0.95},
        published=((75.3, 7.8, TABLE_1),),
        remark=UPSCALED,
    ),
    Recipe(
        "hvu",
        "resnet50",
        "frameexit",
        own={"gates.beta": 0.001},
        published=((45.7, 8.6, HVU_TABLE),),
        remark="`gates.beta: 0.00001` gives the table's other row, 49.2 at 18.7",
    ),
    Recipe(
        "hvu",
        "efficientnet_b3",
        "frameexit",
        own={"model.input_size": 300, "gates.beta": 0.001},
        published=((47.7, 11.7, HVU_TABLE),),
        remark=f"`gates.beta: 0.01` gives the table's other row, 46.1 at 5.7; {UPSCALED}",
    ),
    Recipe("ucf101", "mobilenet_v2", "frameexit", own={"evaluate.first_threshold": 0.95, "gates.beta": 0.002}),
    Recipe("ucf101", "mobilenet_v2", "layer", own={"model.crm_scale": 1}, remark="thresholds searched on val"),
    Recipe("ucf101", "mobilenet_v2", "full"),
    Recipe("ucf101", "mobilenet_v2", "random", own={"model.crm_scale": 1}, remark="chance searched on val"),
    Recipe("folder", "mobilenet_v2", own=SEARCHED, remark="your own clips, one folder a class: docs/real_clips.md"),
)


def render(recipe: Recipe, template: str) -> str:
    """The file of ``recipe``: the lines and comments of ``template``, which is params.yaml, with its values.

    Raises ``KeyError`` for a knob of the template that has no value here.
    """
    lines, section = [recipe.header], ""
    for line in template[template.index("\nseed:") :].splitlines():
        match = re.fullmatch(r"( *)(\w+):( [^#]*)?(#.*)?", line)
        if match:
            indent, key, value, comment = match.groups(default="")
            section = section if indent else key
            if value.strip():
                knob = f"{indent}{key}: {_as_yaml(recipe.knobs[f'{section}.{key}' if indent else key])}"
                line = f"{knob.ljust(line.index('#') - 1)} {comment}" if comment else knob
        lines.append(line)
    return "\n".join(lines) + "\n"


def _as_yaml(value: Any) -> str:
    """As params.yaml writes it; YAML would take 1e-4 for text."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return np.format_float_positional(value, trim="0") if isinstance(value, float) else str(value)


def markdown() -> str:
    """The table of all recipes."""
    lines = [
        "| recipe | method | published | source | remark |",
        "|---|---|---|---|---|",
    ]
    for recipe in RECIPES:
        metric = {"map": "mAP", "top1": "top-1"}[recipe.knobs["evaluate.metric"]]
        scores = "; ".join(f"{metric} {score} at {gmacs} GMACs" for score, gmacs, _ in recipe.published)
        sources = "; ".join(source for _, _, source in recipe.published)
        lines.append(f"| `{recipe.name}` | {recipe.method} | {scores or '-'} | {sources or '-'} | {recipe.remark} |")
    return "\n".join(lines)


if __name__ == "__main__":
    root = find_root(Path.cwd())
    template = (root / "params.yaml").read_text(encoding="utf-8")
    for recipe in RECIPES:
        (root / "recipes" / f"{recipe.name}.yaml").write_text(render(recipe, template), encoding="utf-8")
    print(markdown())
