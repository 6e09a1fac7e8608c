"""Time and memory to open a frame store."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from tlee.benchmark.measuring import MEGA, measure_memory, seconds
from tlee.benchmark.rows import row
from tlee.frame_format import ABOUT, PLACE, open_shard, shard_file, write_index
from tlee.frames import FrameStore

NUM_CLASSES = 3142  #: of HVU
NUM_LABELS = 12  #: of each video
NUM_FRAMES = 10


def time_store(num_videos: int) -> list[tuple]:
    """Open the index of a store of ``num_videos`` videos with several labels each; rows of ``benchmark``."""
    with tempfile.TemporaryDirectory() as name:
        folder, opened = Path(name), []
        _write_index(folder, num_videos)
        with measure_memory() as memory:
            time = seconds(lambda: opened.append(FrameStore(folder)))
        size = (folder / "index.arrow").stat().st_size
    rows = [
        row("frame store", "videos", num_videos),
        row("frame store", "index (MB)", size / MEGA),
        row("frame store", "time to open it (s)", time, target=10),
    ]
    if memory.is_known:
        rows.append(row("frame store", "memory besides the mapped index (MB)", memory.added / MEGA, target=1000))
    return rows


def _write_index(folder: Path, num_videos: int) -> None:
    """Write the index of a store whose frames are missing."""
    names = pa.array([f"class/video-{number:09}.mp4" for number in range(num_videos)])
    labels = np.random.default_rng(0).integers(0, NUM_CLASSES, num_videos * NUM_LABELS, np.int32)
    columns = {
        "video": names,
        "labels": _lists(labels, NUM_LABELS),
        "group": names,
        "indices": _lists(np.tile(np.arange(NUM_FRAMES, dtype=np.int32), num_videos), NUM_FRAMES),
        **{name: pa.array(np.zeros(num_videos, np.int64)).cast(kind) for name, kind in PLACE.items()},
    }
    with open_shard(shard_file(folder, 0), [], clip_frames=1):
        pass
    shard = pa.RecordBatch.from_pydict(columns, pa.schema(ABOUT | PLACE))
    write_index(folder, [f"class {number}" for number in range(NUM_CLASSES)], 1, [shard])


def _lists(values: np.ndarray, length: int) -> pa.ListArray:
    return pa.ListArray.from_arrays(np.arange(0, len(values) + 1, length, dtype=np.int32), values)
