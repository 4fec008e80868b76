from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from rh_prefect.errors import ResponseLost, RunningHubError
from rh_prefect.works.accounts.limiter import Count, Limiter, first_free, pause_seconds
from tests.support.world.virtual_time import clock, in_virtual_time, now, settle

COUNT_AGE, GRACE = 5.0, 0.5
"""Seconds for which a count is used, and after which a slot that others have left is used."""


class Account:
    """Answers `queue/status`."""

    def __init__(self, limit: int | None, *, others: int = 0, error: RunningHubError | None = None) -> None:
        self.limit = limit
        self.others = others
        self.error = error
        self.slots: Limiter | None = None
        self.counted_at: list[float] = []

    async def ask(self) -> tuple[int | None, int]:
        self.counted_at.append(now())
        await asyncio.sleep(0.1)
        if self.error is not None:
            raise self.error
        return self.limit, self.others + (self.slots.held if self.slots else 0)


def slots_of(account: Account, **options: Any) -> Limiter:
    account.slots = Limiter(account.ask, clock=clock, jitter=lambda: 1.0, **options)
    return account.slots


async def taken(slots: Limiter) -> None:
    """Takes a slot and finishes its submission."""
    await first_free([slots])
    slots.submit_finished()


async def acquired(slots: Limiter, count: int) -> list[asyncio.Task[None]]:
    """Starts a number of acquisitions and waits until the free slots are assigned."""
    tasks = [asyncio.create_task(taken(slots)) for _ in range(count)]
    await asyncio.sleep(0.5)
    return tasks


def done(tasks: list[asyncio.Task[Any]]) -> int:
    return sum(task.done() for task in tasks)


@in_virtual_time
async def test_the_slots_of_the_account_are_assigned_in_the_order_of_the_requests() -> None:
    slots, order, most = slots_of(Account(2)), list[int](), 0

    async def job(n: int) -> None:
        nonlocal most
        await taken(slots)
        order.append(n)
        most = max(most, slots.held)
        await asyncio.sleep(10)
        slots.release()

    async with asyncio.TaskGroup() as group:
        for n in range(20):
            group.create_task(job(n))
            await asyncio.sleep(0.01)
    assert (order, most) == (list(range(20)), 2)
    assert slots.held == 0


@in_virtual_time
async def test_slots_of_other_clients_are_not_assigned() -> None:
    account = Account(3, others=2)
    tasks = await acquired(slots_of(account), 3)
    assert done(tasks) == 1
    account.others = 0
    await asyncio.sleep(2 * COUNT_AGE)
    assert done(tasks) == 3


async def refused_often(slots: Limiter) -> list[asyncio.Task[None]]:
    """Two jobs that wait behind four refusals, each of which has doubled the pause."""
    for _ in range(4):
        await first_free([slots])
        slots.release(full=True)
        slots.submit_finished()
    return await acquired(slots, 2)


@in_virtual_time
async def test_a_pause_after_refusals_ends_when_other_clients_free_slots() -> None:
    account = Account(2, others=2)
    tasks = await refused_often(slots_of(account))
    await asyncio.sleep(2.0)
    account.others = 0
    await asyncio.sleep(1.5)
    assert done(tasks) == 2


@pytest.mark.parametrize("error", [None, ResponseLost("HTTP 502")], ids=["counted before", "not counted before"])
@in_virtual_time
async def test_a_refusal_that_the_count_does_not_explain_causes_a_pause(error: RunningHubError | None) -> None:
    account = Account(2, error=error)
    tasks = await refused_often(slots_of(account))
    account.error = None
    await asyncio.sleep(4.0)
    assert not done(tasks)
    await asyncio.sleep(1.0)
    assert done(tasks) == 2


@pytest.mark.parametrize(("others", "gap"), [(0, COUNT_AGE), (1, 1.0)])
@in_virtual_time
async def test_a_full_account_is_counted_more_often_if_others_use_it(others: int, gap: float) -> None:
    account = Account(3, others=others)
    await acquired(slots_of(account), 4)
    account.counted_at.clear()
    await asyncio.sleep(20)
    gaps = [later - earlier for earlier, later in pairwise(account.counted_at)]
    assert len(gaps) > 1
    assert gaps == pytest.approx([gap] * len(gaps), abs=0.2)


