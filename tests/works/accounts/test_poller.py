from __future__ import annotations

import asyncio
import gc
import math
from itertools import pairwise
from typing import Any
from weakref import WeakSet, ref

import pytest

from rh_prefect.client import RemoteOutput, TaskView
from rh_prefect.errors import AccountError, Busy, ConnectFailed, JournalError, KeyRejected, ResponseLost, TaskNotFound
from rh_prefect.works.accounts.limiter import Count
from rh_prefect.works.accounts.poller import DurationHistory, Poller, is_settled, query_repeatedly
from tests.support.world.virtual_time import clock, now, settle

pytestmark = pytest.mark.virtual_time

OUTPUT = RemoteOutput(url="http://files/1.png")
HOUR = 3600.0
GRACE, LONGEST_GAP = 300.0, 30.0
"""Seconds for which a denial or an empty success is repeated, and between two polls at most."""


def view(status: Any, task_id: str = "1") -> TaskView:
    return TaskView(task_id=task_id, status=status, outputs=(OUTPUT,) if status == "SUCCESS" else ())


QUEUED, RUNNING, SUCCESS = view("QUEUED"), view("RUNNING"), view("SUCCESS")
EMPTY = TaskView(task_id="1", status="SUCCESS")
Answer = TaskView | Exception


class RunningHub:
    """Answers queries with given answers for each task; the last one is repeated."""

    def __init__(self, *answers: Answer, takes: float = 0.0) -> None:
        self._default = answers
        self._takes = takes
        self._answers: dict[str, list[Answer]] = {}
        self.polls: list[float] = []
        self.polled: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self._polled = asyncio.Event()

    async def polled_after(self, moment: float) -> None:
        """Waits for a poll that begins later."""
        while not self.polls or self.polls[-1] <= moment:
            self._polled.clear()
            await self._polled.wait()

    def answer_with(self, task_id: str, *answers: Answer) -> None:
        self._answers[task_id] = list(answers)

    async def query(self, task_id: str) -> TaskView:
        self.polls.append(now())
        self.polled.append(task_id)
        self._polled.set()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._takes)
        finally:
            self.in_flight -= 1
        answers = self._answers.setdefault(task_id, list(self._default))
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer.model_copy(update={"task_id": task_id})

    def polls_of(self, task_id: str) -> list[float]:
        return [poll for poll, polled in zip(self.polls, self.polled) if polled == task_id]

    @property
    def gaps(self) -> list[float]:
        return [round(later - earlier, 2) for earlier, later in pairwise(self.polls)]


def poller_of(rh: RunningHub, **options: Any) -> Poller:
    return Poller(rh.query, clock=clock, **({"shortest": 2.0, "grace": GRACE} | options))


def waits(poller: Poller, *task_ids: object, **options: Any) -> list[asyncio.Task[TaskView | None]]:
    return [asyncio.create_task(poller.wait(str(task_id), **options)) for task_id in task_ids]


NOT_FOUND = TaskNotFound("no such task", code="807")


def ends_after(rh: RunningHub, seconds: float, *task_ids: object) -> None:
    for task_id in task_ids:
        asyncio.get_running_loop().call_later(seconds, rh.answer_with, str(task_id), SUCCESS)


async def test_each_change_of_a_task_is_reported_once() -> None:
    seen: list[TaskView] = []
    rh = RunningHub(QUEUED, QUEUED, RUNNING, RUNNING, SUCCESS)
    poller = poller_of(rh)
    both = await asyncio.gather(poller.wait("1", on_change=seen.append), poller.wait("1"))
    assert list(both) == [SUCCESS, SUCCESS]
    assert [one.status for one in seen] == ["QUEUED", "RUNNING", "SUCCESS"]
    assert len(rh.polls) == 5, "two waiters share them"


@pytest.mark.parametrize("status", ["FAILED", "CANCELLED"])
async def test_failed_and_cancelled_tasks_end_the_wait(status: str) -> None:
    assert await poller_of(RunningHub(RUNNING, view(status))).wait("1") == view(status)
    assert now() == pytest.approx(3.0, abs=0.1)


