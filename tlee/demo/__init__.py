"""The demo clips: 800 small videos of a stick figure in eight actions, laid out as UCF101.

They stand in for a benchmark where none is at hand: the whole pipeline runs on them in minutes.
Rendering them again gives the same files: this package is where ``data.dvc`` comes from.
"""

from tlee.demo.clips import ClipSpec, all_clips
from tlee.demo.files import write_clip, write_demo
from tlee.demo.rendering import render_clip

__all__ = ["ClipSpec", "all_clips", "render_clip", "write_clip", "write_demo"]
