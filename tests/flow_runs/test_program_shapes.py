"""Shapes of programs in one process: each is broken off when all is paid, and its flow run is run again.

Equal requests give unlike results here, so that an exchanged result shows.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any, TypeAlias

import pytest
from _pytest.mark import ParameterSet
from prefect import task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import hydrated_context, serialize_context
from prefect.futures import as_completed
from prefect.task_runners import ProcessPoolTaskRunner
from prefect.task_worker import TaskWorker

from rh_prefect import flow, generate, generate_many, models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import EqualRequest, JobsFailed, JobTimeout
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.works.result import Result
from tests.support.world.suspended_runs import SuspendedRuns

pytestmark = pytest.mark.prefect

Named: TypeAlias = dict[str, Result]
LIGHTHOUSE, HARBOUR = (models.ZImageTurbo(prompt=f"a {what}") for what in ("lighthouse", "harbour"))
own = task(cache_policy=NO_CACHE)
_passed: set[str] = set()


class BrokenOff(Exception):
    """The program fails here, once in a test."""


def is_first(place: str) -> bool:
    is_new = place not in _passed
    _passed.add(place)
    return is_new


def break_off(place: str) -> None:
    if is_first(place):
        raise BrokenOff(place)


@pytest.fixture(autouse=True)
def _start_again() -> Iterator[None]:
    _passed.clear()
    yield
    _passed.clear()


PAID: dict[str, tuple[Callable[[], Awaitable[Named]], int, tuple[Fault, ...]]] = {}
"""Programs that ask for each work once, however often calls are repeated: works, and what goes wrong at RunningHub."""


def paid(name: str, works: int, *faults: Fault) -> Callable[[Callable[[], Awaitable[Named]]], Any]:
    def add(program: Callable[[], Awaitable[Named]]) -> Any:
        PAID[name] = program, works, faults
        return program

    return add


def numbered(results: list[Result]) -> Named:
    return {str(number): one for number, one in enumerate(results)}


@own
async def step(take: int = 1) -> Result:
    return await generate(LIGHTHOUSE, take=take)


@flow
async def child(take: int = 1) -> Result:
    return await generate(LIGHTHOUSE, take=take)


@flow
async def parent_of_child() -> Result:
    return await child()


@flow(retries=1)
async def retried_child() -> Result:
    photo = await generate(LIGHTHOUSE)
    break_off("child")
    return photo


@task(cache_policy=NO_CACHE, retries=1)
async def retried_step() -> Result:
    photo = await parent_of_child()
    break_off("step")
    return photo


@flow(persist_result=True)
async def persisted_child(take: int) -> Result:
    return await generate(LIGHTHOUSE, take=take)


@task(persist_result=True)
async def persisted_step(take: int) -> Result:
    return await generate(LIGHTHOUSE, take=take)


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))  # type: ignore[arg-type]  # its futures are of another class
async def pooled_child() -> list[Result]:
    futures: list[Any] = [step.submit(take) for take in (1, 2)]
    return [future.result() for future in futures]


@paid("tasks in a process pool", 2)
async def in_a_process_pool() -> Named:
    return numbered(await pooled_child())


@paid("as_completed", 3)
async def in_the_order_of_their_ends() -> Named:
    places = {generate.submit(LIGHTHOUSE, take=take): take for take in (1, 2, 3)}
    return {str(places[future]): future.result() for future in as_completed(list(places))}


@paid("TaskGroup", 3)
async def in_a_task_group() -> Named:
    async with asyncio.TaskGroup() as group:
        takes = [group.create_task(generate(LIGHTHOUSE, take=take)) for take in (1, 2, 3)]
    return numbered([one.result() for one in takes])


@paid("submit", 3)
async def submitted() -> Named:
    futures = [generate.submit(LIGHTHOUSE, take=take) for take in (1, 2, 3)]
    return numbered([one.result() for one in futures])


@paid("map", 3)
async def mapped() -> Named:
    return numbered([one.result() for one in generate.map(unmapped(LIGHTHOUSE), take=[1, 2, 3])])


@paid("generate_many", 4)
async def many() -> Named:
    return numbered(await generate_many([LIGHTHOUSE, HARBOUR], takes=2))


@paid("a loop until good", 3)
async def until_good() -> Named:
    photos: list[Result] = []
    for take in count(1):
        photos.append(await generate(LIGHTHOUSE, take=take))
        if len(photos) == 3:  # a critic's judgement
            break
    return numbered(photos)


@paid("same=True", 2)
async def shared() -> Named:
    photos = await asyncio.gather(*(generate(LIGHTHOUSE, same=True) for _ in range(3)))
    assert len({one.task_id for one in photos}) == 1
    return {"all": photos[0], "one more": await generate(LIGHTHOUSE, take=2)}


@paid("wait_for that ends while the task runs, and again", 1, Fault("query", kind="slow", seconds=1, times=1))
@paid("wait_for that ends in the submission, and again", 1, Fault("submit", kind="slow", seconds=1, times=1))
async def cancelled_and_again() -> Named:
    if is_first("wait"):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(generate(LIGHTHOUSE), 0.4)
    return {"photo": await generate(LIGHTHOUSE)}


@paid("generate_many that wait_for cancels, and again", 2, Fault("query", kind="slow", seconds=3, number=1))
async def many_cancelled_and_again() -> Named:
    """One of them has its result when all are cancelled."""
    if is_first("many"):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(generate_many([LIGHTHOUSE, HARBOUR]), 1.5)
    return numbered(await generate_many([LIGHTHOUSE, HARBOUR]))


@paid("generate_many in which one fails, and again", 2, Fault("query", kind="slow", seconds=3, number=1))
async def many_failed_and_again() -> Named:
    if is_first("many"):
        with pytest.raises(JobsFailed, match=r"of 2 jobs failed"):  # on a busy machine both
            await generate_many([LIGHTHOUSE, HARBOUR], deadline=1.5)
    return numbered(await generate_many([LIGHTHOUSE, HARBOUR]))


@paid("a deadline, and a call in another task", 1, Fault("query", kind="slow", seconds=0.5, times=1))
async def timed_out_and_again() -> Named:
    if is_first("deadline"):
        with pytest.raises(JobTimeout):
            await generate(LIGHTHOUSE, deadline=0.1)
    return {"photo": await step()}


@paid("a child flow in a retried task", 2)
async def in_a_retried_task() -> Named:
    return {"photo": await retried_step(), "another": await step(2)}


@paid("a retried child flow", 2)
async def in_a_retried_child() -> Named:
    return {"photo": await retried_child(), "another": await child(2)}


@paid("child flows that Prefect does not run again", 2)
async def in_persisted_children() -> Named:
    return numbered([await persisted_child(take) for take in (1, 2)])


@paid("tasks that Prefect does not run again", 2)
async def in_persisted_tasks() -> Named:
    return numbered([await persisted_step(take) for take in (1, 2)])


SECOND_STAGE = (
    "submit",
    "map",
    "wait_for that ends in the submission, and again",
    "generate_many in which one fails, and again",
    "a retried child flow",
    "tasks that Prefect does not run again",
    "as_completed",
    "tasks in a process pool",
    "in two tasks",
    "a loop without take",
    "threads",
    "TaskGroup",
)
"""Shapes of which another one differs in the words of the program: each takes three runs of a flow."""


def shapes(names: Iterable[str]) -> list[ParameterSet]:
    return [pytest.param(name, id=name, marks=[pytest.mark.long] if name in SECOND_STAGE else []) for name in names]


@pytest.mark.parametrize("shape", shapes(PAID))
async def test_a_program_that_is_run_again_is_paid_for_once(rh: Emulator, shape: str) -> None:
    """Every repeated call gets its own result again: after a retry, a cancellation, an error, and a resume."""
    make, works, faults = PAID[shape]
    rh.faults.add(*faults)
    got: list[Named] = []

    @flow(name="shape")
    async def program() -> None:
        got.append(await make())
        break_off("end")

    run = await create(program, {})
    with pytest.raises(BrokenOff, match="end"):
        await rerun(program, run)
    await rerun(program, run)
    first, second = ({name: one.task_id for name, one in named.items()} for named in got)
    assert first == second
    assert sorted(first.values()) == sorted(one.task_id for one in rh.recorder.paid)
    assert len(rh.recorder.submissions) == works


REFUSED: dict[str, tuple[Callable[[bool], Awaitable[Named]], int, int]] = {}
"""Programs that ask a second time for a work, and how their authors correct them."""


def refused(name: str, works: int, before: int) -> Callable[[Callable[[bool], Awaitable[Named]]], Any]:
    """It pays for so many works when it is corrected, of which some before it is refused."""

    def add(program: Callable[[bool], Awaitable[Named]]) -> Any:
        REFUSED[name] = program, works, before
        return program

    return add


@refused("twice in the flow", 2, 1)
async def twice_in_the_flow(corrected: bool) -> Named:
    return {"one": await generate(LIGHTHOUSE), "two": await generate(LIGHTHOUSE, take=2 if corrected else 1)}


@refused("in two tasks", 2, 1)
async def in_two_tasks(corrected: bool) -> Named:
    return {"one": await step(), "two": await step(2 if corrected else 1)}


@refused("in two child flows", 2, 1)
async def in_two_children(corrected: bool) -> Named:
    return {"one": await child(), "two": await child(2 if corrected else 1)}


@refused("a loop without take", 3, 1)
async def loop_without_take(corrected: bool) -> Named:
    return numbered([await generate(LIGHTHOUSE, take=take if corrected else 1) for take in (1, 2, 3)])


@refused("gather", 3, 1)
async def gathered(corrected: bool) -> Named:
    takes = (1, 2, 3) if corrected else (1, 1, 1)
    calls = (generate(LIGHTHOUSE, take=take) for take in takes)
    # All of them end before the flow does, which would cancel the first one, perhaps before it submits.
    done = await asyncio.gather(*calls, return_exceptions=True)
    for error in done:
        if isinstance(error, BaseException):
            raise error
    return numbered([one for one in done if isinstance(one, Result)])


@refused("threads", 3, 1)
async def in_threads(corrected: bool) -> Named:
    def call(take: int) -> Result:
        return generate.submit(LIGHTHOUSE, take=take).result()

    takes = (1, 2, 3) if corrected else (1, 1, 1)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(contextvars.copy_context().run, call, take) for take in takes]
    return numbered([one.result() for one in calls])


@refused("map with duplicates", 2, 2)
async def mapped_with_duplicates(corrected: bool) -> Named:
    futures = generate.map([LIGHTHOUSE, HARBOUR, LIGHTHOUSE], same=unmapped(corrected))
    first, harbour, last = [one.result() for one in futures]
    assert first.task_id == last.task_id
    return {"lighthouse": first, "harbour": harbour}


@refused("generate_many of equal requests", 2, 0)
async def many_equal(corrected: bool) -> Named:
    if corrected:
        return numbered(await generate_many([LIGHTHOUSE], takes=2))
    return numbered(await generate_many([LIGHTHOUSE, LIGHTHOUSE]))


@flow
async def failing_child(same: bool) -> Result:
    photo = await generate(LIGHTHOUSE, same=same)
    break_off("child")
    return photo


@refused("a failed child flow that the program calls again", 1, 1)
async def called_again_by_the_program(corrected: bool) -> Named:
    """Not a retry of Prefect's: nothing shows that the second child is meant to be the first one again."""
    with suppress(BrokenOff):
        await failing_child(corrected)
    return {"photo": await failing_child(corrected)}


