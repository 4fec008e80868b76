"""Reads and writes video files (H.264 with AAC sound) frame by frame, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image

from rh_prefect.emulator.render.request import Size, even
from rh_prefect.errors import MediaError
from rh_prefect.media.edit.audio_samples import Pieces, Sound
from rh_prefect.media.edit.output import Film, create_file
from rh_prefect.media.edit.video_reader import FASTEST, USUAL_RATE, Shape, fitted, opened, picture_of
from rh_prefect.media.probe import probe

Picture = Image.Image | av.VideoFrame


def shape_of(path: Path) -> Shape:
    """Reads size, frame rate and sound of a video; also of an HDR video, which edits refuse."""
    known = probe(path)
    with opened(path) as file:
        rate = Fraction(picture_of(file, path).average_rate or USUAL_RATE)
    return Shape(known.width or 2, known.height or 2, min(rate, FASTEST), tagged=True, has_audio=bool(known.has_audio))


def seconds_of(path: Path) -> float:
    """Reads the length of a sound or a video."""
    return probe(path).seconds or 0.0


def frames_of(path: Path, size: Size, fps: Fraction, *, most: float | None = None) -> Iterator[av.VideoFrame]:
    """Reads a video, upright, in a size and at a constant rate; at most the given number of seconds."""
    canvas = Shape(*even(size), fps, tagged=True, has_audio=False)
    return islice(fitted(path, canvas, "stretch"), None if most is None else round(most * fps))


def pictures_of(path: Path, size: Size, fps: Fraction, *, most: float | None = None) -> Iterator[Image.Image]:
    """Reads a video as RGB pictures; see `frames_of`."""
    for frame in frames_of(path, size, fps, most=most):
        yield cast(Image.Image, frame.to_image())  # type: ignore[no-untyped-call]  # PyAV leaves it untyped


def write_film(
    to: Path, frames: Iterable[Picture], *, size: Size, fps: Fraction, sound: Pieces | None = None, variant: str = ""
) -> None:
    """Writes an MP4 that any player opens, of frames that are resized to the size, rounded to even numbers.

    The sound is cut at the end of the frames, or continued with silence. `variant` is in the metadata, so that files
    with the same frames differ.
    """
    canvas = Shape(*even(size), fps, tagged=True, has_audio=sound is not None)
    with create_file(to) as file:
        file.metadata.update({"comment": variant} if variant else {})
        film = Film(file, canvas)
        film.write((video_frame(frame, even(size)) for frame in frames), None if sound is None else Sound(sound))
        if not film.seconds:
            raise MediaError(f"{to.name} has no frames: the uploaded video is empty.")


def video_frame(picture: Picture, size: Size) -> av.VideoFrame:
    """Returns a picture as a frame of `write_film`, which converts every other picture each time that it is shown."""
    if isinstance(picture, Image.Image):
        picture = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
    return picture.reformat(
        *size,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.LANCZOS,
    )
