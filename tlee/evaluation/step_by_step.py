"""Agreement of the network, run frame by frame with real exits, with the replay of stored features."""

import pandas as pd
import torch

from tlee.clips import load_clips
from tlee.evaluation.evaluate import Evaluation
from tlee.model import load_trained
from tlee.params import Params
from tlee.policies.inference import follow, run
from tlee.policies.policy import Policy
from tlee.policies.sources import LiveFeatures, Remembered
from tlee.subsets import spread

VIDEOS = 256  #: number of test videos that are run, evenly spread


def step_by_step_agreement(evaluation: Evaluation, params: Params) -> pd.Series:
    """Share of test videos, for each policy, on which the network itself agrees with the replay.

    They agree if exits, prediction and cost are the same; the stored features are not used. A temporal
    shift makes features depend on earlier exits, so there, and only there, the replay is an approximation.
    """
    model, _ = load_trained(params, "pretrain", "branches", "gates")
    clips, split = load_clips("test", params), evaluation.test
    rows = spread(len(clips), VIDEOS)
    stateless = not any(model.backbone.start_memory(params.model.input_size))
    same = dict.fromkeys(evaluation.policies, 0)
    for row in rows:
        clip, _, _ = clips[row]
        source = Remembered(LiveFeatures(model, clip)) if stateless else None
        for name, policy in evaluation.policies.items():
            replayed, live = evaluation.outcomes[name], source or LiveFeatures(model, clip)
            if isinstance(policy, Policy):
                outcome = run(live, model.readout, policy, split.costs)
            else:
                outcome = follow(live, model.readout, replayed.exit_depths[row : row + 1], split.costs)
            same[name] += (
                torch.equal(outcome.exit_depths[0], replayed.exit_depths[row])
                and torch.equal(outcome.predictions[0], replayed.predictions[row])
                and torch.equal(outcome.macs[0], replayed.macs[row])
            )
    return pd.Series(same, name="agreement") / len(rows)
