"""Whether a file has all the bytes that it says it has: a cut download opens, and its first picture is fine."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import BinaryIO

from rh_prefect.media import file_types
from rh_prefect.media.file_types import FileType

_ISO = (file_types.MP4, file_types.MOV, file_types.M4A, file_types.AVIF, file_types.HEIC)
_RIFF = (file_types.AVI, file_types.WAV, file_types.WEBP)
_EBML = (file_types.WEBM, file_types.MKV)
_SEGMENT = b"\x18\x53\x80\x67"


def missing_bytes(path: Path, found: FileType) -> int:
    """How many bytes are missing at the end, by the lengths written in the file; 0 where none are known."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if found in _ISO:
            return max(0, _end_of_boxes(file, size) - size)
        if found is file_types.PNG:
            return max(0, _end_of_png(file, size) - size)
        if found in _RIFF:
            return max(0, _end_of_riff(file.read(8)) - size)
        if found in _EBML:
            return max(0, _end_of_segment(file.read(256)) - size)
        if found is file_types.GLB:
            return max(0, int.from_bytes(file.read(12)[8:12], "little") - size)
        if found is file_types.ZIP:
            return 0 if zipfile.is_zipfile(file) else 1
    return 0


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Walks the boxes at the top of an MP4 or MOV file; none of them is read."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:
            return size
        if length < 8:
            # Some writers end a file with padding.
            return at
        at += length
    return at


def _end_of_png(file: BinaryIO, size: int) -> int:
    """Walks the chunks of a PNG up to its end chunk, which Pillow does not miss."""
    at = 8
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        at += int.from_bytes(head[:4], "big") + 12
        if head[4:] == b"IEND":
            return at
    return max(at, size) + 12


def _end_of_riff(head: bytes) -> int:
    length = int.from_bytes(head[4:8], "little")
    # A stream's writer could not go back to fill in the length.
    return 0 if length in (0, 0xFFFFFFFF) else length + 8


def _end_of_segment(head: bytes) -> int:
    """Finds the length of a Matroska file's one segment; unknown if it was written as a live stream."""
    at = head.find(_SEGMENT)
    if at < 0 or at + 5 > len(head):
        return 0
    at += len(_SEGMENT)
    width = 9 - head[at].bit_length()
    data = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
    return 0 if data == (1 << 7 * width) - 1 else at + width + data


def size_of(path: Path) -> int:
    """Bytes of a regular file.

    Raises:
        OSError: There is none, or it is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(os.fspath(path))
    return path.stat().st_size
