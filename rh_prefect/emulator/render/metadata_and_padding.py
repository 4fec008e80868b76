"""Post-processing of result files: PNG metadata, and padding for tests of large downloads."""

from __future__ import annotations

import os
import shutil
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

_HEAD = 33
"""The bytes of a PNG before its first chunk that is not the header: signature and IHDR."""


def stamp(picture: Path, graph: str, *, to: Path) -> Path:
    """Copies a PNG, and writes a graph to the `prompt` metadata of the copy."""
    if not graph or picture.suffix != ".png":
        return picture
    data = picture.read_bytes()
    body = b"tEXtprompt\0" + graph.encode("ascii", "backslashreplace")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    to.write_bytes(data[:_HEAD] + chunk + data[_HEAD:])
    return to


_ID3_MOST: Final = (1 << 28) - 1
_FLAC_MOST: Final = (1 << 24) - 1
_STREAMINFO_END: Final = 42
_LAST_BLOCK: Final = 0x80
_ZEROS: Final = bytes(1 << 20)


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes that decoders skip: a head, a number of zeros, and a tail."""

    head: bytes
    zeros: int
    tail: bytes = b""


@dataclass(frozen=True, slots=True)
class Filling:
    """The changes that make a file larger.

    Attributes:
        at: The offset at which the blocks are inserted.
        blocks: The inserted blocks.
        changes: Bytes of the file itself that must also change, by offset.
    """

    at: int
    blocks: tuple[Block, ...]
    changes: Mapping[int, bytes] = field(default_factory=dict)


def pad(path: Path, *, least_bytes: int) -> Path:
    """Makes a file larger; the added zeros take no space on the disk.

    Args:
        path: The file, which is not changed.
        least_bytes: The minimum size; the result may be a few bytes larger if the file type requires this.

    Returns:
        The larger file, next to the original, or the original if it is large enough. The larger file is created once: a
        second copy would have another ETag, and a client with half of the first would have to start again.
    """
    size = path.stat().st_size
    if size >= least_bytes:
        return path
    to = path.with_name(f"padded-{least_bytes}-{path.name}")
    if not to.exists():
        part = to.with_name(f"{threading.get_ident()}-{to.name}")
        plan = _PLANS.get(path.suffix.lower(), _behind)
        with path.open("rb") as source, part.open("wb") as file:
            _write(source, file, plan(source, size, least_bytes - size))
        with suppress(FileExistsError):  # another thread was faster
            os.link(part, to)
        part.unlink()
    return to


def _write(source: BinaryIO, file: BinaryIO, filling: Filling) -> None:
    source.seek(0)
    file.write(source.read(filling.at))
    for block in filling.blocks:
        file.write(block.head)
        file.seek(block.zeros, 1)
        file.write(block.tail)
    shutil.copyfileobj(source, file)
    file.truncate(file.tell())
    for at, changed in filling.changes.items():
        file.seek(at)
        file.write(changed)


def _behind(source: BinaryIO, size: int, missing: int) -> Filling:  # noqa: ARG001
    """Adds bytes after the end of a JPEG, where nothing is read."""
    return Filling(size, (Block(b"", missing),))


def _text(source: BinaryIO, size: int, missing: int) -> Filling:  # noqa: ARG001
    return Filling(size, (Block(b"\n" * missing, 0),))


def _mp4(source: BinaryIO, size: int, missing: int) -> Filling:  # noqa: ARG001
    zeros = max(missing - 8, 0)
    return Filling(size, (Block(struct.pack(">I4s", zeros + 8, b"free"), zeros),))


def _png(source: BinaryIO, size: int, missing: int) -> Filling:  # noqa: ARG001
    """Adds a private chunk to a PNG, before the chunk that ends the file."""
    zeros, kind = max(missing - 12, 0), b"rhPd"
    checksum = zlib.crc32(kind)
    for piece in _pieces(zeros, len(_ZEROS)):
        checksum = zlib.crc32(memoryview(_ZEROS)[:piece], checksum)
    return Filling(size - 12, (Block(struct.pack(">I4s", zeros, kind), zeros, struct.pack(">I", checksum)),))


def _riff(source: BinaryIO, size: int, missing: int) -> Filling:  # noqa: ARG001
    """Adds a junk chunk to a WAV or WebP, at an even position and of an even size."""
    odd = size % 2
    zeros = max(missing - odd - 8, 0)
    zeros += zeros % 2
    head = bytes(odd) + struct.pack("<4sI", b"JUNK", zeros)
    return Filling(size, (Block(head, zeros),), {4: struct.pack("<I", size + len(head) + zeros - 8)})


def _glb(source: BinaryIO, size: int, missing: int) -> Filling:  # noqa: ARG001
    """Adds to a GLB a chunk of an unknown kind, which readers must skip."""
    zeros = -(-max(missing - 8, 0) // 4) * 4
    return Filling(
        size, (Block(struct.pack("<I4s", zeros, b"PAD\0"), zeros),), {8: struct.pack("<I", size + 8 + zeros)}
    )


def _mp3(source: BinaryIO, size: int, missing: int) -> Filling:  # noqa: ARG001
    """Adds ID3 tags with nothing but padding to the start of an MP3."""
    blocks = []
    for piece in _pieces(missing, _ID3_MOST + 10):
        zeros = max(piece - 10, 0)
        length = bytes(zeros >> shift & 0x7F for shift in (21, 14, 7, 0))
        blocks.append(Block(b"ID3\x04\x00\x00" + length, zeros))
    return Filling(0, tuple(blocks))


def _flac(source: BinaryIO, size: int, missing: int) -> Filling:  # noqa: ARG001
    """Adds padding blocks to a FLAC after the first block, which describes the stream."""
    source.seek(4)
    was_last = source.read(1)[0] & _LAST_BLOCK
    sizes = [max(piece - 4, 0) for piece in _pieces(missing, _FLAC_MOST + 4)]
    kinds = [1] * (len(sizes) - 1) + [1 | was_last]
    blocks = (Block(struct.pack(">I", kind << 24 | zeros), zeros) for kind, zeros in zip(kinds, sizes, strict=True))
    return Filling(_STREAMINFO_END, tuple(blocks), {4: b"\x00"})


def _pieces(total: int, most: int) -> Iterator[int]:
    while total > 0:
        yield min(total, most)
        total -= most


_PLANS: Final[dict[str, Callable[[BinaryIO, int, int], Filling]]] = {
    ".mp4": _mp4,
    ".mov": _mp4,
    ".png": _png,
    ".wav": _riff,
    ".webp": _riff,
    ".glb": _glb,
    ".mp3": _mp3,
    ".flac": _flac,
    ".txt": _text,
}
