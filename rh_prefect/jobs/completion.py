"""From the ticket to the recorded end: a task is waited for, heard of, left to itself, or cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from rh_prefect.client import TaskView
from rh_prefect.errors import AccountError, JobTimeout, JournalError, KeyRejected, OutputsPending, TaskNotFound
from rh_prefect.jobs.accounts.poller import IsKnown, is_settled
from rh_prefect.jobs.accounts.slot_lease import SlotLease
from rh_prefect.jobs.cancel import cancel_task
from rh_prefect.jobs.context import JobContext
from rh_prefect.jobs.end_record import broken_end, end_of, with_times
from rh_prefect.jobs.journal.job_records import JobRecords, Submit
from rh_prefect.jobs.journal.journal import TellingJournal
from rh_prefect.jobs.journal.records import End
from rh_prefect.jobs.node_progress import NodeProgress
from rh_prefect.jobs.suspension import Detached
from rh_prefect.redaction import bare

CANCEL_LOOK_SECONDS = 3.0
"""Seconds between two looks for a cancellation, of which RunningHub sends no webhook; a run's jobs share one read."""

_log = logging.getLogger("rh_prefect")


class Waiter:
    """Waits for the tasks of one job, on the package's loop thread."""

    def __init__(
        self,
        call: JobContext,
        *,
        seat: SlotLease,
        clock: Callable[[], float],
        is_cancelled: Callable[[], Awaitable[bool]],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """Prepares; nothing is asked.

        Args:
            call: What was asked for.
            seat: The account that paid, and the job's slot there.
            clock: Monotonic seconds.
            is_cancelled: Whether the run was cancelled, as it was known a moment ago at the latest.
            sleep: Waits.
        """
        self._call = call
        self._records = JobRecords(call.scope.journal, call.key)
        self._seat = seat
        self._clock = clock
        self._is_cancelled = is_cancelled
        self._sleep = sleep

    async def wait(self, submit: Submit, *, first_view: TaskView | None) -> End | None:
        """Waits until the task has ended, or is left to itself.

        Args:
            submit: The submit that made the task.
            first_view: What the answer to the submit said of it already.

        Returns:
            Its end, as it was recorded; None where the task is left to itself.

        Raises:
            JobTimeout: It has not ended in time.
            AccountError: The account that paid for it does not answer for it.
            TaskNotFound: RunningHub does not know it, or no longer.
            OutputsPending: It has succeeded, and RunningHub lists no file that can be fetched.
        """
        task_id = submit.task_id or ""
        began = self._clock()
        ran_from: list[float] = []
        nodes = NodeProgress(self._call, task_id, self._seat.account.client)

        def changed(view: TaskView) -> None:
            if view.status == "RUNNING" and not ran_from:
                ran_from.append(self._clock())
                self._call.tell("running", f"task {task_id} runs", task_id=task_id)
                nodes.runs()

        view: TaskView | End | None = first_view
        if not isinstance(view, TaskView) or view.task_id != task_id or not is_settled(view):
            with nodes.during(first_view):
                view = await self._wait_or_leave(submit, task_id, changed)
            if view is None:
                return None
        # The task has ended, and the next one need not wait until that is recorded.
        self._seat.free()
        running_since = ran_from[0] if ran_from else began
        queued, ran = running_since - began, self._clock() - running_since
        if isinstance(view, End):
            return with_times(view, queued=queued, ran=ran)
        self._check_outputs(view)
        return await self._record_end(submit, end_of(submit, view, scope=self._call.scope, queued=queued, ran=ran))

    async def cancel(self, submit: Submit) -> End:
        """Cancels the task, and records that.

        Args:
            submit: The submit that made it.
        """
        view = await cancel_task(self._seat.account.client, submit.task_id or "")
        self._check_outputs(view)
        return await self._record_end(submit, broken_end(submit, view, scope=self._call.scope))

    async def _wait_or_leave(
        self, submit: Submit, task_id: str, changed: Callable[[TaskView], None]
    ) -> TaskView | End | None:
        """The end, as it is seen or as it is recorded; None where the task is left to itself."""
        end = self._wait(submit, task_id, changed)
        if self._call.round is None:
            return await end
        task, poller = Detached(job=self._call.job, n=submit.n, task_id=task_id), self._seat.account.poller
        return await self._call.round.wait(task, end, look=lambda: poller.wake(task_id))

    async def _wait(self, submit: Submit, task_id: str, changed: Callable[[TaskView], None]) -> TaskView | End:
        is_told = submit.intent.webhook and isinstance(self._call.scope.journal, TellingJournal)
        deadline = self._call.options.deadline
        watch = asyncio.ensure_future(self._poll_once_cancelled(task_id)) if is_told else None
        try:
            async with asyncio.timeout(deadline):
                return await self._wait_or_hear(submit, task_id, changed, is_told=is_told)
        except TimeoutError:
            raise JobTimeout(
                f"{self._call.job}: task {task_id} has not ended in {deadline} s. It goes on and stays paid "
                "for. What to do: run again to wait for it, or cancel the run.",
                job=self._call.job,
                task_id=task_id,
            ) from None
        except (KeyRejected, AccountError, TaskNotFound) as error:
            raise self._seat.untold(task_id, error) from error
        finally:
            if watch is not None:
                watch.cancel()

    async def _wait_or_hear(
        self, submit: Submit, task_id: str, changed: Callable[[TaskView], None], *, is_told: bool
    ) -> TaskView | End:
        async def is_recorded() -> bool:
            return await self._records.read_end(submit.n) is not None

        is_known: IsKnown | None = is_recorded
        while True:
            poller = self._seat.account.poller
            view = await poller.wait(task_id, on_change=changed, is_known=is_known, is_told=is_told)
            ended = view or await self._records.read_end(submit.n)
            if ended is not None:
                return ended
            # It was recorded for another job that waits for the same task.
            is_known, is_told = None, False

    async def _poll_once_cancelled(self, task_id: str) -> None:
        while not await self._is_cancelled():
            await self._sleep(CANCEL_LOOK_SECONDS)
        self._seat.account.poller.poll_often(task_id)

    def _check_outputs(self, view: TaskView) -> None:
        """Refuses to take a success for the end before it has files: the record of an end is never changed."""
        if not view.is_terminal or is_settled(view):
            return
        odd = next((output.url for output in view.outputs if not output.is_usable), None)
        what = "no file and no text" if odd is None else f"a file under {bare(odd)[:80]!r}, which is not a link"
        run = self._call.scope.journal.scope
        raise OutputsPending(
            f"{self._call.job}: task {view.task_id} was paid for and has succeeded, and RunningHub lists {what}. "
            f"What to do: run it again later, or: rh-prefect jobs collect {run}. RunningHub is then asked again, and "
            "nothing is paid.",
            job=self._call.job,
            task_id=view.task_id,
        )

    async def _record_end(self, submit: Submit, end: End) -> End:
        try:
            return await self._records.end(submit.n, end)
        except JournalError as error:
            # The ticket stands, so a later run asks RunningHub again; now the files come first, since their links die.
            _log.warning("%s: the end of task %s could not be recorded: %s", self._call.job, end.task_id, error)
            return end
