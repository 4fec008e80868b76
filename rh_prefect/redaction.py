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
SHORTEST_KEY: Final = 8
"""Minimum length of a key that is masked: shorter keys exist only in tests, and may be parts of words."""

_SECRETS: Final = re.compile(
    r"""(?ix)
    ( bearer\s+ | api_?key["']?\s*[=:]\s*["']? | rh-comfy-auth= | /proxy(?:-plus|-ultra)?/
    | (?:q-signature|x-amz-signature|x-amz-credential|x-amz-security-token|signature|\bsig|token)= )
    [\w.~+%=-]{12,}""",
)
_NAME: Final = re.compile(r"[a-z0-9-]+")
"""The form of a block's name in Prefect."""
_LONGEST_SHOWN: Final = 19
"""Maximum length of a string that is shown although it cannot be a block's name: a longer one may contain a key."""
_KEY: Final = re.compile(r"(?:sk-|rh-?)?(?:[0-9a-f]-?){24,}|(?=(?:[a-z-]*[0-9]){6})(?:sk-|rh-)?[a-z0-9]{24,}")
"""Names that look like keys: hexadecimal digits, also in groups, or an unbroken string with many digits."""
_USER: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters except tabs and line breaks; terminals execute some of them."""


def mask(text: str) -> str:
    """Masks passwords in URLs and text that looks like one of RunningHub's secrets.

    Control characters become blanks.
    """
    clean = _CONTROL.sub(" ", text)
    return _USER.sub(f"{MASK}@", _SECRETS.sub(rf"\1{MASK}", clean))


def mask_key(body: bytes, *, key: SecretStr | None) -> bytes:
    """Masks the key in a response body, so that no value read from it contains the key."""
    secret = "" if key is None else key.get_secret_value()
    return body if len(secret) < SHORTEST_KEY else body.replace(secret.encode(), MASK.encode())


def secret_in(name: str) -> str:
    """Returns the kind of secret that a block's name looks like, a key or an address; empty if neither."""
    if "://" in name:
        return "an address"
    is_key = _KEY.fullmatch(name) if _NAME.fullmatch(name) else len(name) > _LONGEST_SHOWN
    return "a key" if is_key else ""


def bare(url: str) -> str:
    """Returns a URL without its query, which may contain a signature, or a `data:` URL without its content."""
    return url.split("," if url.startswith("data:") else "?", 1)[0]


HIDDEN: Final = "rh_hidden"
"""The name of the request extension that contains the `MaskedUrl` of the request's URL."""

KEY_FIELD: Final = "rh_key_field"
"""The name of the request extension that contains the `KeyField` of the request's JSON body."""


@dataclass(frozen=True, slots=True)
class KeyField:
    """The field of a JSON body that contains the account's key; `json` is the JSON object without this field."""

    name: str
    json: bytes
    key: SecretStr

    def whole(self) -> bytes:
        """Returns the JSON object with the field that contains the account's key."""
        rest = self.json.lstrip()[1:].lstrip()
        comma = b"" if rest.startswith(b"}") else b", "
        # A key is printable ASCII, so JSON's own escapes are enough.
        return b"".join([b"{", json.dumps({self.name: self.key.get_secret_value()})[1:-1].encode(), comma, rest])


@dataclass(frozen=True, slots=True)
class MaskedUrl:
    """A URL for display, without secrets, and the actual URL."""

    shown: str
    actual: SecretStr


def mask_url(url: httpx.URL, *, key: SecretStr) -> MaskedUrl:
    """Returns a URL that has the mask in place of the key, for logs, and the same URL with the key, for sending."""
    shown = str(url)
    return MaskedUrl(shown, SecretStr(shown.replace(MASK, quote(key.get_secret_value(), safe=""), 1)))


def without_query(url: str) -> MaskedUrl:
    """Removes the user, password and query, which may be secret; raises `httpx.InvalidURL` if `url` is not a URL."""
    return MaskedUrl(str(httpx.URL(bare(url)).copy_with(userinfo=b"")), SecretStr(url))


def hide_signature(request: httpx.Request) -> None:
    """Hides the password and query of the request's URL from logs; `actual_request` restores them in the transport."""
    hidden = without_query(str(request.url))
    request.url = httpx.URL(hidden.shown)
    request.extensions[HIDDEN] = hidden


def hide_redirect(request: httpx.Request, response: httpx.Response, *, to: httpx.URL) -> None:
    """Hides the query of a redirect's target: httpx builds the next request from this response and the extensions."""
    if not response.has_redirect_location:
        return
    try:
        hidden = without_query(str(to.join(response.headers["location"])))
    except httpx.InvalidURL:
        return  # httpx raises its own error
    response.headers["location"] = hidden.shown
    request.extensions[HIDDEN] = hidden


def actual_request(request: httpx.Request) -> httpx.Request:
    """Returns the request with its hidden URL and key; the same object if nothing is hidden."""
    url, field = request.extensions.get(HIDDEN), request.extensions.get(KEY_FIELD)
    is_hidden = isinstance(url, MaskedUrl) and str(request.url) == url.shown
    if not is_hidden and not isinstance(field, KeyField):
        return request
    headers = request.headers.copy()
    if isinstance(field, KeyField):
        headers.pop("Content-Length", None)
    actual = httpx.Request(
        request.method,
        url.actual.get_secret_value() if isinstance(url, MaskedUrl) and is_hidden else request.url,
        headers=headers,
        stream=None if isinstance(field, KeyField) else request.stream,
        content=field.whole() if isinstance(field, KeyField) else None,
        extensions={name: value for name, value in request.extensions.items() if name not in (HIDDEN, KEY_FIELD)},
    )
    return _with_user(actual)


def _with_user(request: httpx.Request) -> httpx.Request:
    """Adds the `Authorization` header for the URL's user; httpx would look in the shown URL, which has no user."""
    url = request.url
    if not url.userinfo or "Authorization" in request.headers:
        return request
    return next(httpx.BasicAuth(url.username, url.password).auth_flow(request))


class HiddenAddressTransport(httpx.AsyncBaseTransport):
    """Restores the hidden URL and key of a request, below httpx's log."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    def transport_for(self, url: httpx.URL) -> httpx.AsyncBaseTransport:  # noqa: ARG002 - for subclasses
        """Returns the transport that sends requests to an address; a subclass may choose one."""
        return self._inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends the request with its hidden URL and key; removes the tracebacks of errors, which may contain them."""
        handled, actual = sys.exception(), request
        try:
            actual = actual_request(request)
            response = await self.transport_for(actual.url).handle_async_request(actual)
            if HIDDEN in request.extensions:
                hide_redirect(request, response, to=actual.url)
        except BaseException as error:
            # The frames below may contain the URL, the headers or the body, as this one does.
            actual = request
            for one in _family(error, {id(handled)}):
                one.__traceback__ = None
            raise
        return response

    async def aclose(self) -> None:
        """Closes the transport that sends the requests."""
        await self._inner.aclose()


def _family(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    """Yields an error and its causes, each once."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    for one in (error.__cause__, error.__context__, *(getattr(error, "exceptions", None) or ())):
        yield from _family(one, seen)
