"""Makes one job of a run, as `generate` does."""

from __future__ import annotations

from rh_prefect.works.options import Request
from rh_prefect.works.result import Result
from rh_prefect.works.work_runner import WorkCall, WorkRunner


async def complete_job(runner: WorkRunner, request: Request) -> Result:
    """Makes a job in its run's own journal, on the loop thread."""
    return (await runner.complete(WorkCall(request, take=runner.options.take))).result
