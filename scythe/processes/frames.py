"""Frames for bytes on a stream between processes: the length, then as many bytes."""

from __future__ import annotations

import struct
from typing import IO

HEADER = struct.Struct("!Q")  # the length of what follows


def framed(data: bytes) -> bytes:
    """Return the frame for these bytes."""
    return HEADER.pack(len(data)) + data


def read_frame(stream: IO[bytes]) -> bytes | None:
    """Return the bytes of the next frame, or None if the stream ends within it."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (size,) = HEADER.unpack(header)
    data = stream.read(size)
    return data if len(data) == size else None
