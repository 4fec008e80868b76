"""Captions: text in a picture, as large as fits, readable on any background."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from functools import partial

from PIL import Image, ImageDraw

from rh_prefect.display_texts import shortened
from rh_prefect.emulator.render.request import Size
from rh_prefect.errors import InputError
from rh_prefect.media.edit.frames_and_thumbnails import font_for, missing_letter
from rh_prefect.media.edit.lettering import lettered

_PLAIN = str.maketrans(
    {"—": "-", "–": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "…": "...", "×": "x", "\u00a0": " "}
)
_SMALLEST = 36
"""Length of a side in pixels below which a picture gets no text."""

_LENGTHS = (240, 120, 60, 30, 15, 8)
"""Numbers of characters to which a text is cut, until it fits."""

_MARGIN = 0.09
"""Distance of a caption from the edges, as a share: a slow zoom over the picture keeps the words in view."""

_GROUND = (12, 14, 22, 205)


def write(picture: Image.Image, text: str) -> Image.Image:
    """Returns a copy of an RGB picture with text at its foot."""
    overlay = label(picture.size, text, at_foot=True)
    out = picture.copy()
    out.paste(overlay, (0, 0), overlay)
    return out


def label(size: Size, text: str, *, at_foot: bool = False) -> Image.Image:
    """Draws text on a dark ground: large at the foot, or small at the upper left, where `write` puts no text.

    The result is a transparent picture (RGBA) of the given size, made once and pasted on many frames.
    """
    overlay, (width, height) = Image.new("RGBA", size), size
    across, down, part = (1 - 2 * _MARGIN, 0.4, 0.075) if at_foot else (0.66, 0.25, 0.055)
    letters = _letters(text, size, (width * across, height * down), part)
    if letters.height > 1:
        left, top, pad = round(width * _MARGIN), round(height * _MARGIN), max(2, round(height * 0.02))
        if at_foot:
            top = height - top - letters.height
        box = (left - pad, top - pad, left + letters.width + pad, top + letters.height + pad)
        ImageDraw.Draw(overlay).rounded_rectangle(box, pad, _GROUND)
        overlay.alpha_composite(letters, (left, top))
    return overlay


def _letters(text: str, size: Size, room: tuple[float, float], part: float) -> Image.Image:
    """Draws as much of a text as fits into a part of a picture; nothing, of one pixel, in a very small picture."""
    share = part * (size[0] * size[1]) ** 0.5 / room[1]
    for most in _LENGTHS if text.strip() and min(size) >= _SMALLEST else ():
        short = shortened(drawable(text), most)
        with suppress(InputError):
            return lettered(short, (round(room[0] / 0.9), round(room[1] / 0.9)), share * 0.9, partial(font_for, short))
    return Image.new("RGBA", (1, 1))


def drawable(text: str) -> str:
    """Rewrites a text so that this machine can draw it without boxes in place of characters.

    Accents are dropped where no font has them. A script that no font on this machine supports is described in words.
    """
    font = font_for(text, 16)
    if not missing_letter(text, font):
        return text
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    kept = "".join(letter for letter in plain if not missing_letter(letter, font))
    if len(kept.strip()) >= 0.6 * len(text):
        return kept
    return f"(a prompt of {len(text)} characters, in a script that this machine has no font for)"
