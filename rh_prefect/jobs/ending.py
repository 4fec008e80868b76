"""How a task's last view becomes the record of its end."""

from __future__ import annotations

from typing import Literal

from rh_prefect.client import TaskView
from rh_prefect.jobs.records import End, Link, Submit
from rh_prefect.jobs.scope import Scope

_FALLBACK_CURRENCY = "CNY"
"""A task's usage names no currency; the wallet's is the estimate's, which the catalogue has in this one."""


def end_of(submit: Submit, view: TaskView, *, scope: Scope, queued: float, ran: float) -> End:
    """Makes the record of a task's end.

    Args:
        submit: The submit that the task came from.
        view: Its terminal view.
        scope: The run that saw the end.
        queued: Seconds in the queue, as they were seen.
        ran: Seconds that it ran, as they were seen; RunningHub's own figure comes first.
    """
    return End(
        status=_status(view),
        task_id=submit.task_id or view.task_id,
        links=tuple(Link.model_validate(output.model_dump()) for output in view.outputs),
        code=view.code,
        reason=str(view.failure) if view.failure else view.reason,
        cost=view.cost,
        currency="coins" if view.unit == "coins" else submit.intent.currency or _FALLBACK_CURRENCY,
        queued_seconds=round(queued, 3),
        # Standard models report a run time of 0.
        run_seconds=view.usage.seconds or round(ran, 3),
        attempt=scope.attempt,
        task_attempt=scope.task_attempt,
    )


def _status(view: TaskView) -> Literal["SUCCESS", "FAILED", "CANCELLED"]:
    if view.status == "SUCCESS" or view.status == "CANCELLED":
        return view.status
    return "FAILED"
