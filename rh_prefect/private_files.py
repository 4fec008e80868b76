"""Files and folders that only their user can read, whatever the umask: records, tickets and downloads hold prompts."""

from __future__ import annotations

import os
import stat
import uuid
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700


def make_folder(folder: Path, *, mode: int = FOLDER_MODE) -> list[Path]:
    """Makes a folder and the folders above it that are missing; one that exists keeps its mode.

    Args:
        folder: The folder.
        mode: The mode of each folder that is made.

    Returns:
        The folders in which something is new once there is a file in this one: itself, and those that it was made in.

    Raises:
        OSError: It cannot be made.
    """
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
    """Creates a file and opens it for writing.

    Args:
        path: The file.
        mode: Its mode.

    Raises:
        FileExistsError: It exists.
        OSError: It cannot be made.
    """
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")


def overwrite(path: Path) -> BinaryIO:
    """Opens a file for writing that is empty then, and creates it where there is none.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be made or changed.
    """
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "wb")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        os.fchmod(file.fileno(), FILE_MODE)
    return file


def flush_folder(folder: Path) -> None:
    """Makes a folder's names survive a power failure, as `fsync` does for a file; it takes less than a millisecond."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # Windows opens no folders
    try:
        os.fsync(opened)
    except OSError:
        pass  # a network's file system may not support it; the file stands all the same
    finally:
        os.close(opened)


def make_public(path: Path) -> None:
    """Gives a file the mode that a new file has in its folder; devices are left as they are.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be changed.
    """
    if not path.is_file():
        return
    # Asking for the umask means to change it for a moment, in all threads.
    probe = path.with_name(f".{uuid.uuid4().hex}")
    try:
        probe.touch(exist_ok=False)
        path.chmod(probe.stat().st_mode & 0o777)
    finally:
        probe.unlink(missing_ok=True)
