"""Demo clips: 800 small videos of a stick figure in eight actions, in the layout of UCF101, of known difficulty.

They replace a benchmark if none is available: the whole pipeline runs on them in minutes. Rendering is reproducible:
this package generates the files of ``data.dvc``. The frames that show which action it is, and whether a whole pose or a
small sign shows it, are drawn from the table in ``difficulty`` and written beside the clips.
"""

from tlee.demo.clips import ClipSpec, all_clips
from tlee.demo.files import write_clip, write_demo
from tlee.demo.rendering import render_clip

__all__ = ["ClipSpec", "all_clips", "render_clip", "write_clip", "write_demo"]
