"""Access to the Prefect API: one client for each event loop, shared by all requests of this package."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeVar

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.context import FlowRunContext, TaskRunContext
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL

from rh_prefect.client.http_connections import chance
from rh_prefect.errors import ConfigError

PATIENCE: Final = 60.0
"""Seconds for which a request is repeated while the API does not answer or its server fails."""

_FIRST_PAUSE: Final = 0.2
"""Seconds before a request is repeated for the first time; each pause up to the fifth is twice the one before."""

_IN_FLIGHT = 8
"""Maximum concurrent requests; httpx's pool slows down quadratically with waiting requests."""

_T = TypeVar("_T")
_Key = tuple[str, int]
_connections: dict[asyncio.AbstractEventLoop, dict[_Key, Connection]] = {}
_lock = threading.Lock()
_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class Connection:
    """A started client of the Prefect API for one event loop; acquire `gate` for each request."""

    client: PrefectClient
    gate: asyncio.Semaphore


async def connect() -> Connection:
    """Returns this event loop's connection to the Prefect API of the current settings.

    Opening a client takes about 40 ms (TLS context, CSRF probe) and a request 5 ms, so the client is kept.
    """
    loop, key = asyncio.get_running_loop(), connection_key()
    with _lock:
        for closed in [known for known in _connections if known.is_closed()]:
            del _connections[closed]
        mine = _connections.setdefault(loop, {})
    if key not in mine:
        connection = Connection(_open(), asyncio.Semaphore(_IN_FLIGHT))
        # Starting a client awaits nothing, so no second caller opens another one before this one is kept.
        await connection.client.__aenter__()
        mine[key] = connection
    return mine[key]


async def ask(request: Callable[[PrefectClient], Awaitable[_T]]) -> _T:
    """Sends a request over this event loop's connection; see `connect`."""
    connection = await connect()
    async with connection.gate:
        return await request(connection.client)


_is_patient: ContextVar[bool] = ContextVar("is_patient", default=False)


@contextmanager
def patient() -> Iterator[None]:
    """Repeats failed reads in a `with` block for as long as in a run; for hooks, which have no run context."""
    before = _is_patient.set(True)
    try:
        yield
    finally:
        _is_patient.reset(before)


def patience() -> float:
    """Returns the seconds for which a failed read is repeated: `PATIENCE` in a run and in its hooks, 0 in a command."""
    in_run = FlowRunContext.get() is not None or TaskRunContext.get() is not None
    return PATIENCE if in_run or _is_patient.get() else 0.0


FAILURES: Final = (httpx.HTTPError, ValueError)
"""The errors of a request with Prefect's client; `ValueError` if the answer is not JSON or not as documented."""


async def ask_repeatedly(
    request: Callable[[PrefectClient], Awaitable[_T]], *, what: str, patience: float = PATIENCE
) -> _T:
    """Sends a request that is safe to repeat, and repeats the request after failures that may be temporary.

    Prefect's client repeats some requests, for up to a minute, but none that was answered with 500. `what` is the
    beginning of the warning, as in "the block 'media' cannot be read". After `patience` seconds, the last error is
    raised.
    """
    last = time.monotonic() + patience
    number = 0
    while True:
        number += 1
        try:
            return await ask(request)
        except FAILURES as error:
            pause = _FIRST_PAUSE * 2 ** min(number - 1, 4) * (0.5 + chance())
            if not may_pass(error) or time.monotonic() + pause > last:
                raise
            if number == 2:  # a single failure is normal: servers are restarted, and SQLite's lock is short
                _log.warning(
                    "%s: the Prefect API at %s: %s; the request is repeated for up to %.0f s",
                    *(what, api_address(), failure_of(error)[0], patience),
                )
            await asyncio.sleep(pause)


def may_pass(error: Exception) -> bool:
    """Returns whether a failure may be temporary, so that the same request may succeed later."""
    if not isinstance(error, httpx.HTTPStatusError):
        return isinstance(error, httpx.TransportError)
    later = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)
    return error.response.is_server_error or error.response.status_code in later


def failure_of(error: Exception) -> tuple[str, str]:
    """Returns a clause that says why a request to the Prefect API has failed, and the advice for it."""
    if isinstance(error, httpx.TransportError):
        return f"no answer ({type(error).__name__})", "start the API again, then run again"
    advice = "check PREFECT_API_URL, and whether a proxy in front of the API asks for a login"
    if not isinstance(error, httpx.HTTPStatusError):
        return f"the answer is not from Prefect's API ({error})", advice
    status = error.response.status_code
    if error.response.is_success:
        return f"the answer is a web page ({error})", advice
    if status == httpx.codes.NOT_FOUND:
        return f"HTTP {status} {error.response.text[:300]}", "check PREFECT_API_URL, which ends in /api"
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return f"access denied (HTTP {status})", "set PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
    return f"HTTP {status} {error.response.text[:300]}", "check the Prefect server's log, then run again"


def is_available() -> bool:
    """Returns whether a Prefect API is configured; if none is, a request would start a server."""
    in_run = FlowRunContext.get() is not None or TaskRunContext.get() is not None
    return in_run or bool(PREFECT_API_URL.value())


def api_address() -> str:
    """Returns the address of the Prefect API, for messages."""
    return PREFECT_API_URL.value() or "the ephemeral server"


async def disconnect() -> None:
    """Closes this event loop's clients; call it before the loop ends."""
    with _lock:
        mine = _connections.pop(asyncio.get_running_loop(), {})
    for connection in mine.values():
        await connection.client.__aexit__(None, None, None)


def connection_key() -> tuple[str, int]:
    """Returns a key that identifies the Prefect API and the credentials of the current settings."""
    # Two accounts of Prefect Cloud share one address, so the credentials are hashed into the key.
    return PREFECT_API_URL.value() or "", hash((str(PREFECT_API_KEY.value()), str(PREFECT_API_AUTH_STRING.value())))


def _open() -> PrefectClient:
    limits = httpx.Limits(max_connections=_IN_FLIGHT, max_keepalive_connections=_IN_FLIGHT, keepalive_expiry=25)
    try:
        # With settings of our own, `get_client` builds a new client; a shared one would be closed by its other users.
        return get_client(httpx_settings={"limits": limits, "event_hooks": {"response": [_refuse_web_page]}})
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"No Prefect API is available: {error} What to do: start one with `prefect server start` and set "
            "PREFECT_API_URL to its address."
        ) from error


async def _refuse_web_page(response: httpx.Response) -> None:
    """Raises an error for a web page, such as the login page of a proxy, to which the request was redirected.

    Prefect's client follows redirects, and does not read the answer to a creation. So a record would be regarded as
    created.
    """
    if response.is_success and response.headers.get("content-type", "").startswith("text/html"):
        await response.aread()
        raise httpx.HTTPStatusError(
            f"{response.url.copy_with(query=None)} is a web page", request=response.request, response=response
        )
