"""In-memory services that have buckets of one name: `twin://bucket` with the option `where`, after `register()`."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

_FILES: defaultdict[str, dict[str, Any]] = defaultdict(dict)


class TwinFiles(MemoryFileSystem):
    """The files of one service; one whose name begins with `read-only` refuses all writes."""

    protocol = "twin"
    cachable = False

    def __init__(self, where: str, **options: object) -> None:
        super().__init__(**options)
        self.where = where
        self.store = _FILES[where]
        self.pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("twin://")))

    def open(self, path: str, mode: str = "rb", **options: object) -> Any:
        if "w" in mode and self.where.startswith("read-only"):
            raise PermissionError(13, "Permission denied", path)
        return super().open(path, mode, **options)


def register() -> None:
    """Makes the places known to fsspec."""
    fsspec.register_implementation("twin", f"{__name__}.TwinFiles", clobber=True)
