"""A video, however it lies on disk, to the pictures that are sampled from it."""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from tlee.extraction.folders import read_folder
from tlee.extraction.sampling import Sampling
from tlee.extraction.videos import decode_video

_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm")


def decode(
    path: Path,
    sampling: Sampling,
    start: float = math.nan,
    end: float = math.nan,
    finish: Callable[[Image.Image], Any] = lambda image: image,
) -> tuple[list[int], list[Any]]:
    """Take the frames of ``sampling`` between ``start`` and ``end``, in seconds (NaN: the file's).

    Returns their indices in the file and their RGB images, upright, or what ``finish`` makes of each as soon
    as it is decoded. A folder of frames has no times: it is taken whole, as extracted at ``sampling.fps``.
    Raises ``ValueError`` with the reason where the file is missing, unreadable or has no picture.
    """
    found = locate(path)
    if found.is_dir():
        return read_folder(found, replace(sampling, fps=None).pick, finish)
    return decode_video(found, lambda timeline: sampling.pick(timeline, start, end), finish)


def locate(path: Path) -> Path:
    """The file or folder of frames that is meant by ``path``.

    If it is not there, a video of the same name with another or no suffix, then a folder without.
    Raises ``ValueError`` if there is none of them.
    """
    stem = path.with_suffix("") if path.suffix.lower() in _SUFFIXES else path
    for candidate in (path, *(stem.with_name(stem.name + suffix) for suffix in _SUFFIXES), stem):
        if candidate.is_file() or candidate.is_dir():
            return candidate
    raise ValueError("the file does not exist")


def to_jpeg(image: Image.Image, short_side: int, quality: int) -> bytes:
    """Resize so that the short side has ``short_side`` pixels, keeping the shape, and compress."""
    scale = short_side / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
