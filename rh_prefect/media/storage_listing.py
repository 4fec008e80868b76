"""Lists files below a folder of a storage, without leaving out a folder that cannot be listed."""

from __future__ import annotations

import errno
import re
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem
from fsspec.utils import glob_translate

_OF_THE_DISK = {"lost+found", "System Volume Information", "$RECYCLE.BIN", ".Trashes", ".Spotlight-V100", ".fseventsd"}
"""Folders of a file system itself, which other users than its administrator cannot list."""


def files_below(fs: AbstractFileSystem, top: str, *, depth: int | None = None) -> dict[str, dict[str, Any]]:
    """Returns fsspec's facts of all files below a folder, by path; empty if the folder does not exist.

    Raises the error of a folder that exists and cannot be listed; fsspec's own `find` takes it for an empty one.
    """
    # The libraries of object stores have an own `find`, with few requests, which raises errors.
    if depth is None and getattr(type(fs), "_find", None) not in (None, AsyncFileSystem._find):
        return dict(fs.find(top, detail=True))
    found: dict[str, dict[str, Any]] = {}
    folders = [(top, 1)]
    while folders:
        folder, level = folders.pop()
        try:
            listing = fs.ls(folder, detail=True)
        except OSError as error:
            # Missing folders include one that was deleted after its name was listed; not all libraries have its type.
            is_missing = isinstance(error, (FileNotFoundError, NotADirectoryError)) or error.errno == errno.ENOENT
            if is_missing or (isinstance(error, PermissionError) and folder.rpartition("/")[2] in _OF_THE_DISK):
                continue
            raise
        for facts in listing:
            path = facts["name"].rstrip("/")
            if facts["type"] != "directory" or path == folder:
                found[path] = facts
            elif level != depth:
                folders.append((path, level + 1))
    return dict(sorted(found.items()))


def files_matching(fs: AbstractFileSystem, pattern: str) -> dict[str, dict[str, Any]]:
    """Returns fsspec's facts of all files that match a pattern, by path; see `files_below`."""
    head = re.split(r"[*?\[]", pattern)[0].rpartition("/")[0]
    depth = None if "**" in pattern else pattern.count("/", len(head) + 1) + 1
    is_match = re.compile(glob_translate(pattern)).match
    found = files_below(fs, head or "/", depth=depth)
    return {path: facts for path, facts in found.items() if is_match(path)}
