"""Edits of a single file: trim, resize, add a logo, make a clip from a picture, extract or add sound."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Literal, TypeAlias

import av
import numpy as np
from av.filter import Graph
from PIL import Image, ImageOps

from rh_prefect.errors import MediaError
from rh_prefect.media.edit.audio_samples import RATE, Sound, empty_sound, padded, recording
from rh_prefect.media.edit.filter_graphs import filtered, linked
from rh_prefect.media.edit.frames_and_thumbnails import flat, image_for, open_image
from rh_prefect.media.edit.mixdown import mix
from rh_prefect.media.edit.output import check_size, create_film, create_track, write_image, write_pictures
from rh_prefect.media.edit.video_reader import (
    USUAL_RATE,
    Fit,
    Shape,
    even,
    fitted,
    opened,
    picture_of,
    shape_of,
)
from rh_prefect.media.probe import file_type, pictures_of

Corner: TypeAlias = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
Zoom: TypeAlias = Literal["none", "in", "out"]

_LEAST_RATE = 10
"""Minimum frames per second of a cut, so that its length is exact to a tenth of a second."""
_ZOOM = 0.12
_MARGIN = 0.03


def resize(source: Path, to: Path, *, width: int, height: int, fit: Fit = "cover") -> float | None:
    """Resizes a picture or a video; a video keeps its sound, and gets an even width and height.

    `fit` fills the size and crops (`cover`), adds bars (`contain`) or distorts (`stretch`). Returns a
    video's length in seconds.
    """
    if file_type(source).kind == "image":
        write_image(_fitted_image(image_for(source, to), width, height, fit), to)
        return None
    canvas = Shape.around([shape_of(source)], width, height)
    return write_film(to, canvas, fitted(source, canvas, fit), source)


def trim(source: Path, to: Path, *, seconds: float, start: float = 0.0) -> float:
    """Saves a section of a video or a sound, and returns its length in seconds, shorter if the file ends earlier."""
    if file_type(source).kind == "image":
        raise MediaError(f"The file {source} is a picture, which has no length. What to do: give a video or a sound.")
    if not has_picture(source):
        return _write_sound(to, source, start=start, samples=round(seconds * RATE))
    canvas = _canvas_to_cut(source)
    first, count = round(start * canvas.rate), max(1, round(seconds * canvas.rate))
    frames = islice(fitted(source, canvas), first, first + count)
    opening = next(frames, None)
    if opening is None:
        raise _too_short(source, start)
    return write_film(to, canvas, chain([opening], frames), source, start=start)


def watermark(
    source: Path,
    logo: Path,
    to: Path,
    *,
    corner: Corner = "bottom-right",
    size: float = 0.15,
    opacity: float = 1.0,
) -> float | None:
    """Places a logo in a corner of a picture or a video; keeps transparent parts; returns a video's length in seconds.

    `size` is the logo's width as a fraction of the file's width; `opacity` is from 0, which is invisible, to 1.
    """
    if file_type(source).kind == "image":
        image = image_for(source, to).convert("RGBA")
        mark = _logo(logo, image.size, size, opacity)
        image.alpha_composite(mark, _corner(corner, image.size, mark.size))
        write_image(image if to.suffix.lower() == ".png" else flat(image), to)
        return None
    canvas = Shape.around([shape_of(source)])
    mark = _logo(logo, (canvas.width, canvas.height), size, opacity)
    place = _corner(corner, (canvas.width, canvas.height), mark.size)
    return write_film(to, canvas, overlaid(fitted(source, canvas), canvas, mark, place), source)


def still_clip(
    image: Path, to: Path, *, seconds: float, width: int | None = None, height: int | None = None, zoom: Zoom = "none"
) -> float:
    """Makes a silent video of a picture, in which the camera may move slowly; returns the video's length in seconds.

    A missing width or height follows from the other and the picture's proportions; without either, the size is kept.
    """
    picture = flat(open_image(image))
    width = width or round((height or picture.height) * picture.width / picture.height)
    height = height or round(width * picture.height / picture.width)
    check_size(width, height)
    picture = _fitted_image(picture, even(width), even(height), "cover")
    count = max(1, round(seconds * USUAL_RATE))
    shown = (_zoomed(picture, zoom, number / max(1, count - 1)) for number in range(count))
    return write_pictures(to, picture.size, shown)


def extract_audio(source: Path, to: Path, *, loudness: float | None = None) -> float:
    """Saves the sound of a file as `.m4a` or `.wav`, at a loudness in LUFS if given; returns the length in seconds.

    Sound before the first frame of a video is left out, so that the sound fits the picture.
    """
    if loudness is not None:
        return mix(source, None, to, loudness=loudness)
    return _write_sound(to, source)


def add_sounds(video: Path, audio: Path, to: Path) -> float:
    """Mixes a video's sound, if any, with a file's sound, up to the later end; returns the mix's length in seconds."""
    if not has_sound(video):
        return extract_audio(audio, to)
    with Sound(recording(video)) as own, Sound(recording(audio)) as other, create_track(to) as track:
        while True:
            pieces = own.read(RATE), other.read(RATE)
            samples = max(piece.shape[1] for piece in pieces)
            if not samples:
                return track.samples / RATE
            track.write(np.clip(padded(pieces[0], samples) + padded(pieces[1], samples), -1, 1))


