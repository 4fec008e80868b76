"""`FlowRunInputs`: the entries of a log, each of which is one input of a flow run in the Prefect API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID

import httpx

from rh_prefect.errors import JournalError
from rh_prefect.prefect_api import FAILURES, api_address, ask_repeatedly, failure_of, may_pass

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

_T = TypeVar("_T")
_LOG: Final = "rh-log-"
_DIGITS: Final = 8
_BLOCK: Final = 100
"""Number of entries in a block, which one request reads; their numbers differ only in the last two digits."""
PAGE: Final = 200
"""Prefect's default limit for the entries of a page; a server may refuse a larger limit."""
_NO_ACCESS: Final = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


class EntryRefused(JournalError):
    """The Prefect API rejects an entry; in smaller entries, some of its records may be accepted."""


class FlowRunInputs:
    """The entries of one flow run's log; requests are repeated for `patience` seconds if the API does not respond."""

    def __init__(self, flow_run_id: UUID, patience: float) -> None:
        self._flow_run_id = flow_run_id
        self.scope = str(flow_run_id)
        self.patience = patience

    async def append(self, number: int, text: str) -> bool:
        """Creates an entry with a number; returns False if an entry with this number exists."""
        name = _entry_name(number)

        async def create(api: PrefectClient) -> bool:
            await api.create_flow_run_input(self._flow_run_id, name, text)
            return True

        return await self._ask(f"write {name}", create, unless=httpx.codes.CONFLICT) or False

    async def newer(self, number: int) -> tuple[Mapping[int, str], bool]:
        """Reads the entries from a number to the end of its block; for number 1, all entries if they fit on a page.

        Also returns whether later blocks may have further entries.
        """
        page: Mapping[int, str] = {}
        if number == 1:
            # The API sorts by the time of creation, and clocks differ: a page's entries may have gaps.
            page = await self._filter(_LOG)
            if len(page) < PAGE:
                return page, False
        # The API filters by prefix, without a lower bound: known entries of the block are left out by name.
        first = number - number % _BLOCK
        found = await self._filter(_entry_name(number)[:-2], leaving_out=map(_entry_name, range(first, number)))
        return found or page, first + _BLOCK - 1 in found

    async def entry(self, number: int) -> str | None:
        """Reads one entry by its number, and returns its text; None if it does not exist."""
        name = _entry_name(number)
        return await self._ask(
            f"read {name}", lambda api: api.read_flow_run_input(self._flow_run_id, name), unless=httpx.codes.NOT_FOUND
        )

    async def _filter(self, prefix: str, *, leaving_out: Iterable[str] = ()) -> dict[int, str]:
        """Returns at most `PAGE` of the entries whose names begin with a prefix, keyed by their numbers."""
        known = set(leaving_out)
        found = await self._ask(
            f"list {prefix}", lambda api: api.filter_flow_run_input(self._flow_run_id, prefix, PAGE, known)
        )
        numbers = {one.key.removeprefix(_LOG): one.value for one in found or ()}
        return {int(number): text for number, text in numbers.items() if number.isdecimal()}

    async def _ask(
        self, doing: str, request: Callable[[PrefectClient], Awaitable[_T]], *, unless: int | None = None
    ) -> _T | None:
        """Sends one request, and repeats it while a retry can help; returns None if the answer has the status `unless`.

        Raises `JournalError` if the request finally fails.
        """
        what = f"The journal of flow run {self.scope} cannot {doing}"
        try:
            return await ask_repeatedly(request, what=what, patience=self.patience)
        except FAILURES as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
            if status is not None and status == unless:
                return None
            raise _failed(what, error, status) from error


def _failed(what: str, error: Exception, status: int | None) -> JournalError:
    if status == httpx.codes.NOT_FOUND:
        return JournalError(
            f"{what}: the Prefect API at {api_address()} does not have this flow run: it was deleted, together with "
            "its journal, or the server has another database. What to do: set PREFECT_API_URL to the address of the "
            "run's server; if it is that already, start a new run. The results in the storage show what this run has "
            "paid for."
        )
    answer, advice = failure_of(error)
    is_refused = status is not None and httpx.codes.is_client_error(status) and not may_pass(error)
    of_kind = EntryRefused if is_refused and status not in _NO_ACCESS else JournalError
    return of_kind(
        f"{what}: the Prefect API at {api_address()}: {answer}. "
        f"What to do: {advice}; what was recorded so far is kept and nothing is paid for twice."
    )


def _entry_name(number: int) -> str:
    return f"{_LOG}{number:0{_DIGITS}}"
