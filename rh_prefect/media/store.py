"""`MediaStore`: reads and writes files in a folder of any file system that fsspec supports."""

from __future__ import annotations

import logging
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from fsspec import AbstractFileSystem

from rh_prefect.bounded_caches_and_locks import LruCache
from rh_prefect.errors import ConfigError, StoreError
from rh_prefect.local_files import PART
from rh_prefect.media.file_name_templates import DEFAULT_TEMPLATE, check_name, check_template, extension_of, fill
from rh_prefect.media.file_state import Stamp, of_object
from rh_prefect.media.file_types_and_completeness import sniff
from rh_prefect.media.input_access_policy import is_deployed
from rh_prefect.media.media import Media
from rh_prefect.media.probe import facts_or_type
from rh_prefect.media.storage_errors import as_store_error, guarded, pieces_of
from rh_prefect.media.storage_listing import files_below
from rh_prefect.media.storage_urls import (
    WITHOUT_THREADS,
    identity_of,
    is_local,
    is_relative,
    local_path,
    locate,
    open_filesystem,
    open_link,
    protocol_of,
    shown_url,
    signed_link,
    without_user,
)
from rh_prefect.media.writers import BLOCK_SIZE, Tally, move_to_folder, writer_for

LONGEST_LINK = 7 * 86400
"""Maximum validity of a signed link on S3, in seconds."""

_log = logging.getLogger("rh_prefect")
_Opened: TypeAlias = "tuple[AbstractFileSystem, str]"

_OPEN: LruCache[str, _Opened] = LruCache(16)
"""This process's file systems and roots, by location and options. A file system for S3 takes 1.5 MB, and each flow run
opens a store. fsspec's own cache keeps one file system for each thread, without a limit.
"""

_INHERITED: list[object] = []
"""File systems of a parent process, which are kept: closing them would close the parent's connections."""


def _after_fork() -> None:
    # A child has no thread for what its parent has opened.
    if len(_OPEN):
        _INHERITED.append(dict(_OPEN))
        _OPEN.clear()


os.register_at_fork(after_in_child=_after_fork)


def lasting_location(url: str) -> str:
    """Returns the URL of a location for outputs or records; a local folder becomes an absolute path.

    Raises a `ConfigError` if the location is relative to the temporary folder of a worker.
    """
    if not is_local(url):
        return url
    if is_relative(url) and is_deployed() and _is_temporary(Path.cwd()):
        raise ConfigError(
            f"{url!r} is a relative path. This flow run works in the temporary folder {Path.cwd()}, which its worker "
            "deletes when the run ends, so all files would be lost. Nothing was paid. What to do: set the "
            "variable that names the folder on the worker (RH_STORAGE_URL or RH_RECORDS), or the URL in the "
            "MediaStorage block, to an absolute path or a URL such as s3://bucket/prefix."
        )
    return locate(url)


def _is_temporary(folder: Path) -> bool:
    return folder.resolve().is_relative_to(Path(tempfile.gettempdir()).resolve())


