"""Flow runs as Prefect's server has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact, FlowRun, State

from rh_prefect.flow_runs.cancellation import cancel_run
from rh_prefect.flow_runs.run_queries_and_scopes import scope_named
from rh_prefect.works.loop_thread import LOOP
from tests.support.waiting import until


async def deployed_run(
    flow: Flow[..., Any], *, deployment: str = "test", tags: Sequence[str] = (), **parameters: Any
) -> UUID:
    """A run of a deployment, which nobody runs yet."""
    async with get_client() as client:
        flow_id = await client.create_flow(flow)
        made = await client.create_deployment(flow_id=flow_id, name=deployment, tags=list(tags))
        return (await client.create_flow_run_from_deployment(made, parameters=parameters)).id


async def set_states(run: UUID | str, *states: State[Any], force: bool = True) -> FlowRun:
    """Sets states one after another; the run as it is then."""
    async with get_client() as client:
        for state in states:
            await client.set_flow_run_state(UUID(str(run)), state, force=force)
        return await client.read_flow_run(UUID(str(run)))


async def states_of(run: UUID) -> list[str]:
    """The names of all states that a flow run had, in their order."""
    async with get_client() as client:
        return [state.name or "" for state in await client.read_flow_run_states(run)]


async def state_of(run: UUID) -> str:
    return (await states_of(run))[-1]


async def until_state(run: UUID, name: str) -> None:
    async def is_reached() -> bool:
        return await state_of(run) == name

    await until(is_reached)


async def cancel(run: UUID | str) -> None:
    """Cancels the tasks of a flow run or of a scope, as `rh-prefect jobs cancel` does."""
    await LOOP.call(cancel_run(await scope_named(str(run)), by="a test"))


async def artifacts_of(run: State[Any] | UUID | str | None) -> dict[str, Artifact]:
    """The artifacts of a flow run, or of the run that has a state, by their keys."""
    run_id = run.state_details.flow_run_id if isinstance(run, State) else run
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(str(run_id))]))
    async with get_client() as client:
        return {str(one.key): one for one in await client.read_artifacts(artifact_filter=of_run)}
