"""`FlowRunJournal`: the records of a flow run's paid jobs, kept as inputs of that flow run in the Prefect API.

Creating an input is atomic there (a second one with the same key meets a 409), every worker and hook reaches it, and
it outlives kill -9 and every final state. Deleting the flow run deletes its journal.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import httpx
import stamina
from prefect.settings import PREFECT_API_URL

from rh_prefect.connection import connect, disconnect
from rh_prefect.errors import JournalError
from rh_prefect.flow_runs import task_events
from rh_prefect.jobs.journal.journal import (
    HEX_DIGITS,
    JSON,
    EndListener,
    UnreadableRecord,
    by_job,
    check_key,
    run_together,
)
from rh_prefect.jobs.loop_thread import LOOP

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

_T = TypeVar("_T")
_PREFIX = "rh-"
_PAGE: Final = 200
"""Prefect's default limit of a page: a longer one may be refused."""
_LONGEST_PART: Final = 10 * _PAGE
"""Records of one part of a listing: each of its pages names the keys of the pages before it."""
_AT_ONCE: Final = 2
"""Parts of a listing that are read together: with more, the first jobs would come later."""

# The package's own loop keeps a connection to the Prefect API; it is closed with the loop.
LOOP.on_close(disconnect)


class FlowRunJournal:
    """A journal in the inputs of one flow run; see `rh_prefect.jobs.journal.journal.Journal`.

    Works on any event loop; the Prefect API is the one of the caller's settings.
    """

    def __init__(self, flow_run_id: UUID | str, *, patience: float = 60.0) -> None:
        """Opens the journal; nothing is asked before the first call.

        Args:
            flow_run_id: The scope: the root flow run.
            patience: Seconds for which a call is repeated while the API does not answer. Prefect's own client repeats
                too, for up to a minute, so that a call may take twice as long.
        """
        self._flow_run_id = flow_run_id if isinstance(flow_run_id, UUID) else UUID(flow_run_id)
        self._patience = patience

    @property
    def scope(self) -> str:
        """The flow run's id."""
        return str(self._flow_run_id)

    def __repr__(self) -> str:
        return f"FlowRunJournal({self.scope!r})"

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        """Creates a record exclusively; see `Journal.create`."""
        name, value = _PREFIX + check_key(key), json.dumps(record, allow_nan=False)
        try:
            await self._ask(f"write {key}", lambda api: api.create_flow_run_input(self._flow_run_id, name, value))
        except _Exists:
            # Prefect's client sends a creation again whose answer was lost: the record in the way may be this one.
            there = await self.read(key)
            return there is not None and "token" in record and there.get("token") == record["token"]
        return True

    async def read(self, key: str) -> JSON | None:
        """Reads one record; see `Journal.read`."""
        name = _PREFIX + check_key(key)
        try:
            value = await self._ask(f"read {key}", lambda api: api.read_flow_run_input(self._flow_run_id, name))
        except _NotFound:
            return None
        return self._decode(key, value)

    async def job(self, job_key: str) -> dict[str, JSON]:
        """Reads all records of one job; see `Journal.job`."""
        return await self.request(f"{job_key}-")

    async def request(self, prefix: str) -> dict[str, JSON]:
        """Reads all records of the jobs whose keys begin alike; see `Journal.request`."""
        records = (await self._read(_Part(prefix, most=math.inf))).records
        return {key: self._decode(key, value) for key, value in records.items()}

    async def keys(self) -> AsyncIterator[str]:
        """Lists the keys of all jobs; see `Journal.keys`.

        Reads the whole scope, page by page: for listings, not for the way of a job.
        """
        seen: set[str] = set()
        async for part in self._parts():
            for job_key in part.jobs():
                if job_key not in seen:
                    seen.add(job_key)
                    yield job_key

    async def jobs(self) -> AsyncIterator[tuple[str, dict[str, JSON]]]:
        """Reads the records of all jobs; see `Journal.jobs`."""
        async for part in self._parts():
            if part.is_whole:
                for job_key, records in part.jobs().items():
                    yield job_key, {key: self._decode(key, value) for key, value in records.items()}

    async def tell_of_ends(self, listener: EndListener) -> None:
        """Has a listener told when a task has ended; see `TellingJournal.tell_of_ends`."""
        task_events.subscribe(listener)

    async def _parts(self) -> AsyncIterator[_Part]:
        """Reads the records of the scope's jobs in parts; one that is not whole comes again, split.

        The API has no offset: what was read is left out by key. So a part of more than some pages is split by the next
        digit of the jobs' keys, which keeps the requests short however many records the scope has.
        """
        waiting = deque([partial(self._read, _Part("", most=_PAGE))])
        async for part in run_together(waiting, at_once=_AT_ONCE):
            if not part.is_whole:
                waiting.extend(partial(self._read, smaller) for smaller in part.split())
            yield part

    async def _read(self, part: _Part) -> _Part:
        """Reads a part to its end, or until it has to be split."""
        while not part.is_whole and len(part.records) < part.most:
            page = await self._page(part.prefix, leaving_out=part.records)
            part.records.update(page)
            part.is_whole = len(page) < _PAGE
        return part

    async def _page(self, prefix: str, *, leaving_out: Mapping[str, str]) -> dict[str, str]:
        """Reads up to a page of records below a prefix, by key."""
        found = await self._ask(
            f"list {prefix or 'all'}",
            lambda api: api.filter_flow_run_input(
                self._flow_run_id, _PREFIX + prefix, _PAGE, {_PREFIX + key for key in leaving_out}
            ),
        )
        return {one.key.removeprefix(_PREFIX): one.value for one in found}

    async def _ask(self, doing: str, request: Callable[[PrefectClient], Awaitable[_T]]) -> _T:
        """Sends one request, again while that may help; every other failure leaves as a `JournalError`."""
        try:
            async for attempt in stamina.retry_context(
                on=_may_pass, attempts=None, timeout=self._patience, wait_initial=0.2
            ):
                with attempt:
                    connection = await connect()
                    async with connection.gate:
                        return await request(connection.client)
        except httpx.HTTPStatusError as error:
            raise self._refused(doing, error) from error
        except httpx.TransportError as error:
            what = f"no answer ({type(error).__name__})"
            raise self._error(doing, what, "start it again, then run this again") from error
        raise AssertionError("the loop above returns or raises")

    def _refused(self, doing: str, error: httpx.HTTPStatusError) -> JournalError:
        status, body = error.response.status_code, error.response.text[:300]
        if status == httpx.codes.CONFLICT:
            return _Exists(f"{doing}: it exists")
        if status == httpx.codes.NOT_FOUND:
            what = "the flow run was deleted, and its journal with it"
            return _NotFound(self._error(doing, what, "see the manifests in the store").message)
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            what = f"access denied (HTTP {status})"
            return self._error(doing, what, "set PREFECT_API_KEY or PREFECT_API_AUTH_STRING")
        return self._error(doing, f"HTTP {status} {body}", "look at the Prefect server's log, then run this again")

    def _error(self, doing: str, what: str, advice: str) -> JournalError:
        where = PREFECT_API_URL.value() or "the ephemeral server"
        return JournalError(
            f"The journal of flow run {self.scope} cannot {doing}: the Prefect API at {where}: {what}. "
            f"What to do: {advice}; what was recorded so far is kept and nothing is paid for twice."
        )

    def _decode(self, key: str, value: str) -> JSON:
        try:
            return dict(json.loads(value))
        except (TypeError, ValueError) as error:
            raise UnreadableRecord(
                f"The record {key} of flow run {self.scope} is no JSON object: something else wrote an input of this "
                "name. What to do: look at the flow run's inputs; no new task is submitted before that."
            ) from error


