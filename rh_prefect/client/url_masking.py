"""Keeps secrets out of the requests that httpx logs, and out of the frames of tracebacks.

httpx writes the address of every request to its log, and error trackers write the local variables of every frame. Two
of RunningHub's families want the key in the address, and v1 wants it in the body (api.md 1.2); a signed address is a
key of its own. So a request is built without the secret, which is a `SecretStr` in its extensions and is put in below
everything that looks at a request. Where the request fails there, the frames that held the secret are dropped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from rh_prefect.client.redaction import MASK, bare

HIDDEN: Final = "rh_hidden"
"""The key in a request's extensions for what it hides."""


KEY_FIELD: Final = "rh_key_field"
"""The key in a request's extensions for the field of its JSON body that is added with the account's key."""


@dataclass(frozen=True, slots=True)
class KeyField:
    """A field of a JSON body whose value is the account's key.

    Attributes:
        name: The field's name, plain ASCII.
        json: The object without the field.
        key: The account's key.
    """

    name: str
    json: bytes
    key: SecretStr

    def whole(self) -> bytes:
        """The object with the field."""
        rest = self.json.lstrip()[1:].lstrip()
        comma = b"" if rest.startswith(b"}") else b", "
        # A key is printable ASCII, so that JSON's own escapes are enough.
        return b"".join([b"{", json.dumps({self.name: self.key.get_secret_value()})[1:-1].encode(), comma, rest])


@dataclass(frozen=True, slots=True)
class MaskedUrl:
    """An address that is shown, and the one that is meant."""

    shown: str
    true: SecretStr


def mask_url(url: httpx.URL, *, key: SecretStr) -> MaskedUrl:
    """Means the key where the address has a mask."""
    shown = str(url)
    return MaskedUrl(shown, SecretStr(shown.replace(MASK, quote(key.get_secret_value(), safe=""), 1)))


def without_query(url: str) -> MaskedUrl:
    """Shows a link without its query, where signatures are.

    Raises:
        httpx.InvalidURL: It is no address.
    """
    return MaskedUrl(str(httpx.URL(bare(url))), SecretStr(url))


def hide_signature(request: httpx.Request) -> None:
    """Hides a signed address's query from whoever looks at the request."""
    hidden = without_query(str(request.url))
    request.url = httpx.URL(hidden.shown)
    request.extensions[HIDDEN] = hidden


def _hide_redirect(request: httpx.Request, response: httpx.Response, *, to: httpx.URL) -> None:
    """Hides a redirect's query, too: httpx makes the next request of the answer's address and of the extensions."""
    if not response.has_redirect_location:
        return
    try:
        hidden = without_query(str(to.join(response.headers["location"])))
    except httpx.InvalidURL:
        return  # httpx says so itself
    response.headers["location"] = hidden.shown
    request.extensions[HIDDEN] = hidden


class HiddenAddressTransport(httpx.AsyncBaseTransport):
    """Sends a request to the address that it hides, and with the key that it hides."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request; one that hides nothing is sent as it is."""
        handled = sys.exception()
        try:
            return await self._send(request)
        except BaseException as error:
            # Below, each frame may hold the address, the headers or the body; nothing of ours is there to be debugged.
            _drop_frames(error, until=handled)
            raise

    async def _send(self, request: httpx.Request) -> httpx.Response:
        meant = _whole(request)
        if meant is request:
            return await self._inner.handle_async_request(request)
        response = await self._inner.handle_async_request(meant)
        if meant.url != request.url:
            _hide_redirect(request, response, to=meant.url)
        return response

    async def aclose(self) -> None:
        """Closes the inner transport."""
        await self._inner.aclose()


def _whole(request: httpx.Request) -> httpx.Request:
    """The request with what it hides; itself where it hides nothing."""
    address, field = request.extensions.get(HIDDEN), request.extensions.get(KEY_FIELD)
    is_hidden = isinstance(address, MaskedUrl) and str(request.url) == address.shown
    if not is_hidden and not isinstance(field, KeyField):
        return request
    headers = request.headers.copy()
    if isinstance(field, KeyField):
        headers.pop("Content-Length", None)
    return httpx.Request(
        request.method,
        address.true.get_secret_value() if isinstance(address, MaskedUrl) and is_hidden else request.url,
        headers=headers,
        stream=None if isinstance(field, KeyField) else request.stream,
        content=field.whole() if isinstance(field, KeyField) else None,
        extensions={name: value for name, value in request.extensions.items() if name not in (HIDDEN, KEY_FIELD)},
    )


def _drop_frames(error: BaseException, *, until: BaseException | None) -> None:
    """Drops the frames of an error and of all that led to it, but not of what the caller was handling before."""
    for one in _family(error, {id(until)}):
        one.__traceback__ = None


def _family(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    for one in (error.__cause__, error.__context__, *(getattr(error, "exceptions", None) or ())):
        yield from _family(one, seen)