async def test_a_task_is_polled_without_a_deadline_and_the_gap_grows_with_its_age_up_to_a_limit() -> None:
    rh = RunningHub(RUNNING)
    ends_after(rh, 24 * HOUR, 1)
    assert await poller_of(rh).wait("1") == SUCCESS
    assert rh.gaps[19:22] == [2.0, 2.05, 2.15], "it is 41 s old at the 21st poll"
    assert rh.gaps == sorted(rh.gaps)
    assert rh.gaps[-1] == LONGEST_GAP
    assert now() - 24 * HOUR <= LONGEST_GAP


async def test_a_task_that_takes_longer_than_the_last_ones_is_polled_often_at_first() -> None:
    rh = RunningHub(RUNNING, RUNNING, RUNNING, SUCCESS)
    poller = poller_of(rh, shortest=1.5)
    for n in range(5):  # each is found at 5.5 s and ran at 4 s, so that it counts as one of 4.75 s
        await poller.wait(str(n))
    for task_id in ("longer", "other"):
        rh.answer_with(task_id, RUNNING)
    began = now()
    waits(poller, "longer")
    ends_after(rh, 4.6, "other")
    asyncio.get_running_loop().call_later(4.7, poller.wake, "other")
    await poller.wait("other")
    await asyncio.sleep(3.3)
    ages = [round(poll - began, 2) for poll in rh.polls_of("longer")]
    assert ages == [1.5, 3.0, 4.5, 4.79, 5.16, 5.54, 5.91, 6.29, 6.67, 7.15, 7.75], "the end of another changes nothing"


async def test_once_five_durations_are_known_a_longer_task_is_polled_often() -> None:
    rh = RunningHub(RUNNING)
    poller = poller_of(rh)
    ends_after(rh, 6.9, *range(5))
    await asyncio.gather(*waits(poller, *range(6))[:5])
    assert now() == pytest.approx(8.53, abs=0.01)
    await asyncio.sleep(1.0)
    assert [round(poll, 2) for poll in rh.polls_of("5")] == [2.82, 4.82, 6.82, 8.53, 9.16]


async def test_100_tasks_need_one_loop_and_16_requests_in_flight() -> None:
    rh = RunningHub(RUNNING, RUNNING, SUCCESS, takes=0.5)
    waiting = waits(poller_of(rh), *range(100))
    await asyncio.sleep(1.2)
    assert len([task for task in asyncio.all_tasks() if "Poller._run" in repr(task)]) == 1
    ended = await asyncio.gather(*waiting)
    assert {one.task_id for one in ended if one is not None} == set(map(str, range(100)))
    assert (rh.most_in_flight, len(rh.polls)) == (16, 300)


@pytest.mark.parametrize(
    "blip",
    [
        ResponseLost("no readable answer (HTTP 502, HTML)"),
        ConnectFailed("no connection"),
        Busy("too many requests", code="1003"),
        RuntimeError("a defect of our own"),
    ],
    ids=repr,
)
async def test_failed_polls_only_cause_a_delay_that_grows(blip: Exception) -> None:
    rh = RunningHub(*[blip] * 200, SUCCESS)
    assert await poller_of(rh).wait("1") == SUCCESS
    assert rh.gaps[:3] == [4.0, 6.0, 8.0]
    assert max(rh.gaps) == LONGEST_GAP


DENIALS = pytest.mark.parametrize(
    "denial",
    [
        NOT_FOUND,
        *(KeyRejected("the key is unknown or disabled", code=code) for code in ("412", "401", "802")),
        AccountError("free accounts cannot use the API", code="801"),
    ],
    ids=lambda denial: denial.code,
)


@DENIALS
async def test_a_repeated_denial_ends_the_wait_after_the_grace_time(denial: Exception) -> None:
    rh = RunningHub(denial)
    with pytest.raises(type(denial)):
        await poller_of(rh).wait("1")
    assert GRACE <= now() <= GRACE + LONGEST_GAP
    assert len(rh.polls) < 40
    rh.answer_with("1", SUCCESS)
    assert await poller_of(rh).wait("1") == SUCCESS


