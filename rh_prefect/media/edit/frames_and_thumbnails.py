"""Thumbnails, contact sheets and single frames of videos."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import compress
from pathlib import Path
from statistics import median
from typing import Literal, TypeAlias

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import Image, ImageCms, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from rh_prefect.errors import InputError, MediaError
from rh_prefect.media.edit.output import format_for, write_image
from rh_prefect.media.edit.video_reader import (
    USUAL_RATE,
    frames_of,
    opened,
    picture_begin,
    picture_of,
    reading,
    turns_of,
)

_BACKGROUND = (24, 24, 27)
"""The colour (RGB) behind transparent parts and between the pictures of a contact sheet."""

_SIDES = (512, 384, 256, 192, 128, 96, 64)
_SHARES = {"first": Fraction(0), "middle": Fraction(1, 2), "last": Fraction(1)}
_QUALITIES = (82, 65, 45)
_TURNS = (Image.Transpose.TRANSPOSE, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)

At: TypeAlias = "float | Literal['first', 'middle', 'last']"
"""The position of a frame in a video: a time in seconds, or the first, middle or last frame."""


def frame(video: Path, to: Path, *, at: At = "first") -> None:
    """Saves a frame of a video as `.png` or `.jpg`, such as the last frame, with which the next clip can begin."""
    format_for(to, "picture")
    write_image(_frame(video, at), to)


def convert_image(source: Path, to: Path) -> None:
    """Saves a picture, with its rotation applied, as `.png` or `.jpg`; a JPEG loses transparency."""
    write_image(image_for(source, to), to)


def image_for(source: Path, to: Path) -> Image.Image:
    """Returns a picture, upright, in a mode that the new file's format supports."""
    form, image = format_for(to, "picture"), open_image(source)
    return image.convert("RGBA") if form == "PNG" and image.has_transparency_data else flat(image)


def open_image(path: Path, *, side: int | None = None) -> Image.Image:
    """Returns a picture, upright, in sRGB with 8-bit values; with `side` (pixels), it may be decoded smaller."""
    with reading(path), Image.open(path) as image:
        if side is not None:
            # JPEG can be decoded at an eighth of its size, with as little memory.
            image.draft("RGB", (side, side))
        return _in_srgb(in_eight_bits(ImageOps.exif_transpose(image)))


_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's mode for the colour space of a profile."""

_COLOURS = (np.indices((6, 6, 6), np.uint8) * 51).reshape(3, 6, 36).transpose(1, 2, 0)
"""Red, green and blue in all combinations of 6 values."""

_SAME = 3
"""Largest difference of two 8-bit values that is not seen; profiles of sRGB differ that much."""


def _in_srgb(image: Image.Image) -> Image.Image:
    """Converts a picture from its colour profile to sRGB, since videos and most JPEGs have no profile."""
    with suppress(ImportError, OSError, ValueError, ImageCms.PyCMSError):  # an unusable profile has no effect
        if "icc_profile" not in image.info:
            return image
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        mode = _MODES.get(profile.profile.xcolor_space, "")
        if not mode or (mode != "RGB" and not image.mode.startswith(mode)):
            return image
        to_srgb = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "RGB":
            converted = np.asarray(to_srgb.apply(Image.fromarray(_COLOURS)))
            if np.ptp([_COLOURS, converted], axis=0).max() <= _SAME:
                return image
        alpha = None
        if image.has_transparency_data:
            image = image.convert("RGBA")
            alpha = image.getchannel("A")
        image = to_srgb.apply(image.convert(mode))
        image.info.pop("icc_profile")
        if alpha is not None:
            image.putalpha(alpha)
    return image


def thumbnail(source: Path, *, max_bytes: int = 30_000, side: int = _SIDES[0]) -> bytes:
    """Makes a JPEG, of at most `max_bytes` and `side` pixels, from a picture or from the middle frame of a video."""
    image = still(source, side=side)
    for smaller in (side, *(one for one in _SIDES if one < side)):
        image.thumbnail((smaller, smaller))
        for quality in _QUALITIES:
            out = io.BytesIO()
            image.save(out, "JPEG", quality=quality, optimize=True)
            if out.getbuffer().nbytes <= max_bytes:
                return out.getvalue()
    raise InputError(f"No thumbnail of {source} fits in {max_bytes} bytes. What to do: allow a few thousand bytes.")


