"""Checksums of files whose format has none, so that a damaged file is never used.

All are CRC-32 (``zlib``), which detects accidental damage. JSON carries that of its own content; other files have
theirs in such JSON or in the header of each record. Each line of a checked CSV file ends with that of the line.
"""

import json
import zlib
from pathlib import Path
from typing import Any

from tlee.errors import UserError

KEY = "crc32"
_BLOCK = 1 << 20


def crc32(data: Any) -> int:
    """Return the checksum of bytes, or of anything with their interface."""
    return zlib.crc32(data)


def crc32_of_file(path: Path) -> int:
    """Return the checksum of a file, which is read block by block."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Return ``content``, which must be JSON, with its checksum under ``KEY``.

    It is a list, because DVC would show a number or text among the metrics. ``tlee.edge.runner`` has the same function.
    """
    rest = {key: value for key, value in content.items() if key != KEY}
    return rest | {KEY: [_crc32_of_json(rest)]}


def unsealed(content: Any) -> dict[str, Any]:
    """Return ``content`` without its checksum. Raises ``ValueError`` if it has none or a different one."""
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    rest = {key: value for key, value in content.items() if key != KEY}
    if content.get(KEY) != [_crc32_of_json(rest)]:
        raise ValueError("the checksum is missing or differs")
    return rest


def _crc32_of_json(content: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def save_sealed(path: Path, content: dict[str, Any], indent: int | None = 2) -> Path:
    """Write ``content`` as JSON with its checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sealed(content), indent=indent) + "\n", encoding="utf-8")
    return path


def read_sealed(path: Path) -> dict[str, Any]:
    """Read JSON of ``save_sealed``. Raises ``OSError`` or ``ValueError`` if the file is missing or damaged."""
    try:
        return unsealed(json.loads(path.read_text(encoding="utf-8")))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def load_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """Read JSON of ``save_sealed``. Raises ``UserError`` with ``remedy`` if the file is missing or damaged."""
    try:
        return read_sealed(path)
    except (OSError, ValueError):
        raise UserError(f"{path} is missing or damaged: {remedy}") from None


def sealed_lines(text: str) -> str:
    """Return CSV with a last column ``KEY``, the checksum of the rest of the line."""
    header, *lines = text.removesuffix("\n").split("\n")
    return "".join(f"{line}\n" for line in [f"{header},{KEY}", *(f"{line},{_crc32_of_line(line)}" for line in lines)])


def unsealed_lines(text: str) -> str:
    """Return CSV without that column. Raises ``ValueError`` if it has none, or a line has another checksum."""
    header, *lines = [line.rpartition(",") for line in text.removesuffix("\n").split("\n")]
    if header[2] != KEY or any(checksum != _crc32_of_line(line) for line, _, checksum in lines):
        raise ValueError("a checksum is missing or differs")
    return "".join(f"{line}\n" for line, _, _ in [header, *lines])


def _crc32_of_line(line: str) -> str:
    return f"{zlib.crc32(line.encode()):08x}"
