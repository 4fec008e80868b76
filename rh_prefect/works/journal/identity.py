"""Hashes of requests, and ids of works."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping


def media_mark(sha256: str) -> str:
    """Returns a placeholder for a file in a job's payload; it contains the hash of the file's content."""
    return f"sha256:{sha256}"


def file_mark(sha256: str) -> str:
    """Returns a placeholder for a file that a workflow's loader node takes by name instead of by link."""
    return f"file-sha256:{sha256}"


def base_hash(*, site: str, endpoint: str, payload: Mapping[str, object]) -> str:
    """Hashes the request of a call; equal requests have equal hashes."""
    content = {"site": site, "endpoint": endpoint, "payload": _plain(payload)}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text_hash(text, 40)


def _plain(value: object) -> object:
    """Returns JSON data with integers in place of whole floats, so that 5 and 5.0 have the same hash."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def graph_base(base: str, graph: str) -> str:
    """Returns a hash of a call's `base` and the site's graph for the call; `base` itself if there is no graph."""
    return text_hash(f"{base}/{graph}", 40) if graph else base


def text_hash(text: str, digits: int) -> str:
    """Returns the first hex digits of a text's hash."""
    # A file name may not be UTF-8, and a text may end within a surrogate pair.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def work_id(base: str, take: int, scope: str = "") -> str:
    """Returns the id of a work: one request with one take, in one scope; 40 hex digits."""
    name = f"{base}/{take}/{scope}" if scope else f"{base}/{take}"
    return text_hash(name, 40)
