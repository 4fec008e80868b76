"""Downloads files with resume, integrity checks and constant memory; also writes the content of `data:` URLs."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import os
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote, unquote_to_bytes

import httpcore
import httpx

from rh_prefect.client.http_connections import FOREIGN, RESEND, SendTrace
from rh_prefect.client.json_values import loads
from rh_prefect.client.responses import RequestInfo, no_answer
from rh_prefect.client.wire.account_files_and_assets import Download
from rh_prefect.errors import LinkExpired, StoreError, TransportError
from rh_prefect.local_files import make_folder, make_public, overwrite
from rh_prefect.redaction import HIDDEN, MaskedUrl, bare, mask, without_query

CHUNK: Final = 1024 * 1024
DEAD: Final = frozenset({401, 403, 404, 410})
"""HTTP statuses of signed URLs that no longer work."""

_CONTENT_RANGE: Final = re.compile(r"bytes\s+(?:(\d+)-\d+|\*)/(\d+|\*)")

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes on disk and the total number of bytes, or None if the total is unknown."""


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "What to do: free some space there, or choose another folder"
        raise StoreError(f"{path}: a download cannot be saved here ({error.strerror or error}). {advice}.") from error


def resume_note(to: Path) -> Path:
    """Returns the path of the resume file next to an unfinished download; this file identifies the remote file."""
    return to.with_name(f"{to.name}.resume")


def discard_partial(to: Path) -> None:
    """Removes a download, finished or not, and its resume file."""
    with _writable(to):
        to.unlink(missing_ok=True)
        resume_note(to).unlink(missing_ok=True)


def discard_note(to: Path) -> None:
    """Removes the resume file, so that the download cannot be resumed."""
    with _writable(to):
        resume_note(to).unlink(missing_ok=True)


class Partial:
    """The local part of a download; its methods block and are called in threads.

    A download can be resumed only if the resume file contains the link and the server's strong validator (ETag). A link
    with a different query, such as a new signature, may lead to a different file, so the ETag must be the same. Only
    the user can read an incomplete file.
    """

    def __init__(self, to: Path, url: str) -> None:
        self._to = to
        self._source, self._link = _short_hash(bare(url)), _short_hash(url)
        self._file: BinaryIO | None = None
        self._busy = threading.Lock()  # a cancelled call closes the file while its thread may still be writing
        self.size = 0
        self.total: int | None = None
        self.validator = ""
        self.is_complete = False

    def load(self) -> None:
        """Reads the state that an earlier call has written."""
        note = self._read_note()
        with _writable(self._to):
            size = self._to.stat().st_size if self._to.is_file() else 0
        total, validator = note.get("total"), str(note.get("validator") or "")
        is_same_link = note.get("link") == self._link
        is_whole = is_same_link and total == size
        is_part = validator.startswith('"') or (is_same_link and validator != "")
        if note.get("source") != self._source or not size or not (is_whole or is_part):
            return
        self.size, self.is_complete, self.validator = size, is_whole, validator
        self.total = total if isinstance(total, int) else None

    def _read_note(self) -> dict[str, object]:
        try:
            found = loads(resume_note(self._to).read_bytes())
        except OSError:
            return {}
        return found if isinstance(found, dict) else {}

    def restart(self, *, total: int | None = None, validator: str = "") -> None:
        """Starts the download again; empties the file first, so that old bytes never exist with a new resume file."""
        self.close()
        self.size, self.total, self.validator, self.is_complete = 0, total, validator, False
        with _writable(self._to):
            make_folder(self._to.parent)
            overwrite(self._to).close()
        self._write_note()

    def _write_note(self) -> None:
        note = {"source": self._source, "link": self._link, "validator": self.validator, "total": self.total}
        with _writable(self._to), overwrite(resume_note(self._to)) as file:
            file.write(json.dumps(note).encode())

    def add(self, chunk: bytes) -> None:
        """Appends received bytes to the file."""
        with self._busy, _writable(self._to):
            self._file = self._file or self._to.open("ab", buffering=0)
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._file.fileno(), view) :]
            self.size += len(chunk)

    def finish(self) -> Download:
        """Records that the file is complete, so that the next call sends no request."""
        self.close()
        with _writable(self._to):
            make_public(self._to)
        self.total = self.size
        self._write_note()
        return Download(size=self.size)

    def close(self) -> None:
        """Closes the file."""
        with self._busy:
            if self._file is not None:
                self._file.close()
                self._file = None

    def headers(self) -> dict[str, str]:
        """Returns the headers that request the rest of the file if the file is unchanged."""
        rest = {"Range": f"bytes={self.size}-", "If-Range": self.validator} if self.size else {}
        return {"Accept-Encoding": "identity", **rest}


async def download(
    client: httpx.AsyncClient,
    url: str,
    to: Path,
    *,
    progress: Progress | None = None,
    hidden: MaskedUrl | None = None,
) -> Download:
    """Downloads a file, or the rest of a file. See `Client.download`; `hidden` is the actual URL if `url` is masked."""
    ask = RequestInfo(f"download of {mask(bare(url))}")
    partial = Partial(to, url)
    await asyncio.to_thread(partial.load)
    try:
        while not partial.is_complete:
            if await _fetch(client, url, partial, ask, progress, hidden):
                break
        return await asyncio.to_thread(partial.finish)
    finally:
        partial.close()


