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


def base_hash(*, site: str, endpoint: str, payload: Mapping[str, object]) -> str:
    """Hashes what a call asks for; equal requests have equal bases.

    Args:
        site: RunningHub's host: the two sites are two worlds.
        endpoint: Path below `/openapi/v2/`.
        payload: The request's parameters, files as `media_mark`s.

    Returns:
        40 hex digits. No account is in it: a rotated key or a pool of keys must not make a job a new one.
    """
    asked = {"site": site, "endpoint": endpoint, "payload": payload}
    text = json.dumps(asked, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return _hash(text)[:40]


def graph_base(base: str, graph: str) -> str:
    """Hashes a call together with the graph that the site has for it; 40 hex digits.

    Args:
        base: Hash of the call.
        graph: The graph's fingerprint; empty where the call itself says all.
    """
    return _hash(f"{base}/{graph}")[:40] if graph else base


REQUEST_DIGITS = 12
"""How many digits of a job's key say what is asked for; the others say where in the run."""


def request_id(base: str, label: str | None) -> str:
    """Begins the keys of all jobs of a scope that ask for the same under one label; 12 hex digits."""
    return _hash(json.dumps([base, label]))[:REQUEST_DIGITS]


def job_key(request: str, address: str) -> str:
    """Names the job of a call that is first made at an address; 24 hex digits.

    Args:
        request: See `request_id`.
        address: The address's digest, 12 hex digits.
    """
    return request + address


def other_job_key(request: str, address: str, again: int) -> str:
    """Names a job whose address was that of another one once; 24 hex digits."""
    return request + _hash(f"{address}/{again}")[:REQUEST_DIGITS]


def reused_key(request: str) -> str:
    """Names the one job of all calls of a scope that may share an equal request; 24 hex digits."""
    return request + _hash("reuse")[:REQUEST_DIGITS]


def explicit_key(key: str) -> str:
    """Names a job by the caller's own idempotency key; 24 hex digits."""
    return _hash(f"key/{key}")[:24]


def uri_hash(uri: str) -> str:
    """Names an input's record; 24 hex digits."""
    return _hash(uri)[:24]


def _hash(text: str) -> str:
    # A file name that is no UTF-8 and half an emoji are strings too.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
