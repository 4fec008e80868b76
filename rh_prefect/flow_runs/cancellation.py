"""Cancels what a flow run has submitted: for the hook, the run's own process, `reconcile` and the command line."""

from __future__ import annotations

from rh_prefect.blocks.lookup import RECORDED
from rh_prefect.flow_runs.queries import FIRST_OF_A_BATCH, RecordedScope, batches_of, scopes_of
from rh_prefect.jobs.admin import replay_spool
from rh_prefect.jobs.cancel import CancelReport, cancel_scope
from rh_prefect.jobs.journal.journal import Journal
from rh_prefect.jobs.journal.records import Cancelled
from rh_prefect.jobs.journal.scope import Scope
from rh_prefect.jobs.journal.spool import Spool
from rh_prefect.settings import get_settings


async def cancel_run(scope: Scope, *, by: str) -> CancelReport:
    """Cancels what a run has submitted, on the account that each job was paid on; runs on the loop thread.

    Args:
        scope: The run.
        by: Who cancels, for the record.
    """
    reports: list[CancelReport] = []
    forbidden: list[tuple[Journal, int]] = []
    if isinstance(scope, RecordedScope):
        # An earlier attempt may have been given up while its process, cut off from Prefect for a while, lived on.
        forbidden += [(scope.journal, attempt) for attempt in range(1, scope.attempt + 1)]
    for batch in await batches_of(scope):
        # An earlier run of a batch that lives on would see its tasks cancelled, and pay for the rest.
        forbidden += [(batch.journal, attempt) for attempt in range(FIRST_OF_A_BATCH, batch.attempt + 1)]
    for journal, attempt in forbidden:
        await journal.create(f"cancel-{attempt}", Cancelled(by=by).model_dump(mode="json"))
    for one in await scopes_of(scope):
        await replay_spool(Spool(get_settings().state_dir / "spool"), one.journal)
        # What else the flow run that began a batch has running is its own.
        since = 1 if one.journal.scope == scope.journal.scope else FIRST_OF_A_BATCH
        reports.append(await cancel_scope(one, RECORDED.client_for, by=by, since=since))
    return CancelReport(
        cancelled=tuple(task for report in reports for task in report.cancelled),
        finished=tuple(task for report in reports for task in report.finished),
        failed={job: why for report in reports for job, why in report.failed.items()},
    )
