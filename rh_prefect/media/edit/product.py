"""The file that an edit makes: whole at its name, or not there at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import OutputContainer

from rh_prefect.errors import StoreError


@contextmanager
def product(to: Path) -> Iterator[Path]:
    """Gives a name to write to; what is there in the end gets the final name, and after a failure nothing stays.

    Args:
        to: The final name; its folder must exist.

    Yields:
        A new name in the same folder, different for each caller, so that two may make the same file at once.

    Raises:
        StoreError: The place cannot be written.
    """
    part = to.with_name(f".{secrets.token_hex(6)}.part")
    try:
        yield part
        os.replace(part, to)  # noqa: PTH105 # like Path.replace, but says in a word that it is atomic
    except (OSError, av.FFmpegError) as error:
        raise StoreError(
            f"The file {to} could not be written: {getattr(error, 'strerror', None) or error}. "
            "What to do: check that its folder exists, may be written and has room, then run again."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def create_mp4(part: Path) -> OutputContainer:
    """Opens an MP4 for writing whose index will be at the front, so that it plays while it is still loading."""
    return av.open(str(part.absolute()), "w", format="mp4", options={"movflags": "+faststart"})
