"""Files and folders below ``runs/`` with which interrupted work is resumed.

They outlive the work: a stage that is killed while it draws, or while DVC stores its outputs, has finished its training
but runs again. They are removed when ``dvc.lock`` has recorded the stage.
"""

import shutil
from pathlib import Path

from tlee.paths import LOCK, RUNS

_FINISHED = ".finished"


def reopen(path: Path) -> Path:
    """Return ``path``; if its work was finished but not recorded, the file or folder is back under this name."""
    finished = _finished(path)
    if finished.exists():
        finished.replace(path)
    return path


def finish(path: Path) -> None:
    """Mark the work of the file or folder ``path``, if there is one, as finished."""
    if path.exists():
        path.replace(_finished(path))


def remove_recorded() -> None:
    """Remove the files of finished work that is older than ``dvc.lock``."""
    recorded = LOCK.stat().st_mtime_ns if LOCK.exists() else 0
    for path in RUNS.glob(f"*{_FINISHED}"):
        if path.stat().st_mtime_ns < recorded:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _finished(path: Path) -> Path:
    return path.with_name(path.name + _FINISHED)
