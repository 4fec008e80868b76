"""Draws sums as bars: lines of a terminal, a PNG or an HTML page."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from rh_prefect.display_names import cut_middle
from rh_prefect.errors import InputError
from rh_prefect.pipelines.document import visible
from rh_prefect.works.journal.costs_and_budget import amount_text

Bars = Mapping[str, Sequence[tuple[str, Decimal]]]
"""Names with amounts, by unit, in the order of the chart."""

_WIDTH, _ROW, _NAME, _BAR = 960, 26, 300, 520
"""Pixels of a PNG, of one bar with its space, of the names, and of the longest bar."""
_COLOUR = "#3569c4"


def lines(bars: Bars, *, by: str, width: int) -> Iterator[str]:
    """Yields the lines of a chart that fits a terminal."""
    for unit, rows in bars.items():
        amounts = [amount_text(amount, unit) for _, amount in rows]
        right, names = max(map(len, amounts)), max(len(visible(name)) for name, _ in rows)
        left = min(names, max(12, width // 2))
        longest = max(width - left - right - 4, 8)
        most = max(amount for _, amount in rows) or Decimal(1)
        yield f"{unit} by {by}"
        for (name, amount), text in zip(rows, amounts, strict=True):
            size = max(1, round(longest * amount / most)) if amount else 0
            yield f"{cut_middle(visible(name), left):{left}}  {text:>{right}}  {'█' * size}".rstrip()


def write(bars: Bars, to: Path, *, by: str, title: str) -> None:
    """Writes a chart as a PNG or an HTML file, by the extension of its name."""
    kind = to.suffix.lower()
    if kind not in (".png", ".html"):
        raise InputError(f"spend: --out {to} is neither a .png nor a .html file. What to do: give one of these names.")
    try:
        if kind == ".html":
            to.write_text(_page(bars, by=by, title=title), encoding="utf-8")
        else:
            picture(bars, by=by, title=title).save(to)
    except OSError as error:
        raise InputError(
            f"spend: --out {to} cannot be written: {error.strerror or error}. What to do: give a file in an existing "
            "folder that you may write to."
        ) from None


def _page(bars: Bars, *, by: str, title: str) -> str:
    parts = []
    for unit, rows in bars.items():
        most = max(amount for _, amount in rows) or Decimal(1)
        cells = "".join(
            f"<tr><td>{html.escape(visible(name))}<td>{amount_text(amount, unit)}"
            f"<td><div style='width:{100 * amount / most:.1f}%'></div>"
            for name, amount in rows
        )
        parts.append(f"<h2>{html.escape(unit)} by {by}</h2><table>{cells}</table>")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>"
        "body{font:15px system-ui;margin:2rem;color-scheme:light dark}table{width:100%;border-collapse:collapse}"
        "td{padding:3px 12px 3px 0;white-space:nowrap}td:nth-child(2){text-align:right}td:last-child{width:70%}"
        f"div{{background:{_COLOUR};height:1em;border-radius:2px}}</style><h1>{html.escape(title)}</h1>{''.join(parts)}\n"
    )


def picture(bars: Bars, *, by: str, title: str) -> Image.Image:
    """Draws a chart."""
    rows = sum(len(one) + 2 for one in bars.values())
    page = Image.new("RGB", (_WIDTH, _ROW * (rows + 2)), "white")
    draw, font, y = ImageDraw.Draw(page), ImageFont.load_default(15), _ROW // 2
    draw.text((16, y), title, fill="black", font=ImageFont.load_default(20))
    for unit, one in bars.items():
        y += 2 * _ROW
        draw.text((16, y), f"{unit} by {by}", fill="black", font=font)
        most = max(amount for _, amount in one) or Decimal(1)
        for name, amount in one:
            y += _ROW
            end = 16 + _NAME + round(_BAR * amount / most)
            draw.text((16, y), cut_middle(visible(name), 38), fill="black", font=font)
            draw.rectangle((16 + _NAME, y + 2, end, y + 18), fill=_COLOUR)
            draw.text((end + 8, y), amount_text(amount, unit), fill="black", font=font)
    return page
