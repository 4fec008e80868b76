"""A flow run of a pipeline in a separate process; see `tests.support.processes.forked_attempts`."""

from __future__ import annotations

from typing import Any

from rh_prefect.errors import PipelineIncomplete
from rh_prefect.flows.pipeline import Pipeline, pipeline_flow
from tests.support.processes.program_report import say


async def plain_form(file: str, params: dict[str, Any]) -> None:
    """Runs a pipeline and reports what became of its steps."""
    flow: Any = pipeline_flow(Pipeline.from_file(file))
    state = await flow(**params, return_state=True)
    data = await state.aresult(raise_on_failure=False)
    result = data.result if isinstance(data, PipelineIncomplete) else data
    steps = {one.step: one.state for one in result.steps} if hasattr(result, "steps") else {}
    costs = {unit: str(amount) for unit, amount in result.costs.amounts.items()} if steps else {}
    say("result", name=state.name, message=str(state.message), steps=steps, costs=costs)
