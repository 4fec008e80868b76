"""Whether a row's files on this machine may be others than when it was done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rh_prefect.media.place import is_local, local_path


def mark_of(params: Sequence[Mapping[str, object]]) -> str:
    """Marks a row's files by size and time. Where the mark is another one, its jobs look at what the files hold.

    Args:
        params: The parameters of each step.

    Returns:
        16 hex digits; empty where the row has no file on this machine.
    """
    found = [one for step in params for _, value in sorted(step.items()) for one in _marks(value)]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16] if found else ""


def _marks(value: object) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _marks(one)
    elif isinstance(value, str | Path):
        try:
            if is_local(str(value)) and (path := Path(local_path(str(value)))).is_file():
                stat = path.stat()
                yield f"{stat.st_size} {stat.st_mtime_ns}"
        except (OSError, ValueError):  # a text that is no file's name
            return
