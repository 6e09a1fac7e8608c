"""A small project with its own videos, run up to stage ``evaluate``."""

from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from support.margins import policy_amid
from support.small import in_place_of_resnet18, random_network, small_params
from support.stores import noisy

from tlee.clips import load_clips
from tlee.costs import count_costs
from tlee.datasets import Dataset
from tlee.evaluation.evaluate import Evaluation
from tlee.evaluation.replay import Split
from tlee.evaluation.search import Search
from tlee.extraction import extract
from tlee.features import split_features
from tlee.model import save_trained
from tlee.paths import FRAMES
from tlee.policies.files import save_policies
from tlee.policies.given import RandomExits
from tlee.policies.thresholds import Thresholds

CLASSES = ["red", "green", "blue"]
TEST_VIDEOS = [*(f"{row}.mp4" for row in range(7)), "frames"]  #: paths below ``videos``; the last is a folder


def make_project(root: Path) -> dict[str, pd.DataFrame]:
    """Create parameters, videos, frames, a random network and its policies in ``root``; return the trace by policy."""
    params = small_params({"extract.short_side": 24, "compute.jobs": 1})
    with pytest.MonkeyPatch.context() as patch, in_place_of_resnet18():
        patch.chdir(root)
        Path("params.yaml").write_text(yaml.safe_dump(params.model_dump()), encoding="utf-8")
        for row, video in enumerate(TEST_VIDEOS):
            write_video(root / "videos" / video, row)
        manifest = pd.DataFrame({"video": ["0.mp4", "1.mp4", *TEST_VIDEOS], "split": ["train", "val", *["test"] * 8]})
        manifest = manifest.assign(labels=[[0]] * 10, group="g", start=np.nan, end=np.nan)
        extract(Dataset(root / "videos", CLASSES, manifest), params.extract, FRAMES)
        model = random_network(params)
        for stage in ("pretrain", "branches", "gates"):
            save_trained(model, stage, CLASSES)
        test = Split(split_features(model, params, "test"), model.readout, count_costs(model), "top1")
        loaded = load_clips("test", params)
        clips = torch.stack([loaded.clip(row) for row in range(len(loaded))])
        policies = {"tlee": policy_amid(model, clips), "full": Thresholds.never(3), "random": RandomExits(0.3, seed=0)}
        save_policies(policies)
        results = {name: test.result(policy) for name, policy in policies.items()}
        evaluation = Evaluation("tlee", Search(test), [], test, policies, results, *[pd.DataFrame()] * 4)
        return {name: evaluation.trace(name) for name in policies}


def write_video(path: Path, row: int) -> None:
    """Write a video of twelve frames in one of three colours, or a folder of such frames."""
    pictures = [noisy(row % 3, seed=100 * row + frame, side=32) for frame in range(12)]
    if not path.suffix:
        path.mkdir(parents=True)
        for frame, picture in enumerate(pictures):
            picture.save(path / f"{frame:03d}.png")
        return
    path.parent.mkdir(exist_ok=True)
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv444p"
        for picture in pictures:
            file.mux(stream.encode(av.VideoFrame.from_image(picture)))
        file.mux(stream.encode())
