from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.flow_engine import run_flow

from rh_prefect.errors import ConfigError
from rh_prefect.runs.scope import FlowScope, current_scope

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]

BASE = "what-is-asked-for"
failures: dict[str, int] = {}
"""How often each place still has to fail."""


@pytest.fixture(autouse=True)
def _no_failures() -> Iterator[None]:
    failures.clear()
    yield
    failures.clear()


def here() -> FlowScope:
    scope = current_scope()
    assert scope is not None
    return scope


def fail_once(place: str) -> None:
    if failures.pop(place, 0):
        raise RuntimeError(f"{place} fails once")


@task(cache_policy=NO_CACHE)
async def ask() -> tuple[str, int]:
    return here().journal.scope, here().ordinal(BASE)


@task(cache_policy=NO_CACHE)
def ask_sync() -> tuple[str, int]:
    return here().journal.scope, here().ordinal(BASE)


async def test_there_is_no_scope_outside_flows() -> None:
    assert current_scope() is None


async def test_a_task_outside_flows_has_no_scope() -> None:
    @task(cache_policy=NO_CACHE)
    async def alone() -> bool:
        return current_scope() is None

    assert await alone()


async def test_the_scope_tells_of_the_flow_run() -> None:
    @flow(name="Some Film", flow_run_name="the-run")
    async def film() -> dict[str, Any]:
        scope = here()
        context = FlowRunContext.get()
        assert context is not None and context.flow_run is not None
        flow_run = str(context.flow_run.id)
        assert scope.journal.scope == flow_run
        assert flow_run.replace("-", "").endswith(scope.run) and len(scope.run) == 12
        assert scope.details == {"flow_run": flow_run, "flow_run_name": "the-run"}
        return {"flow": scope.flow, "attempt": scope.attempt, "task_attempt": scope.task_attempt}

    assert await film() == {"flow": "Some Film", "attempt": 1, "task_attempt": 1}


async def test_calls_gathered_in_an_async_flow_are_counted_once_each() -> None:
    @flow
    async def gathered() -> list[int]:
        return [n for _, n in await asyncio.gather(*(ask() for _ in range(4)))]

    assert sorted(await gathered()) == [1, 2, 3, 4]
    assert sorted(await gathered()) == [1, 2, 3, 4], "another run starts anew"


def test_submitted_tasks_of_a_sync_flow_are_counted_in_its_scope() -> None:
    @flow
    def submitting() -> tuple[str, list[tuple[str, int]]]:
        futures = [ask.submit() for _ in range(2)] + [ask_sync.submit() for _ in range(2)]
        return here().journal.scope, [future.result() for future in futures]

    scope, asked = submitting()
    assert sorted(asked) == [(scope, n) for n in (1, 2, 3, 4)]


async def test_everything_in_a_nested_flow_belongs_to_the_outermost_run() -> None:
    @flow
    async def inner() -> list[tuple[str, int]]:
        return [(here().journal.scope, here().ordinal(BASE)), await ask(), ask.submit().result()]

    @flow
    def inner_sync() -> list[tuple[str, int]]:
        return [ask_sync(), *inner_of_inner()]

    @flow
    def inner_of_inner() -> list[tuple[str, int]]:
        return [ask_sync.submit().result()]

    @task(cache_policy=NO_CACHE)
    async def flow_in_a_task() -> list[tuple[str, int]]:
        return await inner()

    @flow
    async def outer() -> tuple[str, list[tuple[str, int]]]:
        asked = [await ask(), *await inner(), *inner_sync(), *await flow_in_a_task()]
        return here().journal.scope, asked

    scope, asked = await outer()
    assert asked == [(scope, n) for n in range(1, 10)]


async def test_a_tasks_retry_keeps_its_numbers() -> None:
    seen: list[tuple[int, int]] = []

    @task(cache_policy=NO_CACHE, retries=1)
    async def flaky() -> None:
        seen.append((here().task_attempt, here().ordinal(BASE)))
        await ask()
        fail_once("task")

    @flow
    async def run() -> int:
        await flaky()
        return (await ask())[1]

    failures["task"] = 1
    assert await run() == 3
    assert seen == [(1, 1), (2, 1)]


def test_a_flows_retry_counts_from_one_again() -> None:
    seen: list[tuple[int, int]] = []

    @flow(retries=1)
    def run() -> None:
        seen.extend((here().attempt, ask_sync()[1]) for _ in range(2))
        fail_once("flow")

    failures["flow"] = 1
    run()
    assert seen == [(1, 1), (1, 2), (2, 1), (2, 2)]


async def test_a_nested_flows_retry_is_handed_its_numbers_again() -> None:
    seen: list[int] = []

    @flow(retries=1)
    async def inner() -> None:
        seen.extend(n for _, n in await asyncio.gather(ask(), ask()))
        fail_once("inner")

    @flow
    async def outer() -> list[int]:
        first = (await ask())[1]
        await inner()
        return [first, (await ask())[1]]

    failures["inner"] = 1
    assert await outer() == [1, 4]
    assert [sorted(seen[:2]), sorted(seen[2:])] == [[2, 3], [2, 3]]


async def test_the_same_flow_run_run_again_in_one_process_counts_from_one() -> None:
    @flow
    async def run() -> int:
        return (await ask())[1]

    async with get_client() as client:
        flow_run: FlowRun = await client.create_flow_run(run)
        first = await run_flow(run, flow_run=flow_run)
        # As after a resume: the run count may stay, and it is the same process.
        assert (first, await run_flow(run, flow_run=await client.read_flow_run(flow_run.id))) == (1, 1)


def test_a_task_that_outlives_its_nested_flow_is_refused() -> None:
    go_on, refused = threading.Event(), []

    @task(cache_policy=NO_CACHE)
    def late() -> None:
        go_on.wait(30)
        with pytest.raises(ConfigError, match="wait for the task's result") as error:
            current_scope()
        refused.append(error.value)

    @flow
    def inner() -> None:
        late.submit()
        threading.Timer(1.0, go_on.set).start()

    @flow
    def outer() -> None:
        inner()

    outer()
    assert len(refused) == 1
