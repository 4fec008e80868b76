"""Waits for the end of a submitted task by polling or by webhook, or cancels the task; records the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from rh_prefect.client import TaskView
from rh_prefect.errors import AccountError, JournalError, KeyRejected, OutputsPending, TaskNotFound
from rh_prefect.redaction import bare
from rh_prefect.works.accounts.poller import IsRecorded, is_settled
from rh_prefect.works.journal.job_records_and_state import Submit
from rh_prefect.works.journal.record_types import End
from rh_prefect.works.result import end_of, with_times
from rh_prefect.works.run_cancellation import cancel_task
from rh_prefect.works.work_in_progress import Work

CANCEL_CHECK_SECONDS = 3.0
"""Seconds between two checks for a cancellation of the run, which no webhook reports; a run's jobs share a check."""

_log = logging.getLogger("rh_prefect")


async def await_end(work: Work, submit: Submit, *, first_view: TaskView | None, accepted_at: float | None) -> End:
    """Waits until a task has ended, and records its end; the work's lease must be on the account that paid.

    `first_view` is the status in the answer to the submission. `accepted_at` is when RunningHub accepted the task, if
    this process knows it.
    """
    task_id, clock, lease = submit.task_id or "", work.services.clock, work.lease
    began = running_since = clock()
    has_run = False

    def report(line: str) -> None:
        work.notify("running", line, task_id=task_id, is_step=True)

    nodes = lease.account.provider.progress(work.request, task_id, report)

    def changed(view: TaskView) -> None:
        nonlocal running_since, has_run
        if view.status == "RUNNING" and not has_run:
            running_since, has_run = clock(), True
            work.notify("running", f"task {task_id} runs", task_id=task_id)
            nodes.runs()
        elif view.ahead is not None:
            work.notify("queued", f"{view.ahead} before it in the queue", task_id=task_id, is_step=True)

    view: TaskView | End | None = first_view
    if not isinstance(view, TaskView) or view.task_id != task_id or not is_settled(view):
        with nodes.during(first_view):
            view = await _wait(work, submit, changed, accepted_at=began if accepted_at is None else accepted_at)
    # The task has ended, so the slot is free before the end is recorded.
    lease.release()
    queued, ran = running_since - began, clock() - running_since
    if isinstance(view, End):
        return with_times(view, queued=queued, ran=ran)
    return await _record(work, submit, with_times(await _end_of(work, submit, view), queued=queued, ran=ran))


async def cancel_and_record(work: Work, submit: Submit) -> End:
    """Cancels a task and returns the task's end; records the end only if RunningHub reports it."""
    view = await cancel_task(work.lease.account.provider, submit.task_id or "")
    if not view.is_terminal:
        accepted = view.model_copy(update={"status": "CANCELLED"})
        return end_of(submit, accepted, attempt=work.scope.attempt)
    return await _record(work, submit, await _end_of(work, submit, view))


async def _wait(
    work: Work, submit: Submit, changed: Callable[[TaskView], None], *, accepted_at: float
) -> TaskView | End:
    task_id, poller = submit.task_id or "", work.lease.account.poller
    is_notified = submit.intent.webhook and work.scope.journal.notifies
    watch = asyncio.ensure_future(_poll_once_cancelled(work, task_id)) if is_notified else None

    async def is_recorded() -> bool:
        return await work.records.read_end(submit.n) is not None

    check: IsRecorded | None = is_recorded
    try:
        while True:
            age = work.services.clock() - accepted_at
            view = await poller.wait(task_id, on_change=changed, is_recorded=check, has_webhook=is_notified, age=age)
            ended = view or await work.records.read_end(submit.n)
            if ended is not None:
                return ended
            # The poller also checks the records of other jobs with this task; here, the end is another job's.
            check, is_notified = None, False
    except (KeyRejected, AccountError, TaskNotFound) as error:
        raise work.lease.query_error(submit.intent, task_id, error) from error
    finally:
        if watch is not None:
            watch.cancel()


async def _poll_once_cancelled(work: Work, task_id: str) -> None:
    while not await work.is_cancelled():
        await work.services.sleep(CANCEL_CHECK_SECONDS)
    work.lease.account.poller.poll_often(task_id)


def _check_outputs(work: Work, view: TaskView) -> None:
    """Raises `OutputsPending` if a successful task has no usable output yet, because a recorded end never changes.

    One usable output is enough, because its link would expire while the process waits for the other outputs. The
    download requests the links of the other outputs.
    """
    if view.status != "SUCCESS" or any(output.is_usable for output in view.outputs):
        return
    odd = next((output.url for output in view.outputs), None)
    outputs = "no file and no text" if odd is None else f"a file under {bare(odd)[:80]!r}, which is not a URL"
    raise OutputsPending(
        f"{work.policy.job}: task {view.task_id} was paid for and has succeeded, but RunningHub "
        f"lists {outputs}. What to do: run again later; the task is then queried again, at no cost.",
        job=work.policy.job,
        task_id=view.task_id,
    )


async def _end_of(work: Work, submit: Submit, view: TaskView) -> End:
    _check_outputs(work, view)
    currency = await work.lease.account.prices.currency() if view.cost is not None else None
    return end_of(submit, view, attempt=work.scope.attempt, currency=currency)


async def _record(work: Work, submit: Submit, end: End) -> End:
    try:
        return await work.records.end(submit.n, end)
    except JournalError as error:
        # A later run can query the ticket again; the files are downloaded first, since their links expire.
        message = "%s: the end of task %s could not be recorded, so a later run queries the task again: %s"
        _log.warning(message, work.job, end.task_id, error)
        return end
