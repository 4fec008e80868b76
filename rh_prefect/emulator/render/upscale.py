"""Models that make more of what is there: larger pictures, larger videos, more frames a second."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageFilter

from rh_prefect.emulator.render import video
from rh_prefect.emulator.render.picture import load
from rh_prefect.emulator.render.request import Request, Size, even

_TIMES = {"720p": 1.5, "1080p": 2.0, "2k": 2.5, "4k": 3.0}
"""Long side of the output in long sides of the emulator: larger where more is asked for, and small all the same."""
_LEAST_GAIN = 1.25
_MOST_LONG_SIDES = 4
_MOST_FPS = 60


def enlarge_picture(request: Request) -> Image.Image:
    """Enlarges the picture of a request by the scale that it asks for, and sharpens it.

    The result is at most four long sides long, unless the picture that was sent is larger than that.
    """
    picture = load(request.images[0])
    asked = float(str(request.value("scale", "upscale") or 2).lower().rstrip("x"))
    most = max(max(picture.size), _MOST_LONG_SIDES * request.limits.long_side) / max(picture.size)
    scale = max(1.0, min(asked, most))
    size = (round(picture.width * scale), round(picture.height * scale))
    large = picture.resize(size, Image.Resampling.LANCZOS)
    return large.filter(ImageFilter.UnsharpMask(radius=1.4, percent=60, threshold=2))


def enhance_video(request: Request, to: Path) -> None:
    """Makes that very video larger, smoother, or both, as the model does; its sound is kept."""
    source = request.videos[0]
    about = video.facts(source)
    size = _larger(request, about.size)
    fps = _faster(request, about.fps)
    frames = video.steady(source, fps, blend=fps != about.fps, most=request.limits.max_seconds)
    sound = video.sound_of(source) if about.has_sound else None
    video.write_film(to, frames, size=size, fps=fps, sound=sound, variant=request.variant)


def _larger(request: Request, size: Size) -> Size:
    asked = request.value("targetResolution")
    if asked is None:
        return even(size)
    long_side = max(_TIMES.get(str(asked).lower(), 2.0) * request.limits.long_side, _LEAST_GAIN * max(size))
    scale = long_side / max(size)
    return even((round(size[0] * scale), round(size[1] * scale)))


def _faster(request: Request, fps: Fraction) -> Fraction:
    asked = request.value("targetFps")
    if asked is not None:
        return fps if fps >= float(str(asked)) else Fraction(str(asked))
    return min(2 * fps, Fraction(_MOST_FPS)) if request.names("fps-increaser") and fps < _MOST_FPS else fps