@pytest.mark.parametrize("shape", shapes(REFUSED))
async def test_a_second_call_is_refused_before_it_pays_and_goes_on_when_it_is_corrected(
    rh: Emulator, shape: str
) -> None:
    """The message says `take=` and `same=True`; the corrected program pays for what is missing only."""
    make, works, before = REFUSED[shape]
    corrected = [False, True]

    @flow(name="shape")
    async def program() -> Named:
        return await make(corrected.pop(0))

    run = await create(program, {})
    with pytest.raises(EqualRequest, match=r"(?i)nothing was paid.* (take|takes)=2.*same=True"):
        await rerun(program, run)
    assert len(rh.recorder.submissions) == before
    named = await rerun(program, run)
    assert sorted(one.task_id for one in named.values()) == sorted(one.task_id for one in rh.recorder.paid)
    assert len(rh.recorder.submissions) == works


@flow
async def child_of_a_worker() -> str:
    """Makes its call as a worker process does that is there for several flow runs, as Dask's: with a copied context."""
    copied = serialize_context()

    def call() -> str:
        with hydrated_context(copied):
            return asyncio.run(generate(LIGHTHOUSE)).task_id

    return await asyncio.to_thread(contextvars.Context().run, call)


async def test_a_retried_task_s_child_flow_repeats_its_calls_in_a_long_lived_worker(rh: Emulator) -> None:
    """Such a worker sees another child flow run, and not the task around it that is tried again."""
    got: list[str] = []

    @task(cache_policy=NO_CACHE, retries=1)
    async def tried_again() -> None:
        got.append(await child_of_a_worker())
        break_off("tried again")

    @flow(name="shape")
    async def program() -> None:
        await tried_again()

    await program()
    assert got == [rh.recorder.submissions[0].task_id] * 2
    assert len(rh.recorder.submissions) == 1


