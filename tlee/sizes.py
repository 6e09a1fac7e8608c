"""Sizes of files."""

from pathlib import Path


def size_of(folder: Path) -> int:
    """Return the bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def size_text(size: float) -> str:
    """Format a number of bytes: ``2.5 MB``, ``12.0 GB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
