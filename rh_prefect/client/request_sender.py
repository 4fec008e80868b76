"""Sends each kind of request (read, create, submit, upload) with its own limits and retries."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
from pydantic import SecretStr

from rh_prefect.client import responses
from rh_prefect.client.download import DEAD
from rh_prefect.client.h11_transport import read_body
from rh_prefect.client.http_connections import FOREIGN, RESEND, SendTrace, chance, open_connections
from rh_prefect.client.responses import ApiResponse, RequestInfo
from rh_prefect.client.upload_body import FileBody, RawBody
from rh_prefect.errors import Busy, InputError, LinkExpired
from rh_prefect.redaction import HIDDEN, KEY_FIELD, KeyField, hide_signature, mask_key, mask_url

_AT_ONCE: Final = 16
"""Maximum number of concurrent API calls. Further calls wait outside httpx's pool, which slows down quadratically with
the number of waiting requests.
"""
_CALL_SECONDS: Final = 90.0
"""The time limit for a call other than a submission or a transfer, including the transport's retries."""
PACE_SECONDS: Final = 60.0
"""Seconds for which a call other than a submission is retried while RunningHub is too busy."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 8.0
JSON: Final = {"Content-Type": "application/json"}
V1_KEY: Final = "apiKey"
"""The field of a v1 body that contains the key."""
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Session:
    """Sends all requests of one account."""

    def __init__(
        self,
        key: SecretStr,
        base_url: httpx.URL,
        *,
        submit_timeout: float,
        pace_seconds: float = PACE_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.key = key
        self.submit_timeout = submit_timeout
        self.pools = open_connections(base_url, key, submit_timeout=submit_timeout, transport=transport)
        self.downloads = asyncio.Semaphore(8)
        self._pace = Backoff(pace_seconds)
        self._calls = asyncio.Semaphore(_AT_ONCE)
        self._uploads = asyncio.Semaphore(4)

    async def call(
        self, path: str, body: Mapping[str, object] | None, ask: RequestInfo, *, key_field: str | None = None
    ) -> ApiResponse:
        """Sends a request that is safe to repeat; without a body, the request is a GET.

        `key_field` is the field of the body in which the endpoint also requires the key.
        """
        client = self.pools.calls
        if body is None:
            return await self.resent(client, client.build_request("GET", path), ask)
        return await self.resent(client, self.json_request(client, path, body, ask, key_field=key_field), ask)

    async def call_v1(self, path: str, body: Mapping[str, object], ask: RequestInfo) -> ApiResponse:
        """Sends a request to a v1 endpoint, which also requires the key in the body."""
        return await self.call(path, body, ask, key_field=V1_KEY)

    def masked_request(
        self, client: httpx.AsyncClient, method: str, url: str, body: bytes | FileBody | None = None
    ) -> httpx.Request:
        """Builds a request, with JSON or a file, whose URL has `***` in place of the key.

        The transport inserts the key, so that no log contains it.
        """
        headers = body.headers if isinstance(body, FileBody) else JSON if body else None
        request = client.build_request(method, url, content=body, headers=headers)
        request.extensions[HIDDEN] = mask_url(request.url, key=self.key)
        return request

    async def make(self, path: str, body: Mapping[str, object], ask: RequestInfo) -> ApiResponse:
        """Sends a request once, because a repeated request would create a second object."""
        client = self.pools.submits

        async def once() -> ApiResponse:
            request = self.json_request(client, path, body, ask)
            answer = responses.read(*await self.exchange(client, request, ask, deadline=_CALL_SECONDS), ask)
            # HTTP 5xx: the response was lost on the way, and the object may exist.
            return answer.checked() if answer.status >= 500 else answer

        return await self.paced(once, ask)

    async def put(self, url: str, body: RawBody, ask: RequestInfo) -> None:
        """Uploads a file to a signed third-party URL, without the API key; raises `LinkExpired` if it is rejected."""
        client = self.pools.files
        try:
            request = client.build_request("PUT", url, content=body, headers=body.headers, extensions={RESEND: True})
            hide_signature(request)
        except FOREIGN as error:
            raise responses.no_answer(ask, "the upload URL is not valid") from error
        async with self._uploads:
            # Not redirected: by most redirects a PUT becomes a GET, whose success would mean nothing.
            status, _ = await self.exchange(client, request, ask, follow_redirects=False)
        if status in DEAD:
            advice = "What to do: upload the file again, which uses a new URL"
            raise LinkExpired(f"{ask.doing}: the signed URL was rejected (HTTP {status}). {advice}.")
        if not 200 <= status < 300:
            raise responses.no_answer(ask, f"the file host returned HTTP {status}")

    async def resent(
        self, client: httpx.AsyncClient, request: httpx.Request, ask: RequestInfo, **options: Any
    ) -> ApiResponse:
        """Sends a request that is safe to repeat, within the limit on concurrent requests; uploads do not time out."""
        request.extensions[RESEND] = True
        is_file = client is self.pools.uploads
        limit, seconds = (self._uploads, None) if is_file else (self._calls, _CALL_SECONDS)

        async def once() -> ApiResponse:
            async with limit:
                return responses.read(*await self.exchange(client, request, ask, deadline=seconds, **options), ask)

        return await self.paced(once, ask)

    async def paced(self, once: Callable[[], Awaitable[ApiResponse]], ask: RequestInfo) -> ApiResponse:
        """Retries a request while RunningHub is too busy to accept it, with any HTTP status."""
        return await self._pace.send(once, seconds=ask.pace_seconds)

    async def exchange(
        self,
        client: httpx.AsyncClient,
        request: httpx.Request,
        ask: RequestInfo,
        *,
        deadline: float | None = None,
        **options: Any,
    ) -> tuple[int, bytes]:
        """Sends a request with the options of httpx's `send`, such as `auth=None` for a request without the key.

        Returns the status, and the body without the key. For errors see `SendTrace.explain`.
        """
        sending = SendTrace(deadline)
        request.extensions["trace"] = sending.trace
        try:
            async with asyncio.timeout(deadline):
                response = await client.send(request, stream=True, **options)
                body = await read_body(response)
        except FOREIGN as error:
            raise sending.explain(error, ask) from error
        return response.status_code, mask_key(body, key=self.key)

    def json_request(
        self,
        client: httpx.AsyncClient,
        path: str,
        body: Mapping[str, object],
        ask: RequestInfo,
        *,
        key_field: str | None = None,
    ) -> httpx.Request:
        """Builds a POST of a JSON object; see `call`."""
        # A key in the payload is replaced: this account pays.
        content = json_bytes({name: value for name, value in body.items() if name != key_field}, ask)
        request = client.build_request("POST", path, content=content, headers=JSON)
        if key_field is not None:
            request.extensions[KEY_FIELD] = KeyField(key_field, content, self.key)
        return request


class Requests:
    """The base class of a group of endpoints, such as `Client.workflows`."""

    def __init__(self, session: Session) -> None:
        self._session = session


def json_bytes(body: Mapping[str, object], ask: RequestInfo) -> bytes:
    """Encodes a request body; raises `InputError` if the body cannot be written as JSON."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        message = f"{ask.doing}: a parameter cannot be written as JSON ({error}). Nothing was sent."
        raise InputError(f"{message} What to do: pass strings, numbers, lists or mappings.") from error


