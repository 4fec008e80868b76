"""What makes two jobs the same: hashes of what is asked for, never of how or by whom."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping


def media_mark(sha256: str) -> str:
    """Stands for a file in a job's payload: its content, whatever its address."""
    return f"sha256:{sha256}"


def file_mark(sha256: str) -> str:
    """Stands for a file that a workflow's loader node takes by its name at RunningHub, not by a link."""
    return f"file-sha256:{sha256}"


def marked(value: object) -> str | None:
    """The sha256 that a `media_mark` stands for; None for anything else."""
    if isinstance(value, str) and value.startswith("sha256:"):
        return value.removeprefix("sha256:")
    return None


def base_hash(*, site: str, endpoint: str, payload: Mapping[str, object], label: str | None) -> str:
    """Hashes what a call asks for; equal calls have equal bases.

    Args:
        site: RunningHub's host: the two sites are two worlds.
        endpoint: Path below `/openapi/v2/`.
        payload: The request's parameters, files as `media_mark`s.
        label: The caller's name for the output.

    Returns:
        40 hex digits. No account is in it: a rotated key or a pool of keys must not make a job a new one.
    """
    asked = {"site": site, "endpoint": endpoint, "payload": payload, "label": label}
    text = json.dumps(asked, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return _hash(text)[:40]


def job_key(base: str, ordinal: int) -> str:
    """Names one of the equal calls of a scope; 24 hex digits."""
    return _hash(f"{base}/{ordinal}")[:24]


def explicit_key(key: str) -> str:
    """Names a job by the caller's own idempotency key; 24 hex digits."""
    return _hash(f"key/{key}")[:24]


def uri_hash(uri: str) -> str:
    """Names an input's record; 24 hex digits."""
    return _hash(uri)[:24]


def _hash(text: str) -> str:
    # A file name that is no UTF-8 and half an emoji are strings too.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
