"""Opens, copies and hashes input files from paths and URLs, and detects changes during reading."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias
from urllib.parse import urlunsplit

import httpx
from fsspec import AbstractFileSystem

from rh_prefect.errors import MediaError, RunningHubError
from rh_prefect.local_files import atomic_path
from rh_prefect.media.file_state import Stamp, of_headers, of_object, of_stat
from rh_prefect.media.input_access_policy import CheckedTransport, current_access
from rh_prefect.media.media import Media
from rh_prefect.media.storage_errors import as_media_error, guarded, in_time, pieces_of
from rh_prefect.media.storage_urls import (
    is_local,
    is_web_link,
    local_path,
    open_filesystem,
    protocol_of,
    shown_url,
    split_url,
    unsigned,
)
from rh_prefect.media.writers import BLOCK_SIZE, Tally
from rh_prefect.redaction import hide_signature

Source = Media | str | os.PathLike[str]
"""The types of an input: a `Media`, a path, an fsspec URI or an http(s) URL."""

CheckSize: TypeAlias = Callable[[int], None]
"""A function that raises an error if a size in bytes is not allowed."""

READ_SECONDS = 1800.0
"""Maximum seconds for reading one input."""

_TIMEOUT = httpx.Timeout(60, connect=30)

_TRIES = 3
"""Number of times that a file is read if it changes meanwhile."""

_TELLING = frozenset({401, 403, 404, 410, 429, 500, 502, 503, 504})
"""HTTP statuses of a refusal that also applies to a request for the whole file, not only for its first byte."""

_DIGITS = 19

# The length of a compressed response is not that of the file, and some servers give each form a separate ETag.
_PLAIN = {"Accept-Encoding": "identity"}


class Fetched(NamedTuple):
    """The hash and size of content that was read, and the stamp if an equal stamp proves equal content."""

    sha256: str
    size: int
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class FileState:
    """The stamp and size of a file before it is read; each is None if the file's storage does not report this value."""

    stamp: Stamp | None = None
    size: int | None = None


def identity_uri(source: Source) -> str:
    """Returns the canonical URI of a file: absolute, without a link's fragment; a path becomes `file:///…`.

    The URI contains the whole address, because user, query and signature may identify the file. So the URI may contain
    a secret: it is compared and hashed, and never shown or recorded. For messages, use `shown`.
    """
    uri = _text(source)
    if is_local(uri):
        return Path(local_path(uri)).as_uri()
    if not is_web_link(uri):
        protocol, mark, rest = uri.partition("://")
        return f"{protocol_of(uri)}{mark}{rest}" if "::" not in uri and protocol else uri
    parts = split_url(uri)
    user, at, host = parts.netloc.rpartition("@")
    host = host.lower().removesuffix({"http": ":80", "https": ":443"}[parts.scheme])
    return urlunsplit((parts.scheme, f"{user}{at}{host}", parts.path or "/", parts.query, ""))


def unsigned_uri(source: Source) -> str | None:
    """Returns a presigned link without its signature; None for any other source."""
    text = _text(source)
    name = unsigned(text) if is_link(text) else None
    return None if name is None else identity_uri(name)


def shown(source: Source) -> str:
    """Returns the source as messages show it: without query, user and password."""
    text = _text(source)
    if text.startswith("data:"):
        return text.partition(",")[0]
    text = shown_url(text)
    if is_local(text):
        return text
    return text.partition("?")[0].partition("#")[0] if is_web_link(text) else unsigned(text) or text


@contextmanager
def naming(copies: Mapping[Path, Source]) -> Iterator[None]:
    """In a `with` block, replaces the names of copies in errors with the names of the files that were copied."""
    try:
        yield
    except RunningHubError as error:
        for copy in sorted(copies, key=lambda one: len(str(one)), reverse=True):  # clip-12 before clip-1
            error.message = error.message.replace(str(copy), shown(copies[copy]))
        raise


def is_link(source: Source) -> bool:
    """Returns whether a source is an http(s) link."""
    return is_web_link(_text(source))


def file_state(source: Source, *, options: Mapping[str, object] | None = None) -> FileState:
    """Reads the state and length of a file, not its content; raises `MediaError` if the file is not a regular one."""
    return _Reading(source, options or {}).state()


