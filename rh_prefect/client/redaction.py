"""Removes secrets from messages, httpx's log and tracebacks."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import httpx
from pydantic import SecretStr

MASK: Final = "***"
_SHORTEST_KEY: Final = 8
"""A shorter "key" is a test's, and would be found inside ordinary words."""

_SECRETS: Final = re.compile(
    r"""(?ix)
    ( bearer\s+ | api_?key["']?\s*[=:]\s*["']? | rh-comfy-auth= | /proxy(?:-plus|-ultra)?/
    | (?:q-signature|x-amz-signature|x-amz-credential|x-amz-security-token|signature|token)= )
    [\w.~+%=-]{12,}""",
)
_USER: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tabs and line breaks: a terminal obeys some of them."""


def mask(text: str, *, key: SecretStr | None = None) -> str:
    """Masks the key, a password in a URL, and what looks like one of RunningHub's secrets (api.md 10, item 19).

    Control characters become blanks.
    """
    clean = _CONTROL.sub(" ", mask_key(text.encode(), key=key).decode())
    return _USER.sub(f"{MASK}@", _SECRETS.sub(rf"\1{MASK}", clean))


def mask_key(body: bytes, *, key: SecretStr | None) -> bytes:
    """Masks the key in an answer before it is read, so that no value made from it can hold the key."""
    secret = "" if key is None else key.get_secret_value()
    return body if len(secret) < _SHORTEST_KEY else body.replace(secret.encode(), MASK.encode())


def bare(url: str) -> str:
    """A link without its query, where signatures are; a `data:` URL without its content."""
    return url.split("," if url.startswith("data:") else "?", 1)[0]


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
