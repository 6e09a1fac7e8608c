"""Exit features of every split: computed once, then stored."""

from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from tlee.errors import UserError
from tlee.frames import ClipDataset, load_clips
from tlee.model import TLEE
from tlee.params import Params
from tlee.paths import FEATURES, SPLITS
from tlee.weights import load_tensors, save_tensors


@dataclass(frozen=True)
class FeatureTable:
    """One split: exit features ``[N, T, B + 1, D]`` in visiting order, classes and names of its videos.

    ``labels [N]`` is the first class of each video, ``truth [N, C]`` (booleans) says all of them.
    """

    features: torch.Tensor
    labels: torch.Tensor
    truth: torch.Tensor
    videos: list[str]
    groups: list[str]
    classes: list[str]

    def targets(self, multi_label: bool) -> torch.Tensor:
        """What is trained on: class indices ``[N]``, or zeros and ones ``[N, C]`` (see ``Readout.loss``)."""
        return self.truth.float() if multi_label else self.labels


def store_features(model: TLEE, params: Params) -> None:
    """Compute the exit features of every split and write ``results/features/<split>.safetensors``."""
    for split in SPLITS:
        table = split_features(model, params, split)
        tensors = {name: getattr(table, name) for name in ("features", "labels", "truth")}
        about = {name: getattr(table, name) for name in ("videos", "groups", "classes")}
        save_tensors(FEATURES / f"{split}.safetensors", tensors, about)


def split_features(model: TLEE, params: Params, split: str) -> FeatureTable:
    """Compute the exit features of one split.

    The network has learnt the training clips by heart; as they are, nearly all would look right and
    certain. ``train`` therefore holds ``params.branches.train_views`` augmented views of each.
    """
    torch.manual_seed(params.seed)
    clips = load_clips(split, params, augment=split == "train")
    views, store = params.branches.train_views if split == "train" else 1, clips.store
    return FeatureTable(
        features=torch.cat([compute_features(model, clips) for _ in range(views)]),
        labels=store.labels.repeat(views),
        truth=store.truth.repeat(views, 1),
        videos=store.videos * views,
        groups=store.groups * views,
        classes=store.classes,
    )


@torch.inference_mode()
def compute_features(model: TLEE, clips: ClipDataset, batch_clips: int = 16) -> torch.Tensor:
    """All exit features of all clips, ``float32 [N, T, B + 1, D]``."""
    model.eval()
    device = next(model.parameters()).device
    batches = (frames for frames, _, _ in DataLoader(clips, batch_clips))
    return torch.cat([model.exit_features(frames.to(device)).cpu() for frames in batches])


def load_features(split: str) -> FeatureTable:
    """Read one split back; ``UserError`` if the file is missing, damaged or not one of these."""
    path, remedy = FEATURES / f"{split}.safetensors", "run `dvc repro branches`"
    tensors, about = load_tensors(path, remedy)
    try:
        return FeatureTable(**tensors, **about)
    except TypeError:
        raise UserError(f"{path} holds no exit features: {remedy}") from None
