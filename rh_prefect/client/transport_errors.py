"""The one door for foreign exceptions: whether a request left this machine, and the error that says so."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

import httpx

from rh_prefect.client.redaction import mask
from rh_prefect.client.responses import RequestInfo, no_answer
from rh_prefect.errors import ConnectFailed, ResponseLost

FOREIGN: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError)
"""What sending and receiving can raise.

`OSError` holds `TimeoutError` (our own deadline) and a raw `ssl.SSLError` of a cut TLS stream; `ValueError` holds the
`UnicodeError` of a host name that DNS cannot carry.
"""

_NEVER_LEFT: Final = (
    httpx.ConnectError,  # refused, no such name, TLS handshake failed
    httpx.ConnectTimeout,
    httpx.PoolTimeout,  # still waiting here for a free connection
    httpx.ProxyError,  # the proxy would not open the tunnel
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
    UnicodeError,
)


class Delivery:
    """Watches one request through the transport's `trace` extension.

    A kind of exception alone does not tell whether anything was sent: a deadline can pass while connecting as well as
    while waiting for the answer. So the transport is asked: from the first byte of the request's head on, it counts as
    delivered.
    """

    def __init__(self) -> None:
        self._connecting = False
        self._sent = False

    async def trace(self, event: str, info: Mapping[str, object]) -> None:
        """Takes one event of httpcore."""
        if event.startswith("connection."):
            self._connecting = True
        elif event.endswith(".send_request_headers.started") and not _is_tunnel(info):
            self._sent = True

    def explain(self, error: Exception, ask: RequestInfo) -> ConnectFailed | ResponseLost:
        """Maps an exception of `FOREIGN`, on the side of "it may have arrived" where the evidence is missing."""
        what = f"{_NAMES.get(type(error), 'the connection failed')}{_words(error)}"
        if not self._sent and (self._connecting or isinstance(error, _NEVER_LEFT)):
            advice = "Check the network, the proxy and the base URL; it is safe to send it again"
            return ConnectFailed(f"{ask.doing}: the request never left this machine: {what}. {advice}.", what=what)
        return no_answer(ask, what)


def _is_tunnel(info: Mapping[str, object]) -> bool:
    return getattr(info.get("request"), "method", b"") == b"CONNECT"  # to a proxy; not our request yet


_NAMES: Final[dict[type[Exception], str]] = {
    httpx.ConnectError: "no connection",
    httpx.ConnectTimeout: "no connection in time",
    httpx.PoolTimeout: "no free connection in time",
    httpx.ProxyError: "the proxy refused",
    httpx.UnsupportedProtocol: "not an http(s) address",
    httpx.InvalidURL: "not an address",
    httpx.ReadTimeout: "no answer in time",
    httpx.WriteTimeout: "sending took too long",
    httpx.ReadError: "the connection was cut",
    httpx.WriteError: "the connection was cut",
    httpx.RemoteProtocolError: "the answer was cut or is no HTTP",
    httpx.DecodingError: "the answer cannot be decompressed",
    httpx.TooManyRedirects: "too many redirects",
    TimeoutError: "no answer in time",
    ssl.SSLError: "the TLS connection broke",
}


def _words(error: Exception) -> str:
    words = " ".join(mask(str(error)).split())
    return f" ({words[:200]})" if words else ""
