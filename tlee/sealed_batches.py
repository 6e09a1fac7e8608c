"""Arrow record batches in files that end with their checksum.

A file is an Arrow IPC stream of one batch, then the CRC-32 of these bytes (4 bytes, little-endian), which readers of
Arrow skip. Arrow trusts the offsets in what it reads, so it reads only what has been checked.
"""

import struct
from pathlib import Path

import pyarrow as pa

from tlee.checksums import crc32

_CHECKSUM = struct.Struct("<I")


def save_sealed_batch(path: Path, batch: pa.RecordBatch) -> None:
    """Write a batch with its checksum; the file exists only once it is whole."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    content, scratch = sink.getvalue(), path.with_name(f"{path.name}.tmp")
    with scratch.open("wb") as file:
        file.write(content)
        file.write(_CHECKSUM.pack(crc32(content)))
    scratch.replace(path)


def read_sealed_batch(path: Path) -> pa.RecordBatch:
    """Memory-map a batch of ``save_sealed_batch``. Raises ``OSError`` or ``ValueError`` if it is missing or damaged."""
    content = map_file(path)
    size = content.size - _CHECKSUM.size
    if size <= 0 or content.slice(size).to_pybytes() != _CHECKSUM.pack(crc32(content.slice(0, size))):
        raise ValueError("the checksum differs")
    return pa.ipc.open_stream(content).read_next_batch()


def map_file(path: Path) -> pa.Buffer:
    """Return the memory-mapped content of a file, which is not kept open."""
    with pa.memory_map(str(path)) as file:
        return file.read_buffer()
