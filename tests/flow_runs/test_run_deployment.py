"""Flows that `run_deployment` starts: each is a separate run, and pays for its own jobs."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import arun_deployment
from prefect.flow_engine import run_flow

import rh_prefect
from rh_prefect.flow_runs.call_scope import current_scope, find_root
from rh_prefect.flow_runs.rerun import create, rerun

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]

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
    async with get_client() as client:
        started: FlowRun = await client.read_flow_run(attempts[0])
    assert started.parent_task_run_id is not None
    # As a worker runs it: without the context of its parent.
    ran: Any = run_flow(child, flow_run=started)
    assert await ran == str(started.id)
