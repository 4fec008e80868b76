"""Writes local files atomically, readable only by their owner, because records and downloads contain prompts."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700

_NO_LINKS: Final = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Error numbers of file systems without hard links, such as exFAT and some FUSE file systems."""

PART: Final = ".rh-part"
"""The extension of a file that is still being written; such files are never listed."""


class NoHardLinks(OSError):
    """The file system has no hard links, which are needed to create a complete file exclusively."""


def make_folder(folder: Path, *, mode: int = FOLDER_MODE) -> list[Path]:
    """Creates a folder and its missing parents; returns the folder, and the parent of each folder that was created."""
    changed = [folder]
    while not changed[-1].exists():
        changed.append(changed[-1].parent)
    for missing in reversed(changed[:-1]):
        with suppress(FileExistsError):  # another process was faster
            missing.mkdir(mode=mode)
    if not folder.is_dir():
        raise NotADirectoryError(20, os.strerror(20), str(folder))
    return changed


def create(path: Path, *, mode: int = FILE_MODE) -> BinaryIO:
    """Creates a file and opens it for writing; raises `FileExistsError` if the file exists."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")


def overwrite(path: Path) -> BinaryIO:
    """Creates or empties a file and opens it for writing; a file of another user is refused, and stays as it was."""
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, FILE_MODE), "wb")
    try:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.fchmod(file.fileno(), FILE_MODE)  # first, because another user's file must not be emptied
            file.truncate()
    except OSError:
        file.close()
        raise
    return file


def flush_file(path: Path) -> None:
    """Flushes a file's content to disk, so that it survives a power failure."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def flush_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk, so that they survive a power failure; this takes under a millisecond."""
    with suppress(OSError):  # some network file systems cannot flush folders
        flush_file(folder)


def lock_file(path: Path, operation: int = fcntl.LOCK_EX) -> int:
    """Creates and locks a file, which the lock's holder may remove; closing the returned descriptor ends the lock."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(file, operation)
            if _is_still(path, file):
                return file
        except OSError:
            os.close(file)
            raise
        # Its holder removed it between the two calls: the next process would lock a new file of that name.
        os.close(file)


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


@contextmanager
def atomic_path(target: Path, *, exclusive: bool = False, durable: bool = True) -> Iterator[Path]:
    """Yields a new name in the target's folder; the file written there gets the target's name after the block.

    After a failure the target is as it was before. With `exclusive`, an existing target raises `FileExistsError`; if
    the file system cannot ensure this, `NoHardLinks` is raised. With `durable`, the file survives a power failure.
    """
    part = target.with_name(f".{uuid.uuid4().hex[:12]}{PART}")
    try:
        yield part
        if durable:
            flush_file(part)
        if exclusive:
            _link(part, target)  # a rename would replace an existing file
        else:
            part.replace(target)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    if durable:
        flush_folder(target.parent)


def _link(part: Path, target: Path) -> None:
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise NoHardLinks(error.errno, error.strerror, str(target)) from error
        raise


def write_atomic(
    target: Path,
    data: bytes,
    *,
    file_mode: int = FILE_MODE,
    folder_mode: int = FOLDER_MODE,
    exclusive: bool = False,
) -> None:
    """Writes a file and its missing folders, so that they survive a power failure; see `atomic_path`."""
    changed = make_folder(target.parent, mode=folder_mode)
    with atomic_path(target, exclusive=exclusive) as part, create(part, mode=file_mode) as file:
        file.write(data)
    for folder in changed[1:]:
        flush_folder(folder)


def make_public(path: Path) -> None:
    """Gives a file the permissions that new files in its folder get; devices are not changed."""
    if not path.is_file():
        return
    # Reading the umask would change it for a moment in all threads.
    probe = path.with_name(f".{uuid.uuid4().hex}")
    try:
        probe.touch(exist_ok=False)
        path.chmod(probe.stat().st_mode & 0o777)
    finally:
        probe.unlink(missing_ok=True)
