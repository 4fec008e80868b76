"""The file that an edit makes: whole at its name, or not there at all."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import av
from av.container import OutputContainer
from PIL import Image

from rh_prefect.errors import InputError, StoreError

_IMAGES: dict[str, Literal["PNG", "JPEG"]] = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


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
        part.replace(to)
    except (OSError, av.FFmpegError) as error:
        raise StoreError(
            f"The file {to} could not be written: {getattr(error, 'strerror', None) or error}. "
            "What to do: check that its folder exists, may be written and has room, then run again."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def create_mp4(part: Path) -> OutputContainer:
    """Opens an MP4 for writing whose index will be at the front, so that it plays while it is still loading."""
    return av.open(str(part.absolute()), "w", format="mp4", options={"movflags": "+faststart"})


def write_image(image: Image.Image, to: Path, *, quality: int = 92) -> None:
    """Saves a picture as the JPEG or PNG that its name says.

    Raises:
        InputError: The name ends in something else.
        StoreError: The place cannot be written.
    """
    out = io.BytesIO()
    image.save(out, image_format(to), quality=quality, optimize=True)
    with product(to) as part:
        # Pillow itself takes no notice when a full disk takes only some of the bytes.
        part.write_bytes(out.getvalue())


def image_format(to: Path) -> Literal["PNG", "JPEG"]:
    """The format that a picture's name stands for.

    Raises:
        InputError: It is neither PNG nor JPEG.
    """
    form = _IMAGES.get(to.suffix.lower())
    if form is None:
        raise InputError(f"A picture {to.name} cannot be made. What to do: let its name end in .png or .jpg.")
    return form
