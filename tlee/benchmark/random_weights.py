"""Random networks and frames, and policies with mixed exits."""

import math

import numpy as np
import torch
from torch import nn

from tlee.costs import Costs
from tlee.edge.bundle import Watched
from tlee.levels import NEVER
from tlee.model import TLEE
from tlee.params import Params
from tlee.policies.inference import run
from tlee.policies.sources import StoredFeatures
from tlee.policies.thresholds import Thresholds
from tlee.readout import Readout

NUM_CLASSES = 101
MAX_LOGIT = 10.0  #: largest logit, about as in trained networks: larger ones would magnify rounding errors
TRIALS = 200  #: number of random policies to choose from
MIN_MARGIN = 0.002  #: log-odds between scores and thresholds, far above rounding errors, which decide nothing


@torch.no_grad()
def random_network(params: Params, clips: torch.Tensor) -> TLEE:
    """Build a random network with varied confidences on ``clips [N, T, ...]``; with initial weights all are alike."""
    torch.manual_seed(params.seed)
    model = TLEE(params, NUM_CLASSES)
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = None  # cumulative mean over all batches
    model.train().exit_features(clips)
    features = model.eval().exit_features(clips)
    for classifier in model.readout.classifiers:
        weight, bias = classifier.parameters()
        logits = classifier(features.flatten(0, 2))
        factor = MAX_LOGIT / (logits - logits.mean(0)).abs().max()
        weight.mul_(factor)
        bias.copy_(-factor * (logits.mean(0) - bias))
    return model


def random_frames(params: Params, num_videos: int) -> torch.Tensor:
    """Draw 8-bit frames ``float [N, T, 3, S, S]`` in 0..1: coarse and fine patterns of random colours."""
    generator = torch.Generator().manual_seed(params.seed)
    steps, size = params.extract.frames, params.model.input_size
    cells = torch.randint(2, 40, (num_videos * steps,), generator=generator).tolist()
    coarse = (torch.rand(1, 3, side, side, generator=generator) for side in cells)
    frames = torch.cat([nn.functional.interpolate(each, size=size, mode="bilinear") for each in coarse])
    level = torch.rand(num_videos * steps, 3, 1, 1, generator=generator)
    return (frames * level * 255).round().unflatten(0, (num_videos, steps)) / 255


@torch.no_grad()
def mixed_policy(model: TLEE, features: torch.Tensor, costs: Costs) -> Thresholds:
    """Choose the random thresholds with the most mixed exits, away from all scores of ``features [N, T, B + 1, D]``."""
    num_exits, num_frames, readout = model.num_exits, features.shape[1], model.readout
    confidence = torch.stack(
        [readout.probabilities(readout.prefix_logits(features, b)).amax(-1) for b in range(num_exits)]
    )
    gate = gate_scores(readout, features)
    lowest, highest = np.array([[0.2], [0.7], [0.9], [0.9]]), np.array([[1], [1.4], [1.3], [1.3]])
    draws = np.random.default_rng(0).uniform(lowest, highest, (TRIALS, 4, num_exits))
    best, most = None, -math.inf
    for layer, first, later, stop in draws:
        policy = Thresholds(
            tuple(_threshold(confidence[b], layer[b]) for b in range(num_exits - 1)),
            tuple(_threshold(confidence[b, :, 0], first[b]) for b in range(num_exits)),
            tuple(map(_threshold, gate, later)) if gate else (NEVER,) * num_exits,
            tuple(_threshold(confidence[b, :, 1:], stop[b]) for b in range(num_exits)),
        )
        watched = Watched(policy)
        exit_depths = run(StoredFeatures(features), readout, watched, costs).exit_depths
        if watched.margin > MIN_MARGIN and (diversity := _diversity(exit_depths, num_exits)) > most:
            best, most = policy, diversity
    assert best is not None, f"none of {TRIALS} policies over {num_frames} frames stays away from all scores"
    return best


def gate_scores(readout: Readout, features: torch.Tensor) -> list[torch.Tensor]:
    """Compute the gate's scores ``[T - 2, N]`` for each exit with all frames left there; empty without a gate."""
    if not readout.gates:
        return []
    steps = range(1, features.shape[1] - 1)
    known = [readout.along(features, torch.full(features.shape[:2], b)) for b in range(features.shape[2])]
    return [torch.stack([readout.gate(z[:, t], z[:, t - 1], t).sigmoid() for t in steps]) for z in known]


def _threshold(values: torch.Tensor, share: float) -> float:
    """Return a threshold above about ``share`` of ``values``, in the widest nearby gap in log-odds; NEVER from 1."""
    if share >= 1:
        return NEVER
    ordered = values.flatten().double().logit().sort().values
    last = len(ordered) - 1
    start = min(max(int((share - 0.08) * last), 0), last - 1)
    end = max(min(int((share + 0.08) * last), last), start + 1)
    widest = start + int(ordered[start : end + 1].diff().argmax())
    return ((ordered[widest] + ordered[widest + 1]) / 2).sigmoid().item()


def _diversity(exit_depths: torch.Tensor, num_exits: int) -> float:
    """Score the diversity of exits ``[N, T]``.

    The entropies of depths and of numbers of frames are added; using more or less than half of the frames is penalised.
    """
    depths = torch.stack([(exit_depths == depth).sum() for depth in range(num_exits)]) + 1e-9
    frames = torch.bincount((exit_depths >= 0).sum(1), minlength=1) + 1e-9
    entropies = [torch.distributions.Categorical(counts.double()).entropy().item() for counts in (depths, frames)]
    return 2 * entropies[0] + entropies[1] - 4 * abs((exit_depths >= 0).double().mean().item() - 0.5)
