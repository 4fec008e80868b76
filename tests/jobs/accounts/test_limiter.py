from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rh_prefect.errors import ResponseLost, RunningHubError
from rh_prefect.jobs.accounts.limiter import (
    DISTRUST_SECONDS,
    KEPT_FOR_OTHERS,
    LONGEST_PAUSE,
    LONGEST_PAUSE_WITH_ROOM,
    MAX_COUNT_AGE,
    MAX_SUBMITS,
    MAX_SUBMITS_ALONE,
    Count,
    Limiter,
    first_free,
    pause_seconds,
)
from tests.support.virtual_time import in_virtual_time, now, settle


class Account:
    """Answers `queue/status`."""

    def __init__(self, limit: int | None, *, others: int = 0, error: RunningHubError | None = None) -> None:
        self.limit = limit
        self.others = others
        self.error = error
        self.slots: Limiter | None = None
        self.asked: list[float] = []

    async def ask(self) -> tuple[int | None, int]:
        self.asked.append(now())
        await asyncio.sleep(0.1)
        if self.error is not None:
            raise self.error
        return self.limit, self.others + (self.slots.held if self.slots else 0)


def slots_of(account: Account, **options: Any) -> Limiter:
    account.slots = Limiter(account.ask, clock=now, jitter=lambda: 1.0, **options)
    return account.slots


async def taken(slots: Limiter) -> None:
    """Takes a slot and submits."""
    await first_free([slots])
    slots.submit_finished()


async def acquired(slots: Limiter, count: int) -> list[asyncio.Task[None]]:
    """Starts so many acquisitions and lets those through that there is room for."""
    tasks = [asyncio.create_task(taken(slots)) for _ in range(count)]
    await asyncio.sleep(0.5)
    return tasks


def done(tasks: list[asyncio.Task[Any]]) -> int:
    return sum(task.done() for task in tasks)


@in_virtual_time
async def test_slots_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    slots, order = slots_of(Account(2)), []

    async def job(n: int) -> None:
        await taken(slots)
        order.append(n)
        await asyncio.sleep(10)
        slots.release()

    async with asyncio.TaskGroup() as group:
        for n in range(20):
            group.create_task(job(n))
            await asyncio.sleep(0.01)
    assert order == list(range(20))
    assert slots.held == 0


@in_virtual_time
async def test_no_more_are_given_than_the_account_has() -> None:
    slots, most = slots_of(Account(3)), 0

    async def job() -> None:
        nonlocal most
        await taken(slots)
        most = max(most, slots.held)
        await asyncio.sleep(10)
        slots.release()

    await asyncio.gather(*(job() for _ in range(20)))
    assert most == 3


@in_virtual_time
async def test_what_others_run_on_the_account_is_left_to_them() -> None:
    account = Account(3, others=2)
    tasks = await acquired(slots_of(account), 3)
    assert done(tasks) == 1
    account.others = 0
    await asyncio.sleep(2 * MAX_COUNT_AGE)
    assert done(tasks) == 3


@in_virtual_time
async def test_a_pause_after_refusals_ends_when_the_others_have_gone() -> None:
    account = Account(2, others=2)
    slots = slots_of(account)
    for _ in range(4):  # each refusal doubles the pause
        await first_free([slots])
        slots.release(full=True)
        slots.submit_finished()
    tasks = await acquired(slots, 2)
    await asyncio.sleep(2.0)
    account.others = 0
    await asyncio.sleep(1.5)
    assert done(tasks) == 2


@in_virtual_time
async def test_a_refusal_that_the_count_does_not_explain_is_waited_out() -> None:
    slots = slots_of(Account(2))
    for _ in range(4):
        await first_free([slots])
        slots.release(full=True)
        slots.submit_finished()
    tasks = await acquired(slots, 2)
    await asyncio.sleep(LONGEST_PAUSE_WITH_ROOM - 1.0)
    assert not done(tasks)
    await asyncio.sleep(2.0)
    assert done(tasks) == 2


@in_virtual_time
async def test_one_of_ours_may_always_try() -> None:
    assert done(await acquired(slots_of(Account(3, others=9)), 2)) == 1


@in_virtual_time
async def test_a_free_slot_goes_to_the_next_at_once() -> None:
    slots = slots_of(Account(1))
    tasks = await acquired(slots, 2)
    slots.release()
    await settle()
    assert done(tasks) == 2


@in_virtual_time
async def test_after_a_421_nothing_is_given_for_a_while_and_the_account_is_asked_again() -> None:
    account = Account(5)
    slots = slots_of(account)
    await taken(slots)
    asked = len(account.asked)
    account.others = 5
    slots.release(full=True)
    refused_at = now()
    tasks = [asyncio.create_task(taken(slots)) for _ in range(3)]
    await asyncio.sleep(1.9)
    assert done(tasks) == 0
    await asyncio.sleep(1.0)
    assert done(tasks) == 1
    assert len(account.asked) > asked
    assert now() - refused_at < MAX_COUNT_AGE