@contextmanager
def open_input(source: Source, *, options: Mapping[str, object] | None = None) -> Iterator[BinaryIO]:
    """Opens a file for reading, with constant memory use; raises `MediaError` if it cannot be read or is empty."""
    with _Reading(source, options or {}).opened() as (reader, _):
        yield reader


def digest(
    source: Source, *, check_size: CheckSize = lambda _: None, clock: Callable[[], float] = time.time
) -> Fetched:
    """Reads a file, and returns its hash, size and stamp; see `fetch`."""
    return _Reading(source, {}, check_size).settled(None, clock)


def fetch(
    source: Source,
    to: Path,
    *,
    options: Mapping[str, object] | None = None,
    check_size: CheckSize = lambda _: None,
    seconds: float = READ_SECONDS,
    clock: Callable[[], float] = time.time,
) -> Fetched:
    """Copies a file to this machine, with constant memory use; the local file is complete or does not exist.

    `check_size` raises an error if the size is not allowed. It is called before reading if the length is known,
    otherwise during reading. The content of a `Media` must match its hash. Raises `MediaError` as `open_input` does,
    and if the file keeps changing; raises `OSError` if the local file cannot be written.
    """
    with atomic_path(to, durable=False) as part:
        found = _Reading(source, options or {}, check_size, seconds).settled(part, clock)
        if isinstance(source, Media) and found.sha256 != source.sha256:
            raise MediaError(
                f"The file {shown(source)} was changed after it was read or made. No job was submitted with the "
                "changed file. What to do: if the file is a result, do one of these: put the original file back and "
                "run again; delete the changed file and run again; or pass the path of the changed file. For any other "
                "file, run again to use the changed one."
            )
        return found


@dataclass(frozen=True, slots=True)
class _Reading:
    """One input to be read: its location, the way to open it, and the limits for its size and its reading time."""

    source: Source
    options: Mapping[str, object]
    check_size: CheckSize = lambda _: None
    seconds: float = READ_SECONDS

    def state(self) -> FileState:
        text = _text(self.source)
        with self._guard():
            _check(text)
            if is_local(text):
                found = _regular(Path(local_path(text)).stat(), text)
                return FileState(of_stat(found), found.st_size)
            if is_web_link(text):
                return _state_of_link(text)
            return _state_of_object(*open_filesystem(text, self.options))

    def settled(self, to: Path | None, clock: Callable[[], float]) -> Fetched:
        """Reads until the file's state is the same before and after reading, so that versions are never mixed."""
        if is_link(self.source):
            return self._read(to, None)  # a link's state comes with the response that is read
        for _ in range(_TRIES):
            before, began = self.state(), clock()
            try:
                found, error = self._read(to, before), None
            except MediaError as failed:
                found, error = None, failed
            if self.state() != before:
                continue  # even if the reading failed because of the change
            if found is None:
                raise error or AssertionError("unreachable: reading always returns a result or an error")
            stamp = before.stamp
            return found._replace(stamp=stamp if stamp is not None and stamp.is_proof(read_at=began) else None)
        raise MediaError(
            f"The file {shown(self.source)} changed while it was being read. What to do: wait until it is complete, "
            "then run again."
        )

    @contextmanager
    def opened(self, known: FileState | None = None) -> Iterator[tuple[BinaryIO, FileState]]:
        name = shown(self.source)
        with ExitStack() as stack:
            with self._guard():
                pieces, at_first = _open(stack, _text(self.source), self.options, known)
                if at_first.size:
                    self.check_size(at_first.size)
                reader = guarded(in_time(pieces, self.seconds, name), self._guard)
                if not reader.peek(1):  # type: ignore[attr-defined]  # BinaryIO does not promise a buffered reader
                    raise MediaError(f"The file {name} is empty. What to do: use a file with content.")
            yield reader, at_first

    def _read(self, to: Path | None, known: FileState | None) -> Fetched:
        tally = Tally()
        with ExitStack() as stack:
            reader, at_first = stack.enter_context(self.opened(known))
            file = stack.enter_context(to.open("wb")) if to is not None else None
            for chunk in tally.chunks(reader):
                self.check_size(tally.size)
                if file is not None:
                    file.write(chunk)
        return Fetched(tally.digest.hexdigest(), tally.size, at_first.stamp)

    def _guard(self) -> AbstractContextManager[None]:
        return as_media_error(shown(self.source), options=self.options)


