"""Writes a gallery: one HTML file for each thousand outputs, with embedded small pictures and links to the files."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import logging
import math
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from rh_prefect.display_texts import size_text
from rh_prefect.errors import RunningHubError
from rh_prefect.gallery.entries import Entry, amounts_in
from rh_prefect.media.media import Media
from rh_prefect.media.store import LONGEST_LINK, MediaStore, link_to

FOLDER = "gallery"
"""The folder of the pages and their small pictures, in the storage."""

WHOLE = "index"
"""The name of the pages with all outputs of a storage."""

ON_A_PAGE = 1000
"""Maximum number of outputs on one page."""

_SIDE = 256
_POSTER_BYTES = 20_000
"""Maximum bytes of one small picture, so that a full page is smaller than 40 MB."""
_LARGEST_SHAPE = 64_000_000
_AT_ONCE = 4
_BLOCK = 2**20
_log = logging.getLogger("rh_prefect")


def write_gallery(
    store: MediaStore, entries: Sequence[Entry], *, name: str = WHOLE, seconds: float = math.inf
) -> list[str]:
    """Writes the pages of a gallery into a storage, and makes small pictures for at most `seconds`.

    Returns the names of the pages in the storage.
    """
    until = time.monotonic() + seconds
    name = re.sub(r"[^\w.-]+", "-", name)[:80]  # the name of a flow or a run may hold what a file's name cannot
    parts = [entries[start : start + ON_A_PAGE] for start in range(0, len(entries), ON_A_PAGE)] or [[]]
    names = [f"{name}.html", *(f"{name}-{number}.html" for number in range(2, len(parts) + 1))]
    for number, part in enumerate(parts):
        page = _page(store, part, names, number, total=len(entries), until=until)
        store.write_bytes(f"{FOLDER}/{names[number]}", page.encode())
    return [f"{FOLDER}/{one}" for one in names]


def _page(
    store: MediaStore, entries: Sequence[Entry], names: Sequence[str], number: int, *, total: int, until: float
) -> str:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        shown = list(pool.map(partial(_shown, store, until), entries))
    run = names[0].removesuffix(".html")
    about = f"{total} output{'' if total == 1 else 's'} of {'' if run == WHOLE else f'{run}, in '}{store.url}."
    if store.protocol != "file":
        about += f" The links to files are valid for at most {LONGEST_LINK // 86400} days."
    links = [{"name": str(n + 1), "href": "" if n == number else quote(one)} for n, one in enumerate(names)]
    title = "All outputs" if run == WHOLE else run
    data = {"title": title, "about": about, "pages": links if len(names) > 1 else [], "entries": shown}
    return filled_in(data)


def filled_in(data: Any) -> str:
    """Returns the page with the data embedded in a form that the browser never treats as a script or HTML."""
    folder = files("rh_prefect.gallery")
    page, style, script = (folder.joinpath(f"page.{one}").read_text(encoding="utf-8") for one in ("html", "css", "js"))
    # The rules allow only this style and this script, so that no text of the data can run, even if it were HTML.
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; "
        "form-action 'none'; img-src data: file: http: https:; media-src file: http: https:"
    )
    page = page.replace("@policy@", policy).replace("@style@", style).replace("@script@", script)
    before, after = page.split("@data@")
    before = before.replace("@title@", html.escape(f"{data['title']} - gallery"))
    return before + json.dumps(data, ensure_ascii=True).replace("<", "\\u003c") + after


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


_AS_IT_IS = (
    *("model", "request", "task", "prompt", "params", "sources", "take", "label", "run", "cost", "seconds"),
    *("saved_as", "text", "reason"),
)
"""Fields of an entry that have the same name in the data of the page."""


def _shown(store: MediaStore, until: float, entry: Entry) -> dict[str, Any]:
    file = entry.file
    shown = (
        {name: getattr(entry, name) for name in _AS_IT_IS}
        | {
            "seed": None if entry.seed is None else str(entry.seed),  # JavaScript rounds numbers above 2**53
            "amounts": amounts_in(entry.cost),
            "run_name": entry.run_name or entry.flow,
            "at": entry.at and f"{entry.at[:19]}Z",  # the page shows it in the time zone of its reader
            "kind": "text",
            "state": "failed" if entry.reason else "whole",
            **dict.fromkeys(("name", "src", "sha", "size", "poster"), ""),
            "length": None,
        }
    )
    if file is not None:
        shape = f"{file.width} × {file.height}, " if file.width else ""
        shown |= {
            "kind": file.kind,
            "state": "whole" if file.defect is None else "damaged",
            "name": file.uri,
            "src": _link(store, file.uri),
            "sha": file.sha256,
            "length": file.seconds,
            "size": f"{shape}{size_text(file.size)}",
            "poster": _poster(store, file, until),
        }
    return shown


def _link(store: MediaStore, name: str) -> str:
    """Returns a link to a file: relative to the page in a folder, which may be moved as a whole, otherwise signed."""
    return f"../{quote(name)}" if store.protocol == "file" else link_to(store.uri(name), store)


def _poster(store: MediaStore, file: Media, until: float) -> str:
    """Returns a small picture of a file as a data URL, and stores it; empty if none can be made before `until`."""
    if file.kind not in ("image", "video", "3d") or file.defect is not None or time.monotonic() > until:
        return ""
    name = f"{FOLDER}/posters/{file.sha256}.jpg"
    try:
        if store.exists(name):
            picture = store.read_bytes(name)
        else:
            picture = _shape(store, file) if file.kind == "3d" else _small(store, file.uri, until)
            store.write_bytes(name, picture)
    except (RunningHubError, OSError, ValueError) as error:
        _log.info("No small picture of %s is shown: %s", file.uri, error)
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"


def _shape(store: MediaStore, file: Media) -> bytes:
    if not file.uri.endswith(".glb"):
        raise ValueError("it is not a GLB file, and only GLB files are rendered")
    if file.size > _LARGEST_SHAPE:
        raise ValueError("it is larger than 64 MB, the size limit for 3D files that are rendered")
    from rh_prefect.gallery.glb_picture import glb_picture  # numpy takes 17 MB, and few runs make shapes

    return glb_picture(store.read_bytes(file.uri), side=_SIDE)


def _small(store: MediaStore, name: str, until: float) -> bytes:
    from rh_prefect.media.edit.frames_and_thumbnails import thumbnail  # numpy takes 17 MB, and a large run has no page

    small = partial(thumbnail, max_bytes=_POSTER_BYTES, side=_SIDE)
    if store.protocol == "file":
        return small(Path(store.uri(name)))
    with TemporaryDirectory(prefix="rh-gallery-") as folder:
        copy = Path(folder) / "file"
        with store.open(name) as reader, copy.open("wb") as writer:
            while block := reader.read(_BLOCK):
                if time.monotonic() > until:
                    raise TimeoutError("the time limit of the page was reached before the file was read")
                writer.write(block)
        return small(copy)
