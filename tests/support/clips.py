"""Clips encoded by tests with recognisable frames, and the folder of real clips."""

import io
from functools import cache
from pathlib import Path

import av
import numpy as np
from PIL import Image

#: Real clips, in a folder next to the project on some machines.
REAL_CLIPS = next(
    (folder for parent in Path(__file__).parents if (folder := parent / "shared" / "clips").exists()), Path()
)

STEP = 10  #: difference between the grey levels of consecutive frames
CODECS = {".mp4": "libx264", ".avi": "mpeg4", ".mkv": "libx264"}
FORMATS = {".mp4": "mp4", ".avi": "avi", ".mkv": "matroska"}


def encode(path: Path, length: int = 24, size: tuple[int, int] = (96, 64), title: str = "") -> Path:
    """Write a clip whose frame ``i`` is grey, of level ``STEP * (1 + i % 24)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(path.suffix, length, size, title))
    return path


@cache
def _encoded(suffix: str, length: int, size: tuple[int, int], title: str) -> bytes:
    content = io.BytesIO()
    with av.open(content, "w", format=FORMATS[suffix]) as file:
        file.metadata["title"] = title
        stream = file.add_stream(CODECS[suffix], rate=12)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv444p" if suffix == ".mp4" else "yuv420p"  # H.264 needs 4:4:4 for odd sizes
        for index in range(length):
            image = np.full((size[1], size[0], 3), STEP * (1 + index % 24), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        file.mux(stream.encode())
    return content.getvalue()


def truncate(path: Path, share: float) -> Path:
    """Keep only the first ``share`` of a file's bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def seen(images: list[Image.Image]) -> list[int]:
    """Recognise frames of a clip of ``encode``: their indices, from the grey levels."""
    return [round(np.asarray(image).mean() / STEP) - 1 for image in images]
