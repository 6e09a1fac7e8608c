"""Rehearsal: the code of every stage, run with the real parameters on a few videos in a folder of its own."""

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch

from tlee.benchmark.measuring import measure_memory, seconds
from tlee.clips import load_clips
from tlee.datasets import Dataset
from tlee.edge.report import time_policy
from tlee.evaluation.evaluate import evaluate, load_splits
from tlee.evaluation.headroom import measure_headroom
from tlee.evaluation.replay import Split
from tlee.evaluation.step_by_step import step_by_step_agreement
from tlee.extraction import extract
from tlee.features import store_features
from tlee.guarantee.calibration import calibrate
from tlee.guarantee.certify import certify
from tlee.model import load_trained
from tlee.params import Params, change
from tlee.paths import EDGE, FEATURES, FRAMES, MODELS, RUNS, SPLITS
from tlee.policies.files import save_policies
from tlee.sizes import size_of
from tlee.subsets import spread
from tlee.training.backbone import pretrain, validate
from tlee.training.branches import train_branches
from tlee.training.gates import train_gates

HELD_OUT = 16  #: videos of ``val`` and of ``test``
STEPS = 4  #: of training, in an epoch
GATE_EPOCHS = 5  #: more than one: they take little time
REPLAYED = (64, 128)  #: videos that policies are compared on
TIMED = (4, 16)  #: videos whose latency is measured


@dataclass(frozen=True)
class Linear:
    """Seconds or bytes of some work: ``start`` in any case, and ``each`` for every unit of it."""

    start: float
    each: float

    @classmethod
    def through(cls, small: tuple[int, float], large: tuple[int, float]) -> "Linear":
        """Return the line through two measurements ``(units, seconds or bytes)``; neither part is negative."""
        (few, short), (many, long) = small, large
        each = min(max((long - short) / (many - few), 0.0), long / many)
        return cls(max(long - each * many, 0.0), each)

    def at(self, units: float) -> float:
        """Return the seconds or bytes of ``units`` of the work."""
        return self.start + self.each * units


@dataclass(frozen=True)
class Rehearsal:
    """Measurements on this machine: seconds, and sizes in bytes."""

    extraction: Linear  #: by videos, with the processes that read in parallel
    pretraining: float  #: a step of training
    validation: float  #: a video, with all of its frames at full depth
    branches: float  #: a step of training; 0 if nothing is trained
    features: float  #: a clip, all of its exit features
    gates: float  #: a step of training
    evaluation: Linear  #: by videos, the mean of ``val`` and ``test``
    stepping: float  #: a video, frame by frame with real exits
    latency: Linear  #: by videos
    guarantee: Linear  #: by videos, the mean of ``val`` and ``test``
    video_bytes: float  #: frames of a video
    clip_bytes: float  #: exit features of a clip
    model_bytes: float  #: weights
    bundle_bytes: Linear  #: networks and clips that are timed, by videos
    memory: dict[str, Linear]  #: by stage and videos (see ``evaluation``), besides that of its imports


def steps(clips: int, batch: int) -> int:
    """Return the number of steps in an epoch of training: without an incomplete batch, but at least one."""
    return max(clips // batch, 1)


def rehearse(params: Params, dataset: Dataset, say: Callable[[str], object]) -> Rehearsal:
    """Run all stages on a few videos of ``dataset``; ``say`` is told which one is next. Takes a minute for the demo.

    Training steps are not compiled, even if they are to be: it would take longer than so few of them.
    Raises ``UserError`` as the stages do.
    """
    few = _sample(replace(dataset, videos=dataset.videos.absolute()), params)
    here, uncompiled = str(Path(params.dataset.root).absolute()), {"pretrain.compile": False, "branches.compile": False}
    params = change(params, {"dataset.root": here} | uncompiled)
    RUNS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="plan-", dir=RUNS) as folder, _quietly_in(folder):
        say("extract")
        extraction = _time_extraction(few, params)
        trained = int((few.manifest["split"] == "train").sum())
        say("pretrain")
        with measure_memory() as of_network:
            pretraining = _time_epochs("pretrain", pretrain, params, steps(trained, params.pretrain.batch_clips), 1)
        model, clips_of_val = load_trained(params, "pretrain")[0], load_clips("val", params)
        validation = _seconds(partial(validate, model, clips_of_val)) / len(clips_of_val)
        say("branches")
        with measure_memory() as of_branches:
            branches = _time_epochs("branches", train_branches, params, steps(trained, params.branches.batch_clips), 1)
        views = trained * params.branches.train_views
        clips = views + len(few.manifest) - trained
        features = _seconds(partial(store_features, params)) / clips
        say("gates")
        gates = _time_epochs("gates", train_gates, params, steps(views, params.gates.batch_clips), GATE_EPOCHS)
        say("evaluate")
        val, test = load_splits(params)

        def splits(videos: int) -> tuple[Split, Split]:
            return _enlarged(val, videos), _enlarged(test, videos)

        evaluation, of_evaluation = _lines(REPLAYED, lambda videos: _evaluate(*splits(videos), params))
        evaluated = evaluate(*splits(REPLAYED[0]), params)
        stepping = _seconds(partial(step_by_step_agreement, evaluated, params)) / test.num_videos
        say("latency")
        save_policies(evaluated.policies)
        bundles: dict[int, int] = {}
        latency, _ = _lines(TIMED, lambda videos: bundles.update({videos: _time_latency(videos, params)}))
        say("guarantee")
        guarantee, of_guarantee = _lines(REPLAYED, lambda videos: _guarantee(*splits(videos), params))
        return Rehearsal(
            extraction,
            pretraining,
            validation,
            branches,
            features,
            gates,
            evaluation,
            stepping,
            latency,
            guarantee,
            size_of(FRAMES) / len(few.manifest),
            size_of(FEATURES) / clips,
            size_of(MODELS),
            Linear.through(*bundles.items()),
            {
                "pretrain": Linear(of_network.added, 0),
                "branches": Linear(of_branches.added, 0),
                "evaluate": of_evaluation,
                "guarantee": of_guarantee,
            },
        )


