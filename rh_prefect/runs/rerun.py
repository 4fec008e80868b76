"""Runs a flow run once more under its own id, so that it finds what it has paid for already."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar, cast
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, ParameterTypeError
from prefect.flow_engine import run_flow
from prefect.states import Pending, Scheduled

from rh_prefect.connection import connect
from rh_prefect.errors import ConfigError, InputError

R = TypeVar("R")


async def rerun(flow: Flow[..., R], flow_run_id: UUID | str) -> R:
    """Runs a flow run again in this process, after a crash that no worker saw or after a failure.

    `prefect flow-run retry` cannot do this: it refuses a run that a killed process left "Running".

    Args:
        flow: The flow, as it was; its parameters are taken from the flow run.
        flow_run_id: The flow run.

    Returns:
        What the flow returns.

    Raises:
        ConfigError: There is no such flow run, or it is one of another flow.
    """
    flow_run = await _prepare(flow, flow_run_id)
    result: Any = run_flow(flow, flow_run=flow_run)
    return cast("R", await result if inspect.isawaitable(result) else result)


async def create(flow: Flow[..., Any], parameters: dict[str, Any]) -> UUID:
    """Creates a flow run before it runs, so that its id is known should this process die at once.

    Args:
        flow: The flow.
        parameters: Its parameters.

    Returns:
        The flow run's id, for `rerun`.

    Raises:
        InputError: The parameters are not what the flow takes.
    """
    try:
        given = flow.validate_parameters(parameters)
    except ParameterTypeError as error:
        raise InputError(f"The flow {flow.name} does not take these parameters. {error} Nothing was sent.") from None
    connection = await connect()
    async with connection.gate:
        return (await connection.client.create_flow_run(flow, parameters=given, state=Pending())).id


async def _prepare(flow: Flow[..., Any], flow_run_id: UUID | str) -> FlowRun:
    connection = await connect()
    async with connection.gate:
        client = connection.client
        flow_run = await _read(client, flow_run_id)
        name = (await client.read_flow(flow_run.flow_id)).name
        if name != flow.name:
            raise ConfigError(f"The flow run {flow_run_id} is one of the flow {name!r}, not of {flow.name!r}.")
        if flow_run.state is None or not flow_run.state.is_final():
            return flow_run
        # A final state is left only by force; the name is Prefect's own for a run that waits to be run again.
        await client.set_flow_run_state(flow_run.id, Scheduled(name="AwaitingRetry"), force=True)
        return await client.read_flow_run(flow_run.id)


async def _read(client: PrefectClient, flow_run_id: UUID | str) -> FlowRun:
    try:
        return await client.read_flow_run(UUID(str(flow_run_id)))
    except (ObjectNotFound, ValueError) as error:
        raise ConfigError(
            f"There is no flow run {flow_run_id}. What to do: take its id from the dashboard or from "
            "`prefect flow-run ls`, and check that PREFECT_API_URL names the server that it ran on."
        ) from error
