"""Draws text: captions over a video (`captions`), and a title as a clip (`title_clip`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import av
from PIL import Image, ImageDraw, ImageOps

from rh_prefect.errors import InputError
from rh_prefect.media.edit.frames_and_thumbnails import Font, flat, font_for, missing_letter, open_image
from rh_prefect.media.edit.output import write_pictures
from rh_prefect.media.edit.single_file_edits import overlaid, write_film
from rh_prefect.media.edit.subtitle_writer import Cue
from rh_prefect.media.edit.video_reader import USUAL_RATE, Shape, even, fitted, shape_of

Place: TypeAlias = Literal["bottom", "top"]

_INK, _EDGE = "white", "black"
_GROUND = (16, 16, 20)
_WIDTH = 0.9
"""Maximum width of a line of text, as a share of the picture's width."""

_WORD = re.compile(r"\s*[^\s\u2e80-\uffff]+|\s*[\u2e80-\uffff]")
"""A word, or a Chinese or Japanese character, with the spaces before it."""

_MARGIN = 0.05
_TITLE = 0.1
"""Height of a title's letters, as a share of the picture's height."""

_FADE = 0.4
_VEIL = 0.55
"""Brightness of the picture under a title, as a share."""


def captions(
    video: Path,
    to: Path,
    *,
    cues: Sequence[Cue],
    place: Place = "bottom",
    size: float = 0.05,
    font: Path | None = None,
) -> float:
    """Draws captions over a video at their times, and keeps the sound; returns the length of the video in seconds.

    `size` is the height of the letters as a fraction of the picture's height; `font` is a TrueType or OpenType file.
    """
    if not cues:
        raise InputError(f"There are no captions for {video}. What to do: pass text, or subtitles that contain text.")
    look = _font_of("".join(cue.text for cue in cues), font)
    canvas = Shape.around([shape_of(video)])
    return write_film(to, canvas, _captioned(fitted(video, canvas), canvas, cues, place, (size, look)), video)


def title_clip(
    text: str,
    to: Path,
    *,
    seconds: float,
    width: int = 1280,
    height: int = 720,
    image: Path | None = None,
    font: Path | None = None,
) -> float:
    """Makes a silent video of text on a dark background or darkened picture; returns the video's length in seconds."""
    ground = Image.new("RGB", (even(width), even(height)), _GROUND)
    if image is not None:
        picture = ImageOps.fit(flat(open_image(image)), ground.size, Image.Resampling.LANCZOS)
        ground = Image.blend(ground, picture, _VEIL)
    letters = lettered(text, ground.size, _TITLE, _font_of(text, font))
    ground.paste(letters, ((ground.width - letters.width) // 2, (ground.height - letters.height) // 2), letters)
    count, black = max(1, round(seconds * USUAL_RATE)), Image.new("RGB", ground.size)
    steps = max(1, round(min(_FADE, seconds / 3) * USUAL_RATE))
    shares = (min(1.0, (number + 1) / steps, (count - number) / steps) for number in range(count))
    return write_pictures(to, ground.size, (Image.blend(black, ground, share) for share in shares))


def lettered(text: str, size: tuple[int, int], share: float, font_of: Callable[[int], Font]) -> Image.Image:
    """Draws text on a transparent picture of the text's size, in lines of at most 90 % of the width in `size`.

    The height of the letters is `share` of the height in `size`, or less if the lines would not fit. Raises an
    `InputError` if they do not fit in the smallest letters either.
    """
    for letters in (share, share * 0.7, share * 0.5, share * 0.35):
        pixels = max(8, round(size[1] * letters))
        font, edge = font_of(pixels), max(1, pixels // 12)
        draw = ImageDraw.Draw(Image.new("RGBA", (1, 1)))
        lines = "\n".join(_wrapped(text, font, size[0] * _WIDTH))
        box = draw.multiline_textbbox((0, 0), lines, font=font, align="center", stroke_width=edge)
        if box[3] - box[1] <= size[1] * _WIDTH:
            break
    else:
        raise InputError(
            f"The text that begins with {text[:40]!r} does not fit into a picture of {size[0]} x {size[1]} pixels, "
            "even in small letters. What to do: use a shorter text, or divide it."
        )
    wide, high = even(round(box[2] - box[0])), even(round(box[3] - box[1]))
    picture = Image.new("RGBA", (min(wide, size[0]), min(high, size[1])))
    ImageDraw.Draw(picture).multiline_text(
        (-box[0], -box[1]), lines, fill=_INK, font=font, align="center", stroke_width=edge, stroke_fill=_EDGE
    )
    return picture


def _font_of(text: str, file: Path | None) -> Callable[[int], Font]:
    """Returns a function that takes a size in pixels and returns a font with all characters in a text."""
    if letter := missing_letter(text, font_for(text, 16, file)):
        raise InputError(
            f"No font for the character {letter!r} was found. Nothing was made, and nothing was paid. What to do: pass "
            "as `font` a font file that contains the character, or install such a font (Noto Sans CJK)."
        )
    return lambda size: font_for(text, size, file)


def _wrapped(text: str, font: Font, room: float) -> Iterator[str]:
    """Divides a text into lines, between words, or between characters if there are no spaces or a word is too long."""
    for paragraph in text.splitlines():
        line = ""
        for word in _WORD.findall(paragraph):
            if line and font.getlength((line + word).rstrip()) > room:
                yield line.rstrip()
                line = ""
            for letter in word.lstrip() if not line else word:
                if line and letter != " " and font.getlength(line + letter) > room:
                    yield line.rstrip()
                    line = ""
                line += letter
        yield line.rstrip()


def _captioned(
    frames: Iterable[av.VideoFrame],
    canvas: Shape,
    cues: Sequence[Cue],
    place: str,
    look: tuple[float, Callable[[int], Font]],
) -> Iterator[av.VideoFrame]:
    """Yields the frames of a video, with each text drawn over the frames between its start and its end."""
    rest, at = iter(frames), 0
    margin = round(_MARGIN * canvas.height)
    for cue in periods(cues):
        first, end = round(cue.start * canvas.rate), round(cue.end * canvas.rate)
        if end <= max(at, first):
            continue
        yield from islice(rest, max(0, first - at))
        letters = lettered(cue.text, (canvas.width, canvas.height), *look)
        top = margin if place == "top" else canvas.height - letters.height - margin
        under = islice(rest, end - max(at, first))
        yield from overlaid(under, canvas, letters, ((canvas.width - letters.width) // 2, max(0, top)))
        at = end
    yield from rest


def periods(cues: Sequence[Cue]) -> list[Cue]:
    """Divides the time into periods in each of which the same texts are shown; overlapping texts become one text."""
    times = sorted({time for cue in cues for time in (cue.start, cue.end)})
    found = []
    for start, end in pairwise(times):
        texts = [cue.text for cue in cues if cue.start < end and cue.end > start]
        if texts:
            found.append(replace(cues[0], start=start, end=end, text="\n".join(texts)))
    return found
