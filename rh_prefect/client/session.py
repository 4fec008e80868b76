"""How every request is sent: read, create, submit, upload; each with its limits and retries."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import httpx
from pydantic import SecretStr

from rh_prefect.client import responses
from rh_prefect.client.responses import Answer, RequestInfo
from rh_prefect.client.transport import FOREIGN, RESEND, Delivery, open_connections
from rh_prefect.client.upload import FileBody, RawBody
from rh_prefect.errors import Busy, InputError
from rh_prefect.redaction import HIDDEN, KEY_FIELD, KeyField, hide_signature, mask_key, mask_url

_AT_ONCE: Final = 16
"""API calls in flight: httpx's pool gets slow in the square of its waiters, so they wait outside of it."""
_CALL_SECONDS: Final = 90.0
"""How long a call other than a submit or a transfer may take, resends of the transport included."""
PACE_SECONDS: Final = 60.0
"""How long a call other than a submit is sent again while RunningHub answers that it is too busy."""
V1_KEY: Final = "apiKey"
"""The field of a v1 body that holds the key."""
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Core:
    """What all endpoints of one account share.

    Args:
        key: The account's key.
        base_url: The site.
        submit_timeout: The hard limit on a submit, in seconds.
        pace_seconds: How long a call other than a submit waits out that RunningHub is too busy.
        transport: Sends the requests in place of the network.
    """

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
    ) -> Answer:
        """Asks for something that may be asked for again; without a body it is a GET.

        Args:
            path: The endpoint.
            body: The JSON object, without the key.
            ask: What for.
            key_field: The field of the body that the endpoint wants the key in, beside the header (api.md 1.2).
        """
        client = self.pools.calls
        if body is None:
            return await self.resent(client, client.build_request("GET", path), ask)
        return await self.resent(client, self._json_request(client, path, body, ask, key_field=key_field), ask)

    async def call_v1(self, path: str, body: Mapping[str, object], ask: RequestInfo) -> Answer:
        """Asks a v1 endpoint, which wants the key in the body, too."""
        return await self.call(path, body, ask, key_field=V1_KEY)

    async def call_with_key_in_query(self, path: str, query: str, ask: RequestInfo) -> Answer:
        """Asks an endpoint that wants the key in its address; the address is masked in every log.

        Args:
            path: The endpoint.
            query: The query, with `***` for the key.
            ask: What for.
        """
        client = self.pools.calls
        request = client.build_request("GET", f"{path}?{query}")
        request.extensions[HIDDEN] = mask_url(request.url, key=self.key)
        return await self.resent(client, request, ask)

    async def make(self, path: str, body: Mapping[str, object], ask: RequestInfo) -> Answer:
        """Asks once for something of which there would be two if it were asked for again."""
        client = self.pools.submits

        async def once() -> Answer:
            request = self._json_request(client, path, body, ask)
            answer = await self.send(client, request, ask, deadline=_CALL_SECONDS)
            if answer.status >= 500:
                responses.checked(answer, ask)  # something broke on the way, so that it may have been made
            return answer

        return await self.paced(once, ask)

    async def submit(
        self, path: str, body: Mapping[str, object], ask: RequestInfo, *, key_field: str | None = None
    ) -> Answer:
        """Sends what costs money: once, on a connection of its own, within the hard limit; see `call`."""
        client = self.pools.submits
        request = self._json_request(client, path, body, ask, key_field=key_field)
        return await self.send(client, request, ask, deadline=self.submit_timeout)

    async def upload(self, path: str, body: FileBody, ask: RequestInfo) -> Answer:
        """Sends a file to RunningHub."""
        client = self.pools.uploads
        return await self.send_file(client, client.build_request("POST", path, content=body, headers=body.headers), ask)

    async def put(self, url: str, body: RawBody, ask: RequestInfo) -> int:
        """Sends a file to a signed address of a stranger, who gets no key.

        Returns:
            The HTTP status.
        """
        client = self.pools.files
        try:
            request = client.build_request("PUT", url, content=body, headers=body.headers, extensions={RESEND: True})
            hide_signature(request)
        except FOREIGN as error:
            raise responses.no_answer(ask, "the address to send it to is none") from error
        async with self._uploads:
            # Not redirected: by most redirects a PUT becomes a GET, whose success would mean nothing.
            status, _ = await self.exchange(client, request, ask, redirects=False)
        return status

    async def resent(
        self, client: httpx.AsyncClient, request: httpx.Request, ask: RequestInfo, *, auth: bool = True
    ) -> Answer:
        """Sends a request that may be sent again, among the few that are in flight at a time."""
        request.extensions[RESEND] = True

        async def once() -> Answer:
            async with self._calls:
                return await self.send(client, request, ask, deadline=_CALL_SECONDS, auth=auth)

        return await self.paced(once, ask)

    async def paced(self, once: Callable[[], Awaitable[Answer]], ask: RequestInfo) -> Answer:
        """Sends a request again while RunningHub is too busy to accept it, whatever HTTP status that comes with."""
        return await self._pace.send(once, seconds=ask.pace_seconds)

    async def send_file(
        self, client: httpx.AsyncClient, request: httpx.Request, ask: RequestInfo, *, auth: bool = True
    ) -> Answer:
        """Sends a request that carries a file; it takes as long as it takes, and may be sent again."""
        request.extensions[RESEND] = True

        async def once() -> Answer:
            async with self._uploads:
                return await self.send(client, request, ask, auth=auth)

        return await self.paced(once, ask)

    async def send(
        self,
        client: httpx.AsyncClient,
        request: httpx.Request,
        ask: RequestInfo,
        *,
        deadline: float | None = None,
        auth: bool = True,
    ) -> Answer:
        """Sends a request and makes sense of the answer.

        Raises:
            ConnectFailed: It never left this machine.
            ResponseLost: It may have arrived; there is no readable answer.
            ApiError: See `responses.read`.
        """
        status, body = await self.exchange(client, request, ask, deadline=deadline, auth=auth)
        return responses.read(status, body, ask)

    async def exchange(
        self,
        client: httpx.AsyncClient,
        request: httpx.Request,
        ask: RequestInfo,
        *,
        deadline: float | None = None,
        auth: bool = True,
        redirects: bool | None = None,
    ) -> tuple[int, bytes]:
        """Sends a request.

        Returns:
            The status, and the body without the key.

        Raises:
            ConnectFailed: It never left this machine.
            ResponseLost: It may have arrived; the answer is lost.
        """
        delivery = Delivery()
        request.extensions["trace"] = delivery.trace
        options: dict[str, Any] = {} if auth else {"auth": None}
        if redirects is not None:
            options["follow_redirects"] = redirects
        try:
            async with asyncio.timeout(deadline):
                response = await client.send(request, **options)
        except FOREIGN as error:
            raise delivery.explain(error, ask) from error
        return response.status_code, mask_key(response.content, key=self.key)

    def _json_request(
        self,
        client: httpx.AsyncClient,
        path: str,
        body: Mapping[str, object],
        ask: RequestInfo,
        *,
        key_field: str | None = None,
    ) -> httpx.Request:
        # The account pays, whatever key a payload names.
        content = json_bytes({name: value for name, value in body.items() if name != key_field}, ask)
        request = client.build_request("POST", path, content=content, headers={"Content-Type": "application/json"})
        if key_field is not None:
            request.extensions[KEY_FIELD] = KeyField(key_field, content, self.key)
        return request


