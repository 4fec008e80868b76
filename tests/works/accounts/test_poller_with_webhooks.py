"""The poller where webhooks report ends: fewer polls, and as many as without where no webhook arrives."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from rh_prefect.client import RemoteOutput, TaskView
from rh_prefect.errors import JournalError, ResponseLost
from rh_prefect.works.accounts.limiter import Count
from rh_prefect.works.accounts.poller import Poller
from tests.support.world.virtual_time import clock, in_virtual_time, now, settle

RUNNING = TaskView(task_id="1", status="RUNNING")
SUCCESS = TaskView(task_id="1", status="SUCCESS", outputs=(RemoteOutput(url="https://x.example.net/y.png"),))


class Tasks:
    """Tasks that end at given times, and the journal in which their ends are recorded."""

    def __init__(self, **ends: float) -> None:
        self.ends = ends
        self.polls: list[tuple[str, float]] = []
        self.recorded: set[str] = set()
        self.broken = False
        self.failures = 0
        self.open()

    def open(self, **options: Any) -> None:
        """Opens a poller that receives notifications."""
        self.poller = Poller(self.query, clock=clock, **({"shortest": 2.0, "grace": 300.0} | options))
        self.poller.set_receiving(is_on=True)

    async def query(self, task_id: str) -> TaskView:
        self.polls.append((task_id, round(now(), 1)))
        if self.failures:
            self.failures -= 1
            raise ResponseLost("lost")
        is_over = now() >= self.ends.get(task_id, float("inf"))
        return (SUCCESS if is_over else RUNNING).model_copy(update={"task_id": task_id})

    def wait(self, task_id: str) -> asyncio.Task[TaskView | None]:
        async def is_recorded() -> bool:
            if self.broken:
                raise JournalError("away")
            return task_id in self.recorded

        return asyncio.create_task(self.poller.wait(task_id, is_recorded=is_recorded, has_webhook=True))

    async def found(self, task_id: str) -> float:
        """Waits for a task, and returns when its end was noticed."""
        await self.wait(task_id)
        return now()

    async def notify(self, task_id: str, *, recorded: bool = True) -> None:
        """Notifies the poller at the task's end."""
        await asyncio.sleep(max(0.0, self.ends[task_id] - now()))
        if recorded:
            self.recorded.add(task_id)
        self.poller.wake(task_id)


@pytest.mark.parametrize(
    ("recorded", "broken", "is_queried"), [(True, False, False), (False, False, True), (True, True, True)]
)
@in_virtual_time
async def test_a_notified_end_is_queried_unless_it_is_recorded(recorded: bool, broken: bool, is_queried: bool) -> None:
    tasks = Tasks(a=40)
    tasks.broken = broken
    waiting = tasks.wait("a")
    await tasks.notify("a", recorded=recorded)
    ended = await waiting
    assert (ended is not None and ended.is_terminal, tasks.polls) == (is_queried, [("a", 40.0)] * is_queried)
    assert round(now()) == 40


@in_virtual_time
async def test_polls_are_rare_with_webhooks_and_a_false_notification_ends_no_task() -> None:
    tasks = Tasks(a=1000)
    waiting = tasks.wait("a")
    await asyncio.sleep(10)
    tasks.poller.wake("a")
    ended = await waiting
    assert ended is not None
    assert ended.is_terminal
    moments = [moment for _, moment in tasks.polls]
    assert moments[0] == 10.0
    assert {round(b - a) for a, b in pairwise(moments)} == {240}


@in_virtual_time
async def test_three_missed_notifications_make_polls_frequent_until_one_arrives() -> None:
    tasks = Tasks(a=6, b=6, c=6, d=90, e=200, f=200, g=350, h=600)
    asyncio.get_running_loop().call_later(100.0, tasks.poller.wake, "another")
    *first, d, e, f, g, h = await asyncio.gather(*map(tasks.found, tasks.ends))
    assert first == pytest.approx([60.0] * 3, abs=0.1)
    assert d < 100, "three were missed"
    assert 300 < e < 350 and 300 < f < 350, "one has arrived since"
    assert g > 500, "two were missed"
    assert h < 650, "three were missed"


