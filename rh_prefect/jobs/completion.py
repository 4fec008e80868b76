"""From the ticket to the recorded end: a task is polled, notified by a webhook, or cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from rh_prefect.client import TaskView
from rh_prefect.errors import AccountError, JobTimeout, JournalError, KeyRejected, OutputsPending, TaskNotFound
from rh_prefect.jobs.accounts.poller import IsKnown, is_settled
from rh_prefect.jobs.cancel import cancel_task
from rh_prefect.jobs.context import JobContext
from rh_prefect.jobs.end_record import broken_end, end_of, with_times
from rh_prefect.jobs.journal.job_records import Submit
from rh_prefect.jobs.journal.journal import TellingJournal
from rh_prefect.jobs.journal.records import End
from rh_prefect.jobs.node_progress import NodeProgress
from rh_prefect.redaction import bare

CANCEL_LOOK_SECONDS = 3.0
"""Seconds between two looks for a cancellation, of which RunningHub sends no webhook; a run's jobs share one read."""

_log = logging.getLogger("rh_prefect")


class Waiter:
    """Waits for the task of one job, on the package's loop thread."""

    def __init__(self, context: JobContext) -> None:
        """Takes a job; nothing is asked yet.

        Args:
            context: The job; its lease is at the account that paid.
        """
        self._context = context
        self._records = context.records
        self._lease = context.lease
        self._clock = context.services.clock

    async def wait(self, submit: Submit, *, first_view: TaskView | None) -> End:
        """Waits until the task has ended.

        Args:
            submit: The submit that made the task.
            first_view: What the answer to the submit said of it already.

        Returns:
            Its end, as it was recorded.

        Raises:
            JobTimeout: It has not ended in time.
            AccountError: The account that paid for it does not answer for it.
            TaskNotFound: RunningHub does not know it, or no longer.
            OutputsPending: It has succeeded, and RunningHub lists no file that can be fetched.
        """
        task_id = submit.task_id or ""
        began = self._clock()
        ran_from: list[float] = []
        nodes = NodeProgress(self._context, task_id, self._lease.account.client)

        def changed(view: TaskView) -> None:
            if view.status == "RUNNING" and not ran_from:
                ran_from.append(self._clock())
                self._context.notify("running", f"task {task_id} runs", task_id=task_id)
                nodes.runs()

        view: TaskView | End | None = first_view
        if not isinstance(view, TaskView) or view.task_id != task_id or not is_settled(view):
            with nodes.during(first_view):
                view = await self._wait(submit, task_id, changed)
        # The task has ended, and the next one need not wait until that is recorded.
        self._lease.free()
        running_since = ran_from[0] if ran_from else began
        queued, ran = running_since - began, self._clock() - running_since
        if isinstance(view, End):
            return with_times(view, queued=queued, ran=ran)
        self._check_outputs(view)
        return await self._record_end(submit, end_of(submit, view, scope=self._context.scope, queued=queued, ran=ran))

    async def cancel(self, submit: Submit) -> End:
        """Cancels the task, and records that.

        Args:
            submit: The submit that made it.
        """
        view = await cancel_task(self._lease.account.client, submit.task_id or "")
        self._check_outputs(view)
        return await self._record_end(submit, broken_end(submit, view, scope=self._context.scope))

    async def _wait(self, submit: Submit, task_id: str, changed: Callable[[TaskView], None]) -> TaskView | End:
        is_notified = submit.intent.webhook and isinstance(self._context.scope.journal, TellingJournal)
        deadline = self._context.options.deadline
        watch = asyncio.ensure_future(self._poll_once_cancelled(task_id)) if is_notified else None
        try:
            async with asyncio.timeout(deadline):
                return await self._poll_or_hear(submit, task_id, changed, is_notified=is_notified)
        except TimeoutError:
            raise JobTimeout(
                f"{self._context.job}: task {task_id} has not ended in {deadline} s. It goes on and stays paid "
                "for. What to do: run again to wait for it, or cancel the run.",
                job=self._context.job,
                task_id=task_id,
            ) from None
        except (KeyRejected, AccountError, TaskNotFound) as error:
            raise self._lease.untold(task_id, error) from error
        finally:
            if watch is not None:
                watch.cancel()

    async def _poll_or_hear(
        self, submit: Submit, task_id: str, changed: Callable[[TaskView], None], *, is_notified: bool
    ) -> TaskView | End:
        async def is_recorded() -> bool:
            return await self._records.read_end(submit.n) is not None

        is_known: IsKnown | None = is_recorded
        while True:
            poller = self._lease.account.poller
            view = await poller.wait(task_id, on_change=changed, is_known=is_known, is_told=is_notified)
            ended = view or await self._records.read_end(submit.n)
            if ended is not None:
                return ended
            # It was recorded for another job that waits for the same task.
            is_known, is_notified = None, False

    async def _poll_once_cancelled(self, task_id: str) -> None:
        while not await self._context.is_cancelled():
            await self._context.services.sleep(CANCEL_LOOK_SECONDS)
        self._lease.account.poller.poll_often(task_id)

    def _check_outputs(self, view: TaskView) -> None:
        """Refuses to take a success for the end before it has files: the record of an end is never changed."""
        if not view.is_terminal or is_settled(view):
            return
        odd = next((output.url for output in view.outputs if not output.is_usable), None)
        what = "no file and no text" if odd is None else f"a file under {bare(odd)[:80]!r}, which is not a link"
        run = self._context.scope.journal.scope
        raise OutputsPending(
            f"{self._context.job}: task {view.task_id} was paid for and has succeeded, and RunningHub lists {what}. "
            f"What to do: run it again later, or: rh-prefect jobs collect {run}. RunningHub is then asked again, and "
            "nothing is paid.",
            job=self._context.job,
            task_id=view.task_id,
        )

    async def _record_end(self, submit: Submit, end: End) -> End:
        try:
            return await self._records.end(submit.n, end)
        except JournalError as error:
            # The ticket stands, so a later run asks RunningHub again; now the files come first, since their links die.
            _log.warning("%s: the end of task %s could not be recorded: %s", self._context.job, end.task_id, error)
            return end
