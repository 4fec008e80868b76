"""Writes ComfyUI's metadata into a PNG, beside the pixels."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

_HEAD = 33
"""The bytes of a PNG before its first chunk that is not the header: signature and IHDR."""


def stamp(picture: Path, graph: str, *, to: Path) -> Path:
    """Copies a PNG with a graph in its `prompt`.

    Args:
        picture: What is copied; other formats carry no metadata.
        graph: The graph as JSON; nothing is copied where it is empty.
        to: The copy.

    Returns:
        The file that has the metadata, or the picture itself.
    """
    if not graph or picture.suffix != ".png":
        return picture
    data = picture.read_bytes()
    body = b"tEXtprompt\0" + graph.encode("ascii", "backslashreplace")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    to.write_bytes(data[:_HEAD] + chunk + data[_HEAD:])
    return to
