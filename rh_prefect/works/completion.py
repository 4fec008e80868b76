"""Waits for a submitted task by polling or by webhook, or cancels it, and records its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import get_args

from pydantic import SecretStr

from rh_prefect.client import Client, TaskView, V1Submit
from rh_prefect.client.progress import ProgressEvent, watch_progress
from rh_prefect.errors import AccountError, JournalError, KeyRejected, OutputsPending, TaskNotFound
from rh_prefect.redaction import bare
from rh_prefect.works.accounts.poller import IsRecorded, is_settled
from rh_prefect.works.job_context import JobContext
from rh_prefect.works.journal.job_records import Submit
from rh_prefect.works.journal.journal import NotifyingJournal
from rh_prefect.works.journal.record_types import End
from rh_prefect.works.outputs.result import broken_end, end_of, with_times
from rh_prefect.works.run_cancellation import cancel_task

CANCEL_CHECK_SECONDS = 3.0
"""Seconds between two checks for a cancellation, for which RunningHub sends no webhook; a run's jobs share a read."""

_log = logging.getLogger("rh_prefect")


class Waiter:
    """Waits for the task of one job, on the package's loop thread."""

    def __init__(self, context: JobContext) -> None:
        """Sends no request.

        Args:
            context: The job; its lease is at the account that paid.
        """
        self._context = context
        self._records = context.records
        self._lease = context.lease
        self._clock = context.services.clock
        self._accepted_at = self._clock()

    async def wait(self, submit: Submit, *, first_view: TaskView | None, age: float = 0.0) -> End:
        """Waits until the task has ended.

        Args:
            submit: The submit that made the task.
            first_view: The task's state in the answer to the submission.
            age: Seconds since RunningHub accepted the task; 0 if unknown.

        Returns:
            Its end, as it was recorded.

        Raises:
            AccountError: The account that paid for it cannot query it.
            TaskNotFound: RunningHub does not have the task, or no longer.
            OutputsPending: It has succeeded, and RunningHub lists no file that can be fetched.
        """
        task_id = submit.task_id or ""
        began = self._clock()
        self._accepted_at = began - age
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
        # The task has ended, so the slot is free before the end is recorded.
        self._lease.release()
        running_since = ran_from[0] if ran_from else began
        queued, ran = running_since - began, self._clock() - running_since
        if isinstance(view, End):
            return with_times(view, queued=queued, ran=ran)
        self._check_outputs(view)
        currency = await self._lease.account.prices.currency() if view.cost is not None else None
        end = end_of(submit, view, attempt=self._context.scope.attempt, queued=queued, ran=ran, currency=currency)
        return await self._record_end(submit, end)

    async def cancel(self, submit: Submit) -> End:
        """Cancels the task, and records that once RunningHub says so.

        Args:
            submit: The submit that made it.

        Returns:
            Its end. A cancellation that RunningHub has accepted is one here; it is recorded only as a final state, so
            that a later attempt queries the task before it pays for another.
        """
        view = await cancel_task(self._lease.account.client, submit.task_id or "")
        if not view.is_terminal:
            accepted = view.model_copy(update={"status": "CANCELLED"})
            return broken_end(submit, accepted, attempt=self._context.scope.attempt)
        self._check_outputs(view)
        return await self._record_end(submit, broken_end(submit, view, attempt=self._context.scope.attempt))

    async def _wait(self, submit: Submit, task_id: str, changed: Callable[[TaskView], None]) -> TaskView | End:
        is_notified = submit.intent.webhook and isinstance(self._context.scope.journal, NotifyingJournal)
        watch = asyncio.ensure_future(self._poll_once_cancelled(task_id)) if is_notified else None
        try:
            return await self._wait_for_end(submit, task_id, changed, is_notified=is_notified)
        except (KeyRejected, AccountError, TaskNotFound) as error:
            raise self._lease.query_error(submit.intent, task_id, error) from error
        finally:
            if watch is not None:
                watch.cancel()

    async def _wait_for_end(
        self, submit: Submit, task_id: str, changed: Callable[[TaskView], None], *, is_notified: bool
    ) -> TaskView | End:
        async def is_recorded() -> bool:
            return await self._records.read_end(submit.n) is not None

        check: IsRecorded | None = is_recorded
        while True:
            poller, age = self._lease.account.poller, self._clock() - self._accepted_at
            view = await poller.wait(task_id, on_change=changed, is_recorded=check, has_webhook=is_notified, age=age)
            ended = view or await self._records.read_end(submit.n)
            if ended is not None:
                return ended
            # The recorded end is of another job with the same task.
            check, is_notified = None, False

    async def _poll_once_cancelled(self, task_id: str) -> None:
        while not await self._context.is_cancelled():
            await self._context.services.sleep(CANCEL_CHECK_SECONDS)
        self._lease.account.poller.poll_often(task_id)

    def _check_outputs(self, view: TaskView) -> None:
        """Raises if a successful task has no usable output yet, since the record of an end is never changed.

        One usable output is enough, since its link expires while the others are waited for; the collector asks for the
        links of the others.
        """
        if view.status != "SUCCESS" or any(output.is_usable for output in view.outputs):
            return
        odd = next((output.url for output in view.outputs), None)
        outputs = "no file and no text" if odd is None else f"a file under {bare(odd)[:80]!r}, which is not a URL"
        raise OutputsPending(
            f"{self._context.job}: task {view.task_id} was paid for and has succeeded, but RunningHub "
            f"lists {outputs}. What to do: run again later; the task is then queried again, at no cost.",
            job=self._context.job,
            task_id=view.task_id,
        )

    async def _record_end(self, submit: Submit, end: End) -> End:
        try:
            return await self._records.end(submit.n, end)
        except JournalError as error:
            # A later run can query the ticket again; the files are downloaded first, since their links expire.
            _log.warning("%s: the end of task %s could not be recorded: %s", self._context.job, end.task_id, error)
            return end


