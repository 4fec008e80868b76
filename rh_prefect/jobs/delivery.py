"""Collects the outputs of a work in the scope of one run: named files and a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rh_prefect.client import TaskView
from rh_prefect.jobs.accounts.account import is_native
from rh_prefect.jobs.events import event_of, summary_of
from rh_prefect.jobs.job_context import JobContext
from rh_prefect.jobs.journal.job_records import Submit
from rh_prefect.jobs.outputs.collect import Collector
from rh_prefect.jobs.outputs.result import Result

C = TypeVar("C", bound=Collector)


async def collector_for(
    context: JobContext, submit: Submit, kind: type[C], *, folder: Path, grace: float, **more: Any
) -> C:
    """Makes the collector of a submission's outputs.

    Args:
        context: The work.
        submit: The submission that succeeded.
        kind: The class of the collector.
        folder: Local folder for unfinished downloads.
        grace: Seconds for which a file host may refuse a file.
        more: Further fields of the class.
    """
    lease = context.lease

    async def query(task_id: str) -> TaskView:
        # Only the query needs the account: links take no key, and published outputs need no link.
        return await (await lease.switch_to(submit.intent)).client.query(task_id)

    # Files of a machine are behind the key that paid for them.
    account = await lease.switch_to(submit.intent) if is_native(context.request.endpoint) else lease.account
    return kind(
        download=account.client.download,
        query=query,
        store=context.store,
        scope=context.scope,
        folder=folder,
        grace=grace,
        **more,
    )


@dataclass(frozen=True, slots=True)
class RunDelivery:
    """See `Delivery`; the manifest is the record of the result.

    Attributes:
        folder: Local folder for unfinished downloads.
        grace: Seconds for which a file host may refuse a file.
    """

    folder: Path
    grace: float

    async def read(self, context: JobContext) -> None:
        """Returns None: the manifest is found by the task, when its outputs are collected."""

    async def publish(self, context: JobContext, submit: Submit, *, first_time: bool) -> Result:
        """Downloads the outputs and writes the manifest; see `Collector.collect`."""
        collector = await collector_for(context, submit, Collector, folder=self.folder, grace=self.grace)
        collecting = collector.collect(
            context.request, job=context.job, key=context.key, submit=submit, first_time=first_time
        )
        return await context.services.stores.storing(context.run_attempt, context.store, context.job, collecting)

    async def record(self, context: JobContext, result: Result) -> Result:
        """Notifies the observer."""
        costs = context.spending.spent_on(context.key)
        event = event_of(result, message=summary_of(result), prompt=context.request.prompt, costs=costs)
        context.observer.notify(event)
        return result
