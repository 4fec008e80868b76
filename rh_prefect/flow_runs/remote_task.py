"""The end of a task that somebody else waits for, or nobody: asked of RunningHub and recorded."""

from __future__ import annotations

from rh_prefect.blocks.lookup import RECORDED
from rh_prefect.client import TaskView
from rh_prefect.flow_runs.queries import scope_named
from rh_prefect.jobs.accounts.poller import is_settled
from rh_prefect.jobs.end_record import Attempt, Seen, broken_end, end_of
from rh_prefect.jobs.journal.job_records import JobRecords, Submit
from rh_prefect.jobs.journal.records import End


async def confirmed_end(submit: Submit, task_id: str, *, records: JobRecords) -> End | None:
    """Asks RunningHub for a task's end, and records it; runs on the loop thread.

    Args:
        submit: The submit that the task came from; it has no end yet.
        task_id: RunningHub's task id.
        records: The job's records.

    Returns:
        The end that stands in the journal; None where RunningHub does not confirm one, or not yet.

    Raises:
        RunningHubError: It cannot be asked, or not with these credentials.
    """
    view = await (await RECORDED.client_for(submit.intent)).query(task_id)
    if not is_settled(view):
        return None
    attempt = await _attempt(records.journal.scope, submit, view)
    if submit.answer is not None and submit.answer.node_errors:
        end = broken_end(submit, view, scope=attempt)
    else:
        end = end_of(submit, view, scope=attempt, queued=None, ran=None)
    return await records.end(submit.n, end)


async def _attempt(scope: str, submit: Submit, view: TaskView) -> Attempt:
    # Who may pay for a failed job again depends on the attempt that saw it fail; a success is one in any.
    if view.status == "SUCCESS":
        return Seen(submit.intent.attempt)
    # A batch's attempts have numbers of their own, above those of the flow run whose journal it uses: with that one's
    # number the very attempt that waits for the task would pay for it again.
    seen = await scope_named(scope)
    return Seen(max(seen.attempt, submit.intent.attempt), seen.task_attempt)
