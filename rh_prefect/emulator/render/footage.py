"""Models that start from a video: edit, restyle, motion control, extension, lip-sync."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageOps

from rh_prefect.emulator.render import video
from rh_prefect.emulator.render.caption import label
from rh_prefect.emulator.render.music import pad_of
from rh_prefect.emulator.render.picture import inset, load
from rh_prefect.emulator.render.request import Request, Size, even, fit
from rh_prefect.emulator.render.terrain import Array

_LARGEST = 2
"""How many times the long side a video may keep of its own size."""


def rework(request: Request, to: Path) -> None:
    """Makes a video of a video: the same pictures, with the prompt written into them.

    An extension goes on after the last picture for the seconds that are asked for. Reference pictures are laid into
    a corner. The sound is the request's own sound file, else the video's own.
    """
    source = request.videos[0]
    about = video.facts(source)
    size = even(fit(about.size, min(max(about.size), _LARGEST * request.limits.long_side)))
    seconds = _length(request, about)
    frames = _captioned(request, _scenes(source, size, about.fps, seconds), size)
    video.write_film(
        to, frames, size=size, fps=about.fps, sound=_sound(request, about, seconds), variant=request.variant
    )


def _length(request: Request, about: video.Facts) -> float:
    if request.names("exten"):
        return request.limits.cut(about.seconds) + (request.seconds or request.limits.cut(5.0))
    return request.seconds or request.limits.cut(about.seconds)


def _scenes(source: Path, size: Size, fps: Fraction, seconds: float) -> Iterator[Image.Image]:
    """Plays the video; where it is too short, comes slowly nearer to its last picture."""
    count, last = 0, None
    for frame in video.frames_of(source, fps, most=seconds):
        last = ImageOps.fit(frame, size, Image.Resampling.BICUBIC) if frame.size != size else frame
        count += 1
        yield last
    if last is not None:
        yield from approach(last, round(seconds * fps) - count)


def approach(still: Image.Image, count: int) -> Iterator[Image.Image]:
    """Zooms into the middle of a picture, for so many frames."""
    width, height = still.size
    for index in range(count):
        edge = 0.07 * (index + 1) / count
        box = (width * edge, height * edge, width * (1 - edge), height * (1 - edge))
        yield still.resize(still.size, Image.Resampling.BICUBIC, box=box)


def _captioned(request: Request, frames: Iterator[Image.Image], size: Size) -> Iterator[Image.Image]:
    overlay = label(size, request.words or request.model.name)
    others = [load(path) for path in request.images]
    for frame in frames:
        shown = inset(frame, others) if others else frame.copy()
        shown.paste(overlay, (0, 0), overlay)
        yield shown


def _sound(request: Request, about: video.Facts, seconds: float) -> Iterator[Array] | None:
    if request.audios:
        return video.sound_of(request.audios[0])
    if about.has_sound and str(request.value("keepOriginalSound")).lower() not in {"no", "false"}:
        return video.sound_of(request.videos[0])
    return iter([pad_of(request, seconds)]) if request.wants_sound else None
