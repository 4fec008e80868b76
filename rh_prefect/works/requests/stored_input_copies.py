"""Content-named copies of inputs in the store: `inputs/<sha256>.<extension>`, written once and never overwritten."""

from __future__ import annotations

from pathlib import Path

from rh_prefect.errors import StoreError
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.record_types import MediaRecord

FOLDER = "inputs"


class Copies:
    """The copies in one store. All methods block."""

    def __init__(self, store: MediaStore) -> None:
        """Takes the store; the first copy is the first access to it."""
        self._store = store

    def name(self, record: MediaRecord) -> str:
        """Returns the file name of the copy of a content."""
        return f"{FOLDER}/{record.sha256}.{record.extension or 'bin'}"

    def uri(self, name: str) -> str:
        """Returns the URI of a copy."""
        return self._store.uri(name)

    def has(self, record: MediaRecord) -> bool:
        """Checks whether a complete copy of a content exists."""
        try:
            return self._store.size(self.name(record)) == record.size
        except StoreError:
            return False  # the write reports it

    def put(self, local: Path, record: MediaRecord) -> str:
        """Writes the copy of a content from a file that does not change, unless it exists; returns its name."""
        if not self.has(record):
            with local.open("rb") as reader:
                self._store.write_stream(self.name(record), reader, mime=record.mime)
        return self.name(record)
