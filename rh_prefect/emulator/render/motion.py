"""Video models that start from pictures or words: a slow pan and zoom over the very picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from PIL import Image

from rh_prefect.emulator.render import video
from rh_prefect.emulator.render.music import pad_of
from rh_prefect.emulator.render.picture import draw, fill, load
from rh_prefect.emulator.render.request import Request, Size, even, number
from rh_prefect.emulator.render.terrain import Array

_ZOOM = 0.14
_HELD = 0.12


def animate(request: Request, to: Path) -> None:
    """Makes a video of a request that brings pictures, or nothing but words.

    A last-frame picture, or more than one picture, is faded to. The model's own sound is a quiet pad, and only there
    where the request asks for sound; a sound file that came with the request is heard instead.
    """
    pictures = [load(path) for path in request.images] or [draw(request)]
    size = even(request.size(pictures[0].size))
    fps = Fraction(request.limits.fps)
    seconds = _length(request)
    if request.is_on("loop"):
        pictures.append(pictures[0])
    frames = pan(pictures, size=size, count=max(1, round(seconds * fps)), seed=request.fingerprint)
    video.write_film(to, frames, size=size, fps=fps, sound=_sound(request, seconds), variant=request.variant)


def pan(pictures: Sequence[Image.Image], *, size: Size, count: int, seed: str) -> Iterator[Image.Image]:
    """Moves over one picture, or over several that fade into each other.

    Args:
        pictures: RGB, of any size.
        size: The frames' size.
        count: How many frames.
        seed: Chooses the direction, and whether it comes nearer or goes away.

    Yields:
        The frames.
    """
    # A little more than the frames' size keeps the nearest view sharp, and each frame cheap whatever was uploaded.
    ground = (round(size[0] * (1 + _ZOOM)), round(size[1] * (1 + _ZOOM)))
    grounds = [fill(picture, ground) for picture in pictures]
    for index in range(count):
        at = index / max(1, count - 1)
        box = _view(ground, at, seed)
        here, part = _fade(at * (len(grounds) - 1), len(grounds))
        view = grounds[here].resize(size, Image.Resampling.BICUBIC, box=box)
        if part > 0:
            view = Image.blend(view, grounds[here + 1].resize(size, Image.Resampling.BICUBIC, box=box), part)
        yield view


def _view(ground: Size, at: float, seed: str) -> tuple[float, float, float, float]:
    """The part of the picture that is seen at a moment; never wholly at an edge, so that captions stay in view."""
    eased = at * at * (3 - 2 * at) * 0.6 + at * 0.4
    near = eased if number(seed + "zoom", below=2) else 1 - eased
    scale = 1 / (1 + _ZOOM * (0.15 + 0.85 * near))
    width, height = ground[0] * scale, ground[1] * scale
    left, up = ((number(seed + axis, below=3) - 1) * (eased - 0.5) * 0.9 for axis in "xy")
    x = (ground[0] - width) * (0.5 + 0.5 * left)
    y = (ground[1] - height) * (0.5 + 0.5 * up)
    return x, y, x + width, y + height


def _fade(place: float, count: int) -> tuple[int, float]:
    """Says which picture is seen, and how much of the next one; each is held for a moment."""
    here = min(int(place), max(0, count - 2))
    part = min(1.0, max(0.0, (place - here - _HELD) / (1 - 2 * _HELD)))
    return here, part * part * (3 - 2 * part)


def _length(request: Request) -> float:
    if request.seconds is None and request.audios:
        return max(0.2, request.limits.cut(video.seconds_of(request.audios[0])))
    return request.seconds or request.limits.cut(5.0)


def _sound(request: Request, seconds: float) -> Iterator[Array] | None:
    if request.audios:
        return video.sound_of(request.audios[0])
    return iter([pad_of(request, seconds)]) if request.wants_sound else None
