"""Clips that tests render and recognise again, and where the real ones are."""

from pathlib import Path

import av
import numpy as np
from PIL import Image

#: Real clips, beside the project on its founders' machines and absent elsewhere.
REAL_CLIPS = next(
    (folder for parent in Path(__file__).parents if (folder := parent / "shared" / "clips").exists()), Path()
)

STEP = 10  # between the grey levels of one frame and the next
CODECS = {".mp4": "libx264", ".avi": "mpeg4", ".mkv": "libx264"}


def encode(path: Path, length: int = 24, size: tuple[int, int] = (96, 64), title: str = "") -> Path:
    """A clip whose frame ``i`` is grey, of level ``STEP * (1 + i)`` in 0..240, beginning anew where that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as file:
        file.metadata["title"] = title
        stream = file.add_stream(CODECS[path.suffix], rate=12)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv444p" if path.suffix == ".mp4" else "yuv420p"  # odd sizes in H.264 need the first
        for index in range(length):
            picture = np.full((size[1], size[0], 3), STEP * (1 + index % 24), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        file.mux(stream.encode())
    return path


def truncate(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def seen(pictures: list[Image.Image]) -> list[int]:
    """Which frames of a clip of ``encode`` these are."""
    return [round(np.asarray(picture).mean() / STEP) - 1 for picture in pictures]