@in_virtual_time
async def test_one_task_is_always_allowed() -> None:
    assert done(await acquired(slots_of(Account(3, others=9)), 2)) == 1


@in_virtual_time
async def test_a_free_slot_is_assigned_immediately() -> None:
    slots = slots_of(Account(1))
    tasks = await acquired(slots, 2)
    slots.release()
    await settle()
    assert done(tasks) == 2


@in_virtual_time
async def test_after_a_421_no_slot_is_assigned_until_the_tasks_are_counted_again() -> None:
    account = Account(5)
    slots = slots_of(account)
    await taken(slots)
    counts = len(account.counted_at)
    account.others = 5
    slots.release(full=True)
    refused_at = now()
    tasks = [asyncio.create_task(taken(slots)) for _ in range(3)]
    await asyncio.sleep(1.9)
    assert done(tasks) == 0
    await asyncio.sleep(1.0)
    assert done(tasks) == 1
    assert len(account.counted_at) > counts
    assert now() - refused_at < COUNT_AGE


@in_virtual_time
async def test_each_further_421_causes_a_longer_pause_up_to_a_limit() -> None:
    slots, closed = slots_of(Account(50)), []
    await taken(slots)
    for _ in range(8):
        slots.release(full=True)
        began = now()
        await taken(slots)
        closed.append(round(now() - began, 2))
    assert closed == sorted(closed)
    assert closed[0] < 5
    assert closed[-1] <= 30 + COUNT_AGE


@in_virtual_time
async def test_concurrent_refusals_count_once() -> None:
    slots = slots_of(Account(20))
    for _ in range(10):
        await taken(slots)
    for _ in range(10):
        slots.release(full=True)
    began = now()
    await taken(slots)
    assert now() - began < COUNT_AGE


@in_virtual_time
async def test_the_first_refusal_after_a_release_causes_the_shortest_pause() -> None:
    slots, closed = slots_of(Account(5)), []
    await taken(slots)
    for _ in range(2):
        slots.release(full=True)
        began = now()
        await taken(slots)
        closed.append(now() - began)
        slots.release()
        await taken(slots)
    assert closed == pytest.approx([pause_seconds(1, jitter=1.0)] * 2, abs=0.2)


@pytest.mark.parametrize("is_assigned", [False, True])
@in_virtual_time
async def test_a_cancelled_waiter_leaks_no_slot(*, is_assigned: bool) -> None:
    """It counts neither as one that waits nor as one that submits."""
    account = Account(1)
    slots = slots_of(account)
    _, second, third = await acquired(slots, 3)
    if is_assigned:
        slots.release()
    second.cancel()
    await settle()
    if not is_assigned:
        slots.release()
        await settle()
    assert second.cancelled() and third.done()
    assert slots.held == 1
    account.limit = 80
    await asyncio.sleep(COUNT_AGE)
    tasks = [asyncio.create_task(first_free([slots])) for _ in range(60)]
    await asyncio.sleep(0.5)
    assert done(tasks) == 50


@in_virtual_time
async def test_a_waiter_cancelled_during_a_count_delays_no_other() -> None:
    slots = slots_of(Account(1))
    first, second = (asyncio.create_task(taken(slots)) for _ in range(2))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.sleep(0.5)
    assert second.done()
    assert slots.held == 1


@in_virtual_time
async def test_no_counts_are_requested_after_the_last_waiter_is_cancelled() -> None:
    account = Account(1)
    _, second = await acquired(slots_of(account), 2)
    second.cancel()
    await asyncio.sleep(2 * COUNT_AGE)
    counts = len(account.counted_at)
    await asyncio.sleep(100 * COUNT_AGE)
    assert len(account.counted_at) == counts


@in_virtual_time
async def test_adopted_tasks_count_over_the_limit_without_waiting() -> None:
    slots = slots_of(Account(2))
    for _ in range(3):
        slots.occupy()
    assert slots.held == 3
    tasks = await acquired(slots, 1)
    slots.release()
    await settle()
    assert done(tasks) == 0
    slots.release()
    await settle()
    assert done(tasks) == 1