@flow
async def two_takes() -> list[str]:
    return [one.task_id for one in await generate_many([LIGHTHOUSE], takes=2, wait="suspend")]


async def test_a_suspended_run_gets_each_take_when_it_is_resumed(without_webhooks: SuspendedRuns) -> None:
    run = await without_webhooks.begin(two_takes)
    await without_webhooks.run_until_suspended(two_takes, run, 2)
    await without_webhooks.end()
    await without_webhooks.has_all(rerun(two_takes, run), 2)


async def test_a_notebook_s_cell_with_a_scope_is_paid_for_once(rh: Emulator) -> None:
    """Also when it is run twice, and by two cells."""
    cells = [await generate(LIGHTHOUSE, scope="notebook") for _ in range(3)]
    assert {one.task_id for one in cells} == {one.task_id for one in rh.recorder.paid}
    assert len(rh.recorder.submissions) == 1


@pytest.mark.filterwarnings("ignore:A paid call was made outside of a flow")
async def test_a_notebook_s_cell_without_a_scope_is_refused_when_it_is_run_again(rh: Emulator) -> None:
    photo = await generate(LIGHTHOUSE)
    with pytest.raises(EqualRequest, match="take=2"):
        await generate(LIGHTHOUSE)
    assert await generate(LIGHTHOUSE, same=True) == photo
    assert len(rh.recorder.submissions) == 1


