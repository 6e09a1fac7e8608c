"""What real exits cost over an ideal, what a decision and a sweep take: ratios from one run, with random weights.

Ratios of what ran in turns on one machine travel further than its seconds. The networks have random weights, 224 pixels
and ten frames; thresholds are chosen amid their confidences, so that some videos stop early and others go deep. The
rest is as ``params.yaml`` says.
"""

import math
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from tlee import jetson
from tlee.costs import Costs, count_costs
from tlee.edge.bundle import Videos, Watched, write_bundle
from tlee.edge.latency import time_parts
from tlee.features import FeatureTable
from tlee.inference import run
from tlee.jetson import BATCH, CHUNKED, FULL, IDEAL, REAL
from tlee.model import TLEE, Readout
from tlee.params import Params, load_params
from tlee.policies.look import NEVER
from tlee.policies.thresholds import Thresholds
from tlee.replay import Split
from tlee.sources import StoredFeatures

NETWORKS = ("mobilenet_v2", "resnet50")
CLASSES = 101
UCF101_TEST = 3783  #: videos of the test split
LARGEST = 10.0  #: logit, about as in trained networks: steeper classifiers would magnify rounding
TRIALS = 200  #: policies that are tried for a mix of exits
CLEAR = 0.002  #: log-odds that scores stay away from thresholds, far more than rounding: it decides nothing

COLUMNS = ["part", "what", "value", "low", "high", "target"]
MEGA = 1e6


def benchmark(
    networks: Sequence[str] = NETWORKS, videos: int = 8, replayed: int = 512, points: int = 200
) -> pd.DataFrame:
    """Run it all. One row a number: ``part`` (network, replay), ``what``, ``value``, ``low`` and ``high``, ``target``.

    ``value`` is a median over videos where ``low`` and ``high``, the quartiles, are given; ``target`` is what it is to
    be at most, if there is such a thing. ``replayed`` videos are in the synthetic table, on which ``points`` policies
    run.
    """
    rows = [row for name in networks for row in time_network(_params(name), videos)]
    rows += time_replay(_params(networks[0]), replayed, points)
    return pd.DataFrame(rows, columns=COLUMNS)


def markdown(table: pd.DataFrame) -> str:
    """As ``benchmark`` makes it."""
    shown = table.drop(columns=["low", "high"])
    shown["value"] = [_with_quartiles(row) for row in table.itertuples()]
    shown["target"] = [f"at most {target:g}" if target == target else "" for target in table["target"]]
    return shown.to_markdown(index=False, disable_numparse=True)


def _with_quartiles(row: Any) -> str:
    return f"{row.value:.3g}" + (f" ({row.low:.3g} to {row.high:.3g})" if row.low == row.low else "")


def _params(name: str) -> Params:
    model = {"backbone": name, "weights": None, "trained": None, "method": "tlee", "input_size": 224, "exits": 3}
    settings = {f"model.{key}": value for key, value in model.items()}
    return load_params(overrides=settings | {"extract.frames": 10})


# --- a network with random weights, and a policy that takes all of its exits -----------------------------


@torch.no_grad()
def random_network(params: Params, clips: torch.Tensor) -> TLEE:
    """Random weights by which ``clips [N, T, ...]`` differ: with the initial ones all confidences would be alike."""
    torch.manual_seed(params.seed)
    model = TLEE(params, CLASSES)
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = None  # the mean over all that it sees
    model.train().exit_features(clips)
    features = model.eval().exit_features(clips)
    for classifier in model.readout.classifiers:
        logits = classifier(features.flatten(0, 2))
        factor = LARGEST / (logits - logits.mean(0)).abs().max()
        classifier.weight *= factor
        classifier.bias.copy_(-factor * (logits.mean(0) - classifier.bias))
    return model