def json_bytes(body: Mapping[str, object], ask: RequestInfo) -> bytes:
    """Writes a body.

    Raises:
        InputError: It cannot be written as JSON.
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{ask.doing}: a parameter cannot be written as JSON ({error}). Nothing was sent.") from error


def usable_id(value: str, *, of: str) -> str:
    """Checks an id before it becomes part of a request: all digits, as a string.

    Raises:
        InputError: It is none.
    """
    found = value.strip() if isinstance(value, str) else ""
    if not _ID.fullmatch(found):
        raise InputError(f"{value!r} is no id of {of}. Give it as a string with all its digits. Nothing was sent.")
    return found


def usable_page(number: int, size: int, *, largest: int) -> None:
    """Checks where in a list one wants to be.

    Raises:
        InputError: There is no such page.
    """
    if number < 1 or not 1 <= size <= largest:
        raise InputError(f"There is no page {number} of {size} items: pages count from 1 and hold 1 to {largest}.")


class Backoff:
    """Sends again with growing pauses.

    Args:
        seconds: How long at most, from the first answer on; 0 never sends again.
        pause: Seconds before the second request; doubled for each later one.
        longest: The longest pause, in seconds.
        sleep: Waits.
        clock: Monotonic seconds.
        draw: Numbers from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        seconds: float,
        *,
        pause: float = 0.5,
        longest: float = 8.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._seconds = seconds
        self._pause = pause
        self._longest = longest
        self._sleep = sleep
        self._clock = clock
        self._draw = draw

    async def send(self, once: Callable[[], Awaitable[Answer]], *, seconds: float | None = None) -> Answer:
        """Sends a request until it is accepted or refused for another reason.

        Args:
            once: Sends it once.
            seconds: A shorter limit than usual.

        Returns:
            The answer; the last one where the time is over.

        Raises:
            Busy: HTTP 429, and the time is over.
        """
        limit = self._seconds if seconds is None else min(seconds, self._seconds)
        began, tries = self._clock(), 0
        while True:
            wait = min(self._pause * 2.0**tries, self._longest) * (0.5 + self._draw() / 2)
            is_over = self._clock() - began + wait > limit
            try:
                answer = await once()
            except Busy as error:
                # Any other code was raised since the answer does not tell whether something was made.
                if is_over or error.code != "429":
                    raise
            else:
                if is_over or not answer.is_pace:
                    return answer
            tries += 1
            await self._sleep(wait)
