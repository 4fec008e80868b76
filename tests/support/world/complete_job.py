"""Makes one job of a run, as `generate` does."""

from __future__ import annotations

from rh_prefect.works.options import Request
from rh_prefect.works.outputs.result import Result
from rh_prefect.works.pool_context import PoolContext
from rh_prefect.works.work import JobCall
from rh_prefect.works.work_runner import WorkCall, WorkRunner


async def complete_job(engine: PoolContext, request: Request, call: JobCall) -> Result:
    """Makes a job in its run's own journal, on the loop thread."""
    options = call.options
    asked = WorkCall("", request, take=options.take, attempts=options.attempts)
    return (await WorkRunner(engine).complete(asked, call)).result
