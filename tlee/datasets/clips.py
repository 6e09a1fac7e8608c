"""Clips of YouTube videos, listed with start and end: Kinetics and HVU."""

from pathlib import Path
from typing import NamedTuple

from tlee.datasets.files import find_videos
from tlee.datasets.manifest import Video


class Clip(NamedTuple):
    """A clip of a YouTube video, from ``start`` to ``end`` seconds."""

    youtube_id: str
    start: float
    end: float
    labels: list[int]
    split: str

    @property
    def trimmed_name(self) -> str:
        """Customary name of the trimmed file, in whole seconds: ``<id>_000012_000022``."""
        return f"{self.youtube_id}_{int(self.start):06d}_{int(self.end):06d}"


def locate_clips(folder: Path, clips: list[Clip]) -> list[Video]:
    """Find each clip's trimmed file below ``folder``, or else the untrimmed ``<id>`` with ``start`` and ``end`` set.

    If neither exists, a clip gets the path of the trimmed file, which extraction then lists as missing. The group is
    the YouTube video.
    """
    found = find_videos(folder, {name for clip in clips for name in (clip.trimmed_name, clip.youtube_id)})
    videos = []
    for clip in clips:
        trimmed, untrimmed = found.get(clip.trimmed_name), found.get(clip.youtube_id)
        if trimmed or not untrimmed:
            videos.append(Video(trimmed or f"{clip.trimmed_name}.mp4", clip.labels, clip.split, clip.youtube_id))
        else:
            videos.append(Video(untrimmed, clip.labels, clip.split, clip.youtube_id, clip.start, clip.end))
    return videos
