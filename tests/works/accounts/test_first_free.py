"""Jobs in the queues of several accounts: the first free one takes them."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rh_prefect.works.accounts.limiter import MAX_COUNT_AGE, Limiter, Turn, first_free
from rh_prefect.works.accounts.pool import Lease, Pool
from tests.support.world.virtual_time import clock, in_virtual_time, now, settle

SECONDS = 10.0


class Account:
    """Answers `queue/status`, and stores the maximum number of its tasks."""

    def __init__(self, name: str, limit: int, *, others: int = 0) -> None:
        self.name = name
        self.limit = limit
        self.others = others
        self.most = 0
        self.answers_in = 0.001
        self.slots = Limiter(self.ask, clock=clock, jitter=lambda: 1.0)

    async def ask(self) -> tuple[int | None, int]:
        await asyncio.sleep(self.answers_in)
        return self.limit, self.others + self.slots.held

    @property
    def limiter(self) -> Limiter:
        return self.slots

    def at(self, endpoint: str) -> Account:
        return self

    async def run(self, seconds: float) -> None:
        """A job that has a slot of this account."""
        self.slots.submit_finished()
        self.most = max(self.most, self.slots.held)
        await asyncio.sleep(seconds)
        self.slots.release()


async def job(accounts: list[Account], seconds: float = SECONDS, *, preferred: Account | None = None) -> Account:
    """Runs one job and returns the account that ran it."""
    slots = await first_free([one.slots for one in accounts], preferred=preferred.slots if preferred else None)
    account = next(one for one in accounts if one.slots is slots)
    await account.run(seconds)
    return account


@in_virtual_time
async def test_two_accounts_with_five_slots_equal_one_with_ten() -> None:
    spans = []
    for accounts in ([Account("a", 5), Account("b", 5)], [Account("one", 10)]):
        began = now()
        ran = await asyncio.gather(*(job(accounts) for _ in range(40)))
        spans.append(now() - began)
        assert [one.most for one in accounts] == [one.limit for one in accounts]
        assert Counter(one.name for one in ran) == {one.name: 4 * one.limit for one in accounts}
        assert [one.slots.held for one in accounts] == [0] * len(accounts)
    assert spans[0] == pytest.approx(spans[1], abs=0.1)
    assert spans[0] == pytest.approx(4 * SECONDS, abs=0.1)


@in_virtual_time
async def test_a_job_that_has_to_wait_for_a_slot_says_so() -> None:
    account, waits = Account("a", 1), list[int]()

    async def one(number: int) -> None:
        await first_free([account.slots], on_wait=lambda: waits.append(number))
        await account.run(SECONDS)

    await one(0)
    await asyncio.gather(one(1), one(2))
    assert waits == [2]


@in_virtual_time
async def test_jobs_use_the_account_with_a_free_slot_and_not_in_turn() -> None:
    accounts = [Account("a", 1), Account("b", 1)]
    lengths = [60.0, *[10.0] * 6]
    ran = await asyncio.gather(*(job(accounts, seconds) for seconds in lengths))
    assert [one.name for one in ran] == ["a", *["b"] * 6]
    assert now() == pytest.approx(60.0, abs=0.1)


@in_virtual_time
async def test_a_slot_that_others_leave_on_one_account_is_used() -> None:
    accounts = [Account("a", 1, others=1), Account("b", 1)]
    long = asyncio.create_task(job(accounts[1:], 300))
    short = asyncio.create_task(job(accounts[1:], 300))
    await settle()
    # One of ours may always try, so the first account is filled too.
    tried = asyncio.create_task(job(accounts, 300))
    waits = asyncio.create_task(job(accounts, 1))
    await asyncio.sleep(2)
    assert not waits.done()
    accounts[0].limit, accounts[0].others = 2, 0
    await asyncio.sleep(2 * MAX_COUNT_AGE)
    assert waits.done() and waits.result().name == "a"
    for task in (long, short, tried):
        task.cancel()


@in_virtual_time
async def test_a_cancelled_waiter_leaves_all_queues() -> None:
    accounts = [Account("a", 1), Account("b", 1)]
    running = [asyncio.create_task(job(accounts, 50)) for _ in range(2)]
    gone, stays = (asyncio.create_task(job(accounts, 1)) for _ in range(2))
    await asyncio.sleep(1)
    gone.cancel()
    await asyncio.sleep(60)
    assert stays.done() and all(task.done() for task in running)
    assert [one.slots.held for one in accounts] == [0, 0]


@in_virtual_time
async def test_a_job_precedes_others_on_the_account_with_its_inputs() -> None:
    accounts = a, b = [Account("a", 1), Account("b", 1)]
    order: list[str] = []

    async def named(name: str, preferred: Account | None) -> None:
        ran = await job(accounts, preferred=preferred)
        order.append(f"{name} on {ran.name}")

    running: list[asyncio.Task[Account] | asyncio.Task[None]] = [
        asyncio.create_task(job([a], 5)),
        asyncio.create_task(job([b], 7)),
    ]
    await asyncio.sleep(1)
    for name, preferred in (("first", b), ("second", a), ("third", b), ("fourth", None)):
        running.append(asyncio.create_task(named(name, preferred)))
        await asyncio.sleep(0.01)
    await asyncio.gather(*running)
    # No job waits for its preferred account while another one is idle.
    assert order == ["second on a", "first on b", "fourth on a", "third on b"]


@in_virtual_time
async def test_a_job_uploads_its_inputs_to_the_account_with_the_lowest_load() -> None:
    """The accounts are counted first: nothing is known yet of the tasks of others."""
    accounts = [Account("busy", 2, others=2), Account("free", 2)]
    pool = cast(Pool, SimpleNamespace(is_single=False, accounts=accounts))
    lease = Lease(pool, {}, model="m", endpoint="e", job="j")
    await lease.select_account()
    assert lease.account is cast(Any, accounts[1])


@in_virtual_time
async def test_a_slot_is_kept_for_a_job_that_uploads_its_inputs() -> None:
    a, b = Account("a", 1), Account("b", 2, others=1)
    busy = asyncio.create_task(job([a], 100))
    await b.slots.refresh()
    b.slots.announce()
    other_job = asyncio.create_task(job([a, b], preferred=a))
    await asyncio.sleep(1)
    assert not other_job.done() and b.slots.held == 0
    # It has brought them, and comes; it is no longer expected once it has its slot.
    comes = asyncio.create_task(job([a, b], preferred=b))
    await asyncio.sleep(0.1)
    assert b.slots.held == 1
    b.slots.withdraw()
    assert (await comes) is b
    assert (await other_job) is b
    busy.cancel()


@in_virtual_time
async def test_the_slot_of_a_withdrawn_job_is_assigned_to_the_next() -> None:
    a, b = Account("a", 1), Account("b", 1)
    busy = asyncio.create_task(job([a], 100))
    await b.slots.refresh()
    b.slots.announce()
    other_job = asyncio.create_task(job([a, b], preferred=a))
    await asyncio.sleep(1)
    b.slots.withdraw()
    assert (await other_job) is b
    assert now() == pytest.approx(1 + SECONDS, abs=0.1)
    busy.cancel()


@in_virtual_time
async def test_the_first_job_gets_the_slot_if_all_prefer_other_accounts() -> None:
    accounts = a, b = [Account("a", 1), Account("b", 1)]
    busy = asyncio.create_task(job([b], 100))
    await asyncio.sleep(1)
    order: list[int] = []

    async def numbered(number: int) -> None:
        assert (await job(accounts, preferred=b)) is a
        order.append(number)

    await asyncio.gather(*map(numbered, range(3)))
    assert order == [0, 1, 2]
    busy.cancel()


@in_virtual_time
async def test_an_account_without_a_response_does_not_block_the_other() -> None:
    accounts = silent, _ = [Account("silent", 2), Account("works", 2)]
    silent.answers_in = 60.0
    ran = await asyncio.gather(*(job(accounts, preferred=silent) for _ in range(4)))
    assert [one.name for one in ran] == ["works"] * 4
    assert now() < 3 * SECONDS
    assert silent.slots.held == 0


@pytest.mark.parametrize(("answers_in", "is_used"), [(1.9, True), (2.5, False)])
@in_virtual_time
async def test_a_preferred_account_is_waited_for_for_two_seconds(answers_in: float, is_used: bool) -> None:
    accounts = other, preferred = [Account("at once", 2), Account("preferred", 2)]
    preferred.answers_in = answers_in
    assert (await job(accounts, preferred=preferred)) is (preferred if is_used else other)


@in_virtual_time
async def test_an_account_that_responds_late_is_used_afterwards() -> None:
    accounts = late, busy = [Account("late", 2), Account("busy", 1)]
    late.answers_in = 20.0
    ran = await asyncio.gather(*(job(accounts, 100) for _ in range(3)))
    assert Counter(one.name for one in ran) == {"late": 2, "busy": 1}
    assert (late.most, busy.most) == (2, 1)
    assert now() == pytest.approx(120, abs=1)


@in_virtual_time
async def test_a_waiter_cancelled_during_a_count_takes_no_slot() -> None:
    only = Account("only", 1)
    only.answers_in = 30.0
    gone = asyncio.create_task(job([only]))
    await asyncio.sleep(10)
    gone.cancel()
    await asyncio.sleep(30)
    assert gone.cancelled() and only.slots.held == 0
    assert (await job([only], 1)) is only


async def _chains(account: Account, *, items: int, is_ordered: bool = True) -> tuple[list[set[int]], int]:
    """Runs two jobs for each item; returns the items that end together, in order, and the most that were begun."""
    ended, begun, most = dict[int, set[int]](), set[int](), 0

    async def step(item: int) -> None:
        nonlocal most
        turn = Turn("run", (item not in begun, item)) if is_ordered else Turn()
        assert await first_free([account.slots], turn=turn) is account.slots
        begun.add(item)
        most = max(most, len(begun))
        await account.run(SECONDS)

    async def chain(item: int) -> None:
        await step(item)
        await asyncio.sleep(1)  # its result is downloaded, and the next step is planned
        await step(item)
        ended.setdefault(round(now()), set()).add(item)
        begun.discard(item)

    # The last items reach the queue first.
    await asyncio.gather(*map(chain, reversed(range(items))))
    return list(ended.values()), most


@in_virtual_time
async def test_a_run_ends_its_first_items_before_later_ones_begin() -> None:
    ended, most = await _chains(Account("a", 1), items=8)
    # The first one in the queue has the free slot. While its result is downloaded, the slot is used by the next item.
    assert ended == [{7}, {0}, {1}, {2}, {3}, {4}, {5}, {6}]
    assert most == 2
    ended, most = await _chains(Account("a", 2), items=8)
    assert ended == [{7, 6}, {0, 1}, {2, 3}, {4, 5}]
    assert most == 4


@in_virtual_time
async def test_the_order_of_items_costs_no_time() -> None:
    spans = []
    for is_ordered in (False, True):
        began = now()
        await _chains(Account("a", 3), items=12, is_ordered=is_ordered)
        spans.append(now() - began)
    assert spans[1] == pytest.approx(spans[0], abs=2)


@in_virtual_time
async def test_jobs_that_are_put_first_in_their_run_do_not_overtake_those_of_other_runs() -> None:
    account, order = Account("a", 1), list[str]()

    async def named(name: str) -> None:
        run, place = name.rstrip("0123456789'"), int(name.strip("xy'"))
        await first_free([account.slots], turn=Turn(run, (place,)))
        order.append(name)
        await account.run(SECONDS)

    jobs = []
    for name in ("x9", "x3", "y5", "x2", "y4", "2", "1", "x1", "x3'"):
        jobs.append(asyncio.create_task(named(name)))
        await asyncio.sleep(0.1)
    await asyncio.gather(*jobs)
    assert order == ["x9", "x1", "y4", "x2", "y5", "2", "1", "x3", "x3'"]
