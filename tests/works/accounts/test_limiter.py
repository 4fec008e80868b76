from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from rh_prefect.errors import ResponseLost, RunningHubError
from rh_prefect.works.accounts.limiter import Count, first_free, pause_seconds
from tests.support.world.virtual_time import now, settle
from tests.works.accounts.counted_account import CountedAccount as Account

pytestmark = pytest.mark.virtual_time

COUNT_AGE, GRACE = 5.0, 0.5
"""Seconds for which a count is used, and after which a slot that others have left is used."""


def done(tasks: list[asyncio.Task[Any]]) -> int:
    return sum(task.done() for task in tasks)


async def test_the_slots_of_the_account_are_assigned_in_the_order_of_the_requests() -> None:
    account, order = Account(2), list[int]()

    async def job(n: int) -> None:
        await first_free([account.limiter])
        order.append(n)
        await account.run(10)

    async with asyncio.TaskGroup() as group:
        for n in range(20):
            group.create_task(job(n))
            await asyncio.sleep(0.01)
    assert (order, account.most, account.limiter.held) == (list(range(20)), 2, 0)


async def test_slots_of_other_clients_are_not_assigned() -> None:
    account = Account(3, others=2)
    tasks = await account.start(3)
    assert done(tasks) == 1
    account.others = 0
    await asyncio.sleep(2 * COUNT_AGE)
    assert done(tasks) == 3


async def refused_often(account: Account) -> list[asyncio.Task[None]]:
    """Two jobs that wait behind four refusals, each of which has doubled the pause."""
    for _ in range(4):
        await first_free([account.limiter])
        account.limiter.release(full=True)
        account.limiter.submit_finished()
    return await account.start(2)


async def test_a_pause_after_refusals_ends_when_other_clients_free_slots() -> None:
    account = Account(2, others=2)
    tasks = await refused_often(account)
    await asyncio.sleep(2.0)
    account.others = 0
    await asyncio.sleep(1.5)
    assert done(tasks) == 2


@pytest.mark.parametrize("error", [None, ResponseLost("HTTP 502")], ids=["counted before", "not counted before"])
async def test_a_refusal_that_the_count_does_not_explain_causes_a_pause(error: RunningHubError | None) -> None:
    account = Account(error=error)
    tasks = await refused_often(account)
    account.error = None
    await asyncio.sleep(4.0)
    assert not done(tasks)
    await asyncio.sleep(1.0)
    assert done(tasks) == 2


@pytest.mark.parametrize(("others", "gap"), [(0, COUNT_AGE), (1, 1.0)])
async def test_a_full_account_is_counted_more_often_if_others_use_it(others: int, gap: float) -> None:
    account = Account(3, others=others)
    await account.start(4)
    account.counted_at.clear()
    await asyncio.sleep(20)
    gaps = [later - earlier for earlier, later in pairwise(account.counted_at)]
    assert len(gaps) > 1
    assert gaps == pytest.approx([gap] * len(gaps), abs=0.2)


@pytest.mark.parametrize(
    ("facts", "requested", "assigned"),
    [
        pytest.param({"limit": 3, "others": 9}, 2, 1, id="one task is always allowed"),
        pytest.param({"limit": None, "others": 7}, 50, 50, id="an account without a limit is limited by 421"),
        pytest.param({"error": ResponseLost("HTTP 502")}, 50, 50, id="one that does not answer is counted once"),
    ],
)
async def test_the_slots_that_are_assigned_at_once(facts: dict[str, Any], requested: int, assigned: int) -> None:
    account = Account(**facts)
    assert done(await account.start(requested)) == assigned
    assert len(account.counted_at) == 1


async def test_after_a_421_no_slot_is_assigned_until_the_tasks_are_counted_again() -> None:
    account = Account(5)
    await account.take()
    counts = len(account.counted_at)
    account.others = 5
    account.limiter.release(full=True)
    tasks = [asyncio.create_task(account.take()) for _ in range(3)]
    await asyncio.sleep(1.9)
    assert done(tasks) == 0
    await asyncio.sleep(1.0)
    assert done(tasks) == 1
    assert len(account.counted_at) > counts


