"""LoRAs that clients send: announced by their MD5, put to a signed link, then known to the node RHLoraLoader."""

from __future__ import annotations

import threading

from rh_prefect.emulator.files import Shelf


class Loras:
    """All LoRAs that were announced or sent.

    Args:
        shelf: Signs their links.
        folder: What their names begin with.
    """

    def __init__(self, shelf: Shelf, *, folder: str) -> None:
        self._folder = folder
        self._shelf = shelf
        self._lock = threading.Lock()
        self._known: set[str] = set()

    def announce(self, md5: str) -> tuple[str, str | None]:
        """Takes an announcement.

        Args:
            md5: The file's sum, in hex.

        Returns:
            Its `fileName`, and where it is to be put; no link where it is here already.
        """
        name = f"{self._folder}/{md5}.safetensors"
        with self._lock:
            return name, None if name in self._known else self._shelf.sign(f"/{name}")

    def sent(self, name: str) -> None:
        """Knows a LoRA from here on."""
        with self._lock:
            self._known.add(name)

    def has(self, name: str) -> bool:
        """Tells whether a LoRA was sent."""
        return name in self._known
