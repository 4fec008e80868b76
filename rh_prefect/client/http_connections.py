"""Manages connection pools and HTTP transports, and determines from an error whether the request was sent."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, TypeAlias

import httpx
from pydantic import SecretStr

from rh_prefect.client.h11_transport import CallTransport
from rh_prefect.client.responses import RequestInfo, no_answer
from rh_prefect.errors import ConnectFailed, ResponseLost
from rh_prefect.redaction import HiddenAddressTransport, mask
from rh_prefect.settings import proxy_for

_log = logging.getLogger("httpx")

DirectTransport: TypeAlias = type[CallTransport] | type[httpx.AsyncHTTPTransport]
"""The class of a transport for direct connections."""

RESEND: Final = "rh_resend"
"""The key in a request's extensions that allows the request to be sent again."""

chance: Final = random.SystemRandom().random
"""Returns a random number from 0 to 1 for a pause, from this package's own generator.

`random.random` would change the random numbers of a program that has called `random.seed`, and processes with the same
seed would wait equally long.
"""


def uptime() -> float:
    """Returns seconds of a monotonic clock; it includes system sleep if the system has such a clock."""
    # On macOS, `time.monotonic` stops during sleep, and there is no CLOCK_BOOTTIME. CLOCK_MONOTONIC counts the sleep,
    # according to Apple's documentation; this was not tried on a Mac.
    name = "CLOCK_MONOTONIC" if sys.platform == "darwin" else "CLOCK_BOOTTIME"
    clock = getattr(time, name, None)
    return time.clock_gettime(clock) if clock is not None else time.monotonic()


_LONGEST_PAUSE: Final = 5.0
"""Maximum pause in seconds, even if `Retry-After` is longer."""

_FIRST_PAUSE: Final = 0.25
_ATTEMPTS: Final = 3
_AGAIN: Final = frozenset({429, 500, 502, 503, 504})


@dataclass(eq=False)
class ResendTransport(httpx.AsyncBaseTransport):
    """Resends requests marked with `RESEND` after connection errors, HTTP 429 and most HTTP 5xx; each pause doubles."""

    inner: httpx.AsyncBaseTransport
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    draw: Callable[[], float] = chance

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request; sends it again after a failure if `RESEND` allows it."""
        if request.extensions.get(RESEND):
            for attempt in range(_ATTEMPTS - 1):
                response = await self._try(request)
                if response is not None and response.status_code not in _AGAIN:
                    return response
                retry_after = 0.0 if response is None else await _let_go(response)
                await self.sleep(self._wait(attempt, retry_after))
        return await self.inner.handle_async_request(request)

    async def _try(self, request: httpx.Request) -> httpx.Response | None:
        try:
            return await self.inner.handle_async_request(request)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError):
            raise  # a bug of this package: it is not converted
        except httpx.TransportError:
            return None

    def _wait(self, attempt: int, retry_after: float) -> float:
        wait = max(retry_after, _FIRST_PAUSE * 2.0**attempt)
        return min(wait, _LONGEST_PAUSE) * (0.5 + self.draw() / 2)

    async def aclose(self) -> None:
        """Closes the inner transport."""
        await self.inner.aclose()


async def _let_go(response: httpx.Response) -> float:
    """Closes a response; returns the seconds of its `Retry-After`."""
    await response.aclose()
    header: str = response.headers.get("retry-after", "")
    return float(header) if header.isascii() and header.isdigit() else 0.0


class EnvironmentTransport(HiddenAddressTransport):
    """Sends requests through the proxy set in the environment; httpx does this only without an explicit transport."""

    def __init__(self, limits: httpx.Limits, *, direct: DirectTransport = httpx.AsyncHTTPTransport) -> None:
        self._limits = limits
        self._direct = direct
        self._by_proxy: dict[str | None, httpx.AsyncBaseTransport] = {}

    def transport_for(self, url: httpx.URL) -> httpx.AsyncBaseTransport:
        """Returns the transport for the proxy of the URL's host, or for direct connections if there is no proxy."""
        proxy = proxy_for(url.scheme, url.host)
        if proxy not in self._by_proxy:
            try:
                self._by_proxy[proxy] = self._open(proxy)
            except Exception as error:  # unreadable certificates, or a proxy of an unknown kind: nothing was sent
                raise httpx.ConnectError(f"see SSL_CERT_FILE and the proxy: {error}") from error
        return self._by_proxy[proxy]

    def _open(self, proxy: str | None) -> httpx.AsyncBaseTransport:
        if proxy is None:
            return self._direct(verify=_tls(), limits=self._limits)
        return httpx.AsyncHTTPTransport(verify=_tls(), limits=self._limits, proxy=proxy)

    async def aclose(self) -> None:
        """Closes every connection."""
        for transport in self._by_proxy.values():
            await transport.aclose()


@lru_cache(maxsize=1)  # reading the certificates takes some 20 ms, and one client has several pools
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


FOREIGN: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError)
"""The exceptions that sending and receiving can raise.

`OSError` includes `TimeoutError` (this package's deadline) and the `ssl.SSLError` for an interrupted TLS stream;
`ValueError` includes the `UnicodeError` for a host name that DNS does not support.
"""

_UNSENT_ERRORS: Final = (
    httpx.ConnectError,  # refused, no such name, TLS handshake failed
    httpx.ConnectTimeout,
    httpx.PoolTimeout,  # still waiting here for a free connection
    httpx.ProxyError,  # the proxy refused to open the tunnel
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
    UnicodeError,
)


