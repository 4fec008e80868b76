"""An in-memory fsspec filesystem that counts how often it is opened: `counted://…`, after `register()`."""

from __future__ import annotations

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class CountedFiles(MemoryFileSystem):
    """Files in memory; see `opened`."""

    protocol = "counted"
    opened = 0

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        type(self).opened += 1


def register() -> type[CountedFiles]:
    """Makes the place known to fsspec; the class."""
    fsspec.register_implementation("counted", f"{__name__}.CountedFiles", clobber=True)
    return CountedFiles
