"""Views of clips: the crop of evaluation, and random views as torchvision would make them of floats."""

import numpy as np
import pytest
import torch

from tlee._torchvision import transforms
from tlee.views import CentreView, RandomView, evaluation_transform, finish


def texture(height: int, width: int, frames: int = 1) -> torch.Tensor:
    """Return the same random image ``frames`` times, ``uint8 [T, 3, H, W]``."""
    image = np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)
    return torch.from_numpy(image).expand(frames, -1, -1, -1).clone()


def batch_of(views: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Collate views as ``ClipDataset`` does."""
    frames, changes = zip(*views, strict=True)
    return torch.stack([each.permute(0, 2, 3, 1) for each in frames]), torch.stack(changes)


def varied(view: RandomView, clip: torch.Tensor, count: int) -> torch.Tensor:
    torch.manual_seed(0)
    return finish(*batch_of([view(clip) for _ in range(count)]))


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((80, 80), slice(5, 75), slice(5, 75)),
        ((80, 160), slice(5, 75), slice(45, 115)),
        ((100, 80), slice(15, 85), slice(5, 75)),
    ],
)
def test_evaluation_crops_seven_eighths_of_the_short_side_at_the_centre(shape, rows, columns):
    clip = texture(*shape)
    torch.testing.assert_close(evaluation_transform(70)(clip), clip[..., rows, columns] / 255)


def test_a_centre_view_is_the_transform_of_evaluation_to_the_last_bit():
    clip = texture(72, 96, frames=3)
    assert torch.equal(finish(*batch_of([CentreView(32)(clip)]))[0], evaluation_transform(32)(clip))


@pytest.mark.parametrize("shape", [(72, 96), (96, 72), (40, 40)])
@pytest.mark.parametrize("view", [CentreView, RandomView])
def test_clips_become_square_floats(view, shape):
    frames, changes = view(32)(texture(*shape, frames=3))
    assert (frames.shape, frames.dtype) == ((3, 3, 32, 32), torch.uint8)
    clips = finish(*batch_of([(frames, changes)] * 2))
    assert (clips.shape, clips.dtype) == ((2, 3, 3, 32, 32), torch.float32)
    assert 0 <= clips.min() < clips.max() <= 1


@pytest.mark.parametrize("shape", [(72, 72), (48, 90), (30, 40)])
def test_random_views_are_those_of_torchvision_on_floats(shape):
    """The same seed draws the same view; they differ by rounding to 8 bits in the resize."""
    crop = transforms.RandomResizedCrop(64, scale=(0.5, 1.0))
    jitter = transforms.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3)
    reference = transforms.Compose([crop, transforms.RandomHorizontalFlip(0.5), jitter])
    clip, views, expected = texture(*shape, frames=2), [], []
    for seed in range(50):
        torch.manual_seed(seed)
        views.append(RandomView(64)(clip))
        torch.manual_seed(seed)
        expected.append(reference(clip / 255))
    torch.testing.assert_close(finish(*batch_of(views)), torch.stack(expected), atol=3 / 255, rtol=0)


@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation"])
def test_a_change_of_colours_is_that_of_torchvision(change):
    frames, factors = texture(24, 20, frames=3), (0.4, 0.9, 1.0, 1.7)
    adjust = getattr(transforms.functional, f"adjust_{change}")
    kept = {"brightness": [0, 0], "contrast": [0, 1], "saturation": [1, 0]}[change]
    changes = torch.tensor([[[factor, *((1 - factor) * share for share in kept)]] for factor in factors])
    clips = frames.permute(0, 2, 3, 1).expand(len(factors), -1, -1, -1, -1)
    expected = torch.stack([adjust(frames / 255, factor) for factor in factors])
    torch.testing.assert_close(finish(clips, changes), expected, atol=1e-6, rtol=0)


def test_training_varies_between_draws():
    assert len({view.numpy().tobytes() for view in varied(RandomView(32), texture(72, 96), 10)}) == 10


def test_training_varies_all_frames_of_a_clip_alike():
    views = varied(RandomView(32), texture(72, 96, frames=6), 10)
    torch.testing.assert_close(views, views[:, :1].expand_as(views), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("mirror", "expected"), [(True, {True, False}), (False, {False})])
def test_training_mirrors_some_clips(mirror, expected):
    clip = torch.zeros(1, 3, 72, 96, dtype=torch.uint8)
    clip[..., 48:] = 255  # dark on the left
    views = varied(RandomView(32, mirror), clip, 20)
    assert {bool(each[..., 0].mean() > each[..., -1].mean()) for each in views} == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finishes_the_same_views():
    torch.manual_seed(0)
    frames, changes = batch_of([RandomView(64)(texture(72, 96, frames=4)) for _ in range(8)])
    on_gpu = finish(frames.cuda(), changes.cuda())
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), finish(frames, changes), atol=1e-5, rtol=0)