def still(source: Path, *, side: int) -> Image.Image:
    """Returns a picture in RGB, upright, or a video's middle frame; a large picture may be decoded smaller."""
    try:
        return flat(open_image(source, side=side))
    except MediaError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            return _frame(source, "middle")
        raise


def _frame(video: Path, at: At) -> Image.Image:
    """Returns a frame of a video; seeks to an earlier key frame if possible, otherwise decodes from the start."""
    image = _look(video, at, jump=True) or _look(video, at, jump=False)
    if image is None:
        raise MediaError(f"The video {video} has no frames. What to do: create or download it again.")
    return image


def _look(video: Path, at: At, *, jump: bool) -> Image.Image | None:
    with opened(video) as file:
        stream = picture_of(file, video)
        target = _time_at(file, stream, video, at)
        if jump and not _jumped(file, stream, target):
            return None
        shown: av.VideoFrame | None = None
        for one in frames_of(file, stream, video):
            if at != "last" and (one.pts or 0) > target:
                if shown is None and jump:
                    return None  # the key frame comes after it
                shown = shown or one
                break
            shown = one
        else:
            if isinstance(at, int | float) and shown is not None and _end_of(shown, stream) <= target:
                raise MediaError(f"The video {video} has no frame at {at:g} s. What to do: give an earlier time.")
        return frame_image(shown, stream) if shown is not None else None


def _time_at(file: InputContainer, stream: VideoStream, video: Path, at: At) -> int:
    """Returns the time of a frame, in units of the stream's time base."""
    clock, start = Fraction(stream.time_base or 1), stream.start_time or 0
    if isinstance(at, int | float):
        begin = picture_begin(video) or Fraction(0)
        return int(begin / clock) + int(Fraction(at).limit_denominator(100_000) / clock)
    length = Fraction(stream.duration or 0) or Fraction(file.duration or 0, av.time_base) / clock
    return start + int(length * _SHARES[at])


def _end_of(frame: av.VideoFrame, stream: VideoStream) -> Fraction:
    """Returns the end of a video's last frame, in units of the time base; the frame is as long as the other frames."""
    length = 1 / (Fraction(stream.time_base or 1) * (stream.average_rate or USUAL_RATE))
    return (frame.pts or 0) + length


def _jumped(file: InputContainer, stream: VideoStream, target: int) -> bool:
    try:
        file.seek(target, stream=stream)
    except (OSError, av.FFmpegError):
        return False
    return True


def frame_image(frame: av.VideoFrame, stream: VideoStream) -> Image.Image:
    """Returns a frame as a player shows it: upright, with square pixels."""
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    if stream.sample_aspect_ratio not in (None, 0, 1):
        image = image.resize((max(1, round(frame.width * stream.sample_aspect_ratio)), frame.height))
    for turn in compress(_TURNS, turns_of(frame)):
        image = image.transpose(turn)
    return image


_WHITES = {"I": (0xFF, 0xFFFF), "F": (1, 0xFF, 0xFFFF)}
"""The values that may stand for white, by Pillow's mode of a picture; in modes not listed, white is 0xFFFF."""


def in_eight_bits(image: Image.Image) -> Image.Image:
    """Returns a picture whose values have 8 bits; Pillow itself turns all greater values, as in a depth map, white.

    Integers and floats outside the usual ranges, such as distances in millimetres, are scaled to the full grey range.
    """
    if image.mode not in _WHITES and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.float32)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    white = next((one for one in _WHITES.get(image.mode, (0xFFFF,)) if low >= 0 and high <= one), None)
    black, span = (0.0, white) if white is not None else (low, high - low)
    clear = image.info.get("transparency")
    alpha = np.where(values == clear, 0, 255).astype(np.uint8) if isinstance(clear, int) else None
    # In place, since a large picture of floats takes much memory.
    np.nan_to_num(values, copy=False, nan=low, posinf=high, neginf=low)
    values -= black
    values *= 255 / (span or 1)
    grey = Image.fromarray(np.rint(values, out=values).astype(np.uint8))
    if alpha is not None:
        grey.putalpha(Image.fromarray(alpha))
    return grey


