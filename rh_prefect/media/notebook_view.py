"""Shows files and results in a notebook: pictures, players, text, and the properties of each file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rh_prefect.display_texts import cut_middle
from rh_prefect.errors import RunningHubError

if TYPE_CHECKING:
    from rh_prefect.media.media import Media

_SIDE = 512
_PICTURE_BYTES = 60_000
_SHOWN = 12
"""Maximum number of results that are shown; the notebook stores the pictures of all shown results."""

_NAME_WIDTH = 40

_PLAYED_BYTES = 5_000_000
"""Maximum bytes of a video or sound that is embedded in a notebook."""


def as_html(media: Media) -> str:
    """Returns HTML with an embedded file; notebooks do not open links to local files."""
    try:
        shown = _shown(media)
    except (RunningHubError, OSError) as error:
        shown = f"<p>{escape(str(error))}</p>"
    caption = f"{cut_middle(media.name, _NAME_WIDTH)}, {media.facts}"
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def listing(head: str, values: Iterable[tuple[str, Any]]) -> str:
    """Returns HTML with a heading and named results; results after the first `_SHOWN` appear by name only."""
    named = list(_single(values))
    parts = [f"<p>{escape(head)}</p>"]
    for name, value in named[:_SHOWN]:
        shown = value._repr_html_() if hasattr(value, "_repr_html_") else f"<pre>{escape(str(value))}</pre>"
        parts.append(f"<p>{escape(name)}</p>{shown}")
    if len(named) > _SHOWN:
        parts.append(f"<p>{len(named) - _SHOWN} more: {escape(', '.join(name for name, _ in named[_SHOWN:]))}</p>")
    return f"<div>{''.join(parts)}</div>"


def _single(values: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for name, value in values:
        if isinstance(value, list | tuple):
            yield from _single((f"{name}[{number}]", one) for number, one in enumerate(value, 1))
        elif value is not None:
            yield name, value


def _shown(media: Media) -> str:
    if media.kind in ("video", "audio") and media.size <= _PLAYED_BYTES and media.defect is None:
        content = base64.b64encode(media.read()).decode()
        return f'<{media.kind} controls src="data:{escape(media.mime)};base64,{content}"></{media.kind}>'
    if media.kind in ("image", "video") and media.defect is None:
        from rh_prefect.media.edit.frames_and_thumbnails import thumbnail

        with TemporaryDirectory(prefix="rh-view-") as folder:
            picture = thumbnail(media.save(Path(folder) / "file"), max_bytes=_PICTURE_BYTES, side=_SIDE)
        return f'<img src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}" alt="{escape(media.name)}">'
    return ""
