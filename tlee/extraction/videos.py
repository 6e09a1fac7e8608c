"""Some frames of a video file, decoded by PyAV.

The plain way decodes everything. Where the file says reliably which packet is shown when, it is cheaper to
jump to the keyframes ahead of the frames that are wanted; whatever is odd on the way leads back to the
plain one. Both give the same pictures of a sound file. Damage is noticed where it is decoded.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import av
from PIL import Image

from tlee.extraction.sampling import Timeline

Choose = Callable[[Timeline], list[int]]
Finish = Callable[[Image.Image], Any]

_SEEKABLE = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # formats that keep presentation times and an index
_SEEK_COST = 16  # frames that could be decoded while one jump is made


def decode_video(path: Path, choose: Choose, finish: Finish) -> tuple[list[int], list[Any]]:
    """Decode the frames that ``choose`` picks: their indices, and what ``finish`` makes of their RGB images.

    Raises ``ValueError`` with the reason where the file is unreadable or has no picture.
    """
    try:
        index = _read_index(path)
        indices = choose(index.timeline)
        found = _decode_by_seeking(path, index, indices, finish)
        if found is None:
            found, timeline = _decode_all(path, indices, finish)
            chosen, indices = indices, choose(timeline)
            if indices != chosen:  # frames are damaged, or packets are not frames
                found, _ = _decode_all(path, indices, finish)
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"it cannot be decoded ({error.strerror or error})") from None
    return indices, [found[index] for index in indices]


@dataclass(frozen=True)
class _Index:
    """What a file's packets tell without being decoded."""

    timeline: Timeline
    times: list[int]  # presentation times in display order, in the stream's unit; empty if they are not reliable
    keyframes: list[int]  # those of the packets from which decoding can start

    def jumps(self, indices: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Keyframes to jump to, each with the times to be decoded from there; none if that does not pay."""
        if not self.times or not self.keyframes or self.times[min(indices)] < self.keyframes[0]:
            return []
        by_keyframe = [
            (keyframe, [self.times[index] for index in group])
            for keyframe, group in groupby(
                sorted(set(indices)), lambda index: self.keyframes[bisect_right(self.keyframes, self.times[index]) - 1]
            )
        ]
        position = {time: index for index, time in enumerate(self.times)}
        frames = sum(position[wanted[-1]] - position[keyframe] + 1 for keyframe, wanted in by_keyframe)
        return by_keyframe if frames + _SEEK_COST * len(by_keyframe) < len(self.times) else []


def _read_index(path: Path) -> _Index:
    with _open(path) as container:
        if not container.streams.video:
            raise ValueError("it holds no video stream")
        stream = container.streams.video[0]
        packets = [
            (packet.pts, packet.duration, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
        if not packets:
            raise ValueError("it holds no frame that can be decoded")
        if all(time is not None for time, _, _ in packets):
            packets.sort()
        times = [time for time, _, _ in packets]
        timeline = _timeline(container, times, packets[-1][1])
        if container.format.name not in _SEEKABLE or not _increase(times):
            return _Index(timeline, [], [])
        return _Index(timeline, times, [time for time, _, is_keyframe in packets if is_keyframe])


def _decode_all(path: Path, indices: list[int], finish: Finish) -> tuple[dict[int, Any], Timeline]:
    """What is found of the frames at ``indices``, and when the frames that can be decoded are shown."""
    wanted, found, times, duration = set(indices), {}, [], None
    with _open(path) as container:
        for index, frame in enumerate(sound_frames(container)):
            times.append(frame.pts)
            duration = frame.duration
            if index in wanted:
                found[index] = finish(upright(frame))
        if not times:
            raise ValueError("it holds no frame that can be decoded")
        return found, _timeline(container, times, duration)


def _decode_by_seeking(path: Path, index: _Index, indices: list[int], finish: Finish) -> dict[int, Any] | None:
    """The frames at ``indices``; None if the plain way is cheaper or has to be gone."""
    jumps, by_time = index.jumps(indices), {}
    if not jumps:
        return None
    try:
        with _open(path) as container:
            for keyframe, wanted in jumps:
                for frame in _frames_from(container, keyframe):
                    if frame.pts in wanted:
                        by_time[frame.pts] = finish(upright(frame))
                    if frame.pts >= wanted[-1]:
                        break
                if any(time not in by_time for time in wanted):
                    return None
    except (av.FFmpegError, _OddError):
        return None
    return {position: by_time[index.times[position]] for position in indices}


class _OddError(Exception):
    """Jumping through this file is not to be trusted."""


def _frames_from(container: av.container.InputContainer, keyframe: int) -> Iterator[av.VideoFrame]:
    """The frames from ``keyframe`` or an earlier one on, whole and in the order in which they are shown."""
    stream = container.streams.video[0]
    container.seek(keyframe, stream=stream)
    before = None
    for number, packet in enumerate(container.demux(stream)):
        if number == 0 and (packet.pts is None or packet.pts > keyframe or not packet.is_keyframe):
            raise _OddError
        for frame in packet.decode():
            if frame.is_corrupt or frame.pts is None or (before is not None and frame.pts <= before):
                raise _OddError
            before = frame.pts
            yield frame


def sound_frames(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    """All frames but those of damaged packets."""
    for packet in container.demux(container.streams.video[0]):
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            continue


def _open(path: Path) -> av.container.InputContainer:
    container = av.open(str(path), metadata_errors="ignore")
    for stream in container.streams.video:
        stream.thread_type = "SLICE"  # threads over frames would lose those around a damaged one
    return container


def upright(frame: av.VideoFrame) -> Image.Image:
    """The picture of a frame, turned as a player turns it, if by a quarter, a half or three quarters."""
    image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation % 90 == 0 else image


def _timeline(container: av.container.InputContainer, times: list[int | None], duration: int | None) -> Timeline:
    """Of presentation ``times`` in display order; of a steady rate where they are not reliable."""
    stream = container.streams.video[0]
    if container.format.name == "avi" or not _increase(times):  # AVI has a rate, and the times of decoding only
        return Timeline.steady(len(times), stream.average_rate or stream.guessed_rate)
    last = duration or (times[-1] - times[-2] if len(times) > 1 else 1)
    return Timeline([time - times[0] for time in [*times, times[-1] + last]], stream.time_base)


def _increase(times: list[int | None]) -> bool:
    return None not in times and all(before < after for before, after in pairwise(times))
