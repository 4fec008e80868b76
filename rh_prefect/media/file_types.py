"""Detects the type of a file from its first bytes, and whether the file is complete."""

from __future__ import annotations

import json
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rh_prefect.media.media import Kind

HEAD = 4096
"""The number of bytes that identifies a file type."""


@dataclass(frozen=True, slots=True)
class FileType:
    """A kind of file.

    Attributes:
        kind: What a model takes it for.
        mime: Its MIME type.
        extension: Its usual extension, without a dot.
    """

    kind: Kind
    mime: str
    extension: str


PNG = FileType("image", "image/png", "png")
JPEG = FileType("image", "image/jpeg", "jpg")
WEBP = FileType("image", "image/webp", "webp")
GIF = FileType("image", "image/gif", "gif")
BMP = FileType("image", "image/bmp", "bmp")
TIFF = FileType("image", "image/tiff", "tiff")
AVIF = FileType("image", "image/avif", "avif")
HEIC = FileType("image", "image/heic", "heic")
MP4 = FileType("video", "video/mp4", "mp4")
MOV = FileType("video", "video/quicktime", "mov")
WEBM = FileType("video", "video/webm", "webm")
MKV = FileType("video", "video/x-matroska", "mkv")
AVI = FileType("video", "video/x-msvideo", "avi")
FLV = FileType("video", "video/x-flv", "flv")
M4A = FileType("audio", "audio/mp4", "m4a")
WAV = FileType("audio", "audio/wav", "wav")
MP3 = FileType("audio", "audio/mpeg", "mp3")
AAC = FileType("audio", "audio/aac", "aac")
FLAC = FileType("audio", "audio/flac", "flac")
OGG = FileType("audio", "audio/ogg", "ogg")
GLB = FileType("3d", "model/gltf-binary", "glb")
GLTF = FileType("3d", "model/gltf+json", "gltf")
PLY = FileType("3d", "model/ply", "ply")
STL = FileType("3d", "model/stl", "stl")
OBJ = FileType("3d", "model/obj", "obj")
FBX = FileType("3d", "application/octet-stream", "fbx")
ZIP = FileType("other", "application/zip", "zip")
PDF = FileType("other", "application/pdf", "pdf")
JSON = FileType("text", "application/json", "json")
TEXT = FileType("text", "text/plain", "txt")
UNKNOWN = FileType("other", "application/octet-stream", "bin")

_MAGIC: tuple[tuple[bytes, FileType], ...] = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"BM", BMP),
    (b"II*\x00", TIFF),
    (b"MM\x00*", TIFF),
    (b"FLV\x01", FLV),
    (b"ID3", MP3),
    (b"fLaC", FLAC),
    (b"OggS", OGG),
    (b"glTF", GLB),
    (b"ply\n", PLY),
    (b"ply\r\n", PLY),
    (b"Kaydara FBX Binary", FBX),
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),
    (b"%PDF-", PDF),
)

_RIFF = {b"WEBP": WEBP, b"AVI ": AVI, b"WAVE": WAV}
_BRANDS = {
    b"qt  ": MOV,
    b"M4A ": M4A,
    b"M4B ": M4A,
    b"avif": AVIF,
    b"avis": AVIF,
    b"heic": HEIC,
    b"heix": HEIC,
    b"mif1": HEIC,
}
_POINT = re.compile(rb"^v\s+-?\d+\.?\d*(?:e[-+]?\d+)?\s+-?\d", re.MULTILINE)


def sniff(head: bytes, *, size: int) -> FileType:
    """Detects the type of a file by its first `HEAD` bytes, or all bytes; `UNKNOWN` if no type matches."""
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return _BRANDS.get(head[8:12], MP4) if head[4:8] == b"ftyp" else MOV
    if head[:4] == b"\x1aE\xdf\xa3":
        return WEBM if b"webm" in head[:64] else MKV
    for magic, found in _MAGIC:
        # Two letters are not enough: a BMP's reserved bytes are zero, too.
        if head.startswith(magic) and (found is not BMP or head[6:10] == b"\0\0\0\0"):
            return found
    return _sniff_frames(head) or _sniff_text(head, size) or _sniff_stl(head, size) or UNKNOWN


def _sniff_frames(head: bytes) -> FileType | None:
    """Detects raw MP3 or AAC, which begin with the sync bits of a first frame."""
    if len(head) < 4 or head[0] != 0xFF:
        return None
    if head[1] & 0xF6 == 0xF0:
        return AAC
    layer, rate = head[1] & 0x06, head[2] & 0xF0
    return MP3 if head[1] & 0xE0 == 0xE0 and layer == 0x02 and rate not in (0x00, 0xF0) else None


def _sniff_text(head: bytes, size: int) -> FileType | None:
    if b"\0" in head:
        return None
    text = _decoded(head, whole=size <= len(head))
    if text is None:
        return None
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith(("{", "[")) and (size > len(head) or _is_json(text)):
        return GLTF if '"asset"' in text and '"version"' in text and start.startswith("{") else JSON
    if text.startswith("solid ") and "facet normal" in text:
        return STL
    return OBJ if text.startswith("mtllib ") or _POINT.search(head) else TEXT


def _decoded(head: bytes, *, whole: bool) -> str | None:
    for cut in range(1 if whole else 4):
        # The head of a longer text may end within a character.
        try:
            return head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            continue
    return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text.lstrip("\ufeff"))
    except ValueError:
        return False
    except RecursionError:
        return True  # nested deeper than the decoder can go; a longer text is not decoded either
    return True


def _sniff_stl(head: bytes, size: int) -> FileType | None:
    """Detects a binary STL, which has no magic bytes, but whose number of triangles determines its size."""
    triangles = int.from_bytes(head[80:84], "little")
    return STL if len(head) >= 84 and triangles and size == 84 + 50 * triangles else None


_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?(?>\s|<\?xml[^>]*>|<!--.*?-->)*+<(?:!doctype\s+html|html|head|body)[\s>]",
    re.DOTALL | re.IGNORECASE,
)


def is_web_page(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a web page, in any encoding that begins like ASCII."""
    return _PAGE.match(head) is not None


_ISO = (MP4, MOV, M4A, AVIF, HEIC)
_RIFF_TYPES = (AVI, WAV, WEBP)
_EBML = (WEBM, MKV)
_SEGMENT = b"\x18\x53\x80\x67"


def missing_bytes(path: Path, found: FileType) -> int:
    """Returns the number of bytes missing at the end, by the lengths in the file; 0 if no lengths are known."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if found in _ISO:
            return max(0, _end_of_boxes(file, size) - size)
        if found is PNG:
            return max(0, _end_of_png(file, size) - size)
        if found in _RIFF_TYPES:
            return max(0, _end_of_riff(file.read(8)) - size)
        if found in _EBML:
            return max(0, _end_of_segment(file.read(256)) - size)
        if found is GLB:
            return max(0, int.from_bytes(file.read(12)[8:12], "little") - size)
        if found is ZIP:
            return 0 if zipfile.is_zipfile(file) else 1
    return 0


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Walks the top-level boxes of an MP4 or MOV file, without reading their content."""
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
    """Walks the chunks of a PNG up to its end chunk, whose absence Pillow does not report."""
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
    """Returns the size of a regular file in bytes; `OSError` where it is missing or a folder."""
    if path.is_dir():
        raise IsADirectoryError(os.fspath(path))
    return path.stat().st_size
