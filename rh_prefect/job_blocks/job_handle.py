"""A paid job on the package's loop thread, while its caller does something else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from rh_prefect.errors import JobCancelled
from rh_prefect.jobs.accounts.accounts import Accounts
from rh_prefect.jobs.cancel import cancel_task
from rh_prefect.jobs.end_record import end_of
from rh_prefect.jobs.events import JobEvent, Observer
from rh_prefect.jobs.journal.job_records import JobRecords, Submit, split_job
from rh_prefect.jobs.journal.scope import Scope
from rh_prefect.jobs.outputs.result import Result

T = TypeVar("T")

_going: set[asyncio.Task[Any]] = set()


def background(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Starts something that goes on although nobody may ever wait for it; its failure is told by its observer."""
    task = asyncio.ensure_future(coroutine)
    _going.add(task)
    task.add_done_callback(_over)
    return task


def _over(task: asyncio.Task[Any]) -> None:
    _going.discard(task)
    if not task.cancelled():
        task.exception()


@dataclass(frozen=True, slots=True)
class Handle:
    """One paid job; every method runs on the loop thread.

    Attributes:
        task_id: RunningHub's task id.
        job: The job's full name.
        scope: Where its records are.
        accounts: Finds the account that a record names.
        observer: Is told when it is cancelled here.
        work: Gives what waits for it and fetches it, the same one each time.
    """

    task_id: str
    job: str
    scope: Scope
    accounts: Accounts
    observer: Observer
    work: Callable[[], asyncio.Task[Result]]

    async def wait(self) -> Result:
        """Waits for the result; who stops waiting does not stop the work.

        Raises:
            RunningHubError: Whatever the work raises.
        """
        work = self.work()
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # The work itself is cancelled by nothing but `cancel`.
            if work.cancelled():
                raise self._cancelled() from None
            raise

    async def cancel(self) -> None:
        """Cancels the task, records its end and stops waiting for it; see `RunningHubJobRun.cancel`."""
        submit = await self._submit()
        if submit is None or submit.end is not None:
            return
        view = await cancel_task(await self.accounts.client_for(submit.intent), self.task_id)
        end = await self._records.end(submit.n, end_of(submit, view, scope=self.scope, queued=0.0, ran=0.0))
        # RunningHub may go on to call it running, and waiting for it would never end.
        if end.status == "CANCELLED" and self.work().cancel():
            self._tell(submit)

    async def _submit(self) -> Submit | None:
        """The job's submit that became this task; None where the result comes from an earlier job's manifest."""
        view = await self._records.view()
        return next((one for one in view.submits if one.task_id == self.task_id), None)

    @property
    def _records(self) -> JobRecords:
        return JobRecords(self.scope.journal, split_job(self.job)[1])

    def _tell(self, submit: Submit) -> None:
        error = self._cancelled()
        event = JobEvent(
            state="cancelled",
            job=self.job,
            model=submit.intent.model,
            label=submit.intent.label,
            task_id=self.task_id,
            message=error.message,
        )
        self.observer.notify(event)

    def _cancelled(self) -> JobCancelled:
        return JobCancelled(
            f"{self.job}: task {self.task_id} was cancelled. What to do: trigger it again to pay for a new one.",
            job=self.job,
            task_id=self.task_id,
        )
