"""Demo clips as H.264 files, in the layout of UCF101 with its annotation files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from joblib import Parallel, delayed
from tqdm import tqdm

from tlee.demo.clips import CLASS_INDEX, ClipSpec, all_clips
from tlee.demo.rendering import FPS, render_clip

VIDEOS = "UCF-101"
LISTS = "ucfTrainTestlist"
TRUTH = "difficulty.csv"  #: beside these two folders

#: One thread and no CPU-specific code: the same clip gives the same bytes on every machine.
X264 = {
    "preset": "slow",
    "crf": "23",
    "tune": "animation",
    "bf": "0",
    "x264-params": "threads=1:cpu-independent=1",
}


def write_clip(spec: ClipSpec, root: Path | str) -> Path:
    """Render a clip to ``root/UCF-101/<Class>/`` and return the path of the file."""
    path = Path(root) / VIDEOS / spec.path
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(render_clip(spec), path)
    return path


def write_demo(root: Path | str, clips: Sequence[ClipSpec] | None = None, jobs: int = -1) -> int:
    """Render clips and the annotation files that list them.

    Args:
        root: folder in which ``UCF-101`` and ``ucfTrainTestlist`` are created.
        clips: clips to render; all of them by default.
        jobs: number of processes; -1 is one per core.

    Returns:
        The number of clips written.
    """
    clips = all_clips() if clips is None else clips
    tasks = (delayed(write_clip)(spec, root) for spec in clips)
    written = Parallel(n_jobs=jobs, return_as="generator")(tasks)
    count = sum(1 for _ in tqdm(written, total=len(clips), desc="demo clips", unit="clip"))
    write_lists(root, clips)
    write_truth(root, clips)
    return count


def write_lists(root: Path | str, clips: Sequence[ClipSpec]) -> None:
    """Write ``classInd.txt``, ``trainlist01.txt`` and ``testlist01.txt``, with UCF101's line endings (CRLF)."""
    files = {
        "classInd.txt": [f"{index} {name}" for name, index in CLASS_INDEX.items()],
        "trainlist01.txt": [f"{spec.path} {CLASS_INDEX[spec.action]}" for spec in clips if not spec.is_test],
        "testlist01.txt": [spec.path for spec in clips if spec.is_test],
    }
    folder = Path(root) / LISTS
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), newline="\r\n")


def write_truth(root: Path | str, clips: Sequence[ClipSpec]) -> None:
    """Write ``difficulty.csv``: the cue of each clip and the indices of the frames in which it can be seen."""
    lines = ["video,cue,frames"]
    lines += [f"{spec.path},{spec.difficulty.cue},{' '.join(map(str, spec.cue_frames))}" for spec in clips]
    (Path(root) / TRUTH).write_text("".join(f"{line}\n" for line in lines), newline="\n")


def encode(frames: np.ndarray, path: Path) -> None:
    """Encode RGB frames, uint8 ``[T, H, W, 3]`` with even sides, as H.264 in MP4, without time stamps."""
    with av.open(path, "w", format="mp4", options={"fflags": "bitexact", "movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=FPS, options=X264)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= Flags.bitexact
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(_yuv420p(frame), format="yuv420p")))
        file.mux(stream.encode())


def _yuv420p(rgb: np.ndarray) -> np.ndarray:
    """Convert an RGB image to BT.601 planes ``[3 H / 2, W]``, in integer arithmetic: the same on every machine."""
    height, width, _ = rgb.shape
    red, green, blue = np.moveaxis(rgb.astype(np.int32), 2, 0)
    luma = 16 + (66 * red + 129 * green + 25 * blue + 128 >> 8)
    blocks = rgb.astype(np.int32).reshape(height // 2, 2, width // 2, 2, 3).sum(axis=(1, 3))
    red, green, blue = np.moveaxis(blocks, 2, 0)
    planes = (
        luma,
        128 + (-38 * red - 74 * green + 112 * blue + 512 >> 10),
        128 + (112 * red - 94 * green - 18 * blue + 512 >> 10),
    )
    return np.concatenate([plane.ravel() for plane in planes]).astype(np.uint8).reshape(-1, width)
