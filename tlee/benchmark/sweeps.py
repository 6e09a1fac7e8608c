"""Time and memory of a sweep of policies over a memory-mapped table of exit features."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from tlee.arrays import create_array
from tlee.benchmark.measuring import MEGA, measure_memory, seconds
from tlee.benchmark.random_weights import NUM_CLASSES, gate_scores
from tlee.benchmark.rows import row
from tlee.costs import Costs, count_costs
from tlee.evaluation.replay import Split
from tlee.features import FeatureTable
from tlee.labels import SparseLabels
from tlee.model import TLEE
from tlee.params import Params
from tlee.policies.thresholds import Thresholds
from tlee.readout import Readout


def time_replay(params: Params, num_videos: int, num_policies: int) -> list[tuple]:
    """Measure ``num_policies`` policies on a memory-mapped table of random exit features; rows of ``benchmark``."""
    torch.manual_seed(params.seed)
    model = TLEE(params, NUM_CLASSES).eval()
    readout, costs = model.readout, count_costs(model)
    shape = (num_videos, params.extract.frames, model.num_exits, readout.width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        _write_features(path, shape, params.seed)
        split = _split(path, readout, costs)
        policies = _random_policies(split, num_policies)
        never = Thresholds.never(model.num_exits)
        split.run(never)
        full = np.median([seconds(lambda: split.run(never)) for _ in range(3)])
        with measure_memory() as memory:
            sweep = seconds(lambda: [split.score(results) for results in split.sweep(policies)])
        size = path.stat().st_size
    rows = [
        row("replay", "videos", num_videos),
        row("replay", "feature table (MB)", size / MEGA),
        row("replay", "policies", num_policies),
        row("replay", "sweep / one pass of the full network", sweep / full),
        row("replay", "one policy of the sweep / one pass of the full network", sweep / full / num_policies),
    ]
    if memory.is_known:
        rows.append(row("replay", "memory besides the mapped table (MB)", memory.added / MEGA))
    return rows


def _write_features(path: Path, shape: tuple[int, ...], seed: int) -> None:
    """Write random non-negative features that are similar within a video, without keeping them in memory."""
    table, generator = create_array(path, np.float32, shape), np.random.default_rng(seed)
    for start in range(0, shape[0], 64):
        part = table[start : start + 64]
        video = generator.standard_normal((len(part), 1, 1, shape[-1]), np.float32)
        part[...] = np.maximum(video + generator.standard_normal(part.shape, np.float32), 0)
    table.flush()


def _split(path: Path, readout: Readout, costs: Costs) -> Split:
    features = torch.from_numpy(np.load(path, mmap_mode="c"))
    num_videos = len(features)
    classes = torch.arange(num_videos, dtype=torch.int32) % NUM_CLASSES
    labels = SparseLabels(torch.arange(num_videos + 1), classes, NUM_CLASSES)
    names = [str(video) for video in range(num_videos)]
    table = FeatureTable(features, labels, names, names, list(map(str, range(NUM_CLASSES))))
    return Split(table, readout, costs, "top1")


@torch.inference_mode()
def _random_policies(split: Split, num_policies: int) -> list[Thresholds]:
    """Draw thresholds at random quantiles of the scores of some videos."""
    features, readout, exits = split.table.part(slice(64)).features, split.readout, range(split.num_exits)
    confidence = [readout.probabilities(readout.prefix_logits(features, b)).amax(-1).flatten() for b in exits]
    gate = [scores.flatten() for scores in gate_scores(readout, features)]
    draws = torch.rand(num_policies, 4, split.num_exits, generator=torch.Generator().manual_seed(0)).tolist()
    return [
        Thresholds(
            tuple(confidence[b].quantile(layer[b]).item() for b in exits[:-1]),
            *(tuple(scores[b].quantile(kind[b]).item() for b in exits) for scores, kind in kinds),
        )
        for layer, *rest in draws
        for kinds in [list(zip((confidence, gate or confidence, confidence), rest, strict=True))]
    ]