def flat(image: Image.Image) -> Image.Image:
    """Returns a picture in RGB; its transparent parts get the background colour."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    over = image.convert("RGBA")
    ground = Image.new("RGBA", over.size, _BACKGROUND)
    return Image.alpha_composite(ground, over).convert("RGB")


_MOST_COLUMNS = 4
_INK = (228, 228, 231)
_EMPTY = (39, 39, 42)
_FONTS = (
    "DejaVuSans.ttf LiberationSans-Regular.ttf NotoSans-Regular.ttf Arial.ttf arial.ttf Helvetica.ttc "
    "NotoSansCJK-Regular.ttc PingFang.ttc msyh.ttc wqy-microhei.ttc DroidSansFallbackFull.ttf"
)
"""Fonts with more characters than Pillow's own font, by their names on Linux, macOS and Windows; the last five support
Chinese, Japanese and Korean.
"""

_NO_LETTER = "\U0010fffe"
"""A code point without a character; it is drawn like a character that the font lacks."""

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    sources: Sequence[Path],
    to: Path,
    *,
    columns: int | None = None,
    width: int = 1280,
    captions: Sequence[str] | None = None,
) -> None:
    """Saves a `.jpg` or `.png` grid, `width` pixels wide, of pictures and of videos' middle frames, row by row.

    All cells have one size, with the median of the aspect ratios; pictures of other aspect ratios are shown whole, with
    margins. Without `columns`, there are about as many columns as rows, at most four. Long `captions` are cut.
    """
    format_for(to, "picture")
    if columns is None:
        columns = min(_MOST_COLUMNS, math.ceil(math.sqrt(len(sources))))
    gap = max(2, width // 100)
    across = (width - gap * (columns + 1)) // max(1, columns)
    if not sources or columns < 1 or across < 8:
        raise InputError(
            f"A contact sheet of {len(sources)} pictures in {columns} columns cannot be {width} pixels "
            "wide. What to do: pass at least one picture, use fewer columns or increase the width."
        )
    pictures = [_small(source, across) for source in sources]
    down = max(8, round(across / median(picture.width / picture.height for picture in pictures)))
    strip = max(12, across // 12) if any(captions or ()) else 0
    texts = [*(captions or ()), *[""] * len(pictures)]
    cells = [_cell(picture, text, (across, down), strip) for picture, text in zip(pictures, texts)]
    write_image(_page(cells, columns, width, gap), to, quality=88)


def _page(cells: Sequence[Image.Image], columns: int, width: int, gap: int) -> Image.Image:
    """Returns a picture of cells of one size in a grid, with gaps between them and around them."""
    across, down = cells[0].width + gap, cells[0].height + gap
    page = Image.new("RGB", (width, gap + math.ceil(len(cells) / columns) * down), _BACKGROUND)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        page.paste(cell, (gap + column * across, gap + row * down))
    return page


def _small(source: Path, across: int) -> Image.Image:
    """Returns a picture no larger than a cell, so that a hundred large pictures are not in memory at once."""
    picture = still(source, side=across)
    picture.thumbnail((across, 2 * across))
    return picture


def _cell(picture: Image.Image, caption: str, size: tuple[int, int], strip: int) -> Image.Image:
    """Returns a picture, padded to a size, above a strip with its caption; the strip may have the height 0."""
    cell = Image.new("RGB", (size[0], size[1] + strip), _BACKGROUND)
    cell.paste(ImageOps.pad(picture, size, color=_EMPTY))
    if text := " ".join(caption.split()):
        font = font_for(text, max(9, round(strip * 0.62)))
        place = (0, size[1] + strip // 2)
        ImageDraw.Draw(cell).text(place, _cut(text, font, size[0]), fill=_INK, font=font, anchor="lm")
    return cell


def font_for(text: str, size: int, file: Path | None = None) -> Font:
    """Returns the font in a file; without a file, Pillow's own, or one of this machine if Pillow's lacks characters."""
    if file is not None:
        with reading(file):
            return ImageFont.truetype(str(file), size)
    own = ImageFont.load_default(size)
    if missing_letter(text, own):
        for name in _FONTS.split():
            with suppress(OSError):
                font = ImageFont.truetype(name, size)
                if not missing_letter(text, font):
                    return font
    return own


def missing_letter(text: str, font: Font) -> str:
    """Returns the first character in a text that the font lacks; empty if the font has all characters."""
    unknown = bytes(font.getmask(_NO_LETTER))
    letters = (letter for letter in dict.fromkeys(text) if not letter.isspace())
    return next((letter for letter in letters if bytes(font.getmask(letter)) == unknown), "")


def _cut(text: str, font: Font, room: int) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text.rstrip() + "…"
