"""Sampled frames of a video, be it a video file or a folder of extracted frames."""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from tlee.extraction.folders import read_folder
from tlee.extraction.limits import check_resized
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
    """Decode the frames of ``sampling`` between ``start`` and ``end``, in seconds (NaN: those of the file).

    Returns their indices in the file and their upright RGB images, each converted by ``finish`` as soon as it is
    decoded. A folder of frames has no times: all of it is sampled, as if extracted at ``sampling.fps``.
    Raises ``ValueError`` with the reason if the file is missing, unreadable or has no frame.
    """
    try:
        found = locate(path)
        if found.is_dir():
            return read_folder(found, replace(sampling, fps=None).pick, finish)
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror or error})") from None
    return decode_video(found, lambda timeline: sampling.pick(timeline, start, end), finish)


def locate(path: Path) -> Path:
    """Return the file or folder of frames that ``path`` refers to.

    If ``path`` does not exist, that is a video of the same name with another suffix, or a folder without suffix.
    Raises ``ValueError`` if none of them exists, ``OSError`` if that cannot be found out.
    """
    stem = path.with_suffix("") if path.suffix.lower() in _SUFFIXES else path
    for candidate in (path, *(stem.with_name(stem.name + suffix) for suffix in _SUFFIXES), stem):
        if candidate.is_file() or candidate.is_dir():
            return candidate
    raise ValueError("the file does not exist")


def to_jpeg(image: Image.Image, short_side: int, quality: int) -> bytes:
    """Resize the short side to ``short_side`` pixels, keeping the aspect ratio, and compress.

    Raises ``FrameSizeError`` if the long side would exceed what JPEG allows.
    """
    scale = short_side / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    check_resized(*image.size, size)
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