def _text(source: Source) -> str:
    return source.uri if isinstance(source, Media) else os.fspath(source)


def _open(
    stack: ExitStack, text: str, options: Mapping[str, object], known: FileState | None
) -> tuple[Iterator[bytes], FileState]:
    _check(text)
    if is_local(text):
        return _open_local(stack, text)
    if is_web_link(text):
        return _open_link(stack, text)
    fs, path = open_filesystem(text, options)
    # The file system of an archive closes the archive as soon as nothing refers to it.
    stack.callback(lambda _: None, fs)
    at_first = known or _state_of_object(fs, path)
    return pieces_of(stack.enter_context(fs.open(path, "rb", block_size=BLOCK_SIZE)).read), at_first


def _check(text: str) -> None:
    if text.startswith("data:"):
        raise MediaError("A data: URI was given for a file. What to do: save its content as a file and give the path.")
    current_access().check(text)


def _open_local(stack: ExitStack, text: str) -> tuple[Iterator[bytes], FileState]:
    path = Path(local_path(text))
    _regular(path.stat(), text)
    # Not blocking: opening a pipe that has replaced the file would wait until it is written to.
    file = stack.enter_context(FileIO(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)))
    found = _regular(os.fstat(file.fileno()), text)
    return pieces_of(file.read), FileState(of_stat(found), found.st_size)


def _regular(found: os.stat_result, text: str) -> os.stat_result:
    """Raises an error for files without a known end: pipes, devices and sockets."""
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError
    if not stat.S_ISREG(found.st_mode):
        raise MediaError(
            f"{text} is a pipe, a device or a socket, not a regular file. "
            "What to do: save its content as a file and give the path."
        )
    return found


def _state_of_object(fs: AbstractFileSystem, path: str) -> FileState:
    """Reads an object's state without the listing cache, which may be out of date."""
    fs.invalidate_cache()
    info = fs.info(path)
    if info["type"] == "directory":
        raise IsADirectoryError
    size = info.get("size")
    return FileState(of_object(fs, path, info), size if isinstance(size, int) else None)


def _state_of_link(url: str) -> FileState:
    """Requests only the first byte, because presigned links do not allow HEAD."""
    with ExitStack() as stack:
        response = _get(stack, url, {"Range": "bytes=0-0"})
        if response.status_code in _TELLING:
            raise MediaError(f"The file {shown(url)} cannot be read: {_refused(response.status_code)}")
        return FileState(of_headers(response.headers), _length(response)) if response.is_success else FileState()


def _open_link(stack: ExitStack, url: str) -> tuple[Iterator[bytes], FileState]:
    response = _get(stack, url, {})
    if not response.is_success:
        raise MediaError(f"The file {shown(url)} cannot be read: {_refused(response.status_code)}")
    at_first = FileState(of_headers(response.headers), _length(response))
    return response.iter_bytes(), at_first


def _get(stack: ExitStack, url: str, headers: Mapping[str, str]) -> httpx.Response:
    transport = CheckedTransport(current_access())
    client = stack.enter_context(httpx.Client(transport=transport, follow_redirects=True, timeout=_TIMEOUT))
    request = client.build_request("GET", url, headers={**_PLAIN, **headers})
    hide_signature(request)
    response = client.send(request, stream=True)
    stack.callback(response.close)
    return response


def _length(response: httpx.Response) -> int | None:
    if response.headers.get("content-encoding", "identity") != "identity":
        return None
    header = response.headers.get("content-length", "")
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        header = response.headers.get("content-range", "").rpartition("/")[2]
    return int(header) if header.isdecimal() and len(header) < _DIGITS else None


def _refused(status: int) -> str:
    if status in (404, 410):
        return f"the host has no such file (HTTP {status}). What to do: check the link."
    if status in (401, 403):
        return (
            f"the host refuses access (HTTP {status}). What to do: sign the link again; the signature may have expired."
        )
    if status == 429 or status >= 500:
        return f"the host cannot serve the file now (HTTP {status}). What to do: run again later."
    return f"the host returned HTTP {status}. What to do: open the link in a browser to see why."
