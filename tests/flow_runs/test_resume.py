from __future__ import annotations

import asyncio
import logging
import sqlite3
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import arun_deployment
from prefect.flow_engine import run_flow
from prefect.states import Cancelling, Crashed, Suspended
from pydantic import Field

import rh_prefect
from rh_prefect import flows
from rh_prefect.errors import ConfigError, InputError
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.resume_or_rerun import create, rerun, resume
from rh_prefect.flow_runs.root_flow_run import current_scope, find_root
from rh_prefect.prefect_api import ask
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_ledger import RecordsLocation, note_location
from tests.support.servers.prefect_server import PrefectServer

pytestmark = pytest.mark.prefect


async def attempts_and_state(flow_run_id: UUID) -> tuple[int, str | None]:
    flow_run = await ask(lambda api: api.read_flow_run(flow_run_id))
    assert flow_run.state is not None
    return flow_run.run_count, flow_run.state.name


@flow
def half(number: int) -> int:
    if not tried:
        tried.append(number)
        raise RuntimeError("fails once")
    return number * 2


@flow
async def ahalf(number: int) -> int:
    return half.fn(number)


tried: list[int] = []


def test_a_sync_flow_is_resumed_by_a_plain_call() -> None:
    tried.clear()
    state = half(21, return_state=True)
    flow_run_id = state.state_details.flow_run_id
    assert flow_run_id is not None
    assert resume(half, str(flow_run_id)) == 42
    assert asyncio.run(attempts_and_state(flow_run_id)) == (2, "Completed")


async def test_an_async_flow_is_resumed_by_an_awaited_call() -> None:
    tried.clear()
    state = await ahalf(21, return_state=True)
    assert await resume(ahalf, str(state.state_details.flow_run_id)) == 42
    # Right in an event loop, too, where somebody has one.
    tried.clear()
    state = half(1, return_state=True)
    assert resume(half, str(state.state_details.flow_run_id)) == 2


@pytest.mark.parametrize("state", [Suspended(timeout_seconds=3600), Cancelling(), Crashed()], ids=lambda one: one.name)
async def test_a_run_that_no_process_goes_on_with_is_resumed(state: State, prefect_server: PrefectServer) -> None:
    tried[:] = [0]
    flow_run_id = await create(ahalf, {"number": 21})
    async with get_client() as client:
        await client.set_flow_run_state(flow_run_id, state, force=True)
        if state.is_cancelling():
            with pytest.raises(InputError, match="is being cancelled"):
                await resume(ahalf, flow_run_id)
            age_cancellation(prefect_server, flow_run_id)
        assert await resume(ahalf, flow_run_id) == 42
    assert (await attempts_and_state(flow_run_id))[1] == "Completed"


def age_cancellation(server: PrefectServer, flow_run_id: UUID | str) -> None:
    """Sets the time of a run's cancellation back by an hour, since a client cannot choose it."""
    with closing(sqlite3.connect(server.home / "prefect.db", timeout=300)) as database, database:
        earlier = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%d %H:%M:%S.%f}"
        changed = database.execute(
            "UPDATE flow_run_state SET timestamp = ? WHERE flow_run_id = ? AND type = ?",
            (earlier, str(flow_run_id), "CANCELLING"),
        )
        assert changed.rowcount


def test_a_run_is_not_resumed_inside_of_another() -> None:
    @flow
    def outer() -> None:
        resume(half, uuid.uuid4())

    with pytest.raises(ConfigError, match="outside of flows"):
        outer()


async def test_a_run_that_is_not_there_is_named() -> None:
    for nobody in (uuid.uuid4(), "this-one"):
        with pytest.raises(ConfigError, match=f"no flow run {nobody}"):
            await rerun(half, nobody)


async def test_wrong_parameters_are_one_readable_line() -> None:
    @flow
    def takes(
        prompt: str, shots: Annotated[int, Field(le=12)], budget: Annotated[float, Field(gt=0)] | None = None
    ) -> None: ...

    with pytest.raises(InputError) as error:
        await create(takes, {"prompt": "x", "budget": 0, "shots": 99})
    assert str(error.value) == (
        "The flow takes does not take these parameters: shots: Input should be less than or equal to 12; "
        "budget: Input should be greater than 0. Nothing was sent. What to do: correct these parameters."
    )


async def test_another_flows_run_is_refused() -> None:
    @flow
    def other() -> None: ...

    flow_run = await ask(lambda api: api.create_flow_run(other))
    with pytest.raises(InputError, match="belongs to the flow 'other'"):
        await rerun(half, flow_run.id)


@pytest.mark.parametrize("is_pipeline", [True, False])
async def test_a_run_of_another_flow_of_the_same_name_is_refused_and_keeps_its_state(is_pipeline: bool) -> None:
    """A flow of one's own may have the name of a shipped pipeline."""

    @flow(name="film")
    def other(idea: str, budget: float | None = None) -> str:
        return idea

    state = other("a lighthouse", return_state=True)
    flow_run_id = state.state_details.flow_run_id
    assert flow_run_id is not None
    if is_pipeline:
        await LOOP.call(note_location(FlowRunJournal(flow_run_id), RecordsLocation(url="/works")))
    for call in (rerun, resume):
        with pytest.raises(InputError, match="parameters that do not fit") as error:
            await call(flows.film, flow_run_id)
        assert ("rh-prefect run FILE.yaml" in str(error.value)) is is_pipeline
    assert await attempts_and_state(flow_run_id) == (1, "Completed")


attempts: list[UUID] = []
"""The runs of deployments that the parent has started."""


@rh_prefect.flow
async def child() -> str:
    await find_root()
    scope = current_scope()
    assert scope is not None
    return scope.journal.scope


@rh_prefect.flow
async def parent(deployment: str) -> None:
    started = await arun_deployment(deployment, timeout=0)
    attempts.append(started.id)
    if len(attempts) == 1:
        raise RuntimeError("the first attempt fails")


async def deployed() -> str:
    name = f"night-{uuid4().hex[:8]}"
    async with get_client() as client:
        await client.create_deployment(flow_id=await client.create_flow(child), name=name)
    return f"{child.name}/{name}"


async def test_a_resumed_run_names_the_runs_of_deployments_that_it_has_started(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each of them pays for itself, in every attempt again."""
    attempts.clear()
    run = await create(parent, {"deployment": await deployed()})
    with caplog.at_level(logging.WARNING, "prefect.flow_runs"):
        with pytest.raises(RuntimeError):
            await rerun(parent, run)
        assert "idempotency_key" not in caplog.text
        await rerun(parent, run)
    (said,) = [record.getMessage() for record in caplog.records if "idempotency_key" in record.getMessage()]
    assert "2 run(s) of deployments" in said and all(str(one) in said for one in attempts)


async def test_what_run_deployment_has_started_is_a_root_of_its_own() -> None:
    attempts.clear()
    run = await create(parent, {"deployment": await deployed()})
    with pytest.raises(RuntimeError):
        await rerun(parent, run)
    started: FlowRun = await ask(lambda api: api.read_flow_run(attempts[0]))
    assert started.parent_task_run_id is not None
    # As a worker runs it: without the context of its parent.
    ran: Any = run_flow(child, flow_run=started)
    assert await ran == str(started.id)
