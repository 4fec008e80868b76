"""Detects whether a file has changed since it was hashed, without reading it again."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from fsspec import AbstractFileSystem

SETTLED = 2.0
"""Seconds after which a change gives a file a different time stamp on every file system, including FAT."""

_VERSIONS = ("VersionId", "version_id", "versionId", "generation")
_TAGS = ("ETag", "etag")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified")


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of a file as its storage reports it.

    Stamps with an equal `text` stand for the same state. `changed_at` is the time of the last change, in seconds since
    1970; None if an equal `text` alone proves equal content.
    """

    text: str
    changed_at: float | None = None

    def is_proof(self, *, read_at: float) -> bool:
        """Returns whether this stamp proves that a file still has the content read at `read_at` (Unix time).

        A recent stamp proves nothing, because two changes in quick succession may have the same time stamp.
        """
        return self.changed_at is None or read_at - self.changed_at > SETTLED


def of_stat(found: os.stat_result) -> Stamp:
    """Returns the stamp of a local file."""
    parts = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return Stamp(f"file {' '.join(map(str, parts))}", max(found.st_mtime_ns, found.st_ctime_ns) / 1e9)


def of_object(fs: AbstractFileSystem, path: str, info: Mapping[str, object]) -> Stamp | None:
    """Returns the stamp of an object in a store; None if no metadata changes with the content."""
    version = next((info[name] for name in _VERSIONS if info.get(name) not in (None, "", "null")), None)
    if version is not None:
        return Stamp(f"version {version}")
    tag = str(next((info[name] for name in _TAGS if info.get(name)), ""))
    if tag and not tag.startswith("W/"):
        return Stamp(f"etag {tag} {info.get('size')}")
    when = next((info[name] for name in _TIMES if info.get(name)), None)
    if when is None:
        with suppress(Exception):  # each kind of storage has its own exceptions
            when = fs.modified(path)
    return None if when is None else Stamp(f"time {when} {info.get('size')}", _seconds(when))


def of_headers(headers: Mapping[str, str]) -> Stamp | None:
    """Returns the stamp of a link from the headers of a response; None without a strong ETag."""
    tag = headers.get("etag", "").strip()
    return None if not tag or tag.startswith("W/") else Stamp(f"etag {tag}")


def _seconds(when: object) -> float:
    """Converts a time to seconds since 1970; an unreadable time becomes infinite, which is never proof."""
    if isinstance(when, int | float):
        return float(when)
    with suppress(ValueError, TypeError):
        read = when if isinstance(when, datetime) else datetime.fromisoformat(str(when))
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    return math.inf
