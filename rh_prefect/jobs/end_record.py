"""How a task's last view becomes the record of its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from rh_prefect.client import TaskView
from rh_prefect.jobs.journal.costs import COINS, CURRENCY
from rh_prefect.jobs.journal.job_records import Submit
from rh_prefect.jobs.journal.records import End, Link
from rh_prefect.jobs.lifecycle import BROKEN


class Attempt(Protocol):
    """Which attempt saw an end; every scope says so."""

    @property
    def attempt(self) -> int:
        """The flow-run attempt."""
        ...

    @property
    def task_attempt(self) -> int:
        """The task-run attempt."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """The attempt that saw an end, where no scope is at hand."""

    attempt: int
    task_attempt: int = 1


def end_of(submit: Submit, view: TaskView, *, scope: Attempt, queued: float | None, ran: float | None) -> End:
    """Makes the record of a task's end.

    Args:
        submit: The submit that the task came from.
        view: Its terminal view.
        scope: The run that saw the end.
        queued: Seconds in the queue, as they were seen; None where nobody watched.
        ran: Seconds that it ran, as they were seen; RunningHub's own figure comes first.
    """
    return End(
        status=_status(view),
        task_id=submit.task_id or view.task_id,
        links=tuple(Link.model_validate(output.model_dump()) for output in view.outputs),
        code=view.code,
        reason=str(view.failure) if view.failure else view.reason,
        cost=view.cost,
        # A task's usage names no currency: it is the one of the account's wallet, which the intent has.
        currency=COINS if view.unit == "coins" else submit.intent.currency or CURRENCY,
        coins=view.usage.coins if view.unit == "money" else None,
        queued_seconds=_rounded(queued),
        # Standard models report a run time of 0.
        run_seconds=view.usage.seconds or _rounded(ran),
        attempt=scope.attempt,
        task_attempt=scope.task_attempt,
    )


def broken_end(submit: Submit, view: TaskView, *, scope: Attempt) -> End:
    """Makes the end of a task that was cancelled because RunningHub found broken nodes in its graph.

    Args:
        submit: The submit, whose answer names the nodes.
        view: What became of the task; one that had succeeded all the same is kept.
        scope: The run that saw the end.
    """
    end = end_of(submit, view, scope=scope, queued=0.0, ran=0.0)
    errors = submit.answer.node_errors if submit.answer else {}
    if end.status == "SUCCESS" or not errors:
        return end
    said = "; ".join(f"node {node}: {why}" if node else why for node, why in errors.items())
    return end.model_copy(update={"status": "FAILED", "code": BROKEN, "reason": said})


def with_times(end: End, *, queued: float, ran: float) -> End:
    """Adds the times to an end that another process recorded, which did not watch the task.

    Args:
        end: What it recorded.
        queued: Seconds until the task ran, as seen here.
        ran: Seconds that it ran, as seen here.
    """
    seen = {"queued_seconds": round(queued, 3), "run_seconds": round(ran, 3)}
    return end.model_copy(update={name: value for name, value in seen.items() if getattr(end, name) is None})


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _status(view: TaskView) -> Literal["SUCCESS", "FAILED", "CANCELLED"]:
    if view.status == "SUCCESS" or view.status == "CANCELLED":
        return view.status
    return "FAILED"
