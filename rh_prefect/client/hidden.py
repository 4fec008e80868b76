"""Keeps secrets out of the addresses that httpx logs.

httpx writes the address of every request to its log. Two of RunningHub's families want the key in it (api.md 1.2), and
a signed address is a key of its own. So such a request is built with a mask in the secret's place, and the true address
is put in below everything that looks at a request; in its extensions it is a `SecretStr`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from rh_prefect.client.masks import MASK, bare

HIDDEN: Final = "rh_hidden"
"""The key in a request's extensions for what it hides."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """An address that is shown, and the one that is meant."""

    shown: str
    true: SecretStr


def behind_mask(url: httpx.URL, *, key: SecretStr) -> Hidden:
    """Means the key where the address has a mask."""
    shown = str(url)
    return Hidden(shown, SecretStr(shown.replace(MASK, quote(key.get_secret_value(), safe=""), 1)))


def without_query(url: str) -> Hidden:
    """Shows a link without its query, where signatures are.

    Raises:
        httpx.InvalidURL: It is no address.
    """
    return Hidden(str(httpx.URL(bare(url))), SecretStr(url))


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
    """Sends a request to the address that it hides."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request; one that hides nothing goes on as it is."""
        hidden = request.extensions.get(HIDDEN)
        if not isinstance(hidden, Hidden) or str(request.url) != hidden.shown:
            return await self._inner.handle_async_request(request)
        extensions = {name: value for name, value in request.extensions.items() if name != HIDDEN}
        meant = httpx.Request(
            request.method,
            hidden.true.get_secret_value(),
            headers=request.headers,
            stream=request.stream,
            extensions=extensions,
        )
        response = await self._inner.handle_async_request(meant)
        _hide_redirect(request, response, to=meant.url)
        return response

    async def aclose(self) -> None:
        """Closes the inner transport."""
        await self._inner.aclose()
