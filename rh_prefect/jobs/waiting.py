"""From the ticket to the recorded end: a task is waited for, heard of, left to itself, or cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from rh_prefect.client import TaskView
from rh_prefect.errors import AccountError, JobTimeout, JournalError, KeyRejected, TaskNotFound
from rh_prefect.jobs.accounts.poller import IsKnown, is_settled
from rh_prefect.jobs.accounts.seat import Seat
from rh_prefect.jobs.call import Call
from rh_prefect.jobs.cancel import cancel_task
from rh_prefect.jobs.ending import broken_end, end_of, with_times
from rh_prefect.jobs.leaving import Left
from rh_prefect.jobs.ledger.journal import TellingJournal
from rh_prefect.jobs.ledger.records import End, Submit
from rh_prefect.jobs.node_progress import NodeProgress

_log = logging.getLogger("rh_prefect")


class Waiter:
    """Waits for the tasks of one job, on the package's loop thread."""

    def __init__(self, call: Call, *, seat: Seat, clock: Callable[[], float]) -> None:
        """Prepares; nothing is asked.

        Args:
            call: What was asked for.
            seat: The account that paid, and the job's slot there.
            clock: Monotonic seconds.
        """
        self._call = call
        self._seat = seat
        self._clock = clock

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
        return await self._record_end(submit, end_of(submit, view, scope=self._call.scope, queued=queued, ran=ran))

    async def cancel(self, submit: Submit) -> End:
        """Cancels the task, and records that.

        Args:
            submit: The submit that made it.
        """
        view = await cancel_task(self._seat.account.client, submit.task_id or "")
        return await self._record_end(submit, broken_end(submit, view, scope=self._call.scope))

    async def _wait_or_leave(
        self, submit: Submit, task_id: str, changed: Callable[[TaskView], None]
    ) -> TaskView | End | None:
        """The end, as it is seen or as it is recorded; None where the task is left to itself."""
        end = self._wait(submit, task_id, changed)
        if self._call.round is None:
            return await end
        task, poller = Left(job=self._call.job, n=submit.n, task_id=task_id), self._seat.account.poller
        return await self._call.round.wait(task, end, look=lambda: poller.wake(task_id))

    async def _wait(self, submit: Submit, task_id: str, changed: Callable[[TaskView], None]) -> TaskView | End:
        recorded: list[End] = []

        async def is_recorded() -> bool:
            recorded.extend(filter(None, [await self._read_end(submit)]))
            return bool(recorded)

        is_told = submit.intent.webhook and isinstance(self._call.scope.journal, TellingJournal)
        deadline = self._call.options.deadline
        try:
            async with asyncio.timeout(deadline):
                return await self._wait_or_hear(task_id, changed, is_recorded if is_told else None) or recorded[0]
        except TimeoutError:
            raise JobTimeout(
                f"{self._call.job}: task {task_id} has not ended in {deadline} s. It goes on and stays paid "
                "for. What to do: run again to wait for it, or cancel the run.",
                job=self._call.job,
                task_id=task_id,
            ) from None
        except (KeyRejected, AccountError, TaskNotFound) as error:
            raise self._seat.untold(task_id, error) from error

    async def _wait_or_hear(
        self, task_id: str, changed: Callable[[TaskView], None], is_known: IsKnown | None
    ) -> TaskView | None:
        """The terminal view, or None where the end is recorded already."""
        view = await self._seat.account.poller.wait(task_id, on_change=changed, is_known=is_known)
        if view is None and (is_known is None or not await is_known()):
            # It was recorded for another job that waits for the same task.
            return await self._seat.account.poller.wait(task_id, on_change=changed)
        return view

    async def _read_end(self, submit: Submit) -> End | None:
        record = await self._call.scope.journal.read(f"{self._call.key}-end-{submit.n}")
        return None if record is None else End.model_validate(record)

    async def _record_end(self, submit: Submit, end: End) -> End:
        key = f"{self._call.key}-end-{submit.n}"
        try:
            if await self._call.scope.journal.create(key, end.model_dump(mode="json")):
                return end
            return End.model_validate(await self._call.scope.journal.read(key))
        except JournalError as error:
            # The ticket stands, so a later run asks RunningHub again; now the files come first, since their links die.
            _log.warning("%s: the end of task %s could not be recorded: %s", self._call.job, end.task_id, error)
            return end
