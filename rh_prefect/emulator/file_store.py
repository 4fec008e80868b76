"""The file store: uploads, results and LoRAs, and their links, which expire after a day."""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.clock import Clock

ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - compared, not bound
"""The host of a server that listens on all addresses of the machine."""

_UPLOADS: Final = "/input/"
_RESULTS: Final = "/u/output/"


class DeadLink(Exception):
    """A link is invalid or has expired."""

    def __init__(self, status: int, code: str, words: str) -> None:
        self.status = status
        self.code = code
        self.words = words
        super().__init__(f"{code}: {words}")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the file store; `since` is the time at which a result was stored."""

    path: Path
    task_id: str = ""
    since: float = 0.0


class FileStore:
    """Stores files, and signs and checks their links.

    Args:
        folder: The folder of uploaded files.
        url: The address of the file host.
        clock: The clock of the links.
        assumptions: The lifetimes of links, and the response to an expired link.

    Attributes:
        is_closed: Whether the emulator stops, so that no file is fetched to its end.
        loras: The names of the LoRAs that were uploaded.
    """

    def __init__(self, folder: Path, *, url: str, clock: Clock, assumptions: Assumptions) -> None:
        self._assumptions = assumptions
        self.folder = folder
        self.url = url
        self.is_closed = False
        self.loras: set[str] = set()
        self._clock = clock
        self._secret = secrets.token_bytes(16)
        self._files: dict[str, StoredFile] = {}
        self._named: dict[str, Path] = {}

    def add_upload(self, path: Path, *, sha256: str, extension: str) -> tuple[str, str]:
        """Moves an uploaded file here, equal content once; returns RunningHub's `fileName`, and a signed link."""
        name = f"openapi/{sha256}.{extension}"
        kept = self.keep(path, name, sha256=sha256, extension=extension)
        self._files[_UPLOADS + name] = StoredFile(kept)
        return name, self.sign(_UPLOADS + name)

    def keep(self, path: Path, name: str, *, sha256: str, extension: str) -> Path:
        """Moves a file here that only the nodes of a graph can find, by name."""
        kept = self.folder / f"{sha256}.{extension}"
        path.replace(kept)
        self._named[name] = kept
        return kept

    def named(self, name: str) -> Path | None:
        """Finds a file by the name that a node uses for it."""
        return self._named.get(name)

    def add_result(self, path: Path, *, task_id: str, index: int, token: str, extension: str) -> str:
        """Stores a result.

        The name of the file has ComfyUI's format; names differ in token and time.
        """
        now = self._clock.now()
        place = f"{_RESULTS}ComfyUI_{index:05d}_{token}_{int(now)}.{extension}"
        self._files[place] = StoredFile(path, task_id, now)
        return self.sign(place) if self._assumptions.signed_results else self.url + place

    def sign(self, place: str) -> str:
        """Returns a signed link, which is valid for a day, or for an hour if it is for the upload of a LoRA."""
        known, start = self._assumptions, int(self._clock.now())
        lives = {_RESULTS: known.result_seconds, f"/{known.lora_folder}/": known.lora_link_seconds}
        life = next((seconds for folder, seconds in lives.items() if place.startswith(folder)), known.link_seconds)
        window = f"{start};{start + life}"
        signature = self._signature(place, window)
        return f"{self.url}{place}?q-sign-algorithm=sha1&q-sign-time={window}&q-signature={signature}"

    def owns(self, link: str) -> bool:
        """Returns whether a link points to this file store; on all addresses, with any of the machine's names."""
        return re.match(re.escape(self.url).replace(re.escape(ANY_ADDRESS), "[^/:]+") + "/", link) is not None

    def find(self, link: str) -> StoredFile:
        """Finds the file behind a link, or behind its path and query; raises `DeadLink` if it is not valid."""
        parts = urlsplit(link)
        place = unquote(parts.path)
        found = self._files.get(place)
        if found is None:
            raise DeadLink(404, "NoSuchKey", "The specified key does not exist.")
        if place.startswith(_UPLOADS):
            self.check(link)
        elif self._clock.now() > found.since + self._assumptions.result_seconds:
            raise self.expired()
        return found

    def expired(self) -> DeadLink:
        """Returns the answer to the expired link of a result."""
        return DeadLink(self._assumptions.expired_result_status, "NoSuchKey", "The specified key does not exist.")

    def check(self, link: str) -> str:
        """Checks the signature of a link, and returns the path of the link; raises `DeadLink`."""
        parts = urlsplit(link)
        place, query = unquote(parts.path), parse_qs(parts.query, separator="&")
        window = query.get("q-sign-time", [""])[0]
        signature = query.get("q-signature", [""])[0]
        if not hmac.compare_digest(signature.encode(), self._signature(place, window).encode()):
            raise DeadLink(403, "SignatureDoesNotMatch", "The signature does not match.")
        if self._clock.now() > int(window.partition(";")[2]):
            raise DeadLink(self._assumptions.expired_upload_status, "AccessDenied", "Request has expired")
        return place

    def _signature(self, place: str, window: str) -> str:
        return hmac.new(self._secret, f"{place}\n{window}".encode(), "sha1").hexdigest()
