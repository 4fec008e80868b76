"""The connections: four pools, so that no kind of request can starve, break or betray another."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

import httpx
from pydantic import SecretStr

from rh_prefect.client.threaded_backend import FileTransport
from rh_prefect.client.transports import DirectTransport, EnvironmentTransport, ResendTransport
from rh_prefect.client.url_masking import HiddenAddressTransport

CONNECT_SECONDS = 10.0


class Bearer(httpx.Auth):
    """Puts the key on a request at the last moment, so that no client and no default header holds it in the clear."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Adds the header."""
        request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        yield request


@dataclass(frozen=True, slots=True)
class Connections:
    """The HTTP clients of one account.

    Attributes:
        submits: Paid requests. Each opens a connection of its own: on a kept one, which the server may have closed
            meanwhile, an error would leave open whether the request arrived. A handshake is cheap beside a paid job.
        calls: All other API requests.
        uploads: Files to RunningHub.
        files: Downloads from file hosts. It never carries the key, and follows redirects; the others do not.
    """

    submits: httpx.AsyncClient
    calls: httpx.AsyncClient
    uploads: httpx.AsyncClient
    files: httpx.AsyncClient

    async def aclose(self) -> None:
        """Closes every connection."""
        for client in (self.submits, self.calls, self.uploads, self.files):
            await client.aclose()


def open_connections(
    base_url: httpx.URL, key: SecretStr, *, submit_timeout: float, transport: httpx.AsyncBaseTransport | None
) -> Connections:
    """Makes the pools; nothing is connected yet."""

    def client(
        read: float,
        *,
        kept: int | None,
        auth: bool = True,
        redirects: bool = False,
        direct: DirectTransport = httpx.AsyncHTTPTransport,
    ) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept, keepalive_expiry=5.0)
        sender = transport or EnvironmentTransport(limits, direct=direct)
        return httpx.AsyncClient(
            transport=ResendTransport(HiddenAddressTransport(sender)),
            # TCP and TLS each get half of the time at most, so that the deadline of a submit cuts neither of them off.
            timeout=httpx.Timeout(read, connect=min(CONNECT_SECONDS, read / 2)),
            headers={"User-Agent": f"rh-prefect/{_version()}"},
            auth=Bearer(key) if auth else None,
            base_url=base_url if auth else "",
            follow_redirects=redirects,
            max_redirects=5,
        )

    return Connections(
        submits=client(submit_timeout, kept=0),
        calls=client(30.0, kept=16),
        uploads=client(120.0, kept=4),
        files=client(60.0, kept=8, auth=False, redirects=True, direct=FileTransport),
    )


@lru_cache(maxsize=1)
def _version() -> str:
    try:
        return version("rh-prefect")
    except PackageNotFoundError:
        return "0"