async def _fetch(
    client: httpx.AsyncClient,
    url: str,
    partial: Partial,
    ask: RequestInfo,
    progress: Progress | None,
    hidden: MaskedUrl | None,
) -> bool:
    sending = SendTrace()
    try:
        hidden = hidden or without_query(url)
        extensions = {RESEND: True, "trace": sending.trace, HIDDEN: hidden}
        async with client.stream("GET", hidden.shown, headers=partial.headers(), extensions=extensions) as response:
            if not await _prepare(response, partial, ask):
                return False
            if response.status_code != 416:  # whose body is not a part of the file
                await _pour(response, partial, progress)
            if progress is not None:
                progress(partial.size, partial.total)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise LinkExpired(f"{ask.doing}: the URL is not valid. What to do: query the task again.") from error
    except FOREIGN as error:
        raise _broken(sending.explain(error, ask), partial) from error
    await _check_length(partial, ask)
    return True


async def _pour(response: httpx.Response, partial: Partial, progress: Progress | None) -> None:
    waiting = bytearray()
    try:
        async for piece in _pieces(response):
            waiting += piece
            if len(waiting) >= CHUNK:
                chunk, waiting = bytes(waiting), bytearray()
                await asyncio.to_thread(partial.add, chunk)
                if progress is not None:
                    progress(partial.size, partial.total)
    finally:  # bytes received before an interruption are kept
        if waiting:
            await asyncio.to_thread(partial.add, bytes(waiting))


async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yields the body; after the first piece, reads the connection directly, which halves httpx's CPU time."""
    rest = _plain_length(response)
    pieces = response.aiter_bytes()  # without a name for it, its end would close the connection
    async for piece in pieces:
        yield piece
        rest -= len(piece)  # the first piece holds everything that httpx has read so far
        if rest > CHUNK:
            break
    else:
        return
    stream, timeout = response.extensions["network_stream"], response.request.extensions["timeout"]["read"]
    while rest:
        try:
            piece = await stream.read(min(rest, CHUNK), timeout)
        except httpcore.TimeoutException as error:
            raise httpx.ReadTimeout(str(error)) from error
        except httpcore.NetworkError as error:
            raise httpx.ReadError(str(error)) from error
        if not piece:
            raise httpx.RemoteProtocolError(f"{rest} bytes of the body are missing")
        yield piece
        rest -= len(piece)


def _plain_length(response: httpx.Response) -> int:
    """Returns the length of an uncompressed body; 0 if the length is not known."""
    is_plain = not response.headers.get("content-encoding") and not response.headers.get("transfer-encoding")
    return (_length(response) or 0) if is_plain and "network_stream" in response.extensions else 0


def _broken(error: TransportError, partial: Partial) -> TransportError:
    if not partial.size or not partial.validator:  # without one, the next call begins again
        return error
    of = "" if partial.total is None else f" of {partial.total}"
    return type(error)(f"{error.message} {partial.size}{of} bytes are kept; the next call continues from there.")


async def _check_length(partial: Partial, ask: RequestInfo) -> None:
    size, total = partial.size, partial.total
    if total is not None and size > total:
        await asyncio.to_thread(partial.restart)
        raise no_answer(
            ask, f"{size} bytes were received, but {total} were announced; the received bytes are discarded"
        )
    if total is not None and size < total:
        advice = "; these bytes are kept, and the next call continues from there" if partial.validator else ""
        raise no_answer(ask, f"only {size} of {total} bytes were received{advice}")


async def _prepare(response: httpx.Response, partial: Partial, ask: RequestInfo) -> bool:
    """Prepares the local file for the body of a response.

    Returns False if the body is the rest of a different file; a new request is then needed.
    """
    status = response.status_code
    if status in DEAD:
        advice = "What to do: query the task again; the response may contain a new link"
        raise LinkExpired(f"{ask.doing}: the link no longer works (HTTP {status}). {advice}.")
    validator, is_encoded = _validator(response.headers), bool(response.headers.get("content-encoding"))
    if status == 200:
        total = None if is_encoded else _length(response)
        await asyncio.to_thread(partial.restart, total=total, validator=validator)
        return True
    if status not in {206, 416} or not partial.size:
        raise no_answer(ask, f"the file host returned HTTP {status}")
    start, total = _content_range(response)
    is_same_file = validator in {"", partial.validator} and not is_encoded
    if is_same_file and status == 416 and total == partial.size:
        # The earlier length was wrong. Without this the download would never finish.
        partial.total = None
        return True
    fits = start == partial.size and (partial.total is None or total in {None, partial.total})
    if is_same_file and status == 206 and fits:
        partial.total = total or partial.total
        return True
    await asyncio.to_thread(partial.restart)
    return False


def _content_range(response: httpx.Response) -> tuple[int | None, int | None]:
    found = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
    if found is None:
        return None, None
    start, total = found.groups()
    return (None if start is None else int(start)), (None if total == "*" else int(total))


def _length(response: httpx.Response) -> int | None:
    length = response.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else None


def _validator(headers: Mapping[str, str]) -> str:
    tag = headers.get("etag", "")
    return tag if tag.startswith('"') else headers.get("last-modified", "")


def is_data_url(url: str) -> bool:
    """Returns whether a link is a `data:` URL, which contains the file."""
    return url[:5].lower() == "data:"


def write_data(url: str, to: Path) -> Download:
    """Writes the file in a `data:` URL; replaces an existing file."""
    head, comma, body = url.partition(",")
    is_base64 = head.rstrip().lower().endswith(";base64")
    try:
        data = _base64(unquote(body)) if is_base64 else unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise LinkExpired(
            f"download of {head}: the content is not valid base64. What to do: query the task again."
        ) from error
    if not comma:
        raise LinkExpired(f"download of {head[:60]}: this data: URL has no content. What to do: query the task again.")
    with _writable(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(data)
    return Download(size=len(data))


def _base64(text: str) -> bytes:
    """Decodes base64 of either alphabet; raises a `ValueError` for other characters, which Python would skip."""
    return base64.b64decode("".join(text.split()).replace("-", "+").replace("_", "/"), validate=True)
