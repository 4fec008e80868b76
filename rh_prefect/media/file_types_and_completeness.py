"""Detects the type of a file from its first bytes, and whether the file is complete."""

from __future__ import annotations

import json
import math
import os
import re
import struct
import zipfile
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

Kind = Literal["image", "video", "audio", "3d", "text", "other"]
"""The kind of a file, by its content; `other` for archives, PDFs and unknown types."""

HEAD = 4096
"""Number of bytes that are sufficient to identify a file type."""


@dataclass(frozen=True, slots=True)
class FileType:
    """A file type: its kind for models, its MIME type, and its usual extension without a dot."""

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
OGV = FileType("video", "video/ogg", "ogv")
M4A = FileType("audio", "audio/mp4", "m4a")
WEBM_SOUND = FileType("audio", "audio/webm", "webm")
MKA = FileType("audio", "audio/x-matroska", "mka")
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

EXTENSIONS = {one.mime: one.extension for one in list(vars().values()) if isinstance(one, FileType)}
"""The usual extension of each MIME type."""


class Format(NamedTuple):
    """What the extension of a file name says: the kinds of files that have it, the usual one first, and the container.

    Players treat all extensions of a container alike.
    """

    kinds: tuple[Kind, ...]
    container: str

    def fits(self, kind: Kind, mime: str) -> bool:
        """Returns whether a file of this kind and MIME type can have the extension."""
        own = FORMATS.get(EXTENSIONS.get(mime, ""))
        if own is None:
            return kind in self.kinds
        # A container of videos may have only sound, but a name of a sound, such as x.m4a, does not fit a video.
        return own.container == self.container and (kind in self.kinds or kind == "audio")


FORMATS: dict[str, Format] = {
    **dict.fromkeys(("jpg", "jpeg"), Format(("image",), "jpg")),
    **dict.fromkeys(("tif", "tiff"), Format(("image",), "tiff")),
    **dict.fromkeys(("heic", "heif"), Format(("image",), "heic")),
    **{name: Format(("image",), name) for name in ("png", "webp", "gif", "bmp", "avif")},
    **dict.fromkeys(("mp4", "mov", "m4v"), Format(("video",), "mp4")),
    "m4a": Format(("audio",), "mp4"),
    "webm": Format(("video", "audio"), "webm"),
    "mkv": Format(("video",), "webm"),
    **dict.fromkeys(("mka", "weba"), Format(("audio",), "webm")),
    "ogg": Format(("audio", "video"), "ogg"),
    "ogv": Format(("video",), "ogg"),
    **dict.fromkeys(("opus", "oga"), Format(("audio",), "ogg")),
    **{name: Format(("video",), name) for name in ("avi", "flv")},
    **{name: Format(("audio",), name) for name in ("mp3", "aac", "wav", "flac")},
    **dict.fromkeys(("glb", "gltf", "fbx", "stl", "ply", "obj"), Format(("3d",), "3d")),
}
"""The format of each extension."""


def format_named(name: str) -> Format | None:
    """Returns the format of a file name's extension; None for an unknown extension."""
    return FORMATS.get(PurePosixPath(name).suffix.lower().lstrip("."))


def is_made_from(wanted: Format, kind: Kind) -> bool:
    """Returns whether a file of this kind can be converted to another format: a picture to PNG or JPEG."""
    return kind == "image" and wanted.container in ("png", "jpg")


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
    """Detects the type of a file from its first `HEAD` bytes (or all, if it is smaller); `UNKNOWN` without a match."""
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return _BRANDS.get(head[8:12], MP4) if head[4:8] == b"ftyp" else MOV
    if head[:4] == b"\x1aE\xdf\xa3":
        return WEBM if b"webm" in head[:64] else MKV
    for magic, found in _MAGIC:
        # Two letters are not enough: a BMP's reserved bytes are also zero.
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
    try:
        # The head of a longer text may end within a character.
        text = getincrementaldecoder("utf-8")().decode(head, final=size <= len(head))
    except UnicodeDecodeError:
        return None
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith(("{", "[")) and (size > len(head) or _is_json(text)):
        return GLTF if '"asset"' in text and '"version"' in text and start.startswith("{") else JSON
    if text.startswith("solid ") and "facet normal" in text:
        return STL
    return OBJ if text.startswith("mtllib ") or _POINT.search(head) else TEXT