@DENIALS
async def test_a_denial_that_is_not_repeated_only_causes_a_delay(denial: Exception) -> None:
    """One 1004, 807, 412, 401 or 802 in a poll fails no job, even if there was another one an hour before."""
    rh = RunningHub(denial, *[RUNNING] * 200, *[denial] * 3, RUNNING, SUCCESS)
    assert await poller_of(rh).wait("1") == SUCCESS


async def test_without_grace_time_a_denial_must_be_repeated_three_times() -> None:
    rh = RunningHub(NOT_FOUND)
    with pytest.raises(TaskNotFound):
        await poller_of(rh, grace=0).wait("1")
    assert len(rh.polls) == 3


async def test_a_query_of_an_unknown_task_is_repeated_twice() -> None:
    rh = RunningHub(NOT_FOUND, NOT_FOUND, RUNNING)
    assert await query_repeatedly(rh.query, "1") == RUNNING
    assert rh.gaps == [1.0, 1.0]
    rh = RunningHub(NOT_FOUND)
    with pytest.raises(TaskNotFound):
        await query_repeatedly(rh.query, "1")
    assert len(rh.polls) == 3


async def test_an_unknown_task_with_a_recorded_end_has_ended() -> None:
    """RunningHub deletes a graph that is cancelled in the queue; its recorded end counts."""

    async def is_recorded() -> bool:
        return now() >= HOUR

    rh = RunningHub(QUEUED)
    asyncio.get_running_loop().call_later(HOUR, rh.answer_with, "1", NOT_FOUND)
    assert await poller_of(rh).wait("1", is_recorded=is_recorded) is None
    assert HOUR <= now() <= HOUR + LONGEST_GAP


async def test_a_notification_during_a_poll_causes_another_poll() -> None:
    rh = RunningHub(RUNNING, takes=0.5)
    poller = poller_of(rh)
    (wait,) = waits(poller, 1)
    await asyncio.sleep(HOUR)
    await rh.polled_after(now())
    began = now()
    poller.wake("1")
    rh.answer_with("1", RUNNING, SUCCESS)
    assert await wait == SUCCESS
    assert now() - began < 1.5
    assert rh.most_in_flight == 1


@pytest.mark.parametrize("leaver_listens", [True, False])
@pytest.mark.parametrize("stayer_listens", [True, False])
async def test_a_cancelled_waiter_does_not_affect_another(leaver_listens: bool, stayer_listens: bool) -> None:
    seen, seen_by_leaver = list[TaskView](), list[TaskView]()
    rh = RunningHub(RUNNING)
    poller = poller_of(rh)
    (leaver,) = waits(poller, 1, on_change=seen_by_leaver.append if leaver_listens else None)
    (stayer,) = waits(poller, 1, on_change=seen.append if stayer_listens else None)
    await asyncio.sleep(60)
    leaver.cancel()
    await asyncio.sleep(60)
    rh.answer_with("1", SUCCESS)
    assert await stayer == SUCCESS
    assert seen == [RUNNING, SUCCESS] * stayer_listens
    assert seen_by_leaver == [RUNNING] * leaver_listens


