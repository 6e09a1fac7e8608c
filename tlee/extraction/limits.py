"""Limits on the size of frames, so that a small file cannot fill the memory."""

MAX_PIXELS = 64_000_000  #: of a frame; one of 8K video has 33 million
MAX_SIDE = 65_500  #: pixels of a side, the most that JPEG allows


class FrameSizeError(ValueError):
    """A frame exceeds a limit. The message is the reason."""


def check_frame_size(width: int, height: int) -> None:
    """Raise ``FrameSizeError`` if a frame of this size has too many pixels to be decoded."""
    if width * height > MAX_PIXELS:
        raise FrameSizeError(
            f"its frames are {width} x {height} pixels, more than {MAX_PIXELS // 10**6} megapixels: downscale it"
        )


def check_resized(width: int, height: int, size: tuple[int, int]) -> None:
    """Raise ``FrameSizeError`` if a frame of this size is too elongated to be resized to ``size``."""
    if max(size) > MAX_SIDE:
        raise FrameSizeError(
            f"its frames are {width} x {height} pixels, which is {size[0]} x {size[1]} once resized: crop it"
        )