@dataclass(slots=True)
class _Part:
    """Records of a scope below a prefix of their keys.

    Attributes:
        prefix: What the keys begin with.
        most: How many records are read before the part is split.
        records: What was read so far, by key, as text.
        is_whole: Whether these are all.
    """

    prefix: str
    most: float = _LONGEST_PART
    records: dict[str, str] = field(default_factory=dict)
    is_whole: bool = False

    def jobs(self) -> dict[str, dict[str, str]]:
        """The records of each job."""
        return by_job(self.records)

    def split(self) -> Iterator[_Part]:
        """The smaller parts of this one, with what was read of them."""
        for digit in f"{HEX_DIGITS}-" if self.prefix else HEX_DIGITS:
            prefix = self.prefix + digit
            known = {key: value for key, value in self.records.items() if key.startswith(prefix)}
            # A dash ends the key of a job, whose records are not split.
            yield _Part(prefix, math.inf if digit == "-" else _LONGEST_PART, known)


class _Exists(JournalError):
    """There is a record of this key already."""


class _NotFound(JournalError):
    """There is no such record, or no such flow run: a reader of one record cannot tell the two apart."""


def _may_pass(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.is_server_error or error.response.status_code == httpx.codes.TOO_MANY_REQUESTS
    return isinstance(error, httpx.TransportError)