def _is_json(text: str) -> bool:
    try:
        json.loads(text.lstrip("\ufeff"))
    except ValueError:
        return False
    except RecursionError:
        return True  # nested deeper than the decoder can go; a longer text is not decoded either
    return True


def _sniff_stl(head: bytes, size: int) -> FileType | None:
    """Detects a binary STL. It has no magic bytes, but its number of triangles determines its size."""
    triangles = int.from_bytes(head[80:84], "little")
    return STL if len(head) >= 84 and triangles and size == 84 + 50 * triangles else None


_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?(?>\s|<\?xml[^>]*>|<!--.*?-->)*+<(?:!doctype\s+html|html|head|body)[\s>]",
    re.DOTALL | re.IGNORECASE,
)


def is_web_page(head: bytes) -> bool:
    """Returns whether a file that begins with these bytes is a web page, in any ASCII-like encoding."""
    return _PAGE.match(head) is not None


_ISO = (MP4, MOV, M4A, AVIF, HEIC)
_RIFF_TYPES = (AVI, WAV, WEBP)
_EBML = (WEBM, MKV)
_BOXES = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx ssix styp emsg prft pdin pnot udta uuid meta idat PICT".split()
)
"""The types of the outermost boxes of MP4, MOV and their relatives."""

_RIFF_UNKNOWN = 0x7FFF0000
"""The least length of a RIFF file that stands for an unknown one: programs write different numbers to a pipe."""

_SEGMENT = b"\x18\x53\x80\x67"
_FLV_TAGS = (8, 9, 18)
"""The types of FLV's tags: sound, picture, data."""
_PART_HEAD = 27 + 255
"""Number of bytes at the start of a part that contain its length, in all formats below."""

_Step: TypeAlias = "Callable[[bytes], int | None]"
"""A function that reads the length of a file's part from the part's head; None for the last part or other content."""


def missing_bytes(path: Path, found: FileType) -> int:
    """Returns the number of bytes missing at the end, going by the lengths in the file; 0 if there are none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if found is MP3:
            return _missing_of_mp3(file, size)
        if found is ZIP:
            return 0 if zipfile.is_zipfile(file) else 1
        return max(0, _end(file, size, found) - size)


def _end(file: BinaryIO, size: int, found: FileType) -> int:
    if found in _ISO:
        return _last_end(file, size, 0, _box)
    if found is PNG:  # Pillow does not report a missing end chunk
        return _last_end(file, size, 8, _chunk) + 12
    if found is OGG:
        return _last_end(file, size, 0, _page)
    if found is FLV:  # the length after each tag, in four bytes, may be missing at the end
        head = file.read(1024)
        return max(_last_end(file, size, int.from_bytes(head[5:9]) + 4, _tag), _announced_by_flv(head)) - 4
    if found in _RIFF_TYPES:
        length = int.from_bytes(file.read(8)[4:], "little")
        # A stream's writer could not go back to fill in the length.
        return 0 if length >= _RIFF_UNKNOWN or not length else length + 8
    if found is GIF:
        return _end_of_gif(file, size)
    if found is BMP:
        return _end_of_bmp(file.read(34))
    if found in _EBML:
        return _end_of_segment(file.read(256))
    return int.from_bytes(file.read(12)[8:], "little") if found is GLB else 0


def _ends(file: BinaryIO, size: int, at: int, step: _Step) -> Iterator[int]:
    """Yields the ends of a file's parts from their lengths, without reading them; the first part begins at `at`."""
    while at < size:
        file.seek(at)
        length = step(file.read(_PART_HEAD))
        if length is None:
            return
        at += length
        yield at


def _last_end(file: BinaryIO, size: int, at: int, step: _Step) -> int:
    return max(_ends(file, size, at, step), default=at)


def _box(head: bytes) -> int | None:
    """Returns the length of a box of MP4 or MOV; None for a last box without a length, and for what is not a box."""
    length = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4])
    return length if head[4:8] in _BOXES and length >= 8 else None


def _chunk(head: bytes) -> int | None:
    return None if head[4:8] == b"IEND" else int.from_bytes(head[:4]) + 12


def _page(head: bytes) -> int | None:
    """Returns the length of an Ogg page; live encoders do not mark the last page, so a missing mark proves nothing."""
    if not head.startswith(b"OggS"[: len(head)]):
        return None  # something else, such as a tag, follows
    return 27 + head[26] + sum(head[27 : 27 + head[26]]) if len(head) >= 27 else 27


