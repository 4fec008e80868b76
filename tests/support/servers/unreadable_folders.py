"""A file system of fsspec that fails to list some folders, as a damaged disk does."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class SmbError(OSError):
    """An error as of smbprotocol: for a missing folder it is no FileNotFoundError."""


class UnreadableFolders(LocalFileSystem):
    """The folders of this machine; those with the name `unreadable` or `lost+found` cannot be listed."""

    protocol = "unreadable"

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        if path.endswith("/unreadable"):
            raise OSError(errno.EIO, "Input/output error", path)
        if path.endswith("/lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        if not self.exists(path):
            raise SmbError(errno.ENOENT, "not found", path)
        return super().ls(path, detail=detail, **options)


def unreadable(folder: Path) -> str:
    """Returns the URL of a local folder on this file system."""
    fsspec.register_implementation("unreadable", UnreadableFolders, clobber=True)
    return f"unreadable://{folder}"