@in_virtual_time
async def test_notified_ends_are_not_missed_ones() -> None:
    tasks = Tasks(a=10, b=20, c=30, last=70)
    found = [asyncio.create_task(tasks.found(name)) for name in tasks.ends]
    for name in "abc":
        await tasks.notify(name, recorded=False)
    assert await found[-1] == pytest.approx(300.0, abs=0.1)


@pytest.mark.parametrize(("shortest", "times"), [(0.5, [15.0, 75.0]), (10.0, [60.0, 300.0])])
@in_virtual_time
async def test_the_time_between_polls_with_webhooks_is_limited(shortest: float, times: list[float]) -> None:
    tasks = Tasks(a=times[0] + 1)
    tasks.open(shortest=shortest)
    await tasks.wait("a")
    assert [moment for _, moment in tasks.polls] == pytest.approx(times, abs=0.1)


@in_virtual_time
async def test_tasks_are_counted_only_while_webhooks_do_not_report_their_ends() -> None:
    counted = list[float]()

    async def count(running: int) -> Count:
        assert running > 1
        counted.append(now())
        return Count(missing=0, others=0)

    tasks = Tasks(a=6, b=6, c=6, d=1000, e=1000)
    tasks.open(count=count)
    for name in tasks.ends:
        tasks.wait(name)
    await asyncio.sleep(70)
    assert counted[0] == pytest.approx(62.0, abs=0.1), "three were missed"
    tasks.poller.wake("another")
    await asyncio.sleep(30)
    counted.clear()
    await asyncio.sleep(100)
    assert not counted
    tasks.poller.set_receiving(is_on=False)
    await asyncio.sleep(3)
    assert counted
    counted.clear()
    tasks.poller.set_receiving(is_on=False)
    await asyncio.sleep(3)
    assert not counted, "it was off before"


@in_virtual_time
async def test_polls_are_frequent_while_no_notifications_are_received() -> None:
    tasks = Tasks(a=100, b=100)
    waiting = [tasks.wait("a"), tasks.wait("b")]
    await asyncio.sleep(61)
    tasks.poller.set_receiving(is_on=False)
    await asyncio.gather(*waiting)
    assert tasks.polls[2][1] == pytest.approx(63.05, abs=0.1), "a twentieth of its age after the last one"
    assert now() <= 105
    quick = Tasks(a=1)
    quick.poller = Poller(quick.query, clock=clock, shortest=2.0, grace=300.0)
    await quick.wait("a")
    assert quick.polls[0][1] - (now() - 1) < 1.5


@in_virtual_time
async def test_an_end_that_was_notified_before_the_wait_is_queried_immediately() -> None:
    tasks = Tasks(a=0)
    tasks.recorded.add("a")
    tasks.poller.wake("a")
    assert await tasks.wait("a") is None
    assert now() < 0.1


@in_virtual_time
async def test_the_last_4096_notifications_are_stored() -> None:
    tasks = Tasks(a=0, b=0)
    for name in ("a", "b", *map(str, range(4095))):
        tasks.poller.wake(name)
    waiting: list[Any] = [tasks.wait("a"), tasks.wait("b")]
    await settle()
    assert [wait.done() for wait in waiting] == [False, True]
    await waiting[0]


@in_virtual_time
async def test_a_failed_poll_is_repeated_soon() -> None:
    tasks = Tasks(a=61)
    tasks.failures = 1
    await tasks.wait("a")
    assert now() < 61 + 20


@in_virtual_time
async def test_poll_often_polls_a_task_as_without_webhooks() -> None:
    """Once its run is cancelled, a task is polled as without webhooks."""
    tasks = Tasks(a=100)
    waiting = tasks.wait("a")
    await asyncio.sleep(80)
    tasks.poller.poll_often("a")
    tasks.poller.poll_often("another")
    await waiting
    assert now() < 106


@in_virtual_time
async def test_a_task_without_a_webhook_is_polled_often() -> None:
    tasks = Tasks(a=10)
    await tasks.poller.wait("a")
    assert now() <= 12


@in_virtual_time
async def test_an_end_during_a_disconnection_is_found_soon_after_it() -> None:
    tasks = Tasks(a=5, b=500)
    waiting = [tasks.wait("a"), tasks.wait("b")]
    tasks.poller.set_receiving(is_on=False)
    await asyncio.sleep(6)
    tasks.poller.set_receiving(is_on=True)
    await waiting[0]
    assert now() < 8
    await waiting[1]
    assert len(tasks.polls) <= 10
