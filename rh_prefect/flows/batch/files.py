"""Whether a row's files on this machine are what they were when it was done: by content, read only where need be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rh_prefect.media.place import is_local, local_path


def content_of(mark: str) -> str:
    """The part of a mark that says what the files hold.

    Args:
        mark: As `Marks.of` gives it.
    """
    return mark.rpartition("-")[2]


class Marks:
    """Marks rows by their files; files of many rows are read once."""

    def __init__(self) -> None:
        """Starts with nothing read."""
        self._read: dict[tuple[str, str], str] = {}

    def of(self, params: Sequence[Mapping[str, object]], *, earlier: str = "") -> str:
        """Marks a row.

        Args:
            params: The parameters of each step.
            earlier: The row's mark in an earlier run; files whose size and time are the same are not read again.

        Returns:
            One hash of the files' sizes and times and one of their content, 16 hex digits each; empty where the row
            has no file on this machine.
        """
        found = [one for step in params for _, value in sorted(step.items()) for one in _files(value)]
        if not found:
            return ""
        stats = _hash(stat for _, stat in found)
        if earlier.startswith(f"{stats}-"):
            return earlier
        return f"{stats}-{_hash(self._content(path, stat) for path, stat in found)}"

    def _content(self, path: str, stat: str) -> str:
        if (path, stat) not in self._read:
            self._read[path, stat] = _digest(path)
        return self._read[path, stat]


def _digest(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # its job says so
        return ""


def _files(value: object) -> Iterator[tuple[str, str]]:
    """The files that a value names, each with its size and time."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from _files(one)
    elif isinstance(value, str | Path):
        try:
            if is_local(str(value)) and Path(path := local_path(str(value))).is_file():
                stat = Path(path).stat()
                yield path, f"{stat.st_size} {stat.st_mtime_ns}"
        except (OSError, ValueError):  # a text that is no file's name
            return


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
