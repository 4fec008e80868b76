"""Which run a paid call belongs to, and where in it the call is made."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any

import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.flow_engine import run_flow
from prefect.task_runners import ProcessPoolTaskRunner

import rh_prefect
from rh_prefect.errors import ConfigError
from rh_prefect.flow_runs.call_positions import PaidTask
from rh_prefect.flow_runs.flow_scope import FlowScope, current_caller, current_scope
from rh_prefect.works.journal.call_assignment import Caller

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]

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


AnyPaidTask: Any = PaidTask
"""Not typed, since these bodies return the caller in place of a `Result`."""


async def _ask(request: str = "a lighthouse") -> str:
    return str((await current_caller()).address)


ask: Any = AnyPaidTask(_ask, name="ask", cache_policy=NO_CACHE)


async def _who() -> tuple[str, Caller]:
    # First, as for a real call: it asks where the root is.
    caller = await current_caller()
    return here().journal.scope, caller


who: Any = AnyPaidTask(_who, name="who", cache_policy=NO_CACHE)


@task(cache_policy=NO_CACHE)
async def branch(number: int) -> str:
    return str(await ask())


@task(cache_policy=NO_CACHE)
async def twice(number: int = 0) -> list[str]:
    return [await ask(), await ask()]


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
        assert re.fullmatch(rf"20\d\d-\d\d-\d\d-{flow_run.replace('-', '')[-12:]}", scope.run)
        assert scope.details == {"flow_run": flow_run, "flow_run_name": "the-run"}
        return {"flow": scope.flow, "attempt": scope.attempt}

    assert await film() == {"flow": "Some Film", "attempt": 1}


async def test_calls_of_the_flow_itself_are_numbered_in_the_order_of_the_program() -> None:
    @flow
    async def calls() -> list[str]:
        gathered = await asyncio.gather(ask(), ask())
        submitted = [ask.submit() for _ in range(2)]
        mapped = ask.map(["a lighthouse"] * 2)
        options = ask.with_options(retries=1).submit()
        return [*gathered, *(one.result() for one in [*submitted, *mapped, options]), await ask("another")]

    assert await calls() == [*(f"call #{number}" for number in range(1, 8)), "call #1"]


async def test_calls_of_a_plain_flow_and_of_ours_have_the_same_places() -> None:
    @rh_prefect.flow
    def ours() -> list[str]:
        return [one.result() for one in [ask.submit(), *branch.map([7, 8]), branch.submit(7)]]

    # Our flow's runner numbers the caller's own tasks, too.
    assert ours() == ["call #1", "branch #1 > call #1", "branch #1 > call #1", "branch #2 > call #1"]


async def test_what_the_caller_starts_beside_its_run_is_numbered_by_itself() -> None:
    async def helper() -> list[str]:
        return [await ask(), await ask()]

    @flow
    async def calls() -> list[list[str]]:
        return list(await asyncio.gather(helper(), helper()))

    assert await calls() == [["call #1?", "call #2?"]] * 2


def test_threads_of_the_caller_are_numbered_by_themselves() -> None:
    found: list[str] = []

    @flow
    def calls() -> None:
        def work() -> None:
            found.append(asyncio.run(ask()))

        threads = [threading.Thread(target=copy_context().run, args=(work,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    calls()
    assert found == ["call #1?"] * 2


async def test_tasks_of_the_caller_that_are_awaited_are_in_order_and_gathered_ones_are_not() -> None:
    @flow
    async def calls() -> list[Any]:
        one_by_one = [await branch(1), await branch(1), await branch(2), await twice()]
        return [*one_by_one, *await asyncio.gather(twice(1), twice(1))]

    assert await calls() == [
        "branch #1 > call #1",
        "branch #2 > call #1",
        "branch #1 > call #1",
        ["twice #1 > call #1", "twice #1 > call #2"],
        *([["twice #1? > call #1", "twice #1? > call #2"]] * 2),
    ]


async def test_everything_in_a_nested_flow_belongs_to_the_outermost_run() -> None:
    @flow
    async def inner() -> list[tuple[str, str]]:
        scope, caller = await who()
        return [(scope, str(caller.address)), *await innermost()]

    @flow
    async def innermost() -> list[tuple[str, str]]:
        scope, caller = who.submit().result()
        return [(scope, str(caller.address))]

    @task(cache_policy=NO_CACHE)
    async def flow_in_a_task() -> list[tuple[str, str]]:
        return [*await inner(), *await inner()]

    @flow
    async def outer() -> tuple[str, list[tuple[str, str]]]:
        first, second = await asyncio.gather(inner(), inner())
        return here().journal.scope, [*first, *second, *await flow_in_a_task()]

    scope, asked = await outer()
    assert {one for one, _ in asked} == {scope}
    assert sorted(where for _, where in asked) == sorted(
        [
            # In an asyncio task or thread nothing tells how the flow around the call was called.
            *("inner #1? > call #1", "inner #1? > innermost #1? > call #1"),
            *("inner #2? > call #1", "inner #2? > innermost #1? > call #1"),
            *("flow_in_a_task #1 > inner #1 > call #1", "flow_in_a_task #1 > inner #1 > innermost #1? > call #1"),
            *("flow_in_a_task #1 > inner #2 > call #1", "flow_in_a_task #1 > inner #2 > innermost #1? > call #1"),
        ]
    )


def _process_pool() -> Any:
    # Prefect types a runner by its own kind of future, and the decorator takes the base class of the futures only.
    return ProcessPoolTaskRunner(max_workers=2)


@pytest.mark.usefixtures("prefect_worker_processes")
async def test_a_process_pool_of_a_child_flow_belongs_to_the_root() -> None:
    """The context of a worker process holds only the child; the root is looked up."""

    @flow(task_runner=_process_pool())
    def child() -> list[tuple[str, Caller]]:
        return [one.result() for one in [who.submit(), who.submit()]]

    @flow
    async def outer() -> tuple[str, list[tuple[str, Caller]]]:
        return here().journal.scope, child()

    scope, asked = await outer()
    assert {one for one, _ in asked} == {scope}
    assert [str(caller.address) for _, caller in asked] == ["child #1? > call #1", "child #1? > call #2"]
    assert all(caller.is_detached for _, caller in asked)


async def test_a_retry_of_a_task_is_the_same_call() -> None:
    seen: list[Caller] = []

    async def body() -> None:
        seen.append(await current_caller())
        fail_once("task")

    flaky: Any = AnyPaidTask(body, name="flaky", cache_policy=NO_CACHE, retries=1)

    @flow
    async def run() -> None:
        await flaky()

    failures["task"] = 1
    await run()
    one, two = seen
    assert one.address == two.address and two.repeats(one) and not one.repeats(one)


async def test_a_retry_of_a_nested_flow_makes_the_same_calls() -> None:
    seen: list[Caller] = []

    @task(cache_policy=NO_CACHE)
    async def note(number: int) -> None:
        _, caller = await who()
        seen.append(caller)

    @flow(retries=1)
    async def inner() -> None:
        await note(1)
        await note(1)
        fail_once("inner")

    @flow
    async def outer() -> None:
        await inner()

    failures["inner"] = 1
    await outer()
    assert Counter(str(one.address) for one in seen) == {
        "inner #1 > note #1 > call #1": 2,
        "inner #1 > note #2 > call #1": 2,
    }
    assert seen[2].repeats(seen[0]) and not seen[1].repeats(seen[0])


def test_a_retry_of_the_flow_is_another_attempt_with_the_same_places() -> None:
    seen: list[tuple[int, str, int]] = []

    @flow(retries=1)
    def run() -> None:
        address = ask.submit().result()
        seen.append((here().attempt, address, id(here().calls)))
        fail_once("flow")

    failures["flow"] = 1
    run()
    (one, first, calls), (two, second, others) = seen
    assert (one, first, two, second) == (1, "call #1", 2, "call #1") and calls != others


async def test_the_same_flow_run_run_again_in_one_process_is_another_attempt() -> None:
    kept: list[Any] = []

    @flow
    async def run() -> str:
        kept.append(here().calls)
        return str(await ask())

    async with get_client() as client:
        flow_run: FlowRun = await client.create_flow_run(run)
        ran: Any = run_flow(run, flow_run=flow_run)
        first = await ran
        # As after a resume: the run count may stay, and it is the same process.
        ran = run_flow(run, flow_run=await client.read_flow_run(flow_run.id))
        second = await ran
    assert (first, second) == ("call #1", "call #1") and kept[0] is not kept[1]


async def test_arguments_tell_branches_apart_and_what_changes_each_time_is_unknown() -> None:
    @task(cache_policy=NO_CACHE)
    async def work(name: str, at: datetime, tools: set[str]) -> Caller:
        caller: Caller
        _, caller = await who()
        return caller

    @flow
    async def calls() -> list[Caller]:
        now = datetime.now(UTC)
        return list(await asyncio.gather(work("a", now, {"x"}), work("b", now, {"x"})))

    one, two = await calls()
    (first,), (second,) = one.address.steps, two.address.steps
    assert first.arguments["name"] != second.arguments["name"]
    assert first.arguments["at"] is None and first.arguments["tools"] is None
    assert one.address.arguments_like(two.address, common_only=False) == "other"


def test_a_task_that_outlives_its_nested_flow_is_refused() -> None:
    go_on, refused = threading.Event(), []

    @task(cache_policy=NO_CACHE)
    def late() -> None:
        go_on.wait(300)
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