async def pause_after_refusals(account: Account, refusals: int) -> float:
    """The seconds between these concurrent refusals and the next slot."""
    for _ in range(refusals):
        account.limiter.release(full=True)
    began = now()
    await account.take()
    return now() - began


async def test_each_further_421_causes_a_longer_pause_up_to_a_limit() -> None:
    account = Account(50)
    await account.take()
    closed = [round(await pause_after_refusals(account, 1), 2) for _ in range(8)]
    assert closed == sorted(closed)
    assert closed[0] < 5
    assert closed[-1] <= 30 + COUNT_AGE


async def test_concurrent_refusals_count_once_and_after_a_release_cause_the_shortest_pause() -> None:
    account, closed = Account(20), []
    await account.start(10)
    for _ in range(2):
        closed.append(await pause_after_refusals(account, 5))
        account.limiter.release()
        await account.take()
    assert closed == pytest.approx([pause_seconds(1, jitter=1.0)] * 2, abs=0.2)


@pytest.mark.parametrize("is_assigned", [False, True])
async def test_a_cancelled_waiter_leaks_no_slot(*, is_assigned: bool) -> None:
    """It counts neither as one that waits nor as one that submits."""
    account = Account(1)
    _, second, third = await account.start(3)
    if is_assigned:
        account.limiter.release()
    second.cancel()
    await settle()
    if not is_assigned:
        account.limiter.release()
        await settle()
    assert second.cancelled() and third.done()
    assert account.limiter.held == 1
    account.limit = 80
    await asyncio.sleep(COUNT_AGE)
    assert done(await account.start(60, finish=False)) == 50


