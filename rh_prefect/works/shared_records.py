"""One work's records that runs share, with the notes of one run about it."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

from rh_prefect.errors import RunningHubError
from rh_prefect.works.journal.job_records import JobRecords, Submit
from rh_prefect.works.journal.signs_of_life import signs_of_life
from rh_prefect.works.journal.works_journal import HasEnded, WorksJournal
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_ledger import WorksLedger, is_settled

_log = logging.getLogger("rh_prefect")


class SharedRecords(JobRecords):
    """One work's records that all runs share, and the notes of one run about it."""

    is_shared = True

    def __init__(self, works: WorksJournal, work: str, ledger: WorksLedger, *, name: str, has_ended: HasEnded) -> None:
        """Refers to the records of a work; reads nothing."""
        super().__init__(works, work)
        self._works = works
        self._ledger = ledger
        self._step = name
        self._has_ended = has_ended
        self._waiters: list[str] = []
        self._noted: set[int] = set()
        self._settled: set[int] = set()

    @property
    def charge_key(self) -> str:
        """The work's name among all that its run pays for, which may have the same work in several places."""
        return self.name

    def note_settled(self, submit: Submit) -> None:
        """Notes in the run's journal what a submission has cost, if nothing can change that; waits for nothing."""
        is_of_run = submit.intent.flow_run == self._ledger.flow_run or submit.n in self._noted
        if is_of_run and submit.n not in self._settled and is_settled(submit):
            self._settled.add(submit.n)
            LOOP.critical(self._note_settled(submit))

    async def _note_settled(self, submit: Submit) -> None:
        try:
            await self._ledger.note_settled(self.key, submit)
        except RunningHubError as error:
            _log.info("%s: submission %d is settled, which is not noted: %s", self._step, submit.n, error)

    async def note_waiter(self) -> None:
        """Records that the run waits for the work, so that other runs do not cancel its task."""
        self._waiters.append(await self._works.add_waiter(self.key, self._ledger.flow_run))

    async def wait_suspended(self, seconds: float) -> None:
        """Records that the run waits for the work while it is suspended and has no process, for so long at most."""
        await self._works.add_waiter(self.key, self._ledger.flow_run, suspended=seconds)

    def signs_of_life(self) -> AbstractContextManager[None]:
        """Writes regularly that the run is alive, while a caller of the run waits for the work."""
        return signs_of_life(self._works, self._ledger.flow_run)

    async def release_waiter(self) -> None:
        """Records that the run no longer waits for the work, so that another one can cancel its task."""
        await self._works.release_waiters(self.key, self._ledger.flow_run)

    async def release_own_waiter(self) -> None:
        """Records that this caller no longer waits for the work; another one in the run may."""
        if self._waiters:
            await self._works.release_waiters(self.key, self._ledger.flow_run, only=self._waiters)

    async def has_other_waiters(self) -> bool:
        """Checks whether another run waits for the work."""
        return await self._works.has_other_waiter(self.key, self._ledger.flow_run, has_ended=self._has_ended)

    async def note_claim(self, n: int) -> None:
        """Notes that the run is about to claim submission n."""
        self._noted.add(n)
        await self._ledger.note_claim(self.key, n, self._step)

    async def note_wait(self, n: int) -> None:
        """Notes that the run waits for the task of submission n."""
        self._noted.add(n)
        await self._ledger.note_wait(self.key, n)

    async def has_waited(self, n: int) -> bool:
        """Checks whether this attempt, or one whose payments count with it, has waited for the task."""
        return await self._ledger.has_waited(self.key, n)