def usable_id(value: str, *, of: str) -> str:
    """Returns an id without surrounding white space.

    Raises `InputError` if the id contains characters other than letters, digits, `.`, `_` and `-`.
    """
    found = value.strip() if isinstance(value, str) else ""
    if not _ID.fullmatch(found):
        raise InputError(
            f"{value!r} is not a valid id for {of}. Nothing was sent. What to do: pass the id as a string, with all "
            "its characters."
        )
    return found


def usable_page(number: int, size: int, *, largest: int) -> None:
    """Raises `InputError` for a page number or size that is not valid."""
    if number < 1 or not 1 <= size <= largest:
        raise InputError(
            f"Page {number} with {size} items per page is not valid: page numbers start at 1, and a page has 1 to "
            f"{largest} items. Nothing was sent. What to do: pass numbers within these limits."
        )


@dataclass(frozen=True, slots=True)
class Backoff:
    """Repeats a request for at most the given number of seconds, with jittered pauses that double.

    With 0 seconds, the request is never repeated.
    """

    seconds: float
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = chance

    async def send(self, once: Callable[[], Awaitable[ApiResponse]], *, seconds: float | None = None) -> ApiResponse:
        """Repeats a request while RunningHub is busy, until it is accepted or rejected for another reason.

        After the time limit, returns the last response or raises `Busy`.
        """
        limit = self.seconds if seconds is None else min(seconds, self.seconds)
        began, tries = self.clock(), 0
        while True:
            wait = min(_FIRST_PAUSE * 2.0**tries, _LONGEST_PAUSE) * (0.5 + self.draw() / 2)
            is_over = self.clock() - began + wait > limit
            try:
                answer = await once()
            except Busy as error:
                # Any other code is an error because the response does not say whether something was created.
                if is_over or error.code != "429":
                    raise
            else:
                if is_over or not answer.is_throttled:
                    return answer
            tries += 1
            await self.sleep(wait)