async def test_a_waiter_cancelled_during_the_last_poll_leaves_no_asyncio_task_and_no_error() -> None:
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    rh = RunningHub(TaskNotFound("no such task", code="807"), takes=0.5)
    (wait,) = waits(poller_of(rh, grace=0), 1)
    while len(rh.polls) < 3:
        await rh.polled_after(now())
    wait.cancel()
    await asyncio.sleep(1.0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(rh.polls) == 3
    del rh, wait  # they refer to the error
    gc.collect()
    assert unseen == []


async def test_a_poll_is_referred_to_until_its_task_has_ended() -> None:
    answers: WeakSet[asyncio.Future[TaskView]] = WeakSet()
    polls: WeakSet[Any] = WeakSet()

    async def query(_: str) -> TaskView:
        answer: asyncio.Future[TaskView] = asyncio.get_running_loop().create_future()
        answers.add(answer)
        polls.add(asyncio.current_task())
        return await answer

    async def is_recorded() -> bool:
        return False

    released, poller = ref(is_recorded), Poller(query, clock=clock, shortest=2.0, grace=GRACE)
    wait = asyncio.create_task(poller.wait("1", is_recorded=is_recorded))
    del is_recorded
    await asyncio.sleep(2.0)
    gc.collect()
    answers.pop().set_result(SUCCESS)
    assert await wait == SUCCESS
    del wait
    await settle()
    gc.collect()
    assert (released(), len(polls)) == (None, 0)


async def test_a_success_without_outputs_that_is_taken_back_does_not_count_later() -> None:
    seen: list[TaskView] = []
    rh = RunningHub(EMPTY, *[RUNNING] * 200, EMPTY, EMPTY, SUCCESS)
    assert await poller_of(rh).wait("1", on_change=seen.append) == SUCCESS
    assert seen == [RUNNING, SUCCESS]
    assert max(rh.gaps[:150]) > 10, "a task that runs again is polled as any other"
    assert rh.gaps[-2:] == [2.0, 4.0]


ODD = TaskView(task_id="1", status="SUCCESS", outputs=(OUTPUT, RemoteOutput(url="/files/2.png", type="png")))


@pytest.mark.parametrize("view", [EMPTY, ODD])
async def test_a_success_without_usable_outputs_is_polled_for_minutes(view: TaskView) -> None:
    rh = RunningHub(view)
    assert await poller_of(rh).wait("1") == view
    assert not is_settled(view)
    assert GRACE <= now() <= GRACE + LONGEST_GAP
    assert len(rh.polls) < 40


async def test_a_listener_that_fails_does_not_end_the_wait() -> None:
    def fail(_: TaskView) -> None:
        raise LookupError

    assert await poller_of(RunningHub(RUNNING, SUCCESS)).wait("1", on_change=fail) == SUCCESS


class Account:
    """RunningHub with an account that counts its tasks, which end at given times."""

    def __init__(
        self, *, others: int = 0, never_counts_ends: bool = False, false_ends: int = 0, fails_from: float = math.inf
    ) -> None:
        self.rh = RunningHub(RUNNING)
        self.others = others
        self.never_counts_ends = never_counts_ends
        self.fails_from = fails_from
        self.counts: list[float] = []
        self.ended = {f"another-{n}" for n in range(false_ends)}
        self._noticed: set[str] = set()

    async def count(self, watched: int) -> Count | None:
        self.counts.append(now())
        if now() >= self.fails_from:
            raise RuntimeError("a defect of our own")
        missing = 0 if self.never_counts_ends else len(self.ended - self._noticed)
        return Count(missing=missing, others=self.others)

    def end_after(self, seconds: float, *task_ids: object) -> None:
        ends_after(self.rh, seconds, *task_ids)
        for task_id in task_ids:
            asyncio.get_running_loop().call_later(seconds, self.ended.add, str(task_id))

    def poller(self) -> Poller:
        return poller_of(self.rh, count=self.count)

    async def late(self, poller: Poller, task_id: str, length: float) -> float:
        """Runs a task for so long; returns the delay with which its end was noticed."""
        began = now()
        self.end_after(length, task_id)
        await poller.wait(task_id)
        self._noticed.add(task_id)
        return now() - began - length

    async def lateness(self, lengths: list[float]) -> list[float]:
        """Runs tasks of these durations concurrently."""
        poller = self.poller()
        return list(await asyncio.gather(*(self.late(poller, str(n), length) for n, length in enumerate(lengths))))


@pytest.mark.parametrize(
    ("facts", "lengths", "polls", "share"),
    [
        ({}, [6.0] * 30 + [40.0 + n for n in range(15)] + [180.0 + n for n in range(5)], 2000, 0.1),
        ({}, [60.0] * 50, 8 * 50, 0.03),
        ({}, [6.0] * 20 + [1200.0], 20 * 8 + 100, 0.1),
        ({"others": 5, "never_counts_ends": True}, [60.0 + n for n in range(20)], 800, 0.1),
        ({"false_ends": 20}, [60.0 + n for n in range(20)], 800, 0.1),
        ({"fails_from": 0.0}, [60.0 + n for n in range(20)], 800, 0.1),
        ({"fails_from": 100.0}, [140.0 + n for n in range(20)], 800, 0.1),
    ],
    ids=["usual", "equal", "one much longer", "shared account", "false counts", "no counts", "no counts later"],
)
async def test_every_end_is_noticed_within_a_tenth_of_the_duration_or_two_seconds(
    facts: dict[str, Any], lengths: list[float], polls: int, share: float
) -> None:
    account = Account(**facts)
    late = await account.lateness(lengths)
    assert all(one < max(2.0, share * length) for one, length in zip(late, lengths))
    assert len(account.rh.polls) < polls


@pytest.mark.parametrize(
    ("tasks", "age", "others", "ended", "gap"),
    [
        (20, 598.0, 0, 0, 15.0),
        (20, 598.0, 5, 0, 15.0),
        (2, 98.0, 0, 0, 3.0),
        (2, 98.0, 0, 1, 0.75),
        (2, 8.0, 0, 0, 2.0),
        (60, 4.0, 0, 0, 1 / 6),
    ],
    ids=str,
)
async def test_the_time_between_counts_is_that_of_the_ends_within_limits(
    tasks: int, age: float, others: int, ended: int, gap: float
) -> None:
    """Four counts an end, at least one in 3 % of the youngest task's age, and at most twelve in two seconds.

    While an ended task is searched, counts are four times as frequent.
    """
    account = Account(others=others, false_ends=ended)
    waits(account.poller(), *range(tasks), age=age)
    await asyncio.sleep(2.0 + 1.5 * gap)
    assert account.counts == pytest.approx([2.0, 2.0 + gap], abs=0.01)


async def test_a_search_for_an_ended_task_polls_each_task_once_and_counts_more_often_meanwhile() -> None:
    account = Account()
    poller = account.poller()
    waits(poller, *range(20), age=600.0)
    await asyncio.sleep(60)
    usual = account.counts[-1] - account.counts[-2]
    poller.wake("0")
    await settle()
    account.counts.clear()
    account.rh.polled.clear()
    account.ended.add("never found")
    while len(account.rh.polled) < 20:  # noqa: ASYNC110 - nothing else tells it
        await asyncio.sleep(0.05)
    assert account.counts[1] - account.counts[0] == pytest.approx(usual / 4, rel=0.1)
    assert len(account.counts) == 10, "two are polled after each count"
    assert account.rh.polled == [*map(str, range(1, 20)), "0"], "the one that was polled last comes last"
    account.counts.clear()
    while len(account.counts) < 3:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.05)
    assert account.counts[2] - account.counts[1] == pytest.approx(usual, rel=0.25)
    assert len(account.rh.polled) == 20


