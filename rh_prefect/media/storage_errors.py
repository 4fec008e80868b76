"""Converts errors of file systems and storage services to errors of this package."""

from __future__ import annotations

import errno
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import BinaryIO, NamedTuple, cast

from rh_prefect.errors import MediaError, RunningHubError, StoreError
from rh_prefect.media.storage_urls import masked_url


class Fault(NamedTuple):
    """A kind of error: a clause about the cause, the advice, and whether each further try fails until a person acts."""

    what: str
    advice: str
    is_permanent: bool = False


_NO_ANSWER = "no server answers at this address"
_STOPPED = Fault("the service stopped answering", "check the network, then run again")
_BUSY = Fault("the service is overloaded or failing at the moment", "wait some minutes, then run again")
_KEYS = "correct the key and the secret in the storage options"
_BAD_LINK = Fault("the URL is not valid", "correct the link", True)

_BY_CLASS: dict[str, Fault] = {
    "NoCredentialsError": Fault(
        "no credentials were found", "set a key and secret in the storage options or as AWS_… variables", True
    ),
    "PartialCredentialsError": Fault(
        "the credentials are incomplete: the key or the secret is missing", "set both key and secret", True
    ),
    "EndpointConnectionError": Fault(_NO_ANSWER, "check endpoint_url, and that the service is running"),
    "ConnectTimeoutError": Fault(_NO_ANSWER, "check endpoint_url and the network"),
    "ReadTimeoutError": _STOPPED,
    "FSTimeoutError": _STOPPED,
    "ConnectError": Fault(_NO_ANSWER, "check the link, and that its host can be reached"),
    "TimeoutException": _STOPPED,
    "RemoteProtocolError": Fault("the connection was interrupted before the transfer was complete", "run again"),
    "UnsupportedProtocol": _BAD_LINK,
    "InvalidURL": _BAD_LINK,
    "NoSuchBucket": Fault("the bucket does not exist", "create the bucket or correct its name", True),
    "SignatureDoesNotMatch": Fault("the secret does not belong to the key", _KEYS, True),
    "InvalidAccessKeyId": Fault("the key is unknown", _KEYS, True),
    "ExpiredToken": Fault(
        "the credentials have expired", "renew the credentials in the storage options, then run again", True
    ),
    "RequestTimeTooSkewed": Fault("this machine's clock is wrong", "set the clock, then run again", True),
    "SlowDown": _BUSY,
    "ServiceUnavailable": _BUSY,
    "InternalError": _BUSY,
}
"""Faults by the name of an exception or an S3 error code, so that fsspec's libraries need not be imported."""

_BY_ERRNO: dict[int, Fault] = {
    errno.ENOSPC: Fault("the disk is full", "free some space or choose another location"),
    errno.EDQUOT: Fault("the disk quota is used up", "free some space or choose another location"),
    errno.EFBIG: Fault(
        "the file is larger than the limit of this location", "raise the limit or choose another location"
    ),
    errno.EROFS: Fault("the file system is read-only", "choose another place", True),
    errno.ENAMETOOLONG: Fault("the name is too long", "shorten the name or the template", True),
    errno.EIO: Fault("the disk or the service reported an error", "check the disk or the service, then run again"),
}

_NO_FOLDER = Fault("a part of the path is a file, not a folder", "choose a folder", True)
_NOT_ACCEPTED = Fault(
    "the address or a storage option is not accepted", "correct the address or the storage options", True
)

_BY_TYPE: dict[type, Fault] = {
    PermissionError: Fault(
        "the key or user does not have permission for this operation",
        "grant permission to read, write and delete there, or choose another location",
        True,
    ),
    NotADirectoryError: _NO_FOLDER,
    FileExistsError: _NO_FOLDER,
    IsADirectoryError: Fault(
        "there is a folder where a file was expected", "choose another name, or use a file in this folder", True
    ),
    FileNotFoundError: Fault("the file does not exist", "check the path", True),
    ImportError: Fault(
        "the library for this type of storage is not installed", "install the library shown in the message", True
    ),
    TimeoutError: _STOPPED,
    TypeError: _NOT_ACCEPTED,
    ValueError: _NOT_ACCEPTED,
    ConnectionError: Fault(_NO_ANSWER, "check that the service is running and can be reached"),
}

_OPEN = {"endpoint_url", "region_name", "region", "profile", "signature_version", "addressing_style", "anon", "host"}
_PAIR = re.compile(r"[^\s\"'/:@]+:(?![/:]|\d{1,5}[/?#])[^\s\"'@]+@")
"""A user name and a password without a scheme, as in parts of an address that libraries quote."""

_PORT = re.compile(r"(?i)\bport\b.*'")
"""A library's message about an invalid port, which may quote the beginning of a password."""

_BUCKET = re.compile(r'(?<=bucket name ")[^"]*:[^"]*')
"""The bucket name in S3's message, which may be a key and a secret."""


