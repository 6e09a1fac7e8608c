"""TLEE and FrameExit: early-exit video recognition, from clips to latency.

The modules import each other in one direction only; see the table in ``README.md``.
"""

__version__ = "0.1.0"