async def test_tasks_of_others_delay_the_ends_of_short_tasks_by_half_a_second() -> None:
    """The first ends, of which no duration is known, and the later ones, some of which take longer than any before."""
    lengths = [6.0 + 0.02 * (37 * n % 60) for n in range(75)]
    account = Account(others=25, never_counts_ends=True)
    poller, late = account.poller(), list[float]()

    async def in_a_slot() -> None:
        while lengths:
            length, task_id = lengths.pop(), str(len(lengths))
            late.append(await account.late(poller, task_id, length))

    await asyncio.gather(*(in_a_slot() for _ in range(25)))
    assert len(late) == 75
    assert sum(late) / len(late) < 0.5
    assert max(late) < 1.5
    assert len(account.rh.polls) < 5 * 75


async def test_after_the_end_of_a_search_the_next_ended_task_is_searched() -> None:
    account = Account()
    following, first, _ = waits(account.poller(), "next", "first", "last", age=600.0)
    await asyncio.sleep(40)
    # The search for the first one has polled the next one while it ran.
    for task_id, wait in (("first", first), ("next", following)):
        account.ended = {task_id}
        account.rh.answer_with(task_id, SUCCESS)
        began = now()
        await wait
    assert now() - began < 6


async def test_a_count_that_never_shows_an_end_only_causes_a_delay() -> None:
    account = Account(never_counts_ends=True)
    waiting = waits(account.poller(), 0, 1, age=600.0)
    await asyncio.sleep(200)
    account.rh.answer_with("0", SUCCESS)
    await waiting[0]
    assert account.rh.polls_of("0") == pytest.approx([1.0, 31.0, 151.0, 271.0], abs=0.1)