@in_virtual_time
async def test_an_account_without_a_limit_is_limited_by_421() -> None:
    assert done(await acquired(slots_of(Account(None, others=7)), 50)) == 50


@in_virtual_time
async def test_an_account_without_a_response_is_limited_by_421_and_counted_once() -> None:
    account = Account(1, error=ResponseLost("HTTP 502"))
    assert done(await acquired(slots_of(account), 50)) == 50
    assert len(account.counted_at) == 1


@in_virtual_time
async def test_one_count_is_used_by_all_jobs_for_some_time() -> None:
    account = Account(100)
    slots = slots_of(account)
    await acquired(slots, 50)
    assert len(account.counted_at) == 1
    await asyncio.sleep(COUNT_AGE - 1)
    await taken(slots)
    assert len(account.counted_at) == 1
    await asyncio.sleep(1)
    assert len(account.counted_at) == 1, "no job waits"
    await taken(slots)
    assert len(account.counted_at) == 2


@in_virtual_time
async def test_releasing_a_slot_that_was_not_taken_adds_no_slot() -> None:
    slots = slots_of(Account(1))
    slots.release()
    assert done(await acquired(slots, 2)) == 1


@in_virtual_time
async def test_few_submissions_are_concurrent_on_a_shared_account_and_a_refusal_stops_the_others() -> None:
    slots = slots_of(Account(50, others=1))
    tasks = [asyncio.create_task(first_free([slots])) for _ in range(30)]
    await asyncio.sleep(0.5)
    assert done(tasks) == 20
    for _ in range(3):
        slots.submit_finished()
    await settle()
    assert done(tasks) == 23
    for _ in range(20):
        slots.release(full=True)
        slots.submit_finished()
    await settle()
    assert done(tasks) == 23


@in_virtual_time
async def test_more_submissions_are_concurrent_on_an_account_without_others() -> None:
    tasks = [asyncio.create_task(first_free([slots])) for slots in [slots_of(Account(80))] for _ in range(60)]
    await asyncio.sleep(0.5)
    assert done(tasks) == 50


@in_virtual_time
async def test_a_count_shows_how_many_own_tasks_have_ended() -> None:
    account = Account(5)
    slots = slots_of(account)
    await acquired(slots, 5)
    assert await slots.count(5) == Count(missing=0, others=0)
    account.others = -2
    assert await slots.count(5) == Count(missing=2, others=0)
    account.others = 3
    assert await slots.count(5) == Count(missing=0, others=3)
    slots.release()
    account.others = 4
    assert await slots.count(4) == Count(missing=0, others=4)


@in_virtual_time
async def test_a_slot_that_a_count_shows_free_is_assigned_before_the_end_is_found() -> None:
    account = Account(5)
    slots = slots_of(account)
    tasks = await acquired(slots, 9)
    account.others = -2
    await slots.count(5)
    await settle()
    assert done(tasks) == 7
    slots.release()
    slots.release()
    await settle()
    assert done(tasks) == 7
    slots.release()
    await settle()
    assert done(tasks) == 8


@in_virtual_time
async def test_submissions_in_flight_do_not_count_as_free_slots() -> None:
    account = Account(5)
    slots = slots_of(account)
    await acquired(slots, 3)
    tasks = [asyncio.create_task(first_free([slots])) for _ in range(5)]
    await asyncio.sleep(0.5)
    account.others = -2
    assert await slots.count(3) == Count(missing=0, others=0)
    await settle()
    assert done(tasks) == 2


@in_virtual_time
async def test_on_a_shared_account_no_slot_is_assigned_before_an_end_is_known() -> None:
    account = Account(5, others=2)
    slots = slots_of(account)
    tasks = await acquired(slots, 5)
    account.others = 1
    assert await slots.count(3) == Count(missing=1, others=2)
    await settle()
    assert done(tasks) == 3


@in_virtual_time
async def test_tasks_that_stay_missing_count_as_tasks_of_others() -> None:
    account = Account(5, others=2)
    slots = slots_of(account)
    tasks = await acquired(slots, 5)
    account.others = 1
    assert (await slots.count(3)) == Count(missing=1, others=2)
    assert (await slots.count(3)) == Count(missing=1, others=2)
    await asyncio.sleep(GRACE)
    assert (await slots.count(3)) == Count(missing=0, others=1)
    await settle()
    assert done(tasks) == 4
    account.others = 0
    assert (await slots.count(4)) == Count(missing=1, others=1), "another one, which has to stay missing too"


