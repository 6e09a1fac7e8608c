"""Fingerprints of the files that frames are read from."""

from pathlib import Path

from tlee.extraction.decoding import locate


def fingerprint(path: Path) -> str:
    """Return a text that changes when the file or folder at ``path`` (see ``locate``) does; empty if there is none."""
    try:
        found = locate(path)
        files = sorted(found.iterdir()) if found.is_dir() else [found]
        states = [file.stat() for file in files]
    except (ValueError, OSError):
        return ""
    size, changed = sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)
    return f"{found.name} {len(states)} {size} {changed}"
