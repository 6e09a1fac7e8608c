"""What the trained network says of video files, with real exits: a segment that is skipped is never run.

Frames are taken as the stage ``extract`` takes them, resized and compressed, so a test video is told as in the
table of stage ``evaluate``, at the same cost.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tlee.costs import GIGA, Costs, count_costs
from tlee.errors import UserError
from tlee.extraction import Sampling, decode, to_jpeg
from tlee.frames import evaluation_transform, visiting_order
from tlee.model import TLEE, load_trained
from tlee.params import ExtractParams, Params
from tlee.paths import GUARANTEED_POLICY
from tlee.policies.files import read_policy
from tlee.policies.given import GivenExits, RandomExits
from tlee.policies.inference import run_any
from tlee.policies.policy import Policy
from tlee.policies.sources import LiveFeatures
from tlee.records import rounded

SURE = 0.5  #: probability above which one of several labels is told


@dataclass(frozen=True)
class Answer:
    """What a policy made of one clip, and what that took."""

    labels: dict[str, float]  #: see ``Predictor.labels``
    exits: list[int]  #: depth at which each frame that was looked at was left, in visiting order
    gmacs: float  #: of everything that ran
    share: float  #: of the full network's GMACs

    @property
    def label(self) -> str:
        """The most probable class."""
        return next(iter(self.labels))

    @property
    def confidence(self) -> float:
        """Its probability."""
        return self.labels[self.label]


@dataclass(frozen=True)
class Predictor:
    """The trained network under one policy."""

    params: Params
    model: TLEE
    classes: list[str]
    policy: Policy | GivenExits
    costs: Costs

    def run(self, source: LiveFeatures, number: int = 0) -> Answer:
        """Run the policy on one clip. Exits that are drawn by chance are others for another ``number``."""
        policy = self.policy
        if isinstance(policy, RandomExits):
            policy = replace(policy, seed=policy.seed + number)
        outcomes = run_any(source, self.model.readout, policy, self.costs)
        macs = outcomes.macs.item()
        return Answer(
            self.labels(outcomes.logits[0]),
            [depth for depth in outcomes.exits[0].tolist() if depth >= 0],
            macs / GIGA,
            macs / self.costs.full_network(source.frames),
        )

    def labels(self, logits: torch.Tensor) -> dict[str, float]:
        """The classes to tell from logits ``[C]``, surest first, with their probability.

        That is the most probable one; where videos have several labels, all above ``SURE`` if there are any.
        """
        readout = self.model.readout
        best = readout.probabilities(logits).sort(descending=True)
        told = max(1, int((best.values > SURE).sum())) if readout.multi_label else 1
        return {self.classes[index]: best.values[rank].item() for rank, index in enumerate(best.indices[:told])}


def load_predictor(params: Params, policy: str | None = None) -> Predictor:
    """The network that the pipeline has trained, and the policy of this name that it has chosen.

    By default that of ``model.method``; ``guaranteed`` is that of stage ``guarantee``. Raises ``UserError`` if either
    has not been made, or not with ``params``.
    """
    model, classes = load_trained(params, "pretrain", "branches", "gates")
    method = params.model.method
    chosen = read_policy(method, GUARANTEED_POLICY) if policy == "guaranteed" else read_policy(policy or method)
    return Predictor(params, model, classes, chosen, count_costs(model))


# --- pictures as the network knows them ------------------------------------------------------------------


def as_stored(image: Image.Image, params: ExtractParams) -> Image.Image:
    """A frame as it comes out of the frame store: smaller, and through JPEG."""
    return Image.open(io.BytesIO(to_jpeg(image, params.short_side, params.jpeg_quality))).convert("RGB")


def to_clip(pictures: Sequence[Image.Image], params: Params) -> torch.Tensor:
    """The pictures of whole time steps, as stored, to ``float [steps, *input_shape]``.

    Raises ``ValueError`` if their sizes differ.
    """
    if len({picture.size for picture in pictures}) > 1:
        raise ValueError("its frames differ in shape")
    frames = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    clip, length = evaluation_transform(params.model.input_size)(frames), params.extract.clip_frames
    return clip if length == 1 else clip.unflatten(0, (-1, length)).transpose(1, 2)


# --- one video -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """The answer for one video, and what it was given for."""

    video: str  #: as it was named
    answer: Answer
    indices: list[int]  #: which frames of the file were looked at, in visiting order
    order: list[int]  #: in which the ``T`` sampled frames are visited
    pictures: list[Image.Image]  #: these frames, in temporal order; of a short clip the middle one


def predict(predictor: Predictor, path: Path, video: str, number: int = 0) -> Prediction:
    """Decode ``path``, a video file or a folder of frames, and run the policy on it; it is called ``video``.

    ``number``: see ``Predictor.run``. Raises ``UserError`` with the reason if it cannot be read.
    """
    params, length = predictor.params, predictor.params.extract.clip_frames
    order, middle = visiting_order(params.extract.frames, params.model.order), length // 2
    try:
        indices, pictures = decode(
            path, Sampling.of(params.extract), finish=lambda image: as_stored(image, params.extract)
        )
        clip = to_clip([pictures[step * length + offset] for step in order for offset in range(length)], params)
    except (ValueError, OSError) as error:
        raise UserError(f"{video}: {error}") from None
    answer = predictor.run(LiveFeatures(predictor.model, clip), number)
    looked_at = [indices[step * length + middle] for step in order[: len(answer.exits)]]
    return Prediction(video, answer, looked_at, order, pictures[middle::length])


# --- telling it ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Predictions as lines of a table whose columns stand below each other, whenever a line comes."""

    video: int  #: characters of the longest name
    label: int  #: of the longest class

    @classmethod
    def of(cls, videos: Sequence[str], classes: Sequence[str]) -> "Table":
        """Wide enough for these."""
        return cls(*(max(map(len, ["video", *names])) for names in (videos, classes)))

    def heading(self) -> str:
        return self._line("video", "label", "sure", "frames", "GMACs", "saved", "left at depth")

    def line(self, prediction: Prediction) -> str:
        answer = prediction.answer
        return self._line(
            prediction.video,
            ", ".join(answer.labels),
            f"{answer.confidence:.3f}",
            f"{len(answer.exits)} of {len(prediction.order)}",
            f"{answer.gmacs:.4f}",
            f"{1 - answer.share:z.0%}",
            " ".join(map(str, answer.exits)),
        )

    def _line(self, video: str, label: str, sure: str, frames: str, gmacs: str, saved: str, exits: str) -> str:
        return f"{video:{self.video}}  {label:{self.label}}  {sure:>5}  {frames:>8}  {gmacs:>9}  {saved:>5}  {exits}"