def random_frames(params: Params, videos: int) -> torch.Tensor:
    """``float [N, T, 3, S, S]`` in 0..1, as pixels give it: patterns, coarse and fine, of random colour."""
    generator = torch.Generator().manual_seed(params.seed)
    steps, size = params.extract.frames, params.model.input_size
    cells = torch.randint(2, 40, (videos * steps,), generator=generator).tolist()
    coarse = (torch.rand(1, 3, side, side, generator=generator) for side in cells)
    frames = torch.cat([nn.functional.interpolate(each, size=size, mode="bilinear") for each in coarse])
    level = torch.rand(videos * steps, 3, 1, 1, generator=generator)
    return (frames * level * 255).round().unflatten(0, (videos, steps)) / 255


@torch.no_grad()
def mixed_policy(model: TLEE, features: torch.Tensor, costs: Costs) -> Thresholds:
    """Of random thresholds amid the scores of ``features [N, T, B + 1, D]`` those whose exits are the most mixed.

    No score comes near a threshold.
    """
    exits, frames, readout = model.exits, features.shape[1], model.readout
    confidence = torch.stack([readout.probabilities(readout.prefix_logits(features, b)).amax(-1) for b in range(exits)])
    gate = _gate_scores(readout, features)
    lowest, highest = np.array([[0.2], [0.7], [0.9], [0.9]]), np.array([[1], [1.4], [1.3], [1.3]])
    draws = np.random.default_rng(0).uniform(lowest, highest, (TRIALS, 4, exits))
    best, most = None, -math.inf
    for leave, first, later, sure in draws:
        policy = Thresholds(
            tuple(_amid(confidence[b], leave[b]) for b in range(exits - 1)),
            tuple(_amid(confidence[b, :, 0], first[b]) for b in range(exits)),
            tuple(map(_amid, gate, later)) if gate else (NEVER,) * exits,
            tuple(_amid(confidence[b, :, 1:], sure[b]) for b in range(exits)),
        )
        watched = Watched(policy)
        taken = run(StoredFeatures(features), readout, watched, costs).exits
        if watched.margin > CLEAR and (found := _mix(taken, exits)) > most:
            best, most = policy, found
    assert best is not None, f"none of {TRIALS} policies over {frames} frames stays away from all scores"
    return best


def _gate_scores(readout: Readout, features: torch.Tensor) -> list[torch.Tensor]:
    if not readout.gates:
        return []
    steps = range(1, features.shape[1] - 1)
    known = [readout.along(features, torch.full(features.shape[:2], b)) for b in range(features.shape[2])]
    return [torch.stack([readout.gate(z[:, t], z[:, t - 1], t).sigmoid() for t in steps]) for z in known]


def _amid(values: torch.Tensor, share: float) -> float:
    """A threshold that about ``share`` of ``values`` are below, in the widest gap nearby, in log-odds; NEVER from 1."""
    if share >= 1:
        return NEVER
    ordered = values.flatten().double().logit().sort().values
    last = len(ordered) - 1
    start = min(max(int((share - 0.08) * last), 0), last - 1)
    end = max(min(int((share + 0.08) * last), last), start + 1)
    widest = start + int(ordered[start : end + 1].diff().argmax())
    return ((ordered[widest] + ordered[widest + 1]) / 2).sigmoid().item()


def _mix(taken: torch.Tensor, exits: int) -> float:
    """How mixed exits ``[N, T]`` are: entropy of depths and of how many frames videos take, about half on average."""
    depths = torch.stack([(taken == depth).sum() for depth in range(exits)]) + 1e-9
    frames = torch.bincount((taken >= 0).sum(1), minlength=1) + 1e-9
    entropies = [torch.distributions.Categorical(counts.double()).entropy().item() for counts in (depths, frames)]
    return 2 * entropies[0] + entropies[1] - 4 * abs((taken >= 0).double().mean().item() - 0.5)


# --- time of a network -----------------------------------------------------------------------------------


