"""Content-named copies of inputs in the store: `inputs/<sha256>.<extension>`, written once and never overwritten."""

from __future__ import annotations

import re
from pathlib import Path

from rh_prefect.errors import StoreError
from rh_prefect.jobs.journal.record_types import SeenMedia
from rh_prefect.media.store import MediaStore

FOLDER = "inputs"
_NAME = re.compile(rf"{FOLDER}/[0-9a-f]{{64}}\.[a-z0-9]+")


def is_copy(name: str) -> bool:
    """Whether a file of a store is a content-named copy of an input, by its name there."""
    return _NAME.fullmatch(name) is not None


class Copies:
    """The copies in one store. All methods block."""

    def __init__(self, store: MediaStore) -> None:
        """Names the store; nothing is written before the first copy.

        Args:
            store: Where the copies lie.
        """
        self._store = store

    def name(self, seen: SeenMedia) -> str:
        """Returns the file name of the copy of a content."""
        return f"{FOLDER}/{seen.sha256}.{seen.extension or 'bin'}"

    def uri(self, name: str) -> str:
        """Returns the URI of a copy."""
        return self._store.uri(name)

    def has(self, seen: SeenMedia) -> bool:
        """Checks whether a complete copy of a content exists."""
        try:
            return self._store.info(self.name(seen)) == seen.size
        except StoreError:
            return False  # there is none; or the store is ill, which writing it will say

    def put(self, local: Path, seen: SeenMedia) -> str:
        """Writes the copy of a content, unless it is there.

        Args:
            local: A file of this very content that does not change meanwhile.
            seen: The content.

        Returns:
            The copy's name.

        Raises:
            StoreError: The store refuses it.
        """
        if not self.has(seen):
            with local.open("rb") as reader:
                self._store.write_stream(self.name(seen), reader, mime=seen.mime)
        return self.name(seen)