@in_virtual_time
async def test_an_end_that_is_found_later_explains_a_missing_task() -> None:
    account = Account(5, others=2)
    slots = slots_of(account)
    tasks = await acquired(slots, 3)
    account.others = 1
    assert (await slots.count(3)) == Count(missing=1, others=2)
    account.others = 2
    slots.release()
    await asyncio.sleep(GRACE)
    account.others = 1
    assert (await slots.count(2)) == Count(missing=1, others=2), "another one"
    account.others = 2
    assert (await slots.count(2)) == Count(missing=0, others=2)
    assert done(tasks) == 3


@in_virtual_time
async def test_an_end_that_is_found_later_explains_one_missing_task_only() -> None:
    account = Account(5, others=2)
    slots = slots_of(account)
    await acquired(slots, 3)
    account.others = 0
    assert (await slots.count(3)) == Count(missing=2, others=2)
    slots.release()
    account.others = 1
    await asyncio.sleep(GRACE)
    assert (await slots.count(2)) == Count(missing=0, others=1)


@in_virtual_time
async def test_a_task_that_is_missing_after_another_end_is_waited_for() -> None:
    account = Account(5, others=2)
    slots = slots_of(account)
    await acquired(slots, 3)
    slots.release()
    await asyncio.sleep(2 * GRACE)
    account.others = 1
    assert (await slots.count(2)) == Count(missing=1, others=2)


@in_virtual_time
async def test_the_load_of_an_account_is_relative_to_its_limit() -> None:
    slots = slots_of(Account(8, others=2))
    assert slots.load == 0
    await acquired(slots, 3)
    slots.announce()
    slots.announce()
    slots.withdraw()
    assert slots.load == (3 + 2 + 1) / 8
    unknown = slots_of(Account(None))
    await acquired(unknown, 3)
    assert unknown.load == 3


@in_virtual_time
async def test_own_tasks_that_have_ended_are_not_tasks_of_others() -> None:
    account = Account(8, others=2)
    slots = slots_of(account)
    await acquired(slots, 3)
    for others_at_the_count, others in ((3, 2), (2, 2), (-1, 0)):
        await asyncio.sleep(COUNT_AGE)
        counting = asyncio.create_task(slots.refresh())
        await asyncio.sleep(0.05)
        if others_at_the_count == 3:
            slots.release()  # RunningHub has counted this task
        account.others = others_at_the_count
        await counting
        assert slots.load == (2 + others) / 8


@in_virtual_time
async def test_a_slot_that_others_leave_briefly_is_not_assigned() -> None:
    account = Account(5, others=2)
    slots = slots_of(account)
    tasks = await acquired(slots, 5)
    for _ in range(5):
        account.others = 1
        await slots.count(3)
        await asyncio.sleep(GRACE / 2)
        account.others = 2
        await slots.count(3)
    assert done(tasks) == 3


@in_virtual_time
async def test_own_tasks_that_end_during_a_count_are_not_tasks_of_others() -> None:
    account = Account(5)
    slots = slots_of(account)
    await acquired(slots, 5)
    count = asyncio.create_task(slots.count(5))
    await asyncio.sleep(0.05)
    account.others = 3  # RunningHub has counted six tasks before two of them end
    slots.release()
    slots.release()
    assert await count == Count(missing=0, others=1)


@in_virtual_time
async def test_an_account_that_does_not_answer_is_not_counted() -> None:
    account = Account(5)
    slots = slots_of(account)
    await acquired(slots, 5)
    account.error = ResponseLost("HTTP 502")
    assert await slots.count(5) is None


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_pauses_double_up_to_a_limit(jitter: float) -> None:
    pauses = [pause_seconds(n, jitter=jitter) for n in range(1, 100)]
    assert pauses == sorted(pauses)
    assert 0.9 < pauses[0] <= 2.0
    assert pauses[-1] == 30.0 * (0.5 + jitter / 2)