def to_json(prediction: Prediction) -> str:
    """A prediction as one line of JSON, numbers rounded as in the tables of the pipeline."""
    answer = prediction.answer
    values = {
        "video": prediction.video,
        "label": answer.label,
        "confidence": answer.confidence,
        "labels": answer.labels,
        "frames": len(answer.exits),
        "exits": answer.exits,
        "indices": prediction.indices,
        "gmacs": answer.gmacs,
        "saving": 1 - answer.share,
    }
    return json.dumps(rounded(values))


def draw_strip(prediction: Prediction, path: Path) -> None:
    """Write a PNG of which frames were looked at."""
    import matplotlib.pyplot as plt  # these take a second, and most do not ask for figures

    from tlee.explanation.film_strips import strip
    from tlee.figures.evaluation import film_strip
    from tlee.figures.style import save

    answer, order = prediction.answer, prediction.order
    finding = f"{Path(prediction.video).name}: {', '.join(answer.labels)}"
    axes = film_strip(*strip(prediction.pictures, order, answer.exits, finding, answer.confidence, answer.share))
    save(axes, path)
    plt.close(axes.figure)


def strip_files(videos: Sequence[Path], folder: Path) -> list[Path]:
    """A PNG in ``folder`` for each video, of its name; of the same name they are numbered."""
    files: list[Path] = []
    for video in videos:
        names = (folder / f"{video.stem}{suffix}.png" for suffix in chain([""], (f"-{n}" for n in count(2))))
        files.append(next(file for file in names if file not in files))
    return files
