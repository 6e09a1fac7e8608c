"""Clips of YouTube videos, listed with their seconds: Kinetics and HVU."""

from pathlib import Path
from typing import NamedTuple

from tlee.datasets.files import find_videos
from tlee.datasets.manifest import Video


class Clip(NamedTuple):
    """A part of a YouTube video, ``start`` to ``end`` seconds."""

    youtube_id: str
    start: float
    end: float
    labels: list[int]
    split: str

    @property
    def trimmed(self) -> str:
        """The customary name of the part as a file of its own, in whole seconds: ``<id>_000012_000022``."""
        return f"{self.youtube_id}_{int(self.start):06d}_{int(self.end):06d}"


def locate_clips(folder: Path, clips: list[Clip]) -> list[Video]:
    """Each clip's trimmed file below ``folder``, or else the untrimmed ``<id>`` with ``start`` and ``end`` set.

    A clip of which neither is there gets the path of the trimmed file, which extraction then lists as missing. The
    group is the YouTube video.
    """
    found = find_videos(folder, {name for clip in clips for name in (clip.trimmed, clip.youtube_id)})
    videos = []
    for clip in clips:
        path, whole = found.get(clip.trimmed), found.get(clip.youtube_id)
        if path or not whole:
            videos.append(Video(path or f"{clip.trimmed}.mp4", clip.labels, clip.split, clip.youtube_id))
        else:
            videos.append(Video(whole, clip.labels, clip.split, clip.youtube_id, clip.start, clip.end))
    return videos