def _sample(dataset: Dataset, params: Params) -> Dataset:
    """Return evenly spaced videos of each split, enough for ``STEPS`` steps of training and for all processes."""
    batch = max(params.pretrain.batch_clips, params.branches.batch_clips)
    wanted = {"train": max(STEPS * batch, 8 * joblib.cpu_count()), "val": HELD_OUT, "test": HELD_OUT}
    parts = [dataset.manifest[dataset.manifest["split"] == split] for split in SPLITS]
    chosen = [part.iloc[spread(len(part), wanted[split])] for part, split in zip(parts, SPLITS, strict=True)]
    return replace(dataset, manifest=pd.concat(chosen, ignore_index=True))


@contextlib.contextmanager
def _quietly_in(folder: str) -> Iterator[None]:
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        MODELS.mkdir(parents=True)
        RUNS.mkdir()
        yield


def _seconds(work: Callable[[], object]) -> float:
    """Return the shorter time of two: the first one imports, and other programs may delay either."""
    return min(seconds(work), seconds(work))


def _lines(units: tuple[int, int], work: Callable[[int], object]) -> tuple[Linear, Linear]:
    """Measure the time and the memory of ``work`` of two sizes."""
    few, many = units
    with measure_memory() as small:
        short = _seconds(partial(work, few))
    with measure_memory() as large:
        long = seconds(partial(work, many))
    return Linear.through((few, short), (many, long)), Linear.through((few, small.added), (many, large.added))


def _time_extraction(few: Dataset, params: Params) -> Linear:
    fewer = replace(few, manifest=few.manifest.iloc[::2])
    settings, jobs = params.extract.model_copy(update={"max_failed_share": 1.0}), params.compute.jobs
    first = len(fewer.manifest), seconds(partial(extract, fewer, settings, FRAMES, jobs))
    shutil.rmtree(FRAMES)
    return Linear.through(first, (len(few.manifest), seconds(partial(extract, few, settings, FRAMES, jobs))))


def _time_epochs(stage: str, train: Callable[[Params], object], params: Params, count: int, more: int) -> float:
    """Return the seconds of a step of training, of ``count`` in an epoch, by ``more`` epochs than one."""
    settings = (change(params, {f"{stage}.epochs": epochs}) for epochs in (1, 1 + more))
    short, long = (_seconds(partial(train, each)) for each in settings)
    return max(long - short, 0.0) / more / count


def _enlarged(split: Split, videos: int) -> Split:
    """Return ``videos`` copies of the videos of a split, in groups of their own, with confident predictions."""
    table = split.table.take(np.arange(videos) % split.num_videos)
    features = table.features
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    stored = (features + noise * features.std()).to(table.stored.dtype)
    return replace(split, table=replace(table, stored=stored, groups=[str(row) for row in range(videos)]))


def _evaluate(val: Split, test: Split, params: Params) -> None:
    measure_headroom(evaluate(val, test, params), params)


def _guarantee(val: Split, test: Split, params: Params) -> None:
    calibrate(val, test, params)
    certify(val, test, params).simulate()


def _time_latency(videos: int, params: Params) -> int:
    """Run the stage with this number of videos; return the bytes that it leaves."""
    shutil.rmtree(EDGE, ignore_errors=True)
    time_policy(change(params, {"latency.videos": videos}))
    return size_of(EDGE)
