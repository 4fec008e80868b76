"""An in-memory fsspec filesystem whose requests take as long as those of a distant bucket: `slow://…`."""

from __future__ import annotations

import threading
import time
from typing import ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class SlowFiles(MemoryFileSystem):
    """Files in memory; creation is exclusive.

    Attributes:
        seconds: How long a request takes.
        reads: How many files were read.
    """

    protocol = "slow"
    store: ClassVar[dict[str, object]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    seconds = 0.0
    reads = 0
    _lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("slow://")))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: object) -> bytes:
        with self._lock:
            type(self).reads += 1
        time.sleep(self.seconds)
        return bytes(super().cat_file(path, start, end, **options))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: object) -> None:
        time.sleep(self.seconds)
        with self._lock:
            super().pipe_file(path, value, mode=mode, **options)


def register() -> type[SlowFiles]:
    """Makes the place known to fsspec; the class."""
    fsspec.register_implementation("slow", SlowFiles, clobber=True)
    return SlowFiles