@in_virtual_time
async def test_each_further_421_closes_for_longer_up_to_a_bound() -> None:
    slots, closed = slots_of(Account(50)), []
    await taken(slots)
    for _ in range(8):
        slots.release(full=True)
        began = now()
        await taken(slots)
        closed.append(round(now() - began, 2))
    assert closed == sorted(closed)
    assert closed[0] < 5
    assert closed[-1] <= LONGEST_PAUSE + MAX_COUNT_AGE


@in_virtual_time
async def test_many_that_are_refused_together_are_one_refusal() -> None:
    slots = slots_of(Account(20))
    for _ in range(10):
        await taken(slots)
    for _ in range(10):
        slots.release(full=True)
    began = now()
    await taken(slots)
    assert now() - began < MAX_COUNT_AGE


@in_virtual_time
async def test_a_release_that_is_no_421_forgets_the_refusals() -> None:
    slots = slots_of(Account(5))
    for full in (True, False, True):
        await taken(slots)
        slots.release(full=full)
    began = now()
    await taken(slots)
    assert now() - began < MAX_COUNT_AGE


@in_virtual_time
async def test_the_first_refusal_after_an_ordinary_release_closes_as_short_as_the_very_first() -> None:
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


@in_virtual_time
async def test_who_is_cancelled_while_waiting_leaks_no_slot() -> None:
    slots = slots_of(Account(1))
    first, second, third = await acquired(slots, 3)
    second.cancel()
    await settle()
    slots.release()
    await settle()
    assert first.done()
    assert third.done()
    assert slots.held == 1
    slots.release()
    assert slots.held == 0


@in_virtual_time
async def test_who_is_cancelled_in_the_moment_of_being_given_a_slot_gives_it_on() -> None:
    slots = slots_of(Account(1))
    _, second, third = await acquired(slots, 3)
    slots.release()
    second.cancel()
    await settle()
    assert second.cancelled()
    assert third.done()
    assert slots.held == 1


@in_virtual_time
async def test_who_is_cancelled_while_the_account_is_asked_holds_nobody_up() -> None:
    slots = slots_of(Account(1))
    first, second = (asyncio.create_task(taken(slots)) for _ in range(2))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.sleep(0.5)
    assert second.done()
    assert slots.held == 1


@in_virtual_time
async def test_when_the_last_one_that_waits_is_cancelled_the_account_is_asked_no_more() -> None:
    account = Account(1)
    _, second = await acquired(slots_of(account), 2)
    second.cancel()
    await asyncio.sleep(2 * MAX_COUNT_AGE)
    asked = len(account.asked)
    await asyncio.sleep(100 * MAX_COUNT_AGE)
    assert len(account.asked) == asked


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
async def test_an_account_that_names_no_limit_is_left_to_421() -> None:
    assert done(await acquired(slots_of(Account(None, others=7)), 50)) == 50


@in_virtual_time
async def test_an_account_that_does_not_answer_is_left_to_421_and_asked_once() -> None:
    account = Account(1, error=ResponseLost("HTTP 502"))
    assert done(await acquired(slots_of(account), 50)) == 50
    assert len(account.asked) == 1


@in_virtual_time
async def test_one_answer_serves_all_for_a_while() -> None:
    account = Account(100)
    slots = slots_of(account)
    await acquired(slots, 50)
    assert len(account.asked) == 1
    await asyncio.sleep(MAX_COUNT_AGE)
    await taken(slots)
    assert len(account.asked) == 2


@in_virtual_time
async def test_giving_back_what_was_never_taken_adds_no_slot() -> None:
    slots = slots_of(Account(1))
    slots.release()
    assert done(await acquired(slots, 2)) == 1


@in_virtual_time
async def test_beside_others_few_submits_are_on_their_way_at_once() -> None:
    slots = slots_of(Account(50, others=1))
    tasks = [asyncio.create_task(first_free([slots])) for _ in range(30)]
    await asyncio.sleep(0.5)
    assert done(tasks) == MAX_SUBMITS
    for _ in range(3):
        slots.submit_finished()
    await settle()
    assert done(tasks) == MAX_SUBMITS + 3


@in_virtual_time
async def test_alone_on_the_account_more_submits_are_on_their_way() -> None:
    slots = slots_of(Account(80))
    tasks = [asyncio.create_task(first_free([slots])) for _ in range(60)]
    await asyncio.sleep(0.5)
    assert done(tasks) == MAX_SUBMITS_ALONE


@in_virtual_time
async def test_a_refusal_stops_those_that_have_not_gone_out() -> None:
    slots = slots_of(Account(50, others=1))
    tasks = [asyncio.create_task(first_free([slots])) for _ in range(30)]
    await asyncio.sleep(0.5)
    for _ in range(MAX_SUBMITS):
        slots.release(full=True)
        slots.submit_finished()
    await settle()
    assert done(tasks) == MAX_SUBMITS


@in_virtual_time
async def test_who_is_cancelled_in_the_moment_of_being_given_a_slot_is_not_on_its_way() -> None:
    slots = slots_of(Account(1))
    for _ in range(2 * MAX_SUBMITS):
        first, second = asyncio.create_task(taken(slots)), asyncio.create_task(first_free([slots]))
        await asyncio.sleep(0.5)
        assert first.done()
        slots.release()
        second.cancel()
        await settle()
        assert slots.held == 0


