"""Stand-ins for video models: from pictures or text, from a video, and upscaling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageFilter

from rh_prefect.emulator.render import video_files
from rh_prefect.emulator.render.caption import label
from rh_prefect.emulator.render.picture import draw, fill, inset, load
from rh_prefect.emulator.render.request import Request, Size, even, fit, number
from rh_prefect.emulator.render.sound import pad_of
from rh_prefect.media.edit.audio_samples import Pieces, recording

_ZOOM = 0.14
_HELD = 0.12


def animate(request: Request, to: Path) -> None:
    """Makes a video for a request with pictures, or with text only.

    The video fades to a last-frame picture, and between several pictures. Its sound is the sound file of the request,
    or a quiet pad if the request asks for sound without a file.
    """
    pictures = [load(path) for path in request.images] or [draw(request)]
    size = even(request.size(pictures[0].size))
    fps = Fraction(request.limits.fps)
    seconds = _length(request)
    if request.is_on("loop"):
        pictures.append(pictures[0])
    frames = pan(pictures, size=size, count=max(1, round(seconds * fps)), seed=request.fingerprint)
    video_files.write_film(
        to,
        request.limits.until_stop(frames),
        size=size,
        fps=fps,
        sound=_sound(request, seconds),
        variant=request.variant,
    )


def pan(pictures: Sequence[Image.Image], *, size: Size, count: int, seed: str) -> Iterator[Image.Image]:
    """Moves over one picture, or over several that fade into each other."""
    # A little more than the frames' size keeps the nearest view sharp, and each frame cheap for every upload.
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
    """Returns the part of the picture that is seen at a moment, never wholly at an edge, to keep captions in view."""
    eased = at * at * (3 - 2 * at) * 0.6 + at * 0.4
    near = eased if number(seed + "zoom", below=2) else 1 - eased
    scale = 1 / (1 + _ZOOM * (0.15 + 0.85 * near))
    width, height = ground[0] * scale, ground[1] * scale
    left, up = ((number(seed + axis, below=3) - 1) * (eased - 0.5) * 0.9 for axis in "xy")
    x = (ground[0] - width) * (0.5 + 0.5 * left)
    y = (ground[1] - height) * (0.5 + 0.5 * up)
    return x, y, x + width, y + height


def _fade(place: float, count: int) -> tuple[int, float]:
    """Returns the visible picture and the share of the next picture; each picture is shown alone for a moment."""
    here = min(int(place), max(0, count - 2))
    part = min(1.0, max(0.0, (place - here - _HELD) / (1 - 2 * _HELD)))
    return here, part * part * (3 - 2 * part)


def _length(request: Request) -> float:
    if request.seconds is None and request.audios:
        return max(0.2, request.limits.cut(video_files.seconds_of(request.audios[0])))
    return request.seconds or request.limits.cut(5.0)


def _sound(request: Request, seconds: float) -> Pieces | None:
    if request.audios:
        return recording(request.audios[0])
    return _pad(request, seconds) if request.wants_sound else None


def _pad(request: Request, seconds: float) -> Pieces:
    yield pad_of(request, seconds)


_LARGEST = 2
"""The longest side of a reworked video, as a multiple of the emulator's `long_side`."""


def rework(request: Request, to: Path) -> None:
    """Makes a video from a video: the same pictures, with the prompt written into them.

    An extension continues after the last picture for the requested number of seconds. Reference pictures are laid into
    a corner. The sound is the request's own sound file, otherwise the video's own.
    """
    source = request.videos[0]
    shape = video_files.shape_of(source)
    sides = shape.width, shape.height
    size = even(fit(sides, min(max(sides), _LARGEST * request.limits.long_side)))
    seconds = _edited_length(request, source)
    frames = _captioned(request, _scenes(source, size, shape.rate, seconds), size)
    video_files.write_film(
        to,
        request.limits.until_stop(frames),
        size=size,
        fps=shape.rate,
        sound=_edited_sound(request, seconds, has_sound=shape.has_audio),
        variant=request.variant,
    )


def _edited_length(request: Request, source: Path) -> float:
    length = request.limits.cut(video_files.seconds_of(source))
    if request.names("exten"):
        return length + (request.seconds or request.limits.cut(5.0))
    return request.seconds or length


def _scenes(source: Path, size: Size, fps: Fraction, seconds: float) -> Iterator[Image.Image]:
    """Reads the video; if the video is too short, zooms slowly into the last picture."""
    count = 0
    last: Image.Image | None = None
    for last in video_files.pictures_of(source, size, fps, most=seconds):
        count += 1
        yield last
    if last is not None:
        yield from approach(last, round(seconds * fps) - count)


def approach(still: Image.Image, count: int) -> Iterator[Image.Image]:
    """Zooms into the middle of a picture, for the given number of frames."""
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


def _edited_sound(request: Request, seconds: float, *, has_sound: bool) -> Pieces | None:
    keeps = has_sound and str(request.value("keepOriginalSound")).lower() not in {"no", "false"}
    return recording(request.videos[0]) if keeps and not request.audios else _sound(request, seconds)


_TIMES = {"720p": 1.5, "1080p": 2.0, "2k": 2.5, "4k": 3.0}
"""The long side of an upscaled video by requested resolution, as a multiple of the emulator's `long_side`."""
_LEAST_GAIN = 1.25
_MOST_LONG_SIDES = 4
_MOST_FPS = 60


def enlarge_picture(request: Request) -> Image.Image:
    """Enlarges the picture in a request by the requested scale, and sharpens the picture.

    The result is at most four times `long_side` long, unless the input picture is larger.
    """
    picture = load(request.images[0])
    asked = float(str(request.value("scale", "upscale") or 2).lower().rstrip("x"))
    most = max(max(picture.size), _MOST_LONG_SIDES * request.limits.long_side) / max(picture.size)
    scale = max(1.0, min(asked, most))
    size = (round(picture.width * scale), round(picture.height * scale))
    large = picture.resize(size, Image.Resampling.LANCZOS)
    return large.filter(ImageFilter.UnsharpMask(radius=1.4, percent=60, threshold=2))


def enhance_video(request: Request, to: Path) -> None:
    """Enlarges the input video, raises its frame rate, or both; the sound does not change."""
    source = request.videos[0]
    shape = video_files.shape_of(source)
    size, fps = _larger(request, (shape.width, shape.height)), _faster(request, shape.rate)
    frames = video_files.frames_of(source, size, fps, most=request.limits.max_seconds)
    sound = recording(source) if shape.has_audio else None
    video_files.write_film(
        to, request.limits.until_stop(frames), size=size, fps=fps, sound=sound, variant=request.variant
    )


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