EVERY = 3.0
"""Seconds between two progress lines of one job; the newest line is always reported."""

AT_ONCE = 16
"""How many jobs of this process report the progress of their nodes at a time; the others report none."""

_watching: set[asyncio.Task[None]] = set()


class NodeProgress:
    """The node progress of one job's task, while the job waits for its end."""

    def __init__(self, context: JobContext, task_id: str, client: Client, *, every: float = EVERY) -> None:
        """Prepares the watch.

        Args:
            context: The job; only a v1 start has an address.
            task_id: RunningHub's task id.
            client: Queries the address.
            every: Seconds between two lines.
        """
        self._context = context
        self._task_id = task_id
        self._client = client
        self._every = every
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def during(self, first_view: TaskView | None) -> Iterator[None]:
        """Reports progress for the duration of a `with` block.

        Args:
            first_view: The answer to the submit, where this process has it.
        """
        url = first_view.progress_url if first_view is not None and first_view.task_id == self._task_id else None
        if url is not None:
            self._begin(lambda: self._watch(url))
        try:
            yield
        finally:
            if self._task is not None:
                self._task.cancel()

    def runs(self) -> None:
        """Records that the task runs, so that its progress can be read even without an address from a query."""
        if self._task is None and self._context.request.endpoint in get_args(V1Submit):
            self._begin(self._ask_and_watch)

    def _begin(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        if len(_watching) >= AT_ONCE:
            return
        self._task = asyncio.ensure_future(work())
        _watching.add(self._task)
        self._task.add_done_callback(_watching.discard)

    async def _ask_and_watch(self) -> None:
        try:
            view = await self._client.workflows.outputs_v1(self._task_id)
        except Exception as error:  # the task is polled elsewhere
            _log.debug("task %s: the progress of its nodes is not reported: %s", self._task_id, error)
            return
        if view.progress_url is not None:
            await self._watch(view.progress_url)

    async def _watch(self, url: SecretStr) -> None:
        lines = Lines(self._report, self._context.request.node_names, every=self._every)
        try:
            async for event in watch_progress(url):
                lines.take(event)
        except Exception as error:  # as above
            _log.debug("the progress of a task's nodes is no longer reported: %s", error)
        finally:
            lines.close()

    def _report(self, line: str) -> None:
        self._context.notify("running", line, task_id=self._task_id, is_step=True)


class Lines:
    """A rate limit for progress lines: the first at once, then at most one every few seconds, the newest."""

    def __init__(self, report: Callable[[str], None], names: Mapping[str, str], *, every: float) -> None:
        """Reports nothing before the first event.

        Args:
            report: Takes a line.
            names: Node id -> class; a missing node is reported by its id.
            every: Seconds between two lines.
        """
        self._report = report
        self._names = names
        self._every = every
        self._next = self._reported = ""
        self._timer: asyncio.TimerHandle | None = None

    def take(self, event: ProgressEvent) -> None:
        """Accepts an event; its line may be reported later."""
        if event.node is None or event.done:
            return
        self._next = self._line(event.node, event)
        if self._timer is None:
            self._report_next()

    def close(self) -> None:
        """Stops reporting."""
        if self._timer is not None:
            self._timer.cancel()

    def _report_next(self) -> None:
        self._timer = None
        if self._next != self._reported:
            self._reported = self._next
            self._report(self._reported)
            self._timer = asyncio.get_running_loop().call_later(self._every, self._report_next)

    def _line(self, node: str, event: ProgressEvent) -> str:
        name = self._names.get(node) or f"node {node[:40]}"
        return f"{name} {event.value}/{event.max}" if event.value is not None and event.max else name
