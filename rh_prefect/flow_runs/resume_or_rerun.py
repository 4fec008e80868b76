"""Runs a flow run again under its id, so that it finds the jobs that it has paid for."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, overload
from uuid import UUID

import httpx
from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound, ParameterTypeError, SignatureMismatchError
from prefect.states import Cancelled, Pending

from rh_prefect.errors import ConfigError, InputError, RunningHubError
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.recorded_job_collection import end_of_cancelled, recorded_progress
from rh_prefect.flow_runs.run_queries_and_scopes import flow_name_of, is_suspended, read_flow_run, recorded_scope
from rh_prefect.prefect_api import ask
from rh_prefect.prefect_internals import awaiting_retry, run_flow
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_ledger import read_location

CANCELLATION = timedelta(seconds=60)
"""Maximum duration of a cancellation: a worker stops the process in up to 30 s, runs hooks, and sets the state."""

R = TypeVar("R")


@overload
async def rerun(flow: Flow[..., Coroutine[Any, Any, R]], flow_run_id: UUID | str) -> R: ...


@overload
async def rerun(flow: Flow[..., R], flow_run_id: UUID | str) -> R: ...


async def rerun(flow: Flow[..., Any], flow_run_id: UUID | str) -> Any:
    """Runs a flow run again in this process, after a failure, or after a crash that no worker detected.

    `prefect flow-run retry` cannot do this, because it refuses a run that a killed process left "Running".

    Raises:
        ConfigError: There is no such flow run.
        InputError: The flow run belongs to another flow.
    """
    flow_run = await _prepare(flow, flow_run_id)
    try:
        result: Any = run_flow(flow, flow_run=flow_run)
        return await result if inspect.isawaitable(result) else result
    finally:
        await _end_cancellation(flow_run.id)


async def _end_cancellation(flow_run_id: UUID) -> None:
    """Ends the cancellation of a run, as a worker does; otherwise the run would stay `Cancelling`."""
    # If this fails, only the state in the dashboard stays wrong: the tasks are cancelled already.
    with suppress(httpx.HTTPError, RunningHubError, ObjectNotFound):
        flow_run = await ask(lambda api: api.read_flow_run(flow_run_id))
        if flow_run.state is not None and flow_run.state.is_cancelling():
            status = await LOOP.call(recorded_progress(await recorded_scope(flow_run)))
            cancelled: State[Any] = Cancelled(message=end_of_cancelled(status))
            await ask(lambda api: api.set_flow_run_state(flow_run_id, cancelled, force=True))


@overload
def resume(flow: Flow[..., Coroutine[Any, Any, R]], flow_run_id: UUID | str) -> Coroutine[Any, Any, R]: ...


@overload
def resume(flow: Flow[..., R], flow_run_id: UUID | str) -> R: ...


def resume(flow: Flow[..., Any], flow_run_id: UUID | str) -> Any:
    """Resumes an interrupted or failed run of your own flow; nothing is paid for twice.

    The flow run keeps its id, so that its jobs are found: existing results are used, and missing results are made. Call
    `resume` like the flow, with `await` if the flow is async:

        await resume(lighthouse, "6d6ba215-c5be-4f88-8824-26faa747bb74")

    Args:
        flow: The flow; it is called with the parameters of the flow run.
        flow_run_id: The id of the flow run, from the dashboard or `rh-prefect jobs list`.

    Returns:
        The return value of the flow.

    Raises:
        ConfigError: There is no such flow run, or this is called inside a flow.
        InputError: The flow run belongs to another flow; its state is not changed.
    """
    if FlowRunContext.get() is not None:
        raise ConfigError(
            f"A run of {flow.name!r} cannot be resumed inside another flow: its jobs would be looked up "
            "in the other flow's run. Nothing was sent. What to do: call `resume` outside of flows."
        )
    if inspect.iscoroutinefunction(flow.fn):
        return rerun(flow, flow_run_id)
    flow_run = LOOP.call_sync(_prepare(flow, flow_run_id))
    try:
        return run_flow(flow, flow_run=flow_run)
    finally:
        LOOP.call_sync(_end_cancellation(flow_run.id))


async def create(flow: Flow[..., Any], parameters: dict[str, Any]) -> UUID:
    """Creates a flow run before it starts, so that `rerun` can use its id even if this process ends at once."""
    try:
        values = flow.validate_parameters(parameters)
    except ParameterTypeError as error:
        raise InputError(
            f"The flow {flow.name} does not take these parameters: {_wrong(error)}. Nothing was sent. "
            "What to do: correct these parameters."
        ) from None
    return (await ask(lambda api: api.create_flow_run(flow, parameters=values, state=Pending()))).id


def _wrong(error: Exception) -> str:
    """Returns the problems in Prefect's error, without the heading and on one line."""
    heading, *found = str(error).split("\n - ")
    return " ".join("; ".join(found or [heading]).split()).rstrip(".")


async def find(flow: Flow[..., Any], flow_run_id: UUID | str) -> FlowRun:
    """Returns a run of a flow; raises `ConfigError` for an unknown id, and `InputError` for another flow's run."""
    flow_run = await read_flow_run(flow_run_id)
    name = await flow_name_of(flow_run)
    wrong = f"belongs to the flow {name!r}, not to {flow.name!r}" if name != flow.name else None
    if wrong is None and flow.should_validate_parameters:
        try:
            flow.validate_parameters(flow_run.parameters)
        except (ParameterTypeError, SignatureMismatchError) as error:
            wrong = f"has parameters that do not fit the given flow {name!r}: {_wrong(error)}"
    if wrong is not None:
        is_pipeline = await LOOP.call(read_location(FlowRunJournal(flow_run.id))) is not None
        todo = "run its pipeline again with the same parameters: `rh-prefect run FILE.yaml`; nothing is paid for twice"
        raise InputError(
            f"The flow run {flow_run_id} {wrong}. Nothing was sent, and the run keeps its state. What to do: "
            f"{todo if is_pipeline else 'resume it with its own flow'}."
        )
    return flow_run


async def _prepare(flow: Flow[..., Any], flow_run_id: UUID | str) -> FlowRun:
    flow_run = await find(flow, flow_run_id)
    state = flow_run.state
    if state is None or not (state.is_final() or is_suspended(state) or state.is_cancelling()):
        return flow_run
    if state.is_cancelling() and datetime.now(UTC) - state.timestamp < CANCELLATION:
        raise InputError(
            f"The flow run {flow_run_id} is being cancelled. Nothing was sent. What to do: run the command again when "
            f"the flow run is cancelled, or in {CANCELLATION.seconds} s if its process has died and the flow run "
            "stays `Cancelling`."
        )
    # Prefect leaves these states only by force. If a process dies during a cancellation, its run stays `Cancelling`.
    await ask(lambda api: api.set_flow_run_state(flow_run.id, awaiting_retry(), force=True))
    return await ask(lambda api: api.read_flow_run(flow_run.id))
