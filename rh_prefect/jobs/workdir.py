"""This machine's own folder, where what is on its way lies: checked before anything is paid, and its errors named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from rh_prefect.errors import ConfigError, StoreError
from rh_prefect.local_files import make_folder


def check_folder(folder: Path) -> None:
    """Makes sure that downloads can lie in a folder, before anything is paid that would have to.

    Raises:
        ConfigError: It cannot be made, or cannot be written to.
    """
    try:
        make_folder(folder)
        with TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        raise ConfigError(
            f"This machine's own folder {folder} cannot be written to: {error.strerror}. Nothing was paid. "
            "What to do: set RH_STATE_DIR to a folder that can."
        ) from error


@contextlib.contextmanager
def kept_here(folder: Path) -> Iterator[None]:
    """Raises what this machine's own folder refuses inside as a `StoreError`.

    Args:
        folder: The folder.

    Raises:
        StoreError: The disk is full, or the folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"This machine's own folder {folder} cannot be written to: {error.strerror or error}. What was paid for is "
            "kept. What to do: free some space there, or set RH_STATE_DIR to a folder that can; then run again."
        ) from error
