"""Selected frames of a video file, decoded by PyAV.

The fallback decodes the whole file. If the presentation times of its packets are reliable, it is cheaper to seek to
the keyframes before the selected frames; any irregularity on the way leads to the fallback. Both give the same images
of an undamaged file. Damage is detected only in the packets that are decoded.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, TypeGuard

import av
from PIL import Image

from tlee.extraction.limits import check_frame_size
from tlee.extraction.sampling import Timeline

Choose = Callable[[Timeline], list[int]]
Finish = Callable[[Image.Image], Any]

_SEEKABLE = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # formats that keep presentation times and an index
_PLAYLISTS = {"concat", "dash", "hls", "imf", "sdp", "webm_dash_manifest"}
_SEEK_COST = 16  # frames that can be decoded in the time of one seek


def decode_video(path: Path, choose: Choose, finish: Finish) -> tuple[list[int], list[Any]]:
    """Decode the frames selected by ``choose``: their indices, and their RGB images converted by ``finish``.

    Raises ``ValueError`` with the reason if the file is unreadable or has no frame.
    """
    try:
        index = _read_index(path)
        indices = choose(index.timeline)
        decoded = _decode_by_seeking(path, index, indices, finish)
        if decoded is None:
            decoded, timeline = _decode_all(path, indices, finish)
            chosen, indices = indices, choose(timeline)
            if indices != chosen:  # frames are damaged, or packets are not frames
                decoded, _ = _decode_all(path, indices, finish)
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"it cannot be decoded ({error.strerror or error})") from None
    return indices, [decoded[index] for index in indices]


@dataclass(frozen=True)
class _Index:
    """Timeline of a file from its packets, without decoding."""

    timeline: Timeline
    times: list[int]  # presentation times in display order, in the stream's unit; empty if they are unreliable
    keyframes: list[int]  # presentation times of the packets from which decoding can start

    def plan_seeks(self, indices: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Return the keyframes to seek to, each with the times to decode from there; none if that is not faster."""
        if not self.times or not self.keyframes or self.times[min(indices)] < self.keyframes[0]:
            return []
        by_keyframe = [
            (keyframe, [self.times[index] for index in group])
            for keyframe, group in groupby(
                sorted(set(indices)), lambda index: self.keyframes[bisect_right(self.keyframes, self.times[index]) - 1]
            )
        ]
        position = {time: index for index, time in enumerate(self.times)}
        frames = sum(position[selected[-1]] - position[keyframe] + 1 for keyframe, selected in by_keyframe)
        return by_keyframe if frames + _SEEK_COST * len(by_keyframe) < len(self.times) else []


def _read_index(path: Path) -> _Index:
    with _open(path) as container:
        if not container.streams.video:
            raise ValueError("it contains no video stream")
        stream = container.streams.video[0]
        packets = [
            (packet.pts, packet.duration, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
        if not packets:
            raise ValueError("it contains no decodable frame")
        if all(time is not None for time, _, _ in packets):
            packets.sort()
        times = [time for time, _, _ in packets]
        timeline = _timeline(container, times, packets[-1][1])
        if container.format.name not in _SEEKABLE or not _increase(times):
            return _Index(timeline, [], [])
        keyframes = [time for time, (_, _, is_keyframe) in zip(times, packets, strict=True) if is_keyframe]
        return _Index(timeline, times, keyframes)


def _decode_all(path: Path, indices: list[int], finish: Finish) -> tuple[dict[int, Any], Timeline]:
    """Decode the whole file: return the frames at ``indices`` that exist, and the timeline of all decodable frames."""
    selected, decoded, times, duration = set(indices), {}, [], None
    with _open(path) as container:
        for index, frame in enumerate(undamaged_frames(container)):
            times.append(frame.pts)
            duration = frame.duration
            if index in selected:
                decoded[index] = finish(upright(frame))
        if not times:
            raise ValueError("it contains no decodable frame")
        return decoded, _timeline(container, times, duration)


def _decode_by_seeking(path: Path, index: _Index, indices: list[int], finish: Finish) -> dict[int, Any] | None:
    """Decode the frames at ``indices``; return None if decoding the whole file is cheaper or necessary."""
    seeks, by_time = index.plan_seeks(indices), {}
    if not seeks:
        return None
    try:
        with _open(path) as container:
            for keyframe, selected in seeks:
                for frame in _frames_from(container, keyframe):
                    if frame.pts in selected:
                        by_time[frame.pts] = finish(upright(frame))
                    if frame.pts is not None and frame.pts >= selected[-1]:
                        break
                if any(time not in by_time for time in selected):
                    return None
    except (av.FFmpegError, _UnreliableSeekError):
        return None
    return {position: by_time[index.times[position]] for position in indices}


class _UnreliableSeekError(Exception):
    """Seeking in this file gives frames in the wrong place or order."""


def _frames_from(container: av.container.InputContainer, keyframe: int) -> Iterator[av.VideoFrame]:
    """Yield the frames from ``keyframe``, or an earlier one, in display order; raise if one is damaged or misplaced."""
    stream = container.streams.video[0]
    container.seek(keyframe, stream=stream)
    before = None
    for number, packet in enumerate(container.demux(stream)):
        if number == 0 and (packet.pts is None or packet.pts > keyframe or not packet.is_keyframe):
            raise _UnreliableSeekError
        for frame in packet.decode():
            if frame.is_corrupt or frame.pts is None or (before is not None and frame.pts <= before):
                raise _UnreliableSeekError
            before = frame.pts
            yield frame


def undamaged_frames(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    """Yield all frames except those of damaged packets."""
    for packet in container.demux(container.streams.video[0]):
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            continue


def _open(path: Path) -> av.container.InputContainer:
    container = av.open(str(path), metadata_errors="ignore")
    for stream in container.streams.video:
        stream.thread_type = "SLICE"  # frame threading would lose the frames around a damaged one
        if stream.codec_context is None:
            raise ValueError("its video codec is unknown")
        check_frame_size(stream.width, stream.height)  # before memory is allocated for a frame
    refuse_playlist(container)
    return container


def refuse_playlist(container: av.container.InputContainer) -> None:
    """Raise ``ValueError`` if the frames of a file are in other files, which it could name anywhere on the disk."""
    if container.format.name in _PLAYLISTS:
        raise ValueError(f"it is a playlist ({container.format.name}), not a video")


def upright(frame: av.VideoFrame) -> Image.Image:
    """Return the image of a frame, rotated as a player does if by a multiple of 90 degrees.

    Raises ``FrameSizeError`` if it is larger than the file announces and than the limit.
    """
    check_frame_size(frame.width, frame.height)
    image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation % 90 == 0 else image


def _timeline(container: av.container.InputContainer, times: list[int | None], duration: int | None) -> Timeline:
    """Timeline of presentation ``times`` in display order; with a constant rate if they are unreliable."""
    stream = container.streams.video[0]
    if container.format.name == "avi" or not _increase(times):  # AVI has only a rate and decoding times
        return Timeline.constant_rate(len(times), stream.average_rate or stream.guessed_rate)
    last = duration or (times[-1] - times[-2] if len(times) > 1 else 1)
    return Timeline([time - times[0] for time in [*times, times[-1] + last]], stream.time_base)


def _increase(times: list[int | None]) -> TypeGuard[list[int]]:
    known = [time for time in times if time is not None]
    return len(known) == len(times) and all(before < after for before, after in pairwise(known))
