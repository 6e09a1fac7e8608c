"""Forecast of the time and disk space of each stage."""

import pandas as pd

from tlee.datasets import Dataset
from tlee.evaluation.step_by_step import VIDEOS
from tlee.params import Params
from tlee.paths import SPLITS
from tlee.planning.rehearsal import Rehearsal, steps
from tlee.training.loop import VALIDATE_EVERY

KERNEL = 10.0  #: seconds in which a notebook starts, imports and draws its figures
STAGES = {
    "extract": "1_extract_frames",
    "pretrain": "2_pretrain_backbone",
    "branches": "3_train_branches",
    "gates": "4_train_gates",
    "evaluate": "5_evaluate",
    "latency": "6_latency",
    "guarantee": "7_guarantee",
    "explain": "8_explain",
}


def forecast(params: Params, dataset: Dataset, measured: Rehearsal) -> pd.DataFrame:
    """Return one row a ``stage``: ``seconds``, ``bytes`` that it leaves on the disk, ``memory`` in bytes, and its work.

    Memory is 0 where it is not measured: it is little, or that of other processes.
    """
    counts = dataset.manifest["split"].value_counts()
    train, val, test = (int(counts.get(split, 0)) for split in SPLITS)
    videos, views = train + val + test, params.branches.train_views
    timed = min(params.latency.videos, test)
    clips, held_out = train * views + val + test, (val + test) / 2
    epochs = params.pretrain.epochs
    validations = -(-epochs // VALIDATE_EVERY)
    seconds = {
        "extract": measured.extraction.at(videos),
        "pretrain": epochs * steps(train, params.pretrain.batch_clips) * measured.pretraining
        + validations * val * measured.validation,
        "branches": params.branches.epochs * steps(train, params.branches.batch_clips) * measured.branches
        + val * measured.validation
        + clips * measured.features,
        "gates": params.gates.epochs * steps(train * views, params.gates.batch_clips) * measured.gates,
        "evaluate": measured.evaluation.at(held_out) + min(VIDEOS, test) * measured.stepping,
        "latency": measured.latency.at(timed),
        "guarantee": measured.guarantee.at(held_out),
        "explain": 0.0,
    }
    disk = {
        "extract": videos * measured.video_bytes,
        "pretrain": measured.model_bytes,
        "branches": clips * measured.clip_bytes,
        "latency": measured.bundle_bytes.at(timed),
    }
    work = {
        "extract": f"{videos} videos of {params.extract.frames} frames",
        "pretrain": f"{epochs} epochs of {train} videos, {params.pretrain.frames} frames each",
        "branches": f"exit features of {clips} clips",
        "gates": f"{params.gates.epochs} epochs of {train * views} clips",
        "evaluate": f"policies on {val} and {test} videos",
        "latency": f"{timed} videos, {params.latency.repeats} times",
        "guarantee": f"policies on {val} and {test} videos",
        "explain": "figures",
    }
    memory = {stage: line.at(held_out) for stage, line in measured.memory.items()}
    return pd.DataFrame(
        {
            "stage": list(STAGES),
            "seconds": [KERNEL + seconds[stage] for stage in STAGES],
            "bytes": [disk.get(stage, 0.0) for stage in STAGES],
            "memory": [memory.get(stage, 0.0) for stage in STAGES],
            "work": [work[stage] for stage in STAGES],
        }
    )