class SendTrace:
    """Records, through the transport's `trace` extension, whether a request was sent.

    An exception alone does not tell: a deadline can pass before or after the request is sent. A request counts as sent
    as soon as its headers start to be sent.

    If the system sleeps while a connection is opened, the deadline of asyncio does not pass. Therefore `uptime` is read
    right before the request is sent: another process may have given the request up.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self._connecting = False
        self._sent = False
        self._send_by = math.inf if deadline is None else uptime() + deadline

    async def trace(self, event: str, info: Mapping[str, object]) -> None:
        """Handles one httpcore trace event."""
        if event.startswith("connection."):
            self._connecting = True
        elif event.endswith(".send_request_headers.started") and not _is_tunnel(info):
            if uptime() > self._send_by:
                # This exception says that nothing was sent: on a kept connection, no event has said that one is opened.
                raise httpx.ConnectTimeout("the system was asleep")
            self._sent = True

    def explain(self, error: Exception, ask: RequestInfo) -> ConnectFailed | ResponseLost:
        """Converts an exception from `FOREIGN`; unless the request is known to be unsent, it may have arrived."""
        what = f"{_NAMES.get(type(error), 'the connection failed')}{_words(error)}"
        if not self._sent and (self._connecting or isinstance(error, _UNSENT_ERRORS)):
            advice = "What to do: check the network, the proxy and the base URL; it is safe to send the request again"
            return ConnectFailed(f"{ask.doing}: the request never left this machine: {what}. {advice}.", what=what)
        return no_answer(ask, what)


def _is_tunnel(info: Mapping[str, object]) -> bool:
    return getattr(info.get("request"), "method", b"") == b"CONNECT"  # to a proxy; not our request yet


_NAMES: Final[dict[type[Exception], str]] = {
    httpx.ConnectError: "no connection could be opened",
    httpx.ConnectTimeout: "no connection could be opened in time",
    httpx.PoolTimeout: "no connection became free in time",
    httpx.ProxyError: "the proxy refused the connection",
    httpx.UnsupportedProtocol: "the URL is not an http(s) URL",
    httpx.InvalidURL: "the URL is not valid",
    httpx.ReadTimeout: "no response arrived in time",
    httpx.WriteTimeout: "sending took too long",
    httpx.ReadError: "the connection was cut",
    httpx.WriteError: "the connection was cut",
    httpx.RemoteProtocolError: "the response is incomplete or is not HTTP",
    httpx.DecodingError: "the response cannot be decompressed",
    httpx.TooManyRedirects: "there were too many redirects",
    TimeoutError: "no response arrived in time",
    ssl.SSLError: "the TLS connection broke",
}


def _words(error: Exception) -> str:
    words = " ".join(mask(str(error)).split())
    return f" ({words[:200]})" if words else ""


CONNECT_SECONDS = 10.0


class CallClient(httpx.AsyncClient):
    """httpx's client without features that API calls do not need: redirects, cookies and hooks."""

    def __init__(self, *, key: SecretStr, transport: httpx.AsyncBaseTransport, **options: Any) -> None:
        """Takes the account's key and the options of `httpx.AsyncClient`."""
        super().__init__(transport=transport, **options)
        self._sender, self._key = transport, key

    async def send(self, request: httpx.Request, *, auth: Any = True, **_: Any) -> httpx.Response:
        """Sends a request and returns the response before its body; `auth=None` sends no key.

        The key is added to the request only here: no default header contains it.
        """
        if auth is not None:
            request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        try:
            response = await self._sender.handle_async_request(request)
        except httpx.RequestError as error:
            error.request = request  # the one whose address and key are hidden
            raise
        response.request = request
        _log.debug("HTTP Request: %s %s %d", request.method, request.url, response.status_code)
        return response


@dataclass(frozen=True, slots=True)
class Connections:
    """The HTTP clients of one account."""

    # Each paid request opens a new connection. The server may have closed a kept one, and an error on it would not show
    # whether the request arrived. A handshake is cheap beside a paid job. This client never resends a request.
    submits: httpx.AsyncClient
    calls: httpx.AsyncClient
    uploads: httpx.AsyncClient
    # For file hosts, which are third parties: without the key, and the only client that follows redirects.
    files: httpx.AsyncClient

    async def aclose(self) -> None:
        """Closes every connection."""
        for client in (self.submits, self.calls, self.uploads, self.files):
            await client.aclose()


def open_connections(
    base_url: httpx.URL, key: SecretStr, *, submit_timeout: float, transport: httpx.AsyncBaseTransport | None
) -> Connections:
    """Creates the connection pools, without connecting."""

    def sender(keepalive: int, direct: DirectTransport = httpx.AsyncHTTPTransport) -> httpx.AsyncBaseTransport:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=keepalive, keepalive_expiry=5.0)
        return HiddenAddressTransport(transport) if transport else EnvironmentTransport(limits, direct=direct)

    def options(read: float) -> dict[str, Any]:
        # TCP and TLS each get half of the time at most, so that the deadline of a submit cuts neither of them off.
        timeout = httpx.Timeout(read, connect=min(CONNECT_SECONDS, read / 2))
        return {"timeout": timeout, "headers": {"User-Agent": f"rh-prefect/{_version()}"}}

    account: dict[str, Any] = {"key": key, "base_url": base_url}
    return Connections(
        submits=CallClient(transport=sender(0), **options(submit_timeout), **account),
        calls=CallClient(transport=ResendTransport(sender(16, CallTransport)), **options(30.0), **account),
        uploads=CallClient(transport=ResendTransport(sender(4)), **options(120.0), **account),
        files=httpx.AsyncClient(
            transport=ResendTransport(sender(8)), **options(60.0), follow_redirects=True, max_redirects=5
        ),
    )


@lru_cache(maxsize=1)
def _version() -> str:
    try:
        return version("rh-prefect")
    except PackageNotFoundError:
        return "0"
