"""Predictions of the trained network for video files, with real exits: a skipped segment is never run.

Frames are preprocessed as in stage ``extract``, resized and compressed, so that a test video gets the same prediction
at the same cost as in stage ``evaluate``.
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
from tlee.frames import visiting_order
from tlee.model import TLEE, load_trained
from tlee.params import ExtractParams, Params
from tlee.paths import GUARANTEED_POLICY
from tlee.policies.files import read_policy
from tlee.policies.given import GivenExits, RandomExits
from tlee.policies.inference import run_any
from tlee.policies.policy import Policy
from tlee.policies.sources import LiveFeatures
from tlee.records import rounded
from tlee.views import evaluation_transform

LABEL_THRESHOLD = 0.5  #: probability above which a label of a multi-label network is predicted


@dataclass(frozen=True)
class Prediction:
    """The prediction of a policy for one clip, and its cost."""

    labels: dict[str, float]  #: predicted classes and their probabilities, see ``Predictor.labels``
    exit_depths: list[int]  #: depth at which each processed frame was left, in visiting order
    gmacs: float  #: GMACs of everything that ran
    share_of_full: float  #: the same relative to the full network

    @property
    def label(self) -> str:
        """The most probable class."""
        return next(iter(self.labels))

    @property
    def confidence(self) -> float:
        """Probability of the most probable class."""
        return self.labels[self.label]


@dataclass(frozen=True)
class Predictor:
    """The trained network under one policy."""

    params: Params
    model: TLEE
    classes: list[str]
    policy: Policy | GivenExits
    costs: Costs

    def run(self, features: LiveFeatures, clip_index: int = 0) -> Prediction:
        """Run the policy on one clip. Random exits are drawn anew for each ``clip_index``."""
        policy = self.policy
        if isinstance(policy, RandomExits):
            policy = replace(policy, seed=policy.seed + clip_index)
        outcomes = run_any(features, self.model.readout, policy, self.costs)
        macs = outcomes.macs.item()
        return Prediction(
            self.labels(outcomes.logits[0]),
            [depth for depth in outcomes.exit_depths[0].tolist() if depth >= 0],
            macs / GIGA,
            macs / self.costs.full_network(features.num_frames),
        )

    def labels(self, logits: torch.Tensor) -> dict[str, float]:
        """Return the predicted classes of logits ``[C]`` with their probabilities, most probable first.

        This is the most probable class; for multi-label data sets, all classes above ``LABEL_THRESHOLD`` if any.
        """
        readout = self.model.readout
        ranked = readout.probabilities(logits).sort(descending=True)
        num_labels = max(1, int((ranked.values > LABEL_THRESHOLD).sum())) if readout.multi_label else 1
        return {
            self.classes[index]: ranked.values[rank].item() for rank, index in enumerate(ranked.indices[:num_labels])
        }


def load_predictor(params: Params, policy: str | None = None) -> Predictor:
    """Load the network trained by the pipeline, with the named policy chosen by it.

    The default is the policy of ``model.method``; ``guaranteed`` is the policy of stage ``guarantee``. Raises
    ``UserError`` if the network or the policy is missing or was made with other parameters.
    """
    model, classes = load_trained(params, "pretrain", "branches", "gates")
    method = params.model.method
    chosen = read_policy(method, GUARANTEED_POLICY) if policy == "guaranteed" else read_policy(policy or method)
    return Predictor(params, model, classes, chosen, count_costs(model))


# --- network input ---------------------------------------------------------------------------------------


def as_stored(image: Image.Image, params: ExtractParams) -> Image.Image:
    """Return a frame as read back from the frame store: resized and JPEG-compressed."""
    return Image.open(io.BytesIO(to_jpeg(image, params.short_side, params.jpeg_quality))).convert("RGB")


def to_clip(images: Sequence[Image.Image], params: Params) -> torch.Tensor:
    """Convert the images of whole time steps, as stored, to ``float [steps, *input_shape]``.

    Raises ``ValueError`` if their sizes differ.
    """
    if len({image.size for image in images}) > 1:
        raise ValueError("its frames differ in shape")
    frames = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    clip, length = evaluation_transform(params.model.input_size)(frames), params.extract.clip_frames
    return clip if length == 1 else clip.unflatten(0, (-1, length)).transpose(1, 2)


# --- one video -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VideoPrediction:
    """The prediction for one video file, and the frames it is based on."""

    video: str  #: name of the video
    prediction: Prediction
    indices: list[int]  #: indices of the processed frames in the file, in visiting order
    order: list[int]  #: visiting order of the ``T`` sampled frames
    images: list[Image.Image]  #: the sampled frames in temporal order; the middle frame of a short clip


def predict(predictor: Predictor, path: Path, video: str, clip_index: int = 0) -> VideoPrediction:
    """Decode ``path``, a video file or a folder of frames, and run the policy on it; ``video`` is its name.

    ``clip_index``: see ``Predictor.run``. Raises ``UserError`` with the reason if it cannot be read.
    """
    params, length = predictor.params, predictor.params.extract.clip_frames
    order, middle = visiting_order(params.extract.frames, params.model.order), length // 2
    try:
        indices, images = decode(
            path, Sampling.of(params.extract), finish=lambda image: as_stored(image, params.extract)
        )
        clip = to_clip([images[step * length + offset] for step in order for offset in range(length)], params)
    except (ValueError, OSError) as error:
        raise UserError(f"{video}: {error}") from None
    prediction = predictor.run(LiveFeatures(predictor.model, clip), clip_index)
    processed = [indices[step * length + middle] for step in order[: len(prediction.exit_depths)]]
    return VideoPrediction(video, prediction, processed, order, images[middle::length])


# --- output ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PredictionTable:
    """Format predictions as lines of a table with aligned columns, one line at a time."""

    video_width: int  #: characters of the longest video name
    label_width: int  #: characters of the longest class name

    @classmethod
    def of(cls, videos: Sequence[str], classes: Sequence[str]) -> "PredictionTable":
        """Return a table wide enough for these names."""
        return cls(*(max(map(len, ["video", *names])) for names in (videos, classes)))

    def heading(self) -> str:
        return self._line("video", "label", "confidence", "frames", "GMACs", "saved", "exit depths")

    def line(self, result: VideoPrediction) -> str:
        prediction = result.prediction
        return self._line(
            result.video,
            ", ".join(prediction.labels),
            f"{prediction.confidence:.3f}",
            f"{len(prediction.exit_depths)} of {len(result.order)}",
            f"{prediction.gmacs:.4f}",
            f"{1 - prediction.share_of_full:z.0%}",
            " ".join(map(str, prediction.exit_depths)),
        )

    def _line(self, video: str, label: str, confidence: str, frames: str, gmacs: str, saved: str, depths: str) -> str:
        names = f"{video:{self.video_width}}  {label:{self.label_width}}"
        return f"{names}  {confidence:>10}  {frames:>8}  {gmacs:>9}  {saved:>5}  {depths}"


def to_json(result: VideoPrediction) -> str:
    """Format a prediction as one line of JSON, numbers rounded as in the tables of the pipeline."""
    prediction = result.prediction
    values = {
        "video": result.video,
        "label": prediction.label,
        "confidence": prediction.confidence,
        "labels": prediction.labels,
        "frames": len(prediction.exit_depths),
        "exit_depths": prediction.exit_depths,
        "indices": result.indices,
        "gmacs": prediction.gmacs,
        "saving": 1 - prediction.share_of_full,
    }
    return json.dumps(rounded(values))


def draw_film_strip(result: VideoPrediction, path: Path) -> None:
    """Write a PNG that shows which frames of the video were processed."""
    import matplotlib.pyplot as plt  # slow to import, and most calls draw nothing

    from tlee.explanation.film_strips import strip
    from tlee.figures.evaluation import film_strip
    from tlee.figures.style import figure_of, save

    prediction = result.prediction
    finding = f"{Path(result.video).name}: {', '.join(prediction.labels)}"
    content = strip(
        result.images, result.order, prediction.exit_depths, finding, prediction.confidence, prediction.share_of_full
    )
    axes = film_strip(*content)
    save(axes, path)
    plt.close(figure_of(axes))


def film_strip_paths(videos: Sequence[Path], folder: Path) -> list[Path]:
    """Return a PNG path in ``folder`` for each video, named after it; repeated names are numbered."""
    paths: list[Path] = []
    for video in videos:
        names = (folder / f"{video.stem}{suffix}.png" for suffix in chain([""], (f"-{n}" for n in count(2))))
        paths.append(next(path for path in names if path not in paths))
    return paths
