"""Inputs: reads a file from wherever it is, and says what it is called without its signature."""

from __future__ import annotations

import functools
import logging
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx
from fsspec.core import url_to_fs

from rh_prefect.errors import MediaError
from rh_prefect.media.names import PART
from rh_prefect.media.place import is_local, local_path, protocol_of, read_options, shown_url, without_user
from rh_prefect.media.reader import BUFFER, Door, from_pieces, guarded
from rh_prefect.media.ref import Media
from rh_prefect.media.refusal import as_media_error
from rh_prefect.media.writers import BLOCK_SIZE, Tally

Source = Media | str | os.PathLike[str]
"""What can be read: a `Media`, a path, an fsspec URI or an http(s) URL."""

_TIMEOUT = httpx.Timeout(60, connect=30)

_SIGNED = ("x-amz-", "x-goog-", "x-oss-", "x-cos-", "q-")
"""How the query parameters of a signature begin: AWS, Google, Aliyun, Tencent (twice)."""

_SIGNATURES = {"signature", "sig", "token", "access_token", "auth_key", "security-token", "hdnts"}
"""Query parameters that are a signature, or that grant access as one does."""

_BESIDE: dict[str, set[str]] = {
    "signature": {"expires", "awsaccesskeyid", "ossaccesskeyid", "googleaccessid", "key-pair-id", "policy"},
    "sig": {"sv", "ss", "srt", "sp", "se", "st", "spr", "sr", "si", "sip", "sdd"}
    | {"skoid", "sktid", "skt", "ske", "sks", "skv"},
}
"""Query parameters that mean something only beside such a signature: S3's first version and CloudFront; Azure."""


class Fetched(NamedTuple):
    """What was read."""

    sha256: str
    size: int


def strip_signature(url: str) -> str:
    """A link without the parameters that sign it, which change with every signing; all else is kept."""
    head, mark, query = url.partition("?")
    if not mark:
        return url
    query, hash_mark, fragment = query.partition("#")
    pairs = [(pair, unquote(pair.partition("=")[0]).lower()) for pair in query.split("&")]
    names = {name for _, name in pairs}
    drop = _SIGNATURES.union(*(beside for sign, beside in _BESIDE.items() if sign in names))
    kept = [pair for pair, name in pairs if name not in drop and not name.startswith(_SIGNED)]
    if len(kept) == len(pairs):
        return url
    return head + ("?" + "&".join(kept) if kept else "") + hash_mark + fragment


def identity_uri(source: Source) -> str:
    """The one spelling of where a file is: absolute, without signature, user, password and fragment.

    Args:
        source: A `Media`, a path, an fsspec URI or an http(s) URL.

    Returns:
        A URI; a local path becomes `file:///…`.
    """
    text = _text(source)
    if is_local(text):
        return Path(local_path(text)).as_uri()
    uri = without_user(strip_signature(text))
    if not _is_http(uri):
        protocol, mark, rest = uri.partition("://")
        return f"{protocol_of(uri)}{mark}{rest}" if "::" not in uri and protocol else uri
    parts = urlsplit(uri)
    host = parts.netloc.lower().removesuffix({"http": ":80", "https": ":443"}[parts.scheme])
    return urlunsplit((parts.scheme, host, parts.path or "/", parts.query, ""))


def shown(source: Source) -> str:
    """The source as it may stand in a message: without any query, user and password."""
    text = _text(source)
    if text.startswith("data:"):
        return text.partition(",")[0]
    text = shown_url(text)
    if is_local(text):
        return text
    return text.partition("?")[0].partition("#")[0] if _is_http(text) else strip_signature(text)


@contextmanager
def open_input(source: Source, *, options: Mapping[str, object] | None = None) -> Iterator[BinaryIO]:
    """Opens a file for reading, in flat memory.

    Args:
        source: A `Media`, a path, an fsspec URI or an http(s) URL.
        options: fsspec's storage options, for an fsspec URI.

    Yields:
        A buffered reader.

    Raises:
        MediaError: The file is missing, is a folder, is empty, or cannot be read.
    """
    text, name = _text(source), shown(source)
    door = functools.partial(as_media_error, name, options=options)
    with ExitStack() as stack:
        with door():
            reader = _open(stack, text, door, options or {})
            if not reader.peek(1):  # type: ignore[attr-defined]  # BinaryIO does not promise what a buffered reader has
                raise MediaError(f"The file {name} is empty. Give one with content.")
        yield reader


def fetch(source: Source, to: Path, *, options: Mapping[str, object] | None = None) -> Fetched:
    """Copies a file to this machine, in flat memory.

    Args:
        source: As in `open_input`.
        to: The local file; it is there whole or not at all.
        options: As in `open_input`.

    Returns:
        Hash and size.

    Raises:
        MediaError: The file is missing, is a folder, is empty, or cannot be read.
        OSError: The local file cannot be written.
    """
    tally = Tally()
    part = to.with_name(f".{uuid.uuid4().hex[:12]}{PART}")
    try:
        with open_input(source, options=options) as reader, part.open("xb") as file:
            for chunk in tally.chunks(reader):
                file.write(chunk)
        part.replace(to)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return Fetched(tally.digest.hexdigest(), tally.size)


def _text(source: Source) -> str:
    return source.uri if isinstance(source, Media) else os.fspath(source)


def _is_http(uri: str) -> bool:
    return uri.lower().startswith(("http://", "https://"))


def _open(stack: ExitStack, text: str, door: Door, options: Mapping[str, object]) -> BinaryIO:
    if text.startswith("data:"):
        raise MediaError("A data: URI was given for a file. Save its content as a file and give the path.")
    if is_local(text):
        return guarded(stack.enter_context(Path(local_path(text)).open("rb", buffering=0)).read, door)
    if _is_http(text):
        return guarded(_open_link(stack, text), door)
    fs, path = url_to_fs(text, **read_options(protocol_of(text), options))
    if fs.info(path)["type"] == "directory":
        raise IsADirectoryError
    return guarded(stack.enter_context(fs.open(path, "rb", block_size=BLOCK_SIZE)).read, door)


def _open_link(stack: ExitStack, url: str) -> Any:
    client = stack.enter_context(httpx.Client(follow_redirects=True, timeout=_TIMEOUT))
    response = stack.enter_context(client.stream("GET", url))
    if not response.is_success:
        raise MediaError(f"The file {shown(url)} cannot be read: {_refused(response.status_code)}")
    return from_pieces(response.iter_bytes(BUFFER))


def _refused(status: int) -> str:
    if status in (404, 410):
        return f"its host has no such file (HTTP {status}). What to do: check the link."
    if status in (401, 403):
        return f"its host refuses it (HTTP {status}). What to do: sign the link anew; it may have expired."
    if status == 429 or status >= 500:
        return f"its host cannot serve it now (HTTP {status}). What to do: run it again later."
    return f"its host answered HTTP {status}. What to do: open the link in a browser."


class _HideSignatures(logging.Filter):
    """Takes signatures out of the links that httpx logs at level INFO: whoever reads one can use it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(strip_signature(str(a)) if isinstance(a, httpx.URL) else a for a in record.args)
        return True


logging.getLogger("httpx").addFilter(_HideSignatures())
