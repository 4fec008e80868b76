"""`PrefectPages`: shows a pipeline run in Prefect: artifacts, events for automations, a tag that finds the run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import httpx
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL

from rh_prefect.artifacts import Page
from rh_prefect.flow_runs.job_progress import expect_jobs, mark_reported
from rh_prefect.flow_runs.prefect_internals import emit
from rh_prefect.flows.pipeline_pages import show_candidates, show_plan, show_results, show_steps
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import Instance
from rh_prefect.pipelines.run.ports import What
from rh_prefect.pipelines.run.result import PipelineResult, StepReport, summary
from rh_prefect.pipelines.stored_edits import EditResults
from rh_prefect.prefect_api import connect
from rh_prefect.works.journal.costs import Costs

_log = logging.getLogger("rh_prefect")


class PrefectPages:
    """Shows a run in Prefect; see `rh_prefect.pipelines.run.ports.Pages`."""

    async def show_plan(self, plan: Plan) -> None:
        """Shows the plan as artifacts, and tags the flow run."""
        await show_plan(plan)
        await _tag(plan.pipeline)

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

    async def show_end(
        self,
        result: PipelineResult,
        rows: Sequence[StepReport],
        reviews: Sequence[Instance],
        *,
        edits: EditResults,
        store: MediaStore,
    ) -> str:
        """Shows the results, all steps and the candidates of reviews as artifacts."""
        head, report = summary(result), result.report
        if result.outputs and report:
            await show_results(result.outputs, head=head, report=report, edits=edits, store=store)
        if report:
            await show_steps(rows, head=head, report=report, store=store)
        mark_reported()
        if reviews:
            await show_candidates(reviews, edits, store)
        return f"the artifact {Page.current_key('review')} shows the candidates and says how"


async def _tag(pipeline: str) -> None:
    """Adds the tag `pipeline:<name>` to the current flow run; a failure does not stop the run."""
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