def as_store_error(
    doing: str, place: str, *, options: Mapping[str, object] | None = None
) -> AbstractContextManager[None]:
    """Converts errors of a `with` block to `StoreError`; the values of the storage options are masked."""
    return _converted(f"Could not {doing} in {place}", options, StoreError)


def as_media_error(source: str, *, options: Mapping[str, object] | None = None) -> AbstractContextManager[None]:
    """Converts errors of a `with` block to a `MediaError` about an input; the values of storage options are masked."""
    return _converted(f"The file {source} cannot be read", options, MediaError)


@contextmanager
def _converted(opening: str, options: Mapping[str, object] | None, kind: type[RunningHubError]) -> Iterator[None]:
    try:
        yield
    except RunningHubError:
        raise
    except Exception as error:
        message, cause = describe(error, opening, options=options)
        facts = {"is_permanent": fault_of(error).is_permanent} if kind is StoreError else {}
        raise kind(message, **facts) from cause


def describe(
    error: Exception, opening: str, *, options: Mapping[str, object] | None = None
) -> tuple[str, Exception | None]:
    """Returns a message for a third-party error, and the error itself as the cause if the error contains no secrets."""
    what, advice, _ = fault_of(error)
    if _PORT.search(str(error)):
        what, advice = (
            "the port in the address is not a number",
            "write / as %2F and @ as %40 in a password, or pass it as a storage option",
        )
        return f"{opening}: {what}. What to do: {advice}.", None
    # `strerror` lacks the path, which the opening of the message contains already.
    message = masked(str(getattr(error, "strerror", None) or error).strip(), options)
    # The message of a FileNotFoundError would only repeat the cause.
    quote = f' The error message is: "{message}".' if message and not isinstance(error, FileNotFoundError) else ""
    clean = all(masked(str(one), options) == str(one) for one in _chain(error))
    return f"{opening}: {what}.{quote} What to do: {advice}.", error if clean else None


def masked(text: str, options: Mapping[str, object] | None = None) -> str:
    """Returns a string with the values of storage options, user names and passwords masked."""
    for secret in sorted(_secrets(options or {}), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _BUCKET.sub("***", _PAIR.sub("***@", masked_url(text)))


def fault_of(error: Exception) -> Fault:
    """Returns the cause of a third-party error and the advice for it; for an unknown error, a general cause."""
    for name in _names(error):
        if name in _BY_CLASS:
            return _BY_CLASS[name]
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    for kind in type(error).__mro__:
        if kind in _BY_TYPE:
            return _BY_TYPE[kind]
    return Fault(
        f"the operation failed ({type(error).__name__})",
        "read the storage's error message, then correct the address or the storage options",
    )


def _names(error: BaseException) -> Iterator[str]:
    """Yields the names by which an error is looked up: the classes and S3 codes of the error and of its causes."""
    for one in _chain(error):
        yield from (kind.__name__ for kind in type(one).__mro__)
        response = getattr(one, "response", None)
        if isinstance(response, Mapping):
            yield str(response.get("Error", {}).get("Code", ""))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and its causes, in the order of a traceback."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _secrets(value: object, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets(inner, str(key))
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _secrets(inner, name)
    elif isinstance(value, str) and len(value) >= 4 and name not in _OPEN:
        yield value


ErrorGuard = Callable[[], AbstractContextManager[None]]
"""A function that returns a context manager, which converts third-party errors from its `with` block."""

_PIECE = 2**20


class _Pieces(io.RawIOBase):
    """A reader of pieces of any length that converts the errors from each read.

    Unlike a conversion around a `with` block, this reader does not convert errors from the block's own code.
    """

    def __init__(self, pieces: Iterator[bytes], error_guard: ErrorGuard) -> None:
        super().__init__()
        self._pieces, self._error_guard = pieces, error_guard
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the base takes any buffer
        if not self._rest:
            with self._error_guard():
                self._rest = memoryview(next(self._pieces, b""))
        length = min(len(buffer), len(self._rest))
        buffer[:length], self._rest = self._rest[:length], self._rest[length:]
        return length


def guarded(pieces: Iterator[bytes], error_guard: ErrorGuard) -> BinaryIO:
    """Returns a buffered reader of pieces that converts the errors from each read."""
    return cast(BinaryIO, io.BufferedReader(_Pieces(pieces, error_guard), _PIECE))


def pieces_of(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Returns an iterator that reads to the end, in pieces of at most 1 MiB."""
    return iter(partial(read, _PIECE), b"")


def in_time(pieces: Iterator[bytes], seconds: float, name: str) -> Iterator[bytes]:
    """Yields pieces; raises an error if the stream is too slow or never ends."""
    deadline = time.monotonic() + seconds
    for piece in pieces:
        if time.monotonic() > deadline:
            raise MediaError(
                f"The file {name} was not complete after {seconds:.0f} s of reading. What to do: check the host of "
                "the file and the network, or copy the file to the storage and use the copy."
            )
        yield piece
