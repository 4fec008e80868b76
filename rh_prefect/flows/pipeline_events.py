"""`PrefectPages`: events of pipeline runs for automations, their expected jobs, and the tag that finds them."""

from __future__ import annotations

import logging
from typing import Any

import httpx
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL

from rh_prefect.flow_runs.job_progress import expect_jobs
from rh_prefect.flow_runs.prefect_internals import emit
from rh_prefect.pipelines.run.ports import What
from rh_prefect.prefect_api import connect
from rh_prefect.works.journal.costs import Costs

_log = logging.getLogger("rh_prefect")


class PrefectPages:
    """Shows a run in Prefect; see `rh_prefect.pipelines.run.ports.Pages`."""

    def tell(self, what: What, *, pipeline: str, run: str, **payload: Any) -> None:
        """Emits `runninghub.pipeline.<what>`, with the flow run beside it; nothing without a configured Prefect API."""
        if not PREFECT_API_URL.value():
            return
        emit(
            event=f"runninghub.pipeline.{what}",
            resource={"prefect.resource.id": f"runninghub.pipeline.{pipeline}", "prefect.resource.name": pipeline},
            related=[{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}],
            payload={"pipeline": pipeline, "flow_run": run, **payload},
        )

    def expect(self, jobs: int, *, estimate: Costs | None) -> None:
        """Sets the number of jobs for the run's progress bar."""
        expect_jobs(jobs, estimate=estimate, is_exact=True)


async def tag(pipeline: str) -> None:
    """Adds the tag `pipeline:<name>` to the current flow run; a failure does not stop the run.

    Args:
        pipeline: The pipeline's name.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    flow_run, name = context.flow_run, f"pipeline:{pipeline}"
    try:
        connection = await connect()
        async with connection.gate:
            found = await connection.client.read_flow_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id])), limit=1
            )
            tags = {*(one for run in found for one in run.tags), name}
            await connection.client.update_flow_run(flow_run.id, tags=sorted(tags))
    except httpx.HTTPError as error:
        _log.warning("The flow run has not the tag %s: %s", name, error)
