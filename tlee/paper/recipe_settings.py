"""Settings of the recipes by data set, backbone and method; the sources of the values are in ``recipes/README.md``."""

from typing import Any

Settings = dict[str, Any]  #: parameter values by dotted key

#: Defaults of all recipes. Epochs and batch sizes are TLEE's; learning rates suit the kit's optimiser.
COMMON: Settings = {
    "seed": 0,
    "reproducible": False,
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
    "pretrain.precision": "32-true",
    "pretrain.compile": False,
    "pretrain.learning_rate": 0.0002,
    "pretrain.head_rate": 1.0,
    "pretrain.weight_decay": 0.05,
    "pretrain.batch_norm": "trained",
    "pretrain.dropout": 0.0,
    "pretrain.label_smoothing": 0.0,
    "pretrain.joint": False,
    "pretrain.distillation": 0.0,
    "pretrain.frozen_layers": 0,
    "branches.epochs": 50,
    "branches.batch_clips": 8,
    "branches.frames": 10,
    "branches.precision": "32-true",
    "branches.compile": False,
    "branches.learning_rate": 0.0003,
    "branches.weight_decay": 0.01,
    "branches.train_views": 2,
    "branches.feature_precision": "float32",
    "gates.epochs": 3,
    "gates.batch_clips": 256,
    "gates.learning_rate": 0.001,
    "gates.weight_decay": 0.01,
    "gates.beta": 0.001,
    "evaluate.rule": "thresholds",
    "evaluate.layer_threshold": "auto",
    "evaluate.first_threshold": "auto",
    "evaluate.gate_threshold": "auto",
    "evaluate.stop_threshold": "auto",
    "evaluate.metric": "top1",
    "evaluate.max_loss": 1.0,
    "evaluate.confidence": 0.95,
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
    "compute.accelerator": "auto",
    "compute.devices": "auto",
    "compute.nodes": 1,
    "compute.workers": "auto",
    "compute.jobs": -1,
}

LARGE: Settings = {"branches.train_views": 1}  #: limits the size of the exit features
FROM_YOUTUBE: Settings = {"extract.max_failed_share": 0.2, **LARGE}  #: videos disappear from there

#: A data set of a hundred to a thousand clips, trained on a CPU (docs/real_clips.md).
FEW_CLIPS: Settings = {
    "dataset.val_share": 0.25,
    "extract.short_side": 146,
    "model.input_size": 128,
    "model.num_branches": 3,
    "model.crm_convs": 2,
    "model.crm_scale": 1,
    "model.crm_pool": "grid",
    "pretrain.epochs": 15,
    "pretrain.frames": 4,
    "pretrain.learning_rate": 0.0001,
    "pretrain.head_rate": 10.0,
    "pretrain.batch_norm": "frozen",
    "pretrain.dropout": 0.5,
    "pretrain.label_smoothing": 0.1,
    "pretrain.frozen_layers": 12,
    "branches.epochs": 15,
    "branches.frames": 6,
    "branches.learning_rate": 0.001,
    "branches.train_views": 4,
    "gates.epochs": 30,
    "gates.batch_clips": 16,
    "gates.beta": 0.5,
    "evaluate.rule": "optimal_stopping",
    "evaluate.folds": 8,
    "evaluate.max_loss": 5.0,  # one clip of the about twenty in val
}

DATA_SETS: dict[str, Settings] = {
    "ucf101": {"model.mlp": 4096},
    "hmdb51": {},
    "jhmdb": FEW_CLIPS
    | {"extract.short_side": 128, "model.input_size": 112, "model.reuse": "mean", "guarantee.max_harm": 5.0},
    "something_v2": {"model.crm_scale": 2, "gates.beta": 0.000001, **LARGE},
    "mini_kinetics": {"extract.fps": 5.0, **FROM_YOUTUBE},
    "activitynet": {"extract.fps": 1.0, "extract.short_side": 350, "evaluate.metric": "map", **FROM_YOUTUBE},
    "hvu": {"dataset.labels": "multi", "evaluate.metric": "map", **FROM_YOUTUBE},
    "folder": FEW_CLIPS,
}

NO_IMAGENET: Settings = {"model.weights": None}  #: torchvision has no ImageNet weights

BACKBONES: dict[str, Settings] = {
    "vgg16": {"pretrain.learning_rate": 0.0001},
    "bn_inception": NO_IMAGENET,
    "mobilenet_v2_tsm": {"extract.frames": 8, "pretrain.frames": 8, "branches.frames": 8, "model.order": "sequential"},
    "x3d_s": {"extract.clip_frames": 13, "extract.clip_stride": 6, "model.input_size": 160, **NO_IMAGENET},
}

#: Thresholds at which videos stop, as published; ``gate_threshold`` is the same for either sign of the gate.
AS_PUBLISHED: Settings = {
    "evaluate.first_threshold": 0.99,
    "evaluate.gate_threshold": 0.5,
    "evaluate.stop_threshold": 1,
}

SEARCHED: Settings = dict.fromkeys(AS_PUBLISHED, "auto")  #: all thresholds searched on val

METHODS: dict[str, Settings] = {
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
