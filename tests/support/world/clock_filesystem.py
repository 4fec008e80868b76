"""An in-memory fsspec filesystem that has a clock: `clocked://…`, after `register()`."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class ClockedFiles(MemoryFileSystem):
    """Files in memory; creation is exclusive.

    Attributes:
        offset: What its clock is ahead of this machine's; None where it tells no times.
    """

    protocol = "clocked"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    offset: ClassVar[timedelta | None] = timedelta(0)
    _times: ClassVar[dict[str, datetime]] = {}
    _lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("clocked://")))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: object) -> None:
        with self._lock:
            super().pipe_file(path, value, mode=mode, **options)
            self._times[self._strip_protocol(path)] = datetime.now(UTC) + (self.offset or timedelta(0))

    def modified(self, path: str) -> datetime:
        if self.offset is None:
            raise NotImplementedError
        if not self.exists(path):
            raise FileNotFoundError(path)
        return self._times[self._strip_protocol(path)]


def register() -> type[ClockedFiles]:
    """Makes the place known to fsspec; the class."""
    fsspec.register_implementation("clocked", ClockedFiles, clobber=True)
    return ClockedFiles
