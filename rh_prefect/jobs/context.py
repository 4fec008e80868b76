"""One call for a job: what is asked for, in which run, and where its outputs go."""

from __future__ import annotations

from dataclasses import dataclass, field

from rh_prefect.jobs.accounts.account import Member
from rh_prefect.jobs.events import JobEvent, JobEventState, Observer
from rh_prefect.jobs.journal.call_registry import Caller, Found
from rh_prefect.jobs.journal.costs import Costs
from rh_prefect.jobs.journal.process import current_owner
from rh_prefect.jobs.journal.records import Intent
from rh_prefect.jobs.journal.scope import Scope
from rh_prefect.jobs.options import Options
from rh_prefect.jobs.requests.request import JobRequest
from rh_prefect.jobs.suspension import SuspendGroup
from rh_prefect.jobs.webhook_address import Callback
from rh_prefect.media.store import MediaStore


@dataclass(frozen=True, slots=True)
class JobContext:
    """One call for a job.

    Attributes:
        order: What is asked for.
        key: The job's key.
        scope: The run that it belongs to.
        store: Where its outputs go.
        options: How to run it.
        observer: Is told of every change.
        caller: Who asks, and where in the run.
        found: How its job was found among those of the scope.
        callback: Where RunningHub is to tell of the task's end.
        round: The jobs that it is submitted together with, to be left to themselves when all of them run.
    """

    order: JobRequest
    key: str
    scope: Scope
    store: MediaStore
    options: Options
    observer: Observer
    caller: Caller = field(default_factory=Caller)
    found: Found = field(default_factory=lambda: Found(""))
    callback: Callback | None = None
    round: SuspendGroup | None = None

    @property
    def job(self) -> str:
        """The job's full name, as `rh-prefect jobs` takes it."""
        return f"{self.scope.journal.scope}/{self.key}"

    def intent(self, member: Member, *, submit_timeout: float) -> Intent:
        """Makes the record that precedes a POST.

        Args:
            member: The account that is to pay.
            submit_timeout: Seconds that the POST may take.
        """
        order, scope = self.order, self.scope
        return Intent(
            owner=current_owner(),
            account=member.name,
            site=order.site,
            credentials=member.block,
            storage=self.options.storage,
            store=self.store.url,
            model=order.model,
            endpoint=order.endpoint,
            payload=dict(order.payload),
            base=order.base,
            address=self.caller.address,
            version=self.caller.version,
            order=self.found.order,
            is_detached=self.caller.is_detached,
            label=order.label,
            run=scope.run,
            flow=scope.flow,
            estimate=order.estimate,
            currency=order.currency,
            submit_timeout=submit_timeout,
            attempt=scope.attempt,
            graph=order.graph,
            webhook=self.callback is not None,
        )

    def tell(
        self,
        state: JobEventState,
        message: str,
        *,
        task_id: str | None = None,
        is_step: bool = False,
        costs: Costs | None = None,
    ) -> None:
        """Tells those who watch of a change.

        Args:
            state: What the job is now.
            message: One line for the log.
            task_id: RunningHub's task id, once it is known.
            is_step: It is no change of state: the message only says how far the task is.
            costs: What the job's tasks have cost, at its end.
        """
        event = JobEvent(
            state=state,
            job=self.job,
            model=self.order.model,
            label=self.order.label,
            task_id=task_id,
            message=message,
            is_step=is_step,
            costs=costs or Costs(),
        )
        self.observer.notify(event)
