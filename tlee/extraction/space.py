"""Check that the disk has space for the frames that are still to be extracted."""

import shutil
from pathlib import Path

from tlee.errors import UserError
from tlee.sizes import size_text


class Space:
    """Estimate of the space that ``pending`` videos need in ``folder``, from those that have been read."""

    def __init__(self, folder: Path, pending: int):
        self._folder, self._pending = folder, pending
        self._bytes = self._videos = 0

    def check(self, size: int, videos: int) -> None:
        """Take note of ``videos`` more that were read, of ``size`` bytes.

        Raises ``UserError`` with the estimate if the rest does not fit.
        """
        self._bytes, self._videos = self._bytes + size, self._videos + videos
        rest = self._pending - self._videos
        needed, free = self._bytes / self._videos * rest, shutil.disk_usage(self._folder).free
        if needed > free:
            raise UserError(
                f"the frames of the remaining {rest} videos need about {size_text(needed)} below {self._folder}, where "
                f"{size_text(free)} are free: make space and run `dvc repro extract`, which keeps what it has read, or "
                "lower extract.frames, extract.short_side or extract.jpeg_quality"
            )
