"""A file system without exclusive creation."""

from __future__ import annotations

from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import register_implementation


class TwoWriters(LocalFileSystem):
    """A place like SFTP: it looks for the file first and writes then."""

    protocol = "twowriters"
    local_file = False

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("twowriters://"))


register_implementation("twowriters", TwoWriters, clobber=True)
