"""Captions: text in a picture, wrapped, as large as fits, readable on any background."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache, lru_cache

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from rh_prefect.emulator.render.request import Size

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_FALLBACKS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallback.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
    "simhei.ttf",
    "Arial Unicode.ttf",
)
_PLAIN = str.maketrans(
    {"—": "-", "–": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "…": "...", "×": "x", "\u00a0": " "}
)
_MISSING = "\uffff"
_PIECES = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\uffef]|[^\s\u2e80-\u9fff\uac00-\ud7af\uf900-\uffef]+|\s+")
_MARGIN = 0.09
_SMALLEST = 9
_LARGEST_PART, _LABEL_PART = 0.075, 0.055
_LABEL_WIDTH = 0.66


@dataclass(frozen=True, slots=True)
class _Setting:
    font: Font
    lines: tuple[str, ...]
    line_height: int

    @property
    def height(self) -> int:
        return self.line_height * len(self.lines)

    def draw(self, size: Size, corner: tuple[int, int]) -> Image.Image:
        """Draws the lines from their upper left corner, as a mask."""
        words = Image.new("L", size, 0)
        pen = ImageDraw.Draw(words)
        for index, line in enumerate(self.lines):
            pen.text((corner[0], corner[1] + index * self.line_height), line, 255, self.font)
        return words


def write(picture: Image.Image, text: str, *, part: float = 0.5) -> Image.Image:
    """Writes text at the foot of a picture, on a shadow that fades upward.

    The margins are wide enough that a slow zoom over the picture keeps the words in view.

    Args:
        picture: A picture in RGB, which is not changed.
        text: Any text; it is cut, and ends in three dots, if it does not fit.
        part: The fraction of the picture's height that the text may take.

    Returns:
        A new RGB picture.
    """
    overlay = strip(picture.size, text, part=part)
    out = picture.copy()
    out.paste(overlay, (0, 0), overlay)
    return out


def strip(size: Size, text: str, *, part: float = 0.5) -> Image.Image:
    """Draws text with a shadow on a transparent picture (RGBA) of the given size."""
    overlay = Image.new("RGBA", size, (0, 0, 0, 0))
    if not text.strip() or min(size) < 4 * _SMALLEST:
        return overlay
    setting = _set(drawable(text), size, part, largest=_LARGEST_PART)
    width, height = size
    top = height - round(height * _MARGIN) - setting.height
    words = setting.draw(size, (round(width * _MARGIN), top))
    halo = words.filter(ImageFilter.GaussianBlur(max(1.0, setting.line_height / 9)))
    overlay.putalpha(_shadow(size, top - setting.line_height))
    overlay.paste((0, 0, 0, 255), (0, 0), halo.point(lambda value: min(190, value * 2)))
    overlay.paste((255, 255, 255, 255), (0, 0), words)
    return overlay


def label(size: Size, text: str) -> Image.Image:
    """Draws the words small, on a dark label at the upper left, where the emulator's pictures have no text.

    Returns:
        RGBA of the picture's size: made once, pasted on many frames.
    """
    overlay = Image.new("RGBA", size, (0, 0, 0, 0))
    if not text.strip() or min(size) < 4 * _SMALLEST:
        return overlay
    setting = _set(drawable(text), size, 0.34, largest=_LABEL_PART, across=_LABEL_WIDTH)
    left, top, pad = round(size[0] * 0.06), round(size[1] * 0.07), setting.line_height // 3
    right = left + round(max(setting.font.getlength(line) for line in setting.lines))
    box = (left - pad, top - pad // 2, right + pad, top + setting.height + pad // 2)
    ImageDraw.Draw(overlay).rounded_rectangle(box, pad, (12, 14, 22, 205))
    overlay.paste((255, 255, 255, 255), (0, 0), setting.draw(size, (left, top)))
    return overlay


def _shadow(size: Size, top: int) -> Image.Image:
    width, height = size
    column = Image.new("L", (1, height), 0)
    span = max(1, height - max(0, top))
    column.putdata([round(150 * min(1.0, max(0, row - top) / span * 1.25)) for row in range(height)])
    return column.resize((width, height))


def _set(text: str, size: Size, part: float, *, largest: float, across: float = 1 - 2 * _MARGIN) -> _Setting:
    """Finds the largest setting whose lines fit; in the smallest one, the text is cut."""
    width, height = size[0] * across, size[1] * (part - _MARGIN)
    first = max(_SMALLEST, round((size[0] * size[1]) ** 0.5 * largest))
    smallest = max(_SMALLEST, round(first * 0.55))
    few = 3 if size[0] >= size[1] else 5
    for point in range(first, smallest - 1, -1):
        font = font_for(text, point)
        line_height = round(point * 1.32)
        lines = _wrap(text, font, width)
        most = max(1, int(height // line_height))
        if len(lines) <= (most if point == smallest else min(most, few)):
            return _Setting(font, tuple(_balance(text, font, width, lines)), line_height)
    return _Setting(font, tuple(_shorten(lines[:most], font, width)), line_height)


def _wrap(text: str, font: Font, width: float) -> list[str]:
    lines, line = [], ""
    for piece in _PIECES.findall(text):
        if line and font.getlength((line + piece).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line = (line + piece).lstrip()
        while font.getlength(line.rstrip()) > width and len(line) > 1:
            cut = _fitting(line, font, width)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line.rstrip()] if line.strip() else lines


def _fitting(line: str, font: Font, width: float) -> int:
    """Returns how many characters fit, at least one; uses bisection, because a very long word is slow to measure."""
    fits = bisect_right(range(len(line) + 1), width, key=lambda letters: font.getlength(line[:letters])) - 1
    return max(1, fits)


def _balance(text: str, font: Font, width: float, lines: list[str]) -> list[str]:
    """Narrows the column while the number of lines stays the same, to avoid a last line of one word."""
    for narrow in (0.6, 0.7, 0.8, 0.9):
        if len(again := _wrap(text, font, width * narrow)) == len(lines):
            return again
    return lines


def _shorten(lines: list[str], font: Font, width: float) -> list[str]:
    last = lines[-1]
    while last and font.getlength(last + "...") > width:
        last = last[:-1]
    return [*lines[:-1], last.rstrip(" ,.;:") + "..."]


def drawable(text: str) -> str:
    """Rewrites a text so that this machine can draw it without boxes in place of characters.

    Accents are dropped where no font has them. A script that no font on this machine supports is described in words.
    """
    text = " ".join(text.split())[:1200]
    if _covers(_built_in(16), text) or _system_font(text) is not None:
        return text
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    kept = "".join(letter for letter in plain if _covers(_built_in(16), letter))
    if len(kept.strip()) >= 0.6 * len(text):
        return " ".join(kept.split())
    return f"(a prompt of {len(text)} characters, in a script that this machine has no font for)"


def font_for(text: str, point: int) -> Font:
    """Returns a font that has every character in a text, or otherwise Pillow's own font."""
    if _covers(_built_in(16), text):
        return _built_in(point)
    name = _system_font(text)
    return _built_in(point) if name is None else _load(name, point)


def _system_font(text: str) -> str | None:
    return next((name for name in _found() if _covers(_load(name, 16), text)), None)


@cache
def _found() -> tuple[str, ...]:
    return tuple(name for name in _FALLBACKS if _is_there(name))


def _is_there(name: str) -> bool:
    try:
        _load(name, 16)
    except OSError:
        return False
    return True


@lru_cache(64)
def _load(name: str, point: int) -> Font:
    return ImageFont.truetype(name, point)


@lru_cache(64)
def _built_in(point: int) -> Font:
    return ImageFont.load_default(point)


def _covers(font: Font, text: str) -> bool:
    return all(_has(font, letter) for letter in set(text) if not letter.isspace())


@lru_cache(8192)
def _has(font: Font, letter: str) -> bool:
    """Returns whether a font has a character; a missing character is drawn like one that no font has."""
    return bytes(font.getmask(letter)) != bytes(font.getmask(_MISSING))