async def test_an_end_is_estimated_between_the_last_count_that_shows_the_task_and_the_poll() -> None:
    account = Account()
    poller = account.poller()
    account.end_after(100.0, *range(5))
    await asyncio.gather(*waits(poller, *range(5)))
    duration = (max(count for count in account.counts if count < 100.0) + now()) / 2
    account.ended.clear()
    began = now()
    waits(poller, "a", "b")
    await account.rh.polled_after(began)
    assert now() - began == pytest.approx(1.008 * duration, abs=0.05)


async def test_a_single_task_is_polled_and_not_counted() -> None:
    one, two = Account(), Account()
    await one.lateness([600.0])
    await two.lateness([600.0, 600.0])
    assert not one.counts
    assert len(two.counts) > 20


async def test_after_the_last_waiter_is_cancelled_nothing_is_polled_or_counted_until_the_next_wait() -> None:
    account = Account()
    poller = account.poller()
    waiting = waits(poller, 1, 1, 2)
    await asyncio.sleep(60)
    for wait in waiting:
        wait.cancel()
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    requests = len(account.counts), len(account.rh.polls)
    await asyncio.sleep(HOUR)
    assert (len(account.counts), len(account.rh.polls)) == requests
    account.rh.answer_with("1", SUCCESS)
    assert await poller.wait("1") == SUCCESS


def test_the_estimate_is_the_median_of_the_longer_durations_of_the_last_200() -> None:
    durations = DurationHistory()
    for seconds in [6.0] * 4:
        durations.note(seconds)
    assert (durations.estimate(0.0), durations.overdue(7.0)) == (None, None)
    durations.note(6.0)
    assert durations.estimate(0.0) == pytest.approx(6.0 * 1.008)
    for seconds in [6.0] * 95 + [40.0] * 60 + [180.0] * 40:
        durations.note(seconds)
    median = [durations.estimate(age) for age in (0.0, 6.2, 41.0, 181.0)]
    assert median == pytest.approx([40.0 * 1.008, 40.0 * 1.008, 180.0 * 1.008, None])
    assert [durations.overdue(age) for age in (6.2, 180.0, 190.0)] == [None, 0.0, 10.0]
    for _ in range(195):
        durations.note(6.0)
    assert durations.estimate(6.2) == pytest.approx(180.0 * 1.008)
    durations.note(6.0)
    assert durations.estimate(6.2) is None


class Notified(RunningHub):
    """Tasks that end at given times, a journal in which their ends are recorded, and a poller with webhooks."""

    def __init__(self, *, shortest: float = 2.0, count: Any = None, **ends: float) -> None:
        super().__init__(RUNNING)
        self.ends = ends
        self.recorded: set[str] = set()
        self.broken = False
        self.poller = poller_of(self, shortest=shortest, count=count)
        self.poller.set_receiving(is_on=True)
        for name, end in ends.items():
            ends_after(self, end, name)

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
async def test_a_notified_end_is_queried_unless_it_is_recorded(recorded: bool, broken: bool, is_queried: bool) -> None:
    tasks = Notified(a=40)
    tasks.broken = broken
    waiting = tasks.wait("a")
    await tasks.notify("a", recorded=recorded)
    ended = await waiting
    assert (ended is not None and ended.is_terminal, len(tasks.polls)) == (is_queried, is_queried)
    assert round(now()) == 40


async def test_polls_are_rare_with_webhooks_and_a_false_notification_ends_no_task() -> None:
    tasks = Notified(a=1000)
    waiting = tasks.wait("a")
    await asyncio.sleep(10)
    tasks.poller.wake("a")
    assert await waiting == view("SUCCESS", "a")
    assert round(tasks.polls[0], 1) == 10.0
    assert set(map(round, tasks.gaps)) == {240}


