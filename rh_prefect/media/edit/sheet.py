"""A contact sheet: many pictures and videos on one page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image, ImageDraw, ImageFont, ImageOps

from rh_prefect.errors import InputError
from rh_prefect.media.edit.atomic_output import image_format, write_image
from rh_prefect.media.edit.still import BACKGROUND, still

_MOST_COLUMNS = 4
_INK = (228, 228, 231)
_EMPTY = (39, 39, 42)
_FONTS = ("NotoSansCJK-Regular.ttc", "PingFang.ttc", "msyh.ttc", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf")
"""Fonts that know Chinese, Japanese and Korean, as they are called on Linux, macOS and Windows."""

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where everything goes, in pixels.

    Attributes:
        columns: Cells in a row.
        rows: Rows.
        width: Of the page.
        gap: Between cells, and around them.
        cell: Width and height of a picture's place.
        caption: Height of the strip under it; 0: no captions.
    """

    columns: int
    rows: int
    width: int
    gap: int
    cell: tuple[int, int]
    caption: int

    @property
    def height(self) -> int:
        return self.gap + self.rows * (self.cell[1] + self.caption + self.gap)

    def corner(self, number: int) -> tuple[int, int]:
        """The upper left corner of a cell."""
        row, column = divmod(number, self.columns)
        across, down = self.cell[0] + self.gap, self.cell[1] + self.caption + self.gap
        return self.gap + column * across, self.gap + row * down


def contact_sheet(
    sources: Sequence[Path],
    to: Path,
    *,
    columns: int | None = None,
    width: int = 1280,
    captions: Sequence[str] | None = None,
) -> None:
    """Shows pictures, and videos by their middle frame, in a grid.

    All cells have one size, by the middle one of the proportions; a picture of others is shown whole, with margins.

    Args:
        sources: Images and videos, row by row.
        to: The sheet, `.jpg` or `.png`.
        columns: Cells in a row; None: about as many as rows, four at most.
        width: Of the sheet, in pixels.
        captions: A line under each; a longer one is cut; where there are fewer than sources, the rest has none.

    Raises:
        MediaError: A source is missing or broken, or has no picture.
        InputError: There is nothing to show, or no room for it, or the name ends in something else.
        StoreError: The sheet cannot be written.
    """
    image_format(to)
    if columns is None:
        columns = min(_MOST_COLUMNS, math.ceil(math.sqrt(len(sources))))
    gap = max(2, width // 100)
    across = (width - gap * (columns + 1)) // max(1, columns)
    if not sources or columns < 1 or across < 8:
        raise InputError(
            f"No sheet of {len(sources)} pictures in {columns} columns can be {width} pixels wide. "
            "What to do: give at least one picture, fewer columns or more width."
        )
    pictures = [_small(source, across) for source in sources]
    down = max(8, round(across / median(picture.width / picture.height for picture in pictures)))
    captions = captions or ()
    caption = max(12, across // 12) if any(captions) else 0
    grid = _Grid(columns, math.ceil(len(sources) / columns), width, gap, (across, down), caption)
    write_image(_page(pictures, captions, grid), to, quality=88)


def _small(source: Path, across: int) -> Image.Image:
    """A picture no larger than a cell can need: a hundred large ones must not be in memory at once."""
    picture = still(source, side=across)
    picture.thumbnail((across, 2 * across))
    return picture


def _page(pictures: Sequence[Image.Image], captions: Sequence[str], grid: _Grid) -> Image.Image:
    page = Image.new("RGB", (grid.width, grid.height), BACKGROUND)
    draw = ImageDraw.Draw(page)
    for number, picture in enumerate(pictures):
        left, top = grid.corner(number)
        page.paste(ImageOps.pad(picture, grid.cell, color=_EMPTY), (left, top))
        if number < len(captions) and captions[number]:
            _write(draw, (left, top + grid.cell[1]), captions[number], grid)
    return page


def _write(draw: ImageDraw.ImageDraw, corner: tuple[int, int], caption: str, grid: _Grid) -> None:
    text = " ".join(caption.split())
    font = _font(text, max(9, round(grid.caption * 0.62)))
    text = _cut(text, font, grid.cell[0])
    draw.text((corner[0], corner[1] + grid.caption // 2), text, fill=_INK, font=font, anchor="lm")


def _font(text: str, size: int) -> _Font:
    """Pillow's own font, or for what that does not know, one of this machine, where there is one."""
    if any(ord(letter) > 0x2E7F for letter in text):
        for name in _FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)


def _cut(text: str, font: _Font, room: int) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text.rstrip() + "…"
