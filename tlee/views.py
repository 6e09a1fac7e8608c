"""Views of clips: the part of the frames that the network sees, and, in training, its random changes.

Cropping, resizing and mirroring are done on 8-bit frames where they are decoded, which adds a tenth to the time of
decoding and leaves fewer bytes to send. Colours are changed in batches of floats, on any device.
"""

import torch

from tlee._torchvision import transforms

GREY = (0.2989, 0.587, 0.114)  #: weights of red, green and blue in a grey level (ITU-R BT.601), as in torchvision
_CHANGES = ("brightness", "contrast", "saturation")  # in the order of their numbers in torchvision


class CentreView:
    """Crop of 7/8 of the short side at the centre, as usual for networks trained on random crops.

    Maps ``uint8 [F, 3, H, W]`` to ``uint8 [F, 3, size, size]``, with no changes of colours (see ``finish``).
    """

    def __init__(self, size: int):
        self._crop = transforms.Compose([transforms.Resize(round(size * 8 / 7)), transforms.CenterCrop(size)])

    def __call__(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._crop(frames), torch.empty(0, 3)


class RandomView:
    """Random crop and colours, and with ``mirror`` a mirror image in half of the cases, alike for all frames of a clip.

    Maps ``uint8 [F, 3, H, W]`` to ``uint8 [F, 3, size, size]`` and the changes of colours ``[3, 3]`` for ``finish``.
    Draws are those of torchvision's transforms, by PyTorch's generator of random numbers.
    """

    def __init__(self, size: int, mirror: bool = True):
        flip = transforms.RandomHorizontalFlip(0.5 if mirror else 0.0)
        self._crop = transforms.Compose([transforms.RandomResizedCrop(size, scale=(0.5, 1.0)), flip])
        self._jitter = transforms.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3)

    def __call__(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cropped, drawn = self._crop(frames), self._jitter.make_params([])
        changes = [_CHANGES[index] for index in drawn["fn_idx"].tolist() if index < len(_CHANGES)]
        return cropped, torch.tensor([_shares(change, drawn[f"{change}_factor"]) for change in changes])


def _shares(change: str, factor: float) -> list[float]:
    """Return the shares of a frame, of its grey version and of its mean grey level in the result; the rest is black."""
    return [factor, (1 - factor) * (change == "saturation"), (1 - factor) * (change == "contrast")]


def finish(frames: torch.Tensor, changes: torch.Tensor) -> torch.Tensor:
    """Map ``uint8 [N, F, S, S, 3]`` to ``float [N, F, 3, S, S]`` in 0..1, and change the colours of each clip.

    ``changes [N, K, 3]`` has one row for each of ``K`` changes, in their order: the shares of the frame itself, of its
    grey version and of its mean grey level in the result, which is clamped to 0..1. On a CPU this is done clip by clip,
    since one clip fits its caches.
    """
    frames = frames.permute(0, 1, 4, 2, 3)
    if not changes.shape[1]:
        return _to_float(frames)
    changed = torch.empty(frames.shape, device=frames.device)
    at_once = len(frames) if frames.is_cuda else 1
    for part, before, each in zip(*(all_.split(at_once) for all_ in (changed, frames, changes)), strict=True):
        part.copy_(_change_colours(_to_float(before.contiguous()), each))
    return changed


def _change_colours(frames: torch.Tensor, changes: torch.Tensor) -> torch.Tensor:
    """Change ``float [N, F, 3, S, S]`` as ``finish`` does: each change is a linear map of the three channels."""
    shape, to_grey = frames.shape, torch.tensor(GREY, device=frames.device).expand(3, 3)
    shares = changes.repeat_interleave(shape[1], dim=0)[..., None, None]
    frames = frames.flatten(0, 1).flatten(2)
    for own, grey, mean_grey in (change.unbind(1) for change in shares.unbind(1)):
        mixed = own * torch.eye(3, device=frames.device) + grey * to_grey
        added = mean_grey * to_grey @ frames.mean(-1, keepdim=True)
        frames = torch.baddbmm(added, mixed, frames).clamp_(0, 1)
    return frames.view(shape)


def evaluation_transform(size: int) -> transforms.Compose:
    """Return the transform of ``uint8 [T, 3, H, W]`` to ``float [T, 3, size, size]`` in 0..1: ``CentreView``."""
    return transforms.Compose([CentreView(size)._crop, transforms.ToDtype(torch.float32, scale=True)])


def _to_float(frames: torch.Tensor) -> torch.Tensor:
    return transforms.functional.to_dtype(frames, torch.float32, scale=True)