class MediaStore:
    """A folder for files: local, S3, or any other storage that fsspec supports.

    A file with its final name is always complete. All methods block and may be called from many threads.

        store = MediaStore("s3://bucket/films", options={"key": "…", "secret": "…"})
        media = store.publish(Path("film.mp4"), "2026/film.mp4")

    Args:
        url: A folder or an fsspec URL.
        options: fsspec's storage options, such as key and secret; they are never shown.
        signed_inputs: Whether RunningHub can reach signed links to this storage.
        template: The template for file names; see `name_for`.

    Attributes:
        url: The location, without credentials; a local folder as an absolute path.
        protocol: fsspec's name for the kind of storage; "file" for a local folder.
        signed_inputs: As given.
        template: As given.
        identity: Equal for stores of one location with the same options, in this process only: two services can have
            buckets with the same name. Caches use this value, not the URL.

    Raises:
        ConfigError: The URL or the template cannot be used.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] = "rh-output",
        *,
        options: Mapping[str, object] | None = None,
        signed_inputs: bool = False,
        template: str = DEFAULT_TEMPLATE,
    ) -> None:
        self.signed_inputs = signed_inputs
        self.template = check_template(template)
        self._options = dict(options or {})
        self._where = locate(os.fspath(url))
        self.protocol = protocol_of(self._where)
        self.url = without_user(self._where)
        self.identity = identity_of(self._where, self._options)
        self._shown = shown_url(self._where)
        self._opened: tuple[int, _Opened] | None = None  # The process that has opened it, and what it opened

    def __repr__(self) -> str:
        return f"MediaStore({self._shown!r}, signed_inputs={self.signed_inputs})"

    def __reduce__(self) -> tuple[object, ...]:
        if self._options or self.url != self._where:
            raise TypeError("A MediaStore with credentials cannot be pickled. What to do: pass the name of its block.")
        return partial(MediaStore, signed_inputs=self.signed_inputs, template=self.template), (self.url,)

    def name_for(
        self, *, run: str, flow: str, model: str, key: str, index: int, ext: str, task: str = "", label: str = ""
    ) -> str:
        """Returns the name that the template gives to a file of a job; the model's name replaces a missing label.

        Characters that a file system does not allow become dashes; such a part then ends with a hash.
        """
        model = model.replace("/", "-")
        fields: dict[str, str | int] = {"run": run, "flow": flow, "model": model, "key": key, "task": task}
        fields |= {"index": index, "label": label or model, "ext": extension_of(ext)}
        return check_name(fill(self.template, fields))

    def uri(self, name: str) -> str:
        """Returns the location of a file: a path or an fsspec URI, without credentials."""
        return f"{self._root}{check_name(name)}"

    def name_of(self, uri: str) -> str | None:
        """Returns the name of the file with this URI; None if the file is not in this store."""
        if self.protocol == "file" and is_local(uri):
            uri = local_path(uri)
        return uri[len(self._root) :] if uri.startswith(self._root) and len(uri) > len(self._root) else None

    def options_for(self, source: str | Media) -> Mapping[str, object]:
        """Returns the storage options for an input: this store's own for the same protocol, otherwise none."""
        uri = source.uri if isinstance(source, Media) else source
        return dict(self._options) if protocol_of(uri) == self.protocol else {}

    def publish(self, local: Path, name: str, *, known: Media | None = None) -> Media:
        """Copies a local file into the store and returns it as `Media`, with the facts of `known` or of the content.

        Memory use does not depend on the file's size. An existing file is replaced. A damaged file is also published,
        without facts, because the file may have been paid for.

        Raises:
            MediaError: The local file does not exist.
            StoreError: The storage refuses the file; nothing was changed at its name.
        """
        facts = _facts(local, known)
        with local.open("rb") as reader:
            tally = self._write(name, reader, mime=facts["mime"])
        return self._media(name, facts, tally)

    def move(self, local: Path, name: str, *, known: Media | None = None) -> Media:
        """Publishes a local file like `publish`, but moves the file if the store is a folder on the same disk."""
        if self.protocol != "file":
            return self.publish(local, name, known=known)
        facts = _facts(local, known)
        with self._at(name, "write") as (_, path):
            tally = move_to_folder(local, path)
        return self.publish(local, name, known=known) if tally is None else self._media(name, facts, tally)

    def describe(self, local: Path, name: str) -> Media:
        """Returns the `Media` that `publish` would return for a local file; writes nothing."""
        facts = _facts(local)
        with local.open("rb") as reader:
            return self._media(name, facts, Tally().drain(reader))

    def write_stream(self, name: str, reader: BinaryIO, *, mime: str = "application/octet-stream") -> int:
        """Writes the content of a reader atomically, and returns its size."""
        return self._write(name, reader, mime=mime).size

    def write_bytes(self, name: str, data: bytes) -> str:
        """Writes a small file atomically, and returns its URI."""
        self._write(name, BytesIO(data), mime=sniff(data[:4096], size=len(data)).mime)
        return self.uri(name)

    def read_bytes(self, name: str) -> bytes:
        """Reads a small file; raises `StoreError` if the file cannot be read."""
        with self._at(name, "read") as (fs, path):
            data = fs.cat_file(path)
        return bytes(data)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file of this store for reading, with constant memory use."""
        error_guard = partial(as_store_error, f"read {name}", self._shown, options=self._options)
        with ExitStack() as stack:
            with self._at(name, "read") as (fs, path):
                reader = stack.enter_context(fs.open(path, "rb", block_size=BLOCK_SIZE))
            yield guarded(pieces_of(reader.read), error_guard)

    def exists(self, name: str) -> bool:
        """Returns whether there is a file with this name."""
        return self.size(name) is not None

    def size(self, name: str) -> int | None:
        """Returns the size of a file in bytes; None if the file does not exist."""
        with self._at(name, "look at") as (fs, path):
            try:
                info = fs.info(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            return int(info["size"]) if info["type"] == "file" else None

    def stamp(self, name: str) -> Stamp | None:
        """Returns the state of a file, to detect later changes; None if the file is missing or has no known state."""
        with self._at(name, "look at") as (fs, path):
            try:
                return _stamp_of(Path(path)) if self.protocol == "file" else of_object(fs, path, fs.info(path))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def modified(self, name: str) -> datetime:
        """Returns when a file was last changed; raises `StoreError` if the file does not exist."""
        with self._at(name, "look at") as (fs, path):
            found: datetime = fs.modified(path)
            return found

    def digest(self, name: str) -> str:
        """Reads a whole file, and returns the SHA-256 of its content as hex digits."""
        with self.open(name) as reader:
            return Tally().drain(reader).digest.hexdigest()

    def list(self, folder: str = "") -> list[str]:
        """Returns the names of all files below a folder, sorted; empty if the folder does not exist."""
        return sorted(self.sizes(folder))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Returns the sizes in bytes of all files below a folder, by name; empty if the folder does not exist.

        Raises a `StoreError` if the folder, or one in it, cannot be listed: a caller might pay again for what is there.
        """
        with as_store_error(f"list {folder or 'files'}", self._shown, options=self._options):
            fs, root = self._filesystem()
            top = f"{root}/{check_name(folder.rstrip('/'))}" if folder else root
            start, found = len(root) + 1, files_below(fs, top)
            sizes = {str(path): int(info["size"] or 0) for path, info in found.items()}
            return {p[start:]: size for p, size in sizes.items() if p.startswith(f"{top}/") and not p.endswith(PART)}

    def delete(self, name: str) -> None:
        """Deletes a file; a missing file is not an error."""
        with self._at(name, "delete") as (fs, path):
            try:
                fs.rm_file(path)
            except FileNotFoundError as error:
                if type(error.__cause__).__name__ == "NoSuchBucket":
                    raise

    def signed_url(self, name: str, *, seconds: int = 86400) -> str | None:
        """Returns an expiring link for RunningHub; None without `signed_inputs` or without a way to sign links."""
        return self.link(name, seconds=seconds) if self.signed_inputs else None

    def link(self, name: str, *, seconds: int) -> str | None:
        """Returns a signed link, which expires; None if the storage cannot sign links, as a local folder."""
        with self._at(name, "sign a link to") as (fs, path):
            return signed_link(fs, path, seconds)

    def check(self) -> None:
        """Writes, reads and deletes a small file; a `StoreError` names the operation that the storage refuses.

        Raises a `ConfigError` if several jobs at once could not write to this kind of storage.
        """
        if self.protocol in WITHOUT_THREADS:
            raise ConfigError(
                f"Outputs cannot be stored at {self._shown}: the library for {self.protocol}:// does not support "
                "several jobs at once, and paid results could be lost. No job was submitted. What to do: use a "
                "folder, s3://, gs://, abfs:// or sftp://; or mount the server as a folder. Existing files there can "
                "still be read."
            )
        name, data = f"rh-prefect-check-{uuid.uuid4().hex[:12]}.txt", os.urandom(64)
        self.write_bytes(name, data)
        try:
            same = self.read_bytes(name) == data
        except StoreError:
            with suppress(StoreError):
                self.delete(name)
            raise
        self.delete(name)
        if not same:
            raise StoreError(
                f"{self._shown} returned bytes that differ from those written. What to do: choose another location for "
                "files."
            )

    @property
    def _root(self) -> str:
        return self.url if self.url.endswith("/") else f"{self.url}/"

    def _media(self, name: str, facts: Mapping[str, Any], tally: Tally) -> Media:
        return Media(uri=self.uri(name), size=tally.size, sha256=tally.digest.hexdigest(), **facts)

    def _write(self, name: str, reader: BinaryIO, *, mime: str) -> Tally:
        tally = Tally()
        with self._at(name, "write") as (fs, path):
            writer_for(self.protocol)(fs, path, tally.chunks(reader), mime)
        return tally

    @contextmanager
    def _at(self, name: str, doing: str) -> Iterator[tuple[AbstractFileSystem, str]]:
        check_name(name)
        with as_store_error(f"{doing} {name}", self._shown, options=self._options):
            fs, root = self._filesystem()
            yield fs, f"{root}/{name}"

    def _filesystem(self) -> _Opened:
        """Returns the storage's file system and root, which equal stores share; a forked process opens its own."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            if opened is not None:
                _INHERITED.append(opened)
            # Not `identity`: the libraries read the environment now, which may have changed since.
            name = identity_of(self._where, self._options)
            known = _OPEN.get(name)
            if known is None:
                fs, root = open_filesystem(self._where, self._options, skip_instance_cache=True)
                known = _OPEN.setdefault(name, (fs, root.rstrip("/")))
            opened = self._opened = (os.getpid(), known)
        return opened[1]


def link_to(uri: str, store: MediaStore | None) -> str:
    """Returns a link to a file for browsers, valid for as long as possible; empty if there is no link.

    If the file is in `store`, the store signs the link.
    """
    if link := open_link(uri):
        return link
    try:
        name = store.name_of(uri) if store is not None else None
        return (store is not None and name and store.link(name, seconds=LONGEST_LINK)) or ""
    except StoreError as error:
        _log.info("There is no link to %s: %s", uri, error.message)
        return ""


def _facts(local: Path, known: Media | None = None) -> dict[str, Any]:
    """Returns the facts of `known`, or reads them from the file's content if `known` is None."""
    found = known or facts_or_type(local)
    return {name: getattr(found, name) for name in ("kind", "mime", "width", "height", "seconds", "fps", "has_audio")}


def _stamp_of(path: Path) -> Stamp:
    """Returns the state of a local file, from properties that are equal on all machines and after a move."""
    found = path.stat()
    return Stamp(f"time {found.st_mtime_ns} {found.st_size}", found.st_mtime_ns / 1e9)
