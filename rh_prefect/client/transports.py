"""Transports: one that resends what may be resent, one that goes through the environment's proxies.

Whether a request may be resent is a property of the request, never of its HTTP method: nearly all of RunningHub's calls
are POSTs, and one of them costs money. A request is resent only if it carries `RESEND` in its extensions.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Final, Protocol
from urllib.request import getproxies, proxy_bypass

import httpx

RESEND: Final = "rh_resend"
"""The key in a request's extensions that allows it to be sent again."""

_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class DirectTransport(Protocol):
    """Makes a transport."""

    def __call__(self, *, verify: ssl.SSLContext, limits: httpx.Limits) -> httpx.AsyncHTTPTransport:
        """Makes one with these certificates and limits."""


class ResendTransport(httpx.AsyncBaseTransport):
    """Resends requests that allow it, after errors of the connection, HTTP 429 and HTTP 5xx.

    Args:
        inner: Does the sending.
        attempts: How often a request is sent at most.
        pause: Seconds before the second attempt; doubled for each later one.
        longest: The longest pause, whatever `Retry-After` asks for.
        sleep: The clock.
        draw: The chance for the jitter, between 0 and 1.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        attempts: int = 3,
        pause: float = 0.25,
        longest: float = 5.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._inner = inner
        self._attempts = attempts
        self._pause = pause
        self._longest = longest
        self._sleep = sleep
        self._draw = draw

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request once, or more often if it allows that."""
        if request.extensions.get(RESEND):
            for attempt in range(self._attempts - 1):
                response = await self._try(request)
                if response is not None and response.status_code not in _AGAIN:
                    return response
                asked = 0.0 if response is None else await _let_go(response)
                await self._sleep(self._wait(attempt, asked))
        return await self._inner.handle_async_request(request)

    async def _try(self, request: httpx.Request) -> httpx.Response | None:
        try:
            return await self._inner.handle_async_request(request)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError):
            raise  # our own mistake: it stays one
        except httpx.TransportError:
            return None

    def _wait(self, attempt: int, asked: float) -> float:
        wait = max(asked, self._pause * 2.0**attempt)
        return min(wait, self._longest) * (0.5 + self._draw() / 2)

    async def aclose(self) -> None:
        """Closes the inner transport."""
        await self._inner.aclose()


async def _let_go(response: httpx.Response) -> float:
    """Frees a response's connection; returns the seconds that it asks to wait."""
    await response.aclose()
    asked: str = response.headers.get("retry-after", "")
    return float(asked) if asked.isascii() and asked.isdigit() else 0.0


class EnvironmentTransport(httpx.AsyncBaseTransport):
    """Sends through the proxy that the environment names for a host.

    httpx does so by itself only where it is given no transport. Loopback never goes through a proxy: that is where the
    emulator is.

    Args:
        limits: How many connections there may be to each proxy, and past all of them.
        direct: Makes the transport that goes through none.
    """

    def __init__(self, limits: httpx.Limits, *, direct: DirectTransport = httpx.AsyncHTTPTransport) -> None:
        self._limits = limits
        self._direct = direct
        self._by_proxy: dict[str | None, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request on its way."""
        proxy = proxy_for(request.url)
        if proxy not in self._by_proxy:
            self._by_proxy[proxy] = self._open(proxy)
        return await self._by_proxy[proxy].handle_async_request(request)

    def _open(self, proxy: str | None) -> httpx.AsyncHTTPTransport:
        if proxy is None:
            return self._direct(verify=_tls(), limits=self._limits)
        return httpx.AsyncHTTPTransport(verify=_tls(), limits=self._limits, proxy=proxy)

    async def aclose(self) -> None:
        """Closes every connection."""
        for transport in self._by_proxy.values():
            await transport.aclose()


def proxy_for(url: httpx.URL) -> str | None:
    """Finds the proxy for an address, by `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or url.host in _LOOPBACK or proxy_bypass(url.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


@lru_cache(maxsize=1)  # reading the certificates takes some 20 ms, and one client has several pools
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()
