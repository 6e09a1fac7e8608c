"""Agreement of the network, run frame by frame with real exits, with the replay of stored features."""

import pandas as pd

from tlee.clips import load_clips
from tlee.devices import device_of
from tlee.evaluation.evaluate import Evaluation
from tlee.evaluation.results import Results
from tlee.model import load_trained
from tlee.params import Params
from tlee.policies.inference import Outcomes, follow, run_together
from tlee.policies.policy import Policy
from tlee.policies.sources import LiveFeatures, Remembered
from tlee.subsets import spread

VIDEOS = 64  #: number of test videos that are run, evenly spread


def step_by_step_agreement(evaluation: Evaluation, params: Params) -> pd.Series:
    """Share of test videos, for each policy, on which the network itself agrees with the replay.

    They agree if exits, prediction and cost are the same; the stored features are not used. The network runs on the
    device ``compute.accelerator``, readouts on the CPU as in the replay. The replay is an approximation in two cases
    only: a temporal shift makes features depend on earlier exits, and features stored in float16 are rounded, whereas
    those of the network are not: a frame may be left at another exit where a score all but equals its threshold.
    """
    device = device_of(params.compute)
    model = load_trained(params, "pretrain", "branches", "gates")[0].to(device)
    clips, split, readout = load_clips("test", params), evaluation.test, evaluation.test.readout
    rows = spread(len(clips), VIDEOS)
    stateless = not any(model.backbone.start_memory(params.model.input_size))
    deciding = {name: policy for name, policy in evaluation.policies.items() if isinstance(policy, Policy)}
    batches = [[*deciding]] if stateless else [[name] for name in deciding]  # policies that one network can run for
    same = dict.fromkeys(evaluation.policies, 0)
    for row in rows:
        clip = clips.clip(row).to(device)
        remembered = Remembered(LiveFeatures(model, clip)) if stateless else None
        live: dict[str, Outcomes] = {}
        for names in batches:
            source = remembered or LiveFeatures(model, clip)
            together = run_together(source, readout, [deciding[name] for name in names], split.costs)
            live |= zip(names, together, strict=True)
        for name in (name for name in same if name not in deciding):
            exits = evaluation.results[name].exit_depths[row : row + 1].long()
            live[name] = follow(remembered or LiveFeatures(model, clip), readout, exits, split.costs)
        for name, outcomes in live.items():
            same[name] += _agree(outcomes, evaluation.results[name], row)
    return pd.Series(same, name="agreement") / len(rows)


def _agree(live: Outcomes, replayed: Results, row: int) -> bool:
    """True if the ``live`` outcomes of one video are those ``replayed`` of the video ``row``."""
    columns = ("exit_depths", "predictions", "macs")
    return all(getattr(live, name)[0].tolist() == getattr(replayed, name)[row].tolist() for name in columns)