async def test_three_missed_notifications_make_polls_frequent_until_one_arrives() -> None:
    tasks = Notified(a=6, b=6, c=6, d=90, e=200, f=200, g=350, h=600)
    asyncio.get_running_loop().call_later(100.0, tasks.poller.wake, "another")
    *first, d, e, f, g, h = await asyncio.gather(*map(tasks.found, tasks.ends))
    assert first == pytest.approx([60.0] * 3, abs=0.1)
    assert d < 100, "three were missed"
    assert 300 < e < 350 and 300 < f < 350, "one has arrived since"
    assert g > 500, "two were missed"
    assert h < 650, "three were missed"


async def test_notified_ends_are_not_missed_ones() -> None:
    tasks = Notified(a=10, b=20, c=30, last=70)
    found = [asyncio.create_task(tasks.found(name)) for name in tasks.ends]
    for name in "abc":
        await tasks.notify(name, recorded=False)
    assert await found[-1] == pytest.approx(300.0, abs=0.1)


@pytest.mark.parametrize(("shortest", "times"), [(0.5, [15.0, 75.0]), (10.0, [60.0, 300.0])])
async def test_the_time_between_polls_with_webhooks_is_limited(shortest: float, times: list[float]) -> None:
    tasks = Notified(shortest=shortest, a=times[0] + 1)
    await tasks.wait("a")
    assert tasks.polls == pytest.approx(times, abs=0.1)


async def test_tasks_are_counted_only_while_webhooks_do_not_report_their_ends() -> None:
    counted = list[float]()

    async def count(running: int) -> Count:
        assert running > 1
        counted.append(now())
        return Count(missing=0, others=0)

    tasks = Notified(count=count, a=6, b=6, c=6, d=1000, e=1000)
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


async def test_polls_are_frequent_while_no_notifications_are_received() -> None:
    tasks = Notified(a=100, b=100)
    waiting = [tasks.wait("a"), tasks.wait("b")]
    await asyncio.sleep(61)
    tasks.poller.set_receiving(is_on=False)
    await asyncio.gather(*waiting)
    assert tasks.polls[2] == pytest.approx(63.05, abs=0.1), "a twentieth of its age after the last one"
    assert now() <= 105
    began, quick = now(), RunningHub(RUNNING)
    ends_after(quick, 1, "a")
    await poller_of(quick).wait("a", has_webhook=True)
    assert quick.polls[0] - began < 1.5


async def test_an_end_that_was_notified_before_the_wait_is_queried_immediately() -> None:
    tasks = Notified(a=0)
    tasks.recorded.add("a")
    tasks.poller.wake("a")
    assert await tasks.wait("a") is None
    assert now() < 0.1


async def test_the_last_4096_notifications_are_stored() -> None:
    tasks = Notified(a=0, b=0)
    for name in ("a", "b", *map(str, range(4095))):
        tasks.poller.wake(name)
    waiting: list[Any] = [tasks.wait("a"), tasks.wait("b")]
    await settle()
    assert [wait.done() for wait in waiting] == [False, True]
    await waiting[0]


async def test_an_end_without_a_notification_is_found_soon_where_polls_are_frequent() -> None:
    alone, failing, often = Notified(a=10), Notified(a=61), Notified(a=100)
    failing.answer_with("a", ResponseLost("lost"), RUNNING)
    asyncio.get_running_loop().call_later(80, often.poller.poll_often, "a")
    often.poller.poll_often("another")
    waiting = failing.wait("a"), often.wait("a")
    await alone.poller.wait("a")
    assert now() <= 12, "it has no webhook"
    await waiting[0]
    assert now() < 61 + 20, "a failed poll is repeated soon"
    await waiting[1]
    assert now() < 106, "its run was cancelled"


async def test_an_end_during_a_disconnection_is_found_soon_after_it() -> None:
    tasks = Notified(a=5, b=500)
    waiting = [tasks.wait("a"), tasks.wait("b")]
    tasks.poller.set_receiving(is_on=False)
    await asyncio.sleep(6)
    tasks.poller.set_receiving(is_on=True)
    await waiting[0]
    assert now() < 8
    await waiting[1]
    assert len(tasks.polls) <= 10