def has_sound(video: Path) -> bool:
    """Returns whether a video has a sound track."""
    with opened(video) as file:
        picture_of(file, video)
        return bool(file.streams.audio)


def has_picture(path: Path) -> bool:
    """Returns whether a video or sound file has a picture track; a cover picture does not count."""
    with opened(path) as file:
        return bool(pictures_of(file))


def _canvas_to_cut(video: Path) -> Shape:
    """Returns a video's canvas for an exact cut: a frame rate below `_LEAST_RATE` is multiplied."""
    canvas = Shape.around([shape_of(video)])
    return replace(canvas, rate=canvas.rate * max(1, math.ceil(_LEAST_RATE / canvas.rate)))


def write_film(to: Path, canvas: Shape, frames: Iterable[av.VideoFrame], source: Path, *, start: float = 0.0) -> float:
    """Writes frames with the source's sound from `start` seconds on, and returns the film's length in seconds."""
    with Sound(recording(source, start)) as sound, create_film(to, canvas) as film:
        film.write(frames, sound)
    return film.seconds


def _write_sound(to: Path, source: Path, *, start: float = 0.0, samples: int = sys.maxsize) -> float:
    with Sound(recording(source, start)) as sound, create_track(to) as track:
        while (piece := sound.read(min(RATE, samples - track.samples))).shape[1]:
            track.write(piece)
        if not track.samples:
            raise _too_short(source, start) if start else empty_sound(source)
    return track.samples / RATE


def _too_short(source: Path, start: float) -> MediaError:
    return MediaError(f"The file {source} ends before {start:g} s. What to do: give an earlier start.")


def _fitted_image(image: Image.Image, width: int, height: int, fit: Fit) -> Image.Image:
    match fit:
        case "cover":
            return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
        case "contain":
            return ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS, color="black")
        case "stretch":
            return image.resize((width, height), Image.Resampling.LANCZOS)


def _logo(path: Path, size: tuple[int, int], share: float, opacity: float) -> Image.Image:
    """Returns the logo, scaled to a share of the picture's width, and at most as high as the picture."""
    logo = open_image(path).convert("RGBA")
    scale = min(share * size[0] / logo.width, size[1] * (1 - 2 * _MARGIN) / logo.height)
    logo = logo.resize((max(1, round(logo.width * scale)), max(1, round(logo.height * scale))))
    logo.putalpha(logo.getchannel("A").point([round(value * opacity) for value in range(256)]))
    return logo


def _corner(corner: Corner, size: tuple[int, int], logo: tuple[int, int]) -> tuple[int, int]:
    margin = round(_MARGIN * min(size))
    left = margin if corner.endswith("left") else size[0] - logo[0] - margin
    top = margin if corner.startswith("top") else size[1] - logo[1] - margin
    return max(0, left), max(0, top)


def overlaid(
    frames: Iterable[av.VideoFrame], canvas: Shape, logo: Image.Image, place: tuple[int, int]
) -> Iterator[av.VideoFrame]:
    """Draws a picture over each frame; `place` is the picture's upper left corner."""
    left, top = place
    matrix = ":out_color_matrix=bt709" if canvas.tagged else ""
    graph, clock = Graph(), 1 / canvas.rate
    film = graph.add_buffer(width=canvas.width, height=canvas.height, format=av.VideoFormat("yuv420p"), time_base=clock)
    mark = graph.add_buffer(width=logo.width, height=logo.height, format=av.VideoFormat("rgba"), time_base=clock)
    over = graph.add("overlay", f"x={left}:y={top}:eof_action=repeat")
    film.link_to(over, 0, 0)
    linked(graph, mark, f"scale=out_range=tv{matrix}", "format=yuva420p").link_to(over, 0, 1)
    linked(graph, over, "format=yuv420p", "buffersink")
    graph.configure()
    # `from_image` would drop the transparency.
    picture = av.VideoFrame.from_ndarray(np.asarray(logo.convert("RGBA")), format="rgba")
    picture.pts, picture.time_base = 0, clock
    mark.push(picture)
    mark.push(None)
    yield from filtered(graph, film, _timed(frames, clock), av.VideoFrame)


def _timed(frames: Iterable[av.VideoFrame], clock: Fraction) -> Iterator[av.VideoFrame]:
    for number, frame in enumerate(frames):
        frame.pts, frame.time_base = number, clock
        yield frame


def _zoomed(picture: Image.Image, zoom: Zoom, share: float) -> Image.Image:
    """Returns the part of a picture that the camera shows after a share (0 to 1) of its movement."""
    if zoom == "none":
        return picture
    scale = 1 + _ZOOM * (share if zoom == "in" else 1 - share)
    width, height = picture.width / scale, picture.height / scale
    left, top = (picture.width - width) / 2, (picture.height - height) / 2
    box = (left, top, left + width, top + height)
    return picture.resize(picture.size, Image.Resampling.BICUBIC, box=box)