def _tag(head: bytes) -> int | None:
    return 11 + int.from_bytes(head[1:4]) + 4 if head[0] & 0x1F in _FLV_TAGS else None


def _announced_by_flv(head: bytes) -> int:
    """Returns the size stated in an FLV's first tag, because only this reveals a cut between two tags; 0 if unknown."""
    found = re.search(rb"\x08filesize\x00(.{8})", head, re.DOTALL)
    size: float = struct.unpack(">d", found[1])[0] if found else 0
    return int(size) if math.isfinite(size) else 0


def _end_of_gif(file: BinaryIO, size: int) -> int:
    """Returns the end of a GIF, or a larger number than `size` if a block or the end mark is missing."""
    file.read(_colours(file.read(13)[10:11]))
    while (mark := file.read(1)) in (b"!", b","):
        # A picture may have its own colours, which are followed by the width of its codes.
        file.read(1 if mark == b"!" else _colours(file.read(9)[8:9]) + 1)
        while any(length := file.read(1)):
            file.seek(length[0], os.SEEK_CUR)
    return file.tell() if mark else size + 1


def _colours(flags: bytes) -> int:
    """Returns the length of a GIF's colour table."""
    return 3 << (flags[0] & 0x07) + 1 if flags and flags[0] & 0x80 else 0


def _end_of_bmp(head: bytes) -> int:
    """Returns the end of an uncompressed BMP by the size of its picture, because its stated size is often wrong."""
    if len(head) < 34 or int.from_bytes(head[14:18], "little") < 40:
        return 0
    width, height, _, bits, compression = struct.unpack("<iiHHI", head[18:34])
    start = int.from_bytes(head[10:14], "little")
    return 0 if compression not in (0, 3) else start + (width * bits + 31) // 32 * 4 * abs(height)


def _end_of_segment(head: bytes) -> int:
    """Returns the end of a Matroska file's segment; 0 if the file does not state it, as for a live stream."""
    at = head.find(_SEGMENT)
    if at < 0 or at + 5 > len(head):
        return 0
    at += len(_SEGMENT)
    width = 9 - head[at].bit_length()
    data = int.from_bytes(head[at : at + width]) & ((1 << 7 * width) - 1)
    return 0 if data == (1 << 7 * width) - 1 else at + width + data


_BIT_RATES = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
"""Bit rates in kbit/s of MPEG 2's and MPEG 1's layer III, by the bits of a frame's header."""
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_COUNTED = 3
"""The flags of a Xing header that contains the numbers of frames and bytes."""


def _missing_of_mp3(file: BinaryIO, size: int) -> int:
    """Returns the number of bytes missing from an MP3 by its Xing header, if the header's byte and frame counts agree.

    Tag editors often leave one count wrong. Without this header, an MP3 does not contain its length.
    """
    start = _last_end(file, size, 0, _id3)
    file.seek(start)
    head = file.read(64)
    if not _frame_length(head):
        return 0
    # The header's place depends on whether the frame is stereo, and on the version of MPEG.
    xing = re.search(rb"(?:Xing|Info)...(.)(.{4})(.{4})", head, re.DOTALL)
    if xing is None or xing[1][0] & _COUNTED != _COUNTED:
        return 0
    frames, length = int.from_bytes(xing[2]), int.from_bytes(xing[3])
    missing = start + length - size
    if missing <= 0:
        return 0
    # The header does not count its own frame.
    whole = sum(end <= size for end in _ends(file, size, start, _frame_length)) - 1
    return missing if whole < frames else 0


def _id3(head: bytes) -> int | None:
    """Returns the length of an ID3 tag, in which each byte of the length holds seven bits."""
    if len(head) < 10 or not head.startswith(b"ID3"):
        return None
    length = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))
    return length + (20 if head[5] & 0x10 else 10)


def _frame_length(head: bytes) -> int | None:
    """Returns the length of an MP3 frame in bytes, by the frame's header; None if there is no such header."""
    if _sniff_frames(head) is not MP3:
        return None
    version, rate = head[1] >> 3 & 0x03, head[2] >> 2 & 0x03
    if version not in _SAMPLE_RATES or rate == 0x03:
        return None
    is_first = version == 0x03
    slots = (144_000 if is_first else 72_000) * _BIT_RATES[is_first][head[2] >> 4] // _SAMPLE_RATES[version][rate]
    return slots + (head[2] >> 1 & 0x01)