def time_network(params: Params, videos: int) -> list[tuple]:
    """Rows of ``benchmark``, of the network that ``params`` describe."""
    clips = random_frames(params, videos)
    model = random_network(params, clips[:, ::2])
    costs = count_costs(model)
    policy = mixed_policy(model, _exit_features(model, clips), costs)
    with tempfile.TemporaryDirectory() as folder:
        names = [str(video) for video in range(videos)]
        write_bundle(model, policy, Videos(names, clips.__getitem__), list(map(str, range(CLASSES))), Path(folder))
        runner = jetson.Runner(folder, "onnxruntime")
        checked = jetson.check(runner)
        jetson.check(runner, chunked=True)
        rounding = _rounding(model, clips, runner)
        parts = time_parts(runner)
        times = jetson.measure(runner, warmup=1, repeats=2, systems=(FULL, BATCH, CHUNKED, REAL, IDEAL))
    return _rows(params.model.backbone, runner, checked, rounding, parts, pd.DataFrame(times))


@torch.inference_mode()
def _exit_features(model: TLEE, clips: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.exit_features(clip[None]) for clip in clips])


@torch.inference_mode()
def _rounding(model: TLEE, clips: torch.Tensor, runner: jetson.Runner) -> dict[str, float]:
    """How far logits in single precision are at most from those in double precision, in which ``model`` is left.

    Between PyTorch and ONNX Runtime lies what both of them round.
    """
    model, bundle = model.double(), runner.bundle
    exits = torch.tensor([video["exits"] for video in bundle.videos])
    every = model.readout.prefix_logits(_exit_features(model, clips.double()), exits.clamp(min=0))
    exact = every[torch.arange(len(exits)), (exits >= 0).sum(1) - 1].numpy()
    found = {
        "PyTorch": [video["logits"] for video in bundle.videos],
        "ONNX Runtime": [runner.engine.run(jetson.prepare(bundle.frames(row))).logits for row in range(len(exits))],
    }
    return {name: float(np.abs(np.stack(logits) - exact).max()) for name, logits in found.items()}


def _rows(
    name: str,
    runner: jetson.Runner,
    checked: dict[str, Any],
    rounding: dict[str, float],
    parts: pd.DataFrame,
    times: pd.DataFrame,
) -> list:
    videos, exits = runner.bundle.videos, runner.uncut.deepest + 1
    took = times.pivot(index=["video", "repeat"], columns="system", values="milliseconds")
    frames = times.pivot(index=["video", "repeat"], columns="system", values="frames")
    full = took[FULL].groupby("video").median()
    left = [depth for video in videos for depth in video["exits"] if depth >= 0]
    rows = [_row(name, f"frames left at depth {depth}, share", left.count(depth) / len(left)) for depth in range(exits)]
    rows += [
        _row(name, "frames a video", frames[REAL]),
        _row(name, "clips with the exits and label of PyTorch, share", checked["same"] / checked["clips"]),
        _row(name, "largest difference of a logit to PyTorch", checked["logits"]),
        _row(name, "rounding of PyTorch: the same to double precision", rounding["PyTorch"]),
        _row(name, "rounding of ONNX Runtime: the same to double precision", rounding["ONNX Runtime"], target=1e-4),
        _row(name, "real exits / ideal", took[REAL] / took[IDEAL], target=1.15),
        _row(name, "real exits / full network", took[REAL] / took[FULL]),
        _row(name, "decisions / full network", (parts["readouts"] + parts["loop"]) / full, target=0.03),
    ]
    shares = parts.div(parts.sum(axis=1), axis=0)
    rows += [_row(name, f"time in {part}, share", share) for part, share in shares.items()]
    rows += [
        _row(name, "full network in one batch / frame by frame", took[BATCH] / took[FULL]),
        _row(name, "real exits / full network in one batch", took[REAL] / took[BATCH]),
        _row(name, "real exits chunked / frame by frame", took[CHUNKED] / took[REAL]),
        _row(name, "frames computed in vain by chunks, share", 1 - frames[REAL].sum() / frames[CHUNKED].sum()),
    ]
    return rows


def _row(part: str, what: str, value: float | pd.Series, target: float | None = None) -> tuple:
    if isinstance(value, pd.Series):
        low, middle, high = value.quantile([0.25, 0.5, 0.75])
        return part, what, middle, low, high, target
    return part, what, value, None, None, target


# --- time of a sweep -------------------------------------------------------------------------------------


