"""Which run a paid call belongs to, and which runs are around it."""

from __future__ import annotations

import re
import threading
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.flow_engine import run_flow
from prefect.task_runners import ProcessPoolTaskRunner

from rh_prefect.errors import ConfigError
from rh_prefect.flow_runs.root_flow_run import current_chain, current_scope, find_root
from rh_prefect.flow_runs.run_queries_and_scopes import FlowScope
from rh_prefect.media.input_access_policy import current_access
from rh_prefect.prefect_internals import is_deployed
from rh_prefect.works.journal.scope import Chain, is_repeat

pytestmark = pytest.mark.prefect


def here() -> FlowScope:
    scope = current_scope()
    assert scope is not None
    return scope


@task(cache_policy=NO_CACHE)
async def who() -> tuple[str, Chain]:
    # First, as for a real call: it asks where the root is.
    await find_root()
    return here().journal.scope, current_chain()


async def test_outside_flows_there_is_no_scope_and_a_task_is_around_its_calls() -> None:
    assert current_scope() is None

    @task(cache_policy=NO_CACHE)
    async def alone() -> tuple[bool, Chain]:
        return current_scope() is None, current_chain()

    is_without, chain = await alone()
    assert is_without and len(chain) == 1


async def test_the_scope_tells_of_the_flow_run() -> None:
    @flow(name="Some Film", flow_run_name="the-run")
    async def film() -> dict[str, Any]:
        scope = here()
        context = FlowRunContext.get()
        assert context is not None and context.flow_run is not None
        flow_run = str(context.flow_run.id)
        assert scope.journal.scope == flow_run
        assert re.fullmatch(rf"20\d\d-\d\d-\d\d-{flow_run.replace('-', '')[-12:]}", scope.run)
        assert scope.details == {"flow_run": flow_run, "flow_run_name": "the-run"}
        return {"flow": scope.flow, "attempt": scope.attempt}

    assert await film() == {"flow": "Some Film", "attempt": 1}


async def test_everything_in_a_nested_flow_belongs_to_the_outermost_run() -> None:
    @flow
    async def inner() -> list[tuple[str, Chain]]:
        return [await who(), *await innermost()]

    @flow
    async def innermost() -> list[tuple[str, Chain]]:
        return [await who()]

    @task(cache_policy=NO_CACHE)
    async def flow_in_a_task() -> list[tuple[str, Chain]]:
        return await inner()

    @flow
    async def outer() -> tuple[str, list[tuple[str, Chain]]]:
        return here().journal.scope, [*await inner(), *await flow_in_a_task()]

    scope, asked = await outer()
    assert {one for one, _ in asked} == {scope}
    # The runs around each: the outer flow, the task, the inner flows, and the task of the call.
    assert [len(chain) for _, chain in asked] == [3, 4, 4, 5]
    assert len({chain[0] for _, chain in asked}) == 1


@pytest.mark.usefixtures("prefect_worker_processes")
async def test_a_process_pool_of_a_child_flow_belongs_to_the_root() -> None:
    """The context of a worker process holds only the child; the root is looked up."""

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]  # its futures are of another class
    def child() -> list[tuple[str, Chain]]:
        asked: Any = [who.submit(), who.submit()]
        return [one.result() for one in asked]

    @flow
    async def outer() -> tuple[str, list[tuple[str, Chain]]]:
        return here().journal.scope, child()

    scope, asked = await outer()
    assert {one for one, _ in asked} == {scope}
    (_, one), (_, two) = asked
    assert one[0] == two[0], "the child's run and its attempt"
    assert not is_repeat(one, two)


def test_a_retry_of_the_flow_is_another_attempt() -> None:
    seen: list[FlowScope] = []

    @flow(retries=1)
    def run() -> None:
        seen.append(here())
        if len(seen) == 1:
            raise RuntimeError("fails once")

    run()
    assert [one.attempt for one in seen] == [1, 2]
    assert seen[0].calls is not seen[1].calls


async def test_the_same_flow_run_run_again_in_one_process_is_another_attempt() -> None:
    seen: list[FlowScope] = []

    @flow
    async def run() -> None:
        seen.append(here())

    async with get_client() as client:
        flow_run: FlowRun = await client.create_flow_run(run)
        ran: Any = run_flow(run, flow_run=flow_run)
        await ran
        # As after a resume: the run count may stay, and it is the same process.
        ran = run_flow(run, flow_run=await client.read_flow_run(flow_run.id))
        await ran
    assert seen[0].calls is not seen[1].calls


def test_a_task_that_outlives_its_nested_flow_is_refused() -> None:
    begun, go_on, refused = threading.Event(), threading.Event(), []

    @task(cache_policy=NO_CACHE)
    def late() -> None:
        begun.set()
        go_on.wait(300)
        with pytest.raises(ConfigError, match="wait for the task's result") as error:
            current_scope()
        refused.append(error.value)

    @flow
    def inner() -> None:
        late.submit()
        assert begun.wait(300), "Prefect cancels a task that has not begun"
        threading.Timer(1.0, go_on.set).start()

    @flow
    def outer() -> None:
        inner()

    outer()
    assert len(refused) == 1


def context_of(flow_run: FlowRun) -> FlowRunContext:
    context: Any = FlowRunContext
    made: FlowRunContext = context.model_construct(flow_run=flow_run)
    return made


def test_a_flow_run_of_a_deployment_restricts_its_inputs_and_those_of_its_children() -> None:
    deployed = FlowRun(flow_id=uuid4(), deployment_id=uuid4())
    child = FlowRun(flow_id=uuid4(), parent_task_run_id=uuid4())
    assert not current_access().is_restricted
    with context_of(deployed):
        assert current_access().is_restricted
        with context_of(child):
            assert is_deployed()
    with context_of(child):
        assert not is_deployed()


def test_a_process_that_a_runner_has_started_restricts_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(uuid4()))
    assert current_access().is_restricted
