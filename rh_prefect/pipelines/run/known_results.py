"""`KnownResults`: the recorded works and the works of this run; each record is read once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from rh_prefect.pipelines.plan.planned_steps import KnownWork, KnownWorks, PlannedStep, Round, WorkQuery
from rh_prefect.pipelines.run.store_outages import while_store_is_away
from rh_prefect.works.loop_thread import LOOP

T = TypeVar("T")


async def _read(records: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return await while_store_is_away(lambda: LOOP.call(records()))


class KnownResults(KnownWorks):
    """The recorded works and the works of this run; each record is read once."""

    def __init__(self, records: KnownWorks) -> None:
        self._records = records
        self._found: dict[WorkQuery, KnownWork | None] = {}
        self._new_takes: dict[tuple[str, str], int] = {}
        self._takes: dict[str, Sequence[int]] = {}
        self._new: set[str] = set()

    async def find(self, queries: Sequence[WorkQuery]) -> Sequence[KnownWork | None]:
        """Looks up works; see `KnownWorks.find`."""
        new = [query for query in dict.fromkeys(queries) if query not in self._found]
        if new:
            found = await _read(lambda: self._records.find(new))
            self._found.update(zip(new, found, strict=True))
        return [self._found[query] for query in queries]

    async def new_take(self, base: str, scope: str = "") -> int:
        """Returns a new take, the same for repeated calls in this run; see `KnownWorks.new_take`."""
        if (base, scope) not in self._new_takes:
            self._new_takes[base, scope] = await _read(lambda: self._records.new_take(base, scope))
        return self._new_takes[base, scope]

    async def round(self, pipeline: str) -> Round:
        """Returns the round of the run; see `KnownWorks.round`."""
        return await _read(lambda: self._records.round(pipeline))

    async def takes_of(self, choice: str, new: Sequence[int] = ()) -> Sequence[int]:
        """Returns the takes that the round uses; see `KnownWorks.takes_of`."""
        if not self._takes.get(choice):
            self._takes[choice] = await _read(lambda: self._records.takes_of(choice, new))
        return self._takes[choice]

    def add(self, work: str, shape: str, known: KnownWork, *, is_edit: bool = False) -> None:
        """Adds a result of this run."""
        self._found[WorkQuery(work, shape, is_edit)] = known
        self._new.add(work)

    def new_works(self) -> set[str]:
        """Returns the works whose results were added since the last call."""
        found, self._new = self._new, set()
        return found

    def of(self, instance: PlannedStep) -> list[KnownWork | None]:
        """Returns the results of a step's works; None for each work without a known result."""
        queries = [WorkQuery(work.key, work.shape, is_edit=not instance.is_paid) for work in instance.works]
        return [self._found.get(query) for query in queries]