@task(cache_policy=NO_CACHE, retries=1)
async def alone() -> Result:
    photo = await generate(LIGHTHOUSE)
    break_off("alone")
    return photo


@pytest.mark.filterwarnings("ignore:A paid call was made outside of a flow")
async def test_a_retried_task_outside_of_flows_is_paid_for_once(rh: Emulator) -> None:
    """The task run is the scope; another one of the same task pays for its own."""
    first, second = await alone(), await alone()
    assert [first.task_id, second.task_id] == [one.task_id for one in rh.recorder.paid]


async def test_a_web_service_pays_once_for_each_order(rh: Emulator) -> None:
    """Its requests are equal and come at once; a client sends each of them twice."""
    orders = [f"order-{number}" for number in range(3)] * 2
    photos = await asyncio.gather(*(generate(LIGHTHOUSE, scope=order) for order in orders))
    of_order = {order: {one.task_id for one, by in zip(photos, orders, strict=True) if by == order} for order in orders}
    assert [len(tasks) for tasks in of_order.values()] == [1, 1, 1]
    assert set().union(*of_order.values()) == {one.task_id for one in rh.recorder.paid}
    assert len(rh.recorder.submissions) == 3


made: dict[str, list[str]] = {}
"""By order the tasks that a task worker got."""


@task(retries=1, retry_delay_seconds=0)
async def make_order(order: str, delivery: int) -> None:
    photo = await generate(LIGHTHOUSE, scope=order)
    made.setdefault(order, []).append(photo.task_id)
    break_off(order)


async def test_a_task_worker_pays_once_for_each_order(rh: Emulator) -> None:
    """Each of its tasks fails once when it has paid, and each order is delivered twice."""
    made.clear()
    worker = TaskWorker(make_order)
    async with get_client() as client:
        for delivery, order in enumerate(["first", "second", "first"]):
            future = make_order.delay(order, delivery)
            await worker.execute_task_run(await client.read_task_run(future.task_run_id))
    assert {order: len(tasks) for order, tasks in made.items()} == {"first": 3, "second": 2}
    assert [{*made["first"]}, {*made["second"]}] == [{one.task_id} for one in rh.recorder.paid]