def time_replay(params: Params, videos: int, points: int) -> list[tuple]:
    """Rows of ``benchmark``: ``points`` policies on a memory-mapped table of random exit features of ``videos``."""
    torch.manual_seed(params.seed)
    model = TLEE(params, CLASSES).eval()
    readout, costs = model.readout, count_costs(model)
    shape = (videos, params.extract.frames, model.exits, readout.width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        _write_features(path, shape, params.seed)
        split = _split(path, readout, costs)
        policies = _random_policies(split, points)
        never = Thresholds.never(model.exits)
        split.run(never)
        full = np.median([_seconds(lambda: split.run(never)) for _ in range(3)])
        with _memory() as memory:
            sweep = _seconds(lambda: [split.score(outcomes) for outcomes in split.sweep(policies)])
        size = path.stat().st_size
    rows = [
        _row("replay", "videos", videos),
        _row("replay", "table, MB", size / MEGA),
        _row("replay", "policies", points),
        _row("replay", "sweep / one pass of the full network", sweep / full),
        _row("replay", "a policy of the sweep / one pass of the full network", sweep / full / points),
    ]
    if memory.known:
        rows.append(_row("replay", "memory beyond the mapped table / table", memory.added / size))
    return rows


def _seconds(work: Any) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _write_features(path: Path, shape: tuple[int, ...], seed: int) -> None:
    """Features of a video that are alike, not negative, and part of the file only."""
    table, generator = np.lib.format.open_memmap(path, "w+", np.float32, shape), np.random.default_rng(seed)
    for start in range(0, shape[0], 64):
        part = table[start : start + 64]
        video = generator.standard_normal((len(part), 1, 1, shape[-1]), np.float32)
        part[...] = np.maximum(video + generator.standard_normal(part.shape, np.float32), 0)
    table.flush()


def _split(path: Path, readout: Readout, costs: Costs) -> Split:
    features = torch.from_numpy(np.load(path, mmap_mode="c"))
    videos = len(features)
    labels = torch.arange(videos) % CLASSES
    truth = nn.functional.one_hot(labels, CLASSES).bool()
    names = [str(video) for video in range(videos)]
    return Split(
        FeatureTable(features, labels, truth, names, names, list(map(str, range(CLASSES)))), readout, costs, "top1"
    )


@torch.inference_mode()
def _random_policies(split: Split, points: int) -> list[Thresholds]:
    """Thresholds at random quantiles of the scores of some videos."""
    features, readout, exits = split.table.features[:64], split.readout, range(split.exits)
    confidence = [readout.probabilities(readout.prefix_logits(features, b)).amax(-1).flatten() for b in exits]
    gate = [scores.flatten() for scores in _gate_scores(readout, features)]
    draws = torch.rand(points, 4, split.exits, generator=torch.Generator().manual_seed(0)).tolist()
    return [
        Thresholds(
            tuple(confidence[b].quantile(leave[b]).item() for b in exits[:-1]),
            *(tuple(scores[b].quantile(kind[b]).item() for b in exits) for scores, kind in kinds),
        )
        for leave, *rest in draws
        for kinds in [list(zip((confidence, gate or confidence, confidence), rest, strict=True))]
    ]


@dataclass
class Memory:
    """Bytes that a process ``added`` at most to what it held, files that it maps aside; if that is ``known``."""

    known: bool = False
    added: int = 0


@contextmanager
def _memory() -> Iterator[Memory]:
    """Watch this process, on systems that tell (Linux)."""
    memory, begin, done = Memory(), _anonymous(), threading.Event()

    def listen() -> None:
        while not done.wait(0.01):
            memory.added = max(memory.added, _anonymous() - begin)

    memory.known = begin is not None
    listener = threading.Thread(target=listen)
    if memory.known:
        listener.start()
    try:
        yield memory
    finally:
        done.set()
        if memory.known:
            listener.join()


def _anonymous() -> int | None:
    status = Path("/proc/self/status")
    found = re.search(r"^RssAnon:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found.group(1)) * 1024 if found else None
