"""Networks with random weights, frames, and policies that take all of their exits."""

import math

import numpy as np
import torch
from torch import nn

from tlee.costs import Costs
from tlee.edge.bundle import Watched
from tlee.levels import NEVER
from tlee.model import TLEE
from tlee.readout import Readout
from tlee.params import Params
from tlee.policies.inference import run
from tlee.policies.sources import StoredFeatures
from tlee.policies.thresholds import Thresholds

CLASSES = 101
LARGEST = 10.0  #: logit, about as in trained networks: steeper classifiers would magnify rounding
TRIALS = 200  #: policies that are tried for a mix of exits
CLEAR = 0.002  #: log-odds that scores stay away from thresholds, far more than rounding: it decides nothing


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
    exits, frames, readout = model.num_exits, features.shape[1], model.readout
    confidence = torch.stack([readout.probabilities(readout.prefix_logits(features, b)).amax(-1) for b in range(exits)])
    gate = gate_scores(readout, features)
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
        taken = run(StoredFeatures(features), readout, watched, costs).exit_depths
        if watched.margin > CLEAR and (found := _mix(taken, exits)) > most:
            best, most = policy, found
    assert best is not None, f"none of {TRIALS} policies over {frames} frames stays away from all scores"
    return best


def gate_scores(readout: Readout, features: torch.Tensor) -> list[torch.Tensor]:
    """What the gate says, ``[T - 2, N]`` for each exit, if all frames are left there; empty if there is no gate."""
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
