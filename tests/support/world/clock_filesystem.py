"""An in-memory fsspec filesystem that has a clock and caches what it has listed: `clocked://…`, after `register()`."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class ClockedFiles(MemoryFileSystem):
    """Files in memory; creation is exclusive. Each client caches listings and times until it is told to forget them.

    Attributes:
        now: The time by its clock; None where it tells no times.
        times: When each file was written, by path.
    """

    protocol = "clocked"
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    now: ClassVar[datetime | None] = datetime.now(UTC)
    times: ClassVar[dict[str, datetime | None]] = {}
    _lock = threading.Lock()

    def __init__(self, *, use_listings_cache: bool, **options: object) -> None:
        assert not use_listings_cache, "a library that knows the option caches no listing"
        super().__init__(**options)
        self._seen: dict[object, Any] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("clocked://")))

    def invalidate_cache(self, path: str | None = None) -> None:
        self._seen.clear()

    def ls(self, path: str, detail: bool = True, **options: object) -> Any:
        return self._seen.setdefault((path, detail), super().ls(path, detail, **options))

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        return self._seen.setdefault(("find", path), super().find(path, *args, **options))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: object) -> None:
        with self._lock:
            super().pipe_file(path, value, mode=mode, **options)
            self.times[self._strip_protocol(path)] = self.now

    def modified(self, path: str) -> Any:
        if not self.exists(path):
            raise FileNotFoundError(path)
        when = self.times[self._strip_protocol(path)]
        if when is None:
            raise NotImplementedError
        return self._seen.setdefault(path, when)


def register() -> type[ClockedFiles]:
    """Makes the place known to fsspec; the class."""
    fsspec.register_implementation("clocked", ClockedFiles, clobber=True)
    return ClockedFiles
