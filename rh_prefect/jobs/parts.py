"""Downloads in progress on this machine, each under a lock, so that two processes never write into one file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def part_file(folder: Path, name: str) -> Iterator[Path]:
    """Gives a file to download into: the one that an earlier run of the same job left unfinished, where there is one.

    Args:
        folder: Where downloads in progress lie.
        name: The same for the same output of the same task, so that a later run resumes it.

    Yields:
        The path. While another living process holds it, a private path instead. The file is left as it is: the caller
        removes it once its content is published, and an unfinished one waits for the next run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # The lock ends with its process, however that dies.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        private = folder / f"{name}.{uuid.uuid4().hex}.part"
        try:
            yield private
        finally:
            remove(private)
    else:
        yield folder / f"{name}.part"
    finally:
        os.close(lock)


def remove(part: Path) -> None:
    """Removes a download and what lies beside it."""
    for path in part.parent.glob(f"{part.name}*"):
        path.unlink(missing_ok=True)
    part.with_suffix(".lock").unlink(missing_ok=True)
