"""The files that a request names: found in the file store, decoded or fetched, and checked as the service does."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from rh_prefect.catalog.model import Model, Param
from rh_prefect.emulator.accounts import ApiKey
from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.file_store import DeadLink, FileStore
from rh_prefect.emulator.request_texts import texts
from rh_prefect.emulator.responses import Refused
from rh_prefect.errors import MediaError
from rh_prefect.media.probe import Facts, probe

if TYPE_CHECKING:
    from rh_prefect.emulator.state import State

_MIB: Final = 1024 * 1024
_FAILED: Final = "File processing failed"
_OTHER_NAMES: Final = {"jpeg": "jpg", "tiff": "tif"}
_FETCH_SECONDS: Final = 10.0


@dataclass(slots=True)
class Inputs:
    """The files of one request by wire key, and their lengths in seconds by kind of file."""

    files: dict[str, list[Path]] = field(default_factory=dict)
    lengths: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """The length of the input for pricing, in seconds: the video's, or else the sound's."""
        return self.lengths.get("video", self.lengths.get("audio"))


def gather(state: State, key: ApiKey, model: Model, payload: Mapping[str, object]) -> Inputs:
    """Finds and checks all files of a request; blocks, so call it from a thread.

    Raises:
        Refused: A link has expired or does not exist (1013), a file is invalid (1013) or too large (1008).
    """
    inputs = Inputs()
    for param in model.params:
        value = payload.get(param.key)
        links = value if isinstance(value, list) else [value]
        if param.is_media and value:
            inputs.files[param.key] = [_checked(inputs, state, key, param, str(link)) for link in links]
        elif param.type == "json":
            found = [local(state, key, link, param.key) for link in _own_links(state.file_store, value)]
            inputs.files.update({param.key: found} if found else {})
    return inputs


def sha256_of(path: Path) -> str:
    """Returns the hash of a file; an uploaded file already has its hash as its name."""
    if re.fullmatch(r"[0-9a-f]{64}", path.stem):
        return path.stem
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_links(file_store: FileStore, value: object) -> Iterable[str]:
    """Returns the links of this file store inside a `json` parameter; other links are ignored."""
    return (text for text in texts(value) if file_store.owns(text))


def _checked(inputs: Inputs, state: State, key: ApiKey, param: Param, link: str) -> Path:
    path = local(state, key, link, param.key)
    if param.max_size_mb is not None and path.stat().st_size > param.max_size_mb * _MIB:
        raise Refused("1008", f"{param.key}: file size exceeds {param.max_size_mb} MB")
    facts = _facts(state.assumptions, param, path)
    if facts.seconds:
        inputs.lengths.setdefault(facts.kind, facts.seconds)
    return path


def _facts(assumptions: Assumptions, param: Param, path: Path) -> Facts:
    try:
        facts = probe(path)
    except MediaError as error:
        raise Refused(assumptions.bad_file, f"{_FAILED}: {param.key}: not a readable file") from error
    if facts.kind != param.type:
        raise Refused(assumptions.bad_file, f"{_FAILED}: {param.key}: not a file of the type {param.type}")
    if param.accept and _plain(facts.extension) not in map(_plain, param.accept):
        raise Refused(assumptions.bad_file, f"{_FAILED}: {param.key}: unsupported format {facts.extension}")
    return facts


def _plain(extension: str) -> str:
    name = extension.lower().lstrip(".")
    return _OTHER_NAMES.get(name, name)


def local(state: State, key: ApiKey, link: str, name: str) -> Path:
    """Returns the file behind a link, downloaded if necessary.

    Args:
        state: The emulator.
        key: The key of the request.
        link: An `http`, `data` or `asset` link.
        name: The name for a refusal.

    Raises:
        Refused: The link does not exist or has expired.
    """
    file_store = state.file_store
    if file_store.owns(link):
        try:
            return file_store.find(link).path
        except DeadLink as dead:
            raise Refused("1013", f"{_FAILED}: {name}: {dead}") from dead
    if link.startswith("data:"):
        return _decode(file_store.folder, link, name)
    if link.startswith("asset://"):
        asset = state.assets.ready(key.account, link.removeprefix("asset://"))
        if asset is None:
            raise Refused(state.assumptions.asset_refused, f"{_FAILED}: {name}: asset not found or not active")
        return asset
    return _fetch(file_store, link, name, most=state.assumptions.upload_max_bytes)


def _decode(folder: Path, link: str, name: str) -> Path:
    head, _, body = link.partition(",")
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("1013", f"{_FAILED}: {name}: not valid Base64") from error
    if not head.endswith(";base64") or not data:
        raise Refused("1013", f"{_FAILED}: {name}: not a Base64 data URI")
    return write_once(folder / f"data-{hashlib.sha256(data).hexdigest()}", data)


def write_once(path: Path, data: bytes) -> Path:
    """Writes a file that is named by its content; another thread may be reading it, so it is never rewritten."""
    if not path.exists():
        part = path.with_name(f"{path.name}.{threading.get_ident()}.part")
        part.write_bytes(data)
        part.replace(path)
    return path


def _fetch(file_store: FileStore, link: str, name: str, *, most: int) -> Path:
    folder = file_store.folder
    part = folder / f"fetched-{threading.get_ident()}.part"
    digest = hashlib.sha256()
    try:
        with (
            httpx.Client(timeout=_FETCH_SECONDS, follow_redirects=True, trust_env=False) as client,
            client.stream("GET", link) as response,
            part.open("wb") as file,
        ):
            response.raise_for_status()
            for chunk in response.iter_bytes():
                file.write(chunk)
                digest.update(chunk)
                if file.tell() > most or file_store.is_closed:
                    raise Refused("1008")
        return part.replace(folder / f"fetched-{digest.hexdigest()}")  # not by its link, whose file may change
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OverflowError) as error:  # a host or port that cannot exist
        raise Refused("1013", f"{_FAILED}: {name}: URL not reachable") from error
    finally:
        part.unlink(missing_ok=True)
