"""Jobs in the queues of several accounts: the first free one takes them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from rh_prefect.works.accounts.limiter import Turn, first_free
from tests.support.world.virtual_time import now
from tests.works.accounts.counted_account import CountedAccount as Account

pytestmark = pytest.mark.virtual_time

SECONDS = 10.0


async def job(accounts: list[Account], seconds: float = SECONDS, *, preferred: Account | None = None) -> Account:
    """Runs one job and returns the account that ran it."""
    slots = await first_free([one.limiter for one in accounts], preferred=preferred.limiter if preferred else None)
    account = next(one for one in accounts if one.limiter is slots)
    await account.run(seconds)
    return account


async def test_a_job_that_has_to_wait_for_a_slot_says_so() -> None:
    account, waits = Account(1, "a"), list[int]()

    async def one(number: int) -> None:
        await first_free([account.limiter], on_wait=lambda: waits.append(number))
        await account.run(SECONDS)

    await one(0)
    await asyncio.gather(one(1), one(2))
    assert waits == [2]


async def test_jobs_use_the_account_with_a_free_slot_and_not_in_turn() -> None:
    accounts = [Account(1, "a"), Account(1, "b")]
    lengths = [60.0, *[10.0] * 6]
    ran = await asyncio.gather(*(job(accounts, seconds) for seconds in lengths))
    assert [one.name for one in ran] == ["a", *["b"] * 6]
    assert now() == pytest.approx(60.0, abs=0.1)


async def test_a_cancelled_waiter_leaves_all_queues() -> None:
    accounts = [Account(1, "a"), Account(1, "b")]
    running = [asyncio.create_task(job(accounts, 50)) for _ in range(2)]
    gone, stays = (asyncio.create_task(job(accounts, 1)) for _ in range(2))
    await asyncio.sleep(1)
    gone.cancel()
    await asyncio.sleep(60)
    assert stays.done() and all(task.done() for task in running)
    assert [one.limiter.held for one in accounts] == [0, 0]


async def test_a_job_precedes_others_on_the_account_with_its_inputs() -> None:
    accounts = a, b = [Account(1, "a"), Account(1, "b")]
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


@pytest.mark.parametrize("comes", [True, False])
async def test_a_slot_is_kept_for_a_job_that_uploads_its_inputs_until_it_has_it_or_leaves(comes: bool) -> None:
    a, b = Account(1, "a"), Account(2, "b", others=1)
    busy = asyncio.create_task(job([a], 100))
    await b.limiter.refresh()
    b.limiter.announce()
    other_job = asyncio.create_task(job([a, b], preferred=a))
    await asyncio.sleep(1)
    assert not other_job.done() and b.limiter.held == 0
    uploaded = asyncio.create_task(job([a, b] if comes else [a], preferred=b))
    await asyncio.sleep(0.1)
    assert b.limiter.held == comes
    b.limiter.withdraw()
    assert (await other_job) is b
    assert uploaded.done() == comes
    assert now() == pytest.approx(1.1 + (1 + comes) * SECONDS, abs=0.1)
    for task in (busy, uploaded):
        task.cancel()


async def test_the_first_job_gets_the_slot_if_all_prefer_other_accounts() -> None:
    accounts = a, b = [Account(1, "a"), Account(1, "b")]
    busy = asyncio.create_task(job([b], 100))
    await asyncio.sleep(1)
    order: list[int] = []

    async def numbered(number: int) -> None:
        assert (await job(accounts, preferred=b)) is a
        order.append(number)

    await asyncio.gather(*map(numbered, range(3)))
    assert order == [0, 1, 2]
    busy.cancel()


async def test_an_account_without_a_response_does_not_block_the_other() -> None:
    accounts = silent, _ = [Account(2, "silent"), Account(2, "works")]
    silent.answers_in = 60.0
    ran = await asyncio.gather(*(job(accounts, preferred=silent) for _ in range(4)))
    assert [one.name for one in ran] == ["works"] * 4
    assert now() < 3 * SECONDS
    assert silent.limiter.held == 0


@pytest.mark.parametrize(("answers_in", "is_used"), [(1.9, True), (2.5, False)])
async def test_a_preferred_account_is_waited_for_for_two_seconds(answers_in: float, is_used: bool) -> None:
    accounts = other, preferred = [Account(2, "at once"), Account(2, "preferred")]
    preferred.answers_in = answers_in
    assert (await job(accounts, preferred=preferred)) is (preferred if is_used else other)


async def test_an_account_that_responds_late_is_used_afterwards() -> None:
    accounts = late, busy = [Account(2, "late"), Account(1, "busy")]
    late.answers_in = 20.0
    ran = await asyncio.gather(*(job(accounts, 100) for _ in range(3)))
    assert Counter(one.name for one in ran) == {"late": 2, "busy": 1}
    assert (late.most, busy.most) == (2, 1)
    assert now() == pytest.approx(120, abs=1)


async def test_a_waiter_cancelled_during_a_count_takes_no_slot() -> None:
    only = Account(1, "only")
    only.answers_in = 30.0
    gone = asyncio.create_task(job([only]))
    await asyncio.sleep(10)
    gone.cancel()
    await asyncio.sleep(30)
    assert gone.cancelled() and only.limiter.held == 0
    assert (await job([only], 1)) is only


async def _chains(account: Account, *, items: int) -> tuple[list[set[int]], int]:
    """Runs two jobs for each item; returns the items that end together, in order, and the most that were begun."""
    ended, begun, most = dict[int, set[int]](), set[int](), 0

    async def step(item: int) -> None:
        nonlocal most
        turn = Turn("run", (item not in begun, item))
        assert await first_free([account.limiter], turn=turn) is account.limiter
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


async def test_a_run_ends_its_first_items_before_later_ones_begin() -> None:
    ended, most = await _chains(Account(1, "a"), items=8)
    # The first one in the queue has the free slot. While its result is downloaded, the slot is used by the next item.
    assert ended == [{7}, {0}, {1}, {2}, {3}, {4}, {5}, {6}]
    assert most == 2
    ended, most = await _chains(Account(2, "a"), items=8)
    assert ended == [{7, 6}, {0, 1}, {2, 3}, {4, 5}]
    assert most == 4


async def test_jobs_that_are_put_first_in_their_run_do_not_overtake_those_of_other_runs() -> None:
    account, order = Account(1, "a"), list[str]()

    async def named(name: str) -> None:
        run, place = name.rstrip("0123456789'"), int(name.strip("xy'"))
        await first_free([account.limiter], turn=Turn(run, (place,)))
        order.append(name)
        await account.run(SECONDS)

    jobs = []
    for name in ("x9", "x3", "y5", "x2", "y4", "2", "1", "x1", "x3'"):
        jobs.append(asyncio.create_task(named(name)))
        await asyncio.sleep(0.1)
    await asyncio.gather(*jobs)
    assert order == ["x9", "x1", "y4", "x2", "y5", "2", "1", "x3", "x3'"]
