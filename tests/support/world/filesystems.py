"""fsspec file systems that differ from usual ones; to import this module makes their URLs known."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, ClassVar

from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import register_implementation


class Files(MemoryFileSystem):
    """Files in memory, whose creation is exclusive, under a protocol of their own."""

    _lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix(f"{cls.protocol}://")))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: object) -> None:
        with self._lock:
            super().pipe_file(path, value, mode=mode, **options)


class ClockedFiles(Files):
    """Has a clock, and caches for each client what it has listed until it is told to forget it."""

    protocol = "clocked"
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    now: ClassVar[datetime | None] = datetime.now(UTC)  # None where it tells no times
    times: ClassVar[dict[str, datetime | None]] = {}

    def __init__(self, *, use_listings_cache: bool, **options: object) -> None:
        assert not use_listings_cache, "a library that knows the option caches no listing"
        super().__init__(**options)
        self._seen: dict[object, Any] = {}

    def invalidate_cache(self, path: str | None = None) -> None:
        self._seen.clear()

    def ls(self, path: str, detail: bool = True, **options: object) -> Any:
        return self._seen.setdefault((path, detail), super().ls(path, detail, **options))

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        return self._seen.setdefault(("find", path), super().find(path, *args, **options))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: object) -> None:
        super().pipe_file(path, value, mode=mode, **options)
        self.times[self._strip_protocol(path)] = self.now

    def modified(self, path: str) -> Any:
        if not self.exists(path):
            raise FileNotFoundError(path)
        when = self.times[self._strip_protocol(path)]
        if when is None:
            raise NotImplementedError
        return self._seen.setdefault(path, when)


class SlowFiles(Files):
    """Its requests take as long as those of a distant bucket."""

    protocol = "slow"
    store: ClassVar[dict[str, object]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    seconds = 0.0
    reads = 0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: object) -> bytes:
        with self._lock:
            type(self).reads += 1
        time.sleep(self.seconds)
        return bytes(super().cat_file(path, start, end, **options))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: object) -> None:
        time.sleep(self.seconds)
        super().pipe_file(path, value, mode=mode, **options)


class TwinFiles(Files):
    """Services that have buckets of one name: `twin://bucket` with the option `where`; `read-only…` refuses writes."""

    protocol = "twin"
    cachable = False
    _services: ClassVar[defaultdict[str, dict[str, Any]]] = defaultdict(dict)

    def __init__(self, where: str, **options: object) -> None:
        super().__init__(**options)
        self.where = where
        self.store = self._services[where]
        self.pseudo_dirs = [""]

    def open(self, path: str, mode: str = "rb", **options: object) -> Any:
        if "w" in mode and self.where.startswith("read-only"):
            raise PermissionError(13, "Permission denied", path)
        return super().open(path, mode, **options)


class TwoWriters(LocalFileSystem):
    """A place without exclusive creation, like SFTP: it looks for the file first and writes then."""

    protocol = "twowriters"
    local_file = False

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("twowriters://"))


for _kind in (ClockedFiles, SlowFiles, TwinFiles, TwoWriters):
    register_implementation(_kind.protocol, _kind, clobber=True)