@in_virtual_time
async def test_a_count_says_how_many_of_ours_have_ended() -> None:
    account = Account(5)
    slots = slots_of(account)
    await acquired(slots, 5)
    assert await slots.count(5) == Count(missing=0, others=0)
    account.others = -2
    assert await slots.count(5) == Count(missing=2, others=0)


@in_virtual_time
async def test_what_a_count_finds_free_is_given_before_it_is_known_which_task_has_ended() -> None:
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
async def test_after_a_refusal_no_slot_is_given_that_only_a_count_finds_free() -> None:
    account = Account(5)
    slots = slots_of(account)
    await acquired(slots, 5)
    slots.release(full=True)
    tasks = await acquired(slots, 4)
    await asyncio.sleep(MAX_COUNT_AGE)
    assert done(tasks) == 1
    account.others = -2
    await slots.count(5)
    await settle()
    assert done(tasks) == 1
    await asyncio.sleep(DISTRUST_SECONDS)
    await slots.count(5)
    await settle()
    assert done(tasks) == 3


@in_virtual_time
async def test_submits_on_their_way_are_not_taken_for_free_slots() -> None:
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
async def test_where_others_share_the_account_no_slot_is_given_before_an_end_is_known() -> None:
    account = Account(5, others=2)
    slots = slots_of(account)
    tasks = await acquired(slots, 5)
    account.others = 1
    assert await slots.count(3) == Count(missing=1, others=2)
    await settle()
    assert done(tasks) == 3


@in_virtual_time
async def test_what_stays_missing_was_not_ours() -> None:
    account = Account(5, others=2)
    slots = slots_of(account)
    tasks = await acquired(slots, 5)
    account.others = 1
    assert (await slots.count(3)) == Count(missing=1, others=2)
    assert (await slots.count(3)) == Count(missing=1, others=2)
    await asyncio.sleep(KEPT_FOR_OTHERS)
    assert (await slots.count(3)) == Count(missing=0, others=1)
    await settle()
    assert done(tasks) == 4


@in_virtual_time
async def test_what_has_been_missing_for_a_while_is_free() -> None:
    account = Account(5, others=2)
    slots = slots_of(account)
    await acquired(slots, 3)
    account.others = 1
    for others in (2, 2, 1):  # an answer takes 0.1 s: looked at after 0 s, 0.3 s and 0.6 s
        counted = await slots.count(3)
        assert counted is not None
        assert counted.others == others
        await asyncio.sleep(0.4 * KEPT_FOR_OTHERS)


@in_virtual_time
async def test_an_end_that_was_found_since_explains_what_was_missing() -> None:
    account = Account(5, others=2)
    slots = slots_of(account)
    tasks = await acquired(slots, 3)
    account.others = 1
    assert (await slots.count(3)) == Count(missing=1, others=2)
    account.others = 2
    slots.release()
    await asyncio.sleep(KEPT_FOR_OTHERS)
    assert (await slots.count(2)) == Count(missing=0, others=2)
    assert done(tasks) == 3


@in_virtual_time
async def test_what_is_missing_after_an_end_that_was_not_missing_is_waited_for_as_well() -> None:
    account = Account(5, others=2)
    slots = slots_of(account)
    await acquired(slots, 3)
    slots.release()
    await asyncio.sleep(2 * KEPT_FOR_OTHERS)
    account.others = 1
    assert (await slots.count(2)) == Count(missing=1, others=2)


@in_virtual_time
async def test_the_load_of_an_account_is_what_it_has_to_do_for_its_size() -> None:
    slots = slots_of(Account(8, others=2))
    assert slots.load == 0
    await acquired(slots, 3)
    slots.announce()
    assert slots.load == (3 + 2 + 1) / 8
    unknown = slots_of(Account(None))
    await acquired(unknown, 3)
    assert unknown.load == 3


@in_virtual_time
async def test_a_slot_that_others_leave_for_a_moment_stays_theirs() -> None:
    account = Account(5, others=2)
    slots = slots_of(account)
    tasks = await acquired(slots, 5)
    for _ in range(5):
        account.others = 1
        await slots.count(3)
        await asyncio.sleep(KEPT_FOR_OTHERS / 2)
        account.others = 2
        await slots.count(3)
    assert done(tasks) == 3


@in_virtual_time
async def test_an_account_that_does_not_answer_is_not_counted() -> None:
    account = Account(5)
    slots = slots_of(account)
    await acquired(slots, 5)
    account.error = ResponseLost("HTTP 502")
    assert await slots.count(5) is None


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_pauses_double_up_to_a_bound(jitter: float) -> None:
    pauses = [pause_seconds(n, jitter=jitter) for n in range(1, 100)]
    assert pauses == sorted(pauses)
    assert 0.9 < pauses[0] <= 2.0
    assert pauses[-1] == 30.0 * (0.5 + jitter / 2)
    assert LONGEST_PAUSE / 2 <= pauses[-1] <= LONGEST_PAUSE
