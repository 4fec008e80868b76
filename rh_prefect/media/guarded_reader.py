"""A reader whose failures come out as our own errors, and nobody else's do."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, cast

from rh_prefect.errors import MediaError

Door = Callable[[], AbstractContextManager[None]]
"""Makes the context in which foreign errors are turned into ours."""

BUFFER = 2**20


class GuardedReader(io.RawIOBase):
    """Reads from another reader, with the door closed around every read.

    What the code of a `with` block raises by itself is not touched, as it would be if the door stood around the block.

    Args:
        read: Gives at most this many bytes; none at the end.
        door: See `Door`.
    """

    def __init__(self, read: Callable[[int], bytes], door: Door) -> None:
        super().__init__()
        self._read = read
        self._door = door

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the base takes any buffer
        """Fills the buffer, or a part of it; 0 at the end."""
        with self._door():
            chunk = self._read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


def guarded(read: Callable[[int], bytes], door: Door) -> BinaryIO:
    """A buffered `GuardedReader`."""
    return cast(BinaryIO, io.BufferedReader(GuardedReader(read, door), BUFFER))


def in_time(read: Callable[[int], bytes], seconds: float, name: str) -> Callable[[int], bytes]:
    """A `read` that gives up on a stream that comes too slowly, or never ends.

    Args:
        read: The stream's own.
        seconds: How long reading it may take in all.
        name: What it is, for the message.
    """
    deadline = time.monotonic() + seconds

    def limited(length: int) -> bytes:
        if time.monotonic() > deadline:
            raise MediaError(
                f"The file {name} was not complete after {seconds:.0f} s of reading. What to do: check its host and "
                "the network, or make a copy of it in the store and give that."
            )
        return read(length)

    return limited


def from_pieces(pieces: Iterator[bytes]) -> Callable[[int], bytes]:
    """The `read` of a stream that comes in pieces of any length."""
    left = memoryview(b"")

    def read(length: int) -> bytes:
        nonlocal left
        while not left:
            piece = next(pieces, None)
            if piece is None:
                return b""
            left = memoryview(piece)
        taken, left = left[:length], left[length:]
        return bytes(taken)

    return read
