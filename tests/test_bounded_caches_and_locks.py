from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from rh_prefect.bounded_caches_and_locks import LruCache, LruSet, SharedTasks, SingleFlight, UsedObjects


def test_the_entry_that_was_used_least_recently_is_dropped() -> None:
    cache: LruCache[str, int] = LruCache(2)
    cache["a"], cache["b"] = 1, 2
    assert cache["a"] == 1
    cache["c"] = 3
    assert dict(cache) == {"a": 1, "c": 3}
    assert cache.get("a") == 1
    assert cache.setdefault("d", 4) == 4
    assert "c" not in cache


def test_a_missing_key_is_an_error() -> None:
    cache: LruCache[str, int] = LruCache(2)
    assert cache.pop("a") is cache.get("a") is None
    with pytest.raises(KeyError):
        cache["a"]
    cache["a"] = 1
    del cache["a"]
    assert list(cache) == []


def test_a_set_drops_what_was_added_least_recently() -> None:
    some: LruSet[str] = LruSet(2)
    for element in "abac":
        some.add(element)
    assert set(some) == {"a", "c"}


def test_an_object_that_is_used_is_found_after_it_was_dropped() -> None:
    class Thing: ...

    cache: UsedObjects[str, Thing] = UsedObjects(1)
    used = cache.setdefault("used", Thing())
    cache.setdefault("other", Thing())
    assert list(cache) == ["other"]
    assert cache.get("used") is used
    assert list(cache) == ["used"]
    assert cache.get("other") is None, "no one uses it"
    cache.pop("used")
    assert cache.setdefault("used", Thing()) is used
    cache.clear()
    assert cache.get("used") is None, "a forked child shares nothing with its parent"


def test_many_threads_may_use_one_cache() -> None:
    cache: LruCache[str, list[int]] = LruCache(8)

    def work(seed: int) -> None:
        for number in range(3000):
            key = str((number * seed) % 13)
            cache.setdefault(key, [])
            cache.get(key)
            cache.pop(str(number % 7), None)
            list(cache)

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, (1, 3, 5, 7)))
    assert len(cache) <= 8


class Answers:
    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def ask(self) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_who_ask_together_ask_once_and_the_answer_stays() -> None:
    flight, answers = SingleFlight[str, int](10), Answers(1)
    assert await asyncio.gather(*(flight.get("a", answers.ask) for _ in range(5))) == [1] * 5
    assert await flight.get("a", answers.ask) == 1
    assert answers.asked == 1


async def test_a_failure_is_that_of_all_who_wait_and_is_not_remembered() -> None:
    flight, answers = SingleFlight[str, int](10), Answers(ValueError("no"), 2)
    failed = await asyncio.gather(*(flight.get("a", answers.ask) for _ in range(3)), return_exceptions=True)
    assert [str(one) for one in failed] == ["no"] * 3
    assert await flight.get("a", answers.ask) == 2


async def test_a_caller_that_is_cancelled_leaves_the_answer_to_the_others() -> None:
    flight, answers = SingleFlight[str, int](10), Answers(1)
    first = asyncio.create_task(flight.get("a", answers.ask))
    second = asyncio.create_task(flight.get("a", answers.ask))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 1
    assert answers.asked == 1


async def test_answers_are_limited() -> None:
    flight, answers = SingleFlight[int, int](2), Answers(*range(5))
    for number in range(5):
        await flight.get(number, answers.ask)
    assert len(flight) == 2


async def test_an_answer_is_asked_for_again_when_it_is_too_old() -> None:
    now = [0.0]
    flight, answers = SingleFlight[str, int](10, seconds=60, clock=lambda: now[0]), Answers(1, 2)
    assert await flight.get("a", answers.ask) == 1
    now[0] = 59.0
    assert await flight.get("a", answers.ask) == 1
    now[0] = 60.0
    assert await flight.get("a", answers.ask) == 2


async def test_a_question_that_was_cancelled_is_asked_again() -> None:
    flight, never = SingleFlight[str, int](10), asyncio.Event()

    async def hangs() -> int:
        await never.wait()
        return 1

    first = asyncio.create_task(flight.get("a", hangs))
    await asyncio.sleep(0)
    (question,) = asyncio.all_tasks() - {first, asyncio.current_task()}
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await flight.get("a", Answers(2).ask) == 2


async def test_a_forked_child_keeps_nothing() -> None:
    flight = SingleFlight[str, int](10)
    assert await flight.get("a", Answers(1).ask) == 1
    flight.clear()
    assert await flight.get("a", Answers(2).ask) == 2


class Work:
    """A task of a `SharedTasks`, which ends when the test says so."""

    def __init__(self) -> None:
        self.began = 0
        self.cancelled = 0
        self.may_end = asyncio.Event()

    async def run(self) -> int:
        self.began += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.began


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_several_callers_share_one_task() -> None:
    shared, work = SharedTasks[str, int](), Work()
    callers = [asyncio.create_task(shared.run("a", work.run)) for _ in range(3)]
    await turns()
    work.may_end.set()
    assert await asyncio.gather(*callers) == [1, 1, 1]
    assert await shared.run("a", work.run) == 2, "a task that has ended is not remembered"


async def test_a_shared_task_is_cancelled_by_its_last_caller_only() -> None:
    shared, work = SharedTasks[str, int](), Work()
    first, second = (asyncio.create_task(shared.run("a", work.run)) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    assert work.cancelled == 0
    second.cancel()
    await turns()
    assert (work.began, work.cancelled) == (1, 1)
    work.may_end.set()
    assert await shared.run("a", work.run) == 2, "a task that is being cancelled is not joined"
