"""Single pictures: out of a video, or a file that is one already."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import Image, ImageOps, UnidentifiedImageError

from rh_prefect.errors import InputError, MediaError
from rh_prefect.media.edit.atomic_output import image_format, write_image
from rh_prefect.media.edit.video_reader import frames_of, opened, picture_of, reading

BACKGROUND = (24, 24, 27)
"""What shows through a picture's transparent parts, and between pictures."""

_MIDDLE, _LAST = Fraction(1, 2), Fraction(1)
_SIDES = (512, 384, 256, 192, 128, 96, 64)
_QUALITIES = (82, 65, 45)
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


def last_frame(video: Path, to: Path) -> None:
    """Saves the very last frame of a video, from which a next clip can go on.

    Args:
        video: The video.
        to: The picture, `.png` or `.jpg`.

    Raises:
        MediaError: The video is missing, broken or cut short, or has no picture.
        InputError: The name ends in something else.
        StoreError: The picture cannot be written.
    """
    image_format(to)
    write_image(_frame(video, _LAST), to)


def poster(video: Path, to: Path) -> None:
    """Saves the middle frame of a video; arguments and errors as in `last_frame`."""
    image_format(to)
    write_image(_frame(video, _MIDDLE), to)


def thumbnail(source: Path, *, max_bytes: int = 30_000) -> bytes:
    """Makes a small JPEG of a picture, or of the middle frame of a video.

    Args:
        source: The file.
        max_bytes: What the JPEG may weigh; the larger, the better it looks.

    Returns:
        The JPEG.

    Raises:
        MediaError: The file is missing or broken, or has no picture.
        InputError: No JPEG fits in so few bytes.
    """
    image = still(source, side=_SIDES[0])
    for side in _SIDES:
        image.thumbnail((side, side))
        for quality in _QUALITIES:
            data = _jpeg(image, quality)
            if len(data) <= max_bytes:
                return data
    raise InputError(f"No thumbnail of {source} fits in {max_bytes} bytes. What to do: allow a few thousand.")


def still(source: Path, *, side: int) -> Image.Image:
    """A picture in RGB, upright; or the middle frame of a video.

    Args:
        source: The file.
        side: Pixels that are enough for the caller: what is much larger may be decoded smaller.

    Raises:
        MediaError: The file is missing or broken, or has no picture.
    """
    try:
        with reading(source), Image.open(source) as image:
            # JPEG can be decoded at an eighth of its size, with as little memory.
            image.draft("RGB", (side, side))
            return _flat(ImageOps.exif_transpose(image))
    except MediaError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            return _frame(source, _MIDDLE)
        raise


def _frame(video: Path, share: Fraction) -> Image.Image:
    """The frame after so much of a video; found by a jump to a key frame, or where none is found, from the start."""
    image = _look(video, share, jump=True) or _look(video, share, jump=False)
    if image is None:
        raise MediaError(f"The video {video} has not a single frame. What to do: make or fetch it again.")
    return image


def _look(video: Path, share: Fraction, *, jump: bool) -> Image.Image | None:
    with opened(video) as file:
        stream = picture_of(file, video)
        wanted = _time_at(file, stream, share)
        if jump and not _jumped(file, stream, wanted):
            return None
        found = None
        for found in frames_of(file, stream, video):
            if share != _LAST and (found.pts or 0) >= wanted:
                break
        return _image_of(found, stream) if found is not None else None


def _time_at(file: InputContainer, stream: VideoStream, share: Fraction) -> int:
    """Where in a stream that is, in units of its time base."""
    length = Fraction(stream.duration or 0)
    if not length and file.duration and stream.time_base:
        length = Fraction(file.duration, av.time_base) / stream.time_base
    return (stream.start_time or 0) + int(length * share)


def _jumped(file: InputContainer, stream: VideoStream, wanted: int) -> bool:
    try:
        file.seek(wanted, stream=stream)
    except (OSError, av.FFmpegError):
        return False
    return True


def _image_of(frame: av.VideoFrame, stream: VideoStream) -> Image.Image:
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    turn = _TURNS.get(frame.rotation % 360)
    if stream.sample_aspect_ratio not in (None, 0, 1):
        image = image.resize((max(1, round(frame.width * stream.sample_aspect_ratio)), frame.height))
    return image.transpose(turn) if turn is not None else image


def _flat(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    over = image.convert("RGBA")
    ground = Image.new("RGBA", over.size, BACKGROUND)
    return Image.alpha_composite(ground, over).convert("RGB")


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()