async def test_a_waiter_cancelled_during_a_count_delays_no_other() -> None:
    account = Account(1)
    first, second = (asyncio.create_task(account.take()) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    await asyncio.sleep(0.5)
    assert second.done()
    assert account.limiter.held == 1


async def test_no_counts_are_requested_after_the_last_waiter_is_cancelled() -> None:
    account = Account(1)
    _, second = await account.start(2)
    second.cancel()
    await asyncio.sleep(2 * COUNT_AGE)
    counts = len(account.counted_at)
    await asyncio.sleep(100 * COUNT_AGE)
    assert len(account.counted_at) == counts


async def test_adopted_tasks_count_over_the_limit_without_waiting() -> None:
    account = Account(2)
    for _ in range(3):
        account.limiter.occupy()
    assert account.limiter.held == 3
    tasks = await account.start(1)
    for is_assigned in (0, 1):
        account.limiter.release()
        await settle()
        assert done(tasks) == is_assigned


async def test_one_count_is_used_by_all_jobs_for_some_time() -> None:
    account = Account(100)
    await account.start(50)
    assert len(account.counted_at) == 1
    await asyncio.sleep(COUNT_AGE - 1)
    await account.take()
    await asyncio.sleep(1)
    assert len(account.counted_at) == 1, "no job waits"
    await account.take()
    assert len(account.counted_at) == 2


async def test_releasing_a_slot_that_was_not_taken_adds_no_slot() -> None:
    account = Account(1)
    account.limiter.release()
    assert done(await account.start(2)) == 1


async def test_few_submissions_are_concurrent_on_a_shared_account_and_a_refusal_stops_the_others() -> None:
    account = Account(50, others=1)
    tasks = await account.start(30, finish=False)
    assert done(tasks) == 20
    for _ in range(3):
        account.limiter.submit_finished()
    await settle()
    assert done(tasks) == 23
    for _ in range(20):
        account.limiter.release(full=True)
        account.limiter.submit_finished()
    await settle()
    assert done(tasks) == 23


STAYS = (1, 0, 0, 3, 1, 2)


@pytest.mark.parametrize(
    ("others", "requested", "assigned", "counts"),
    [
        pytest.param(
            *(0, 5, 5),
            [(0, 0, 0, 5, 0, 0), (-2, 0, 0, 5, 2, 0), (3, 0, 0, 5, 0, 3), (4, 1, 0, 4, 0, 4)],
            id="own tasks that have ended, and tasks of others",
        ),
        pytest.param(2, 5, 3, [STAYS], id="on a shared account, no slot is assigned before an end is known"),
        pytest.param(
            *(2, 5, 4),
            [STAYS, STAYS, (1, 0, GRACE, 3, 0, 1), (0, 0, 0, 4, 1, 1)],
            id="what stays missing counts as tasks of others, and another one has to stay missing too",
        ),
        pytest.param(
            *(2, 3, 3),
            [STAYS, (1, 1, GRACE, 2, 1, 2), (2, 0, 0, 2, 0, 2)],
            id="an end that is found later explains a missing task",
        ),
        pytest.param(2, 3, 3, [(0, 0, 0, 3, 2, 2), (1, 1, GRACE, 2, 0, 1)], id="and explains only one"),
        pytest.param(2, 3, 3, [(1, 1, 2 * GRACE, 2, 1, 2)], id="a task that is missing after another end"),
        pytest.param(2, 5, 3, [STAYS, (2, 0, GRACE / 2, 3, 0, 2)] * 5, id="a slot that others leave briefly"),
    ],
)
async def test_a_count_shows_how_many_own_tasks_have_ended(
    others: int, requested: int, assigned: int, counts: list[tuple[int, int, float, int, int, int]]
) -> None:
    """Before each count: tasks of others, slots that are released, seconds. Then: polled, missing, others."""
    account = Account(5, others=others)
    tasks = await account.start(requested)
    for account.others, released, seconds, polled, missing, shown in counts:
        for _ in range(released):
            account.limiter.release()
        await asyncio.sleep(seconds)
        assert await account.limiter.count(polled) == Count(missing=missing, others=shown)
        await settle()
    assert done(tasks) == assigned


async def test_a_slot_that_a_count_shows_free_is_assigned_before_the_end_is_found() -> None:
    account = Account(5)
    tasks = await account.start(9)
    account.others = -2
    await account.limiter.count(5)
    await settle()
    assert done(tasks) == 7
    for assigned in (7, 7, 8):
        account.limiter.release()
        await settle()
        assert done(tasks) == assigned


async def test_submissions_in_flight_do_not_count_as_free_slots() -> None:
    account = Account(5)
    await account.start(3)
    tasks = await account.start(5, finish=False)
    account.others = -2
    assert await account.limiter.count(3) == Count(missing=0, others=0)
    await settle()
    assert done(tasks) == 2


async def test_the_load_of_an_account_is_relative_to_its_limit() -> None:
    account, unknown = Account(8, others=2), Account(None)
    assert account.limiter.load == 0
    for one in (account, unknown):
        await one.start(3)
    account.limiter.announce()
    account.limiter.announce()
    account.limiter.withdraw()
    assert (account.limiter.load, unknown.limiter.load) == ((3 + 2 + 1) / 8, 3)


async def test_own_tasks_that_have_ended_are_not_tasks_of_others() -> None:
    account = Account(8, others=2)
    await account.start(3)
    for others_at_the_count, others in ((3, 2), (2, 2), (-1, 0)):
        await asyncio.sleep(COUNT_AGE)
        counting = asyncio.create_task(account.limiter.refresh())
        await asyncio.sleep(0.02)
        if others_at_the_count == 3:
            account.limiter.release()  # RunningHub has counted this task
        account.others = others_at_the_count
        await counting
        assert account.limiter.load == (2 + others) / 8


async def test_own_tasks_that_end_during_a_count_are_not_tasks_of_others() -> None:
    account = Account(5)
    await account.start(5)
    count = asyncio.create_task(account.limiter.count(5))
    await asyncio.sleep(0.02)
    account.others = 3  # RunningHub has counted six tasks before two of them end
    for _ in range(2):
        account.limiter.release()
    assert await count == Count(missing=0, others=1)


async def test_an_account_that_does_not_answer_is_not_counted() -> None:
    account = Account(error=ResponseLost("HTTP 502"))
    assert await account.limiter.count(0) is None


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_pauses_double_up_to_a_limit(jitter: float) -> None:
    pauses = [pause_seconds(n, jitter=jitter) for n in range(1, 100)]
    assert pauses == sorted(pauses)
    assert 0.9 < pauses[0] <= 2.0
    assert pauses[-1] == 30.0 * (0.5 + jitter / 2)
