"""Which job each call of an attempt has: recorded calls, matches and refusals."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import pytest

from rh_prefect.errors import AmbiguousCall, JournalError
from rh_prefect.works.journal.call_assignment import Caller, CallJob, CallRegistry, Try
from rh_prefect.works.journal.identity import Address, Place, Step, job_key, other_job_key
from rh_prefect.works.journal.process_identity import current_owner
from rh_prefect.works.journal.record_types import CallRecord, Record
from tests.support.each_case import each_case
from tests.support.world.job_records import SOMEWHERE_ELSE, intent, write
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace

REQUEST = "0123456789ab"


def at(number: int = 1, name: str = "shot", **arguments: str) -> Address:
    """The call in the n-th run of a task."""
    place = Place(in_order=True, given="g", number=number)
    return Address(steps=(Step(name=name, place=place, arguments=arguments),), place=Place(in_order=True))


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal(MemoryPlace(), "run")


async def find(
    calls: CallRegistry, journal: MemoryJournal, caller: Caller, *, attempt: int = 1, is_empty: bool = False
) -> CallJob:
    return await calls.find(REQUEST, caller, journal=journal, attempt=attempt, is_empty=is_empty)


async def recorded(journal: MemoryJournal) -> dict[str, CallRecord]:
    records = await journal.request(REQUEST)
    return {key: CallRecord.model_validate(one) for key, one in records.items() if key.endswith("-call-1")}


@pytest.mark.parametrize(
    ("mine", "theirs", "repeats"),
    [
        ([], [], False),
        ([Try("a", 1)], [Try("a", 1)], False),
        ([Try("a", 2)], [Try("a", 1)], True),
        ([Try("b", 2)], [Try("a", 1)], False),
        ([Try("a", 1), Try("b", 2)], [Try("a", 1), Try("b", 1)], True),
        ([], [Try("a", 1)], False),
    ],
)
def test_whether_a_call_repeats_one_of_an_earlier_try_of_its_task_run(
    mine: list[Try], theirs: list[Try], repeats: bool
) -> None:
    assert Caller(tries=tuple(mine)).repeats(Caller(tries=tuple(theirs))) == repeats


async def test_the_first_call_of_a_request_is_new_and_is_not_recorded_yet(journal: MemoryJournal) -> None:
    found = await find(CallRegistry(), journal, Caller(at(1)), is_empty=True)
    assert found == CallJob(job_key(REQUEST, at(1).digest), is_new=True, order=1)
    assert await recorded(journal) == {}


async def test_two_calls_of_a_request_are_recorded_in_their_order(journal: MemoryJournal) -> None:
    calls = CallRegistry()
    keys = [(await find(calls, journal, Caller(at(n), version="v"), attempt=3)).key for n in (1, 2, 3)]
    records = await recorded(journal)
    assert list(records) == [f"{key}-call-1" for key in keys]
    assert [(one.order, one.attempt, one.version) for one in records.values()] == [(n, 3, "v") for n in (1, 2, 3)]
    assert [one.address for one in records.values()] == [at(n) for n in (1, 2, 3)]
    assert all(one.owner == current_owner() and not one.is_detached for one in records.values())


async def test_a_call_waits_until_the_calls_before_it_are_recorded(journal: MemoryJournal) -> None:
    class FailsOnce(MemoryJournal):
        has_failed = False

        async def create(self, key: str, record: Mapping[str, Any]) -> bool:
            await asyncio.sleep(0)
            if not self.has_failed:
                self.has_failed = True
                raise JournalError("not recorded")
            return await super().create(key, record)

    calls, failing = CallRegistry(), FailsOnce(journal.place, "run")
    made = (find(calls, failing, Caller(at(n)), is_empty=True) for n in (1, 2, 3))
    first, *others = await asyncio.gather(*made, return_exceptions=True)
    assert isinstance(first, CallJob)
    assert [type(one) for one in others] == [JournalError, JournalError]
    await find(calls, failing, Caller(at(4)))
    assert {one.order for one in (await recorded(journal)).values()} == {1, 2, 3, 4}


async def test_a_call_of_a_partial_run_is_recorded_immediately(journal: MemoryJournal) -> None:
    await find(CallRegistry(), journal, Caller(at(1), is_detached=True), is_empty=True)
    assert [one.is_detached for one in (await recorded(journal)).values()] == [True]


async def test_a_resumed_run_finds_each_call_and_its_order(journal: MemoryJournal) -> None:
    first = CallRegistry()
    made = {n: await find(first, journal, Caller(at(n))) for n in (1, 2, 3)}
    second = CallRegistry()
    for n in (3, 1, 2):
        found = await find(second, journal, Caller(at(n)), attempt=2)
        assert found == CallJob(made[n].key, is_new=False, order=n)


async def test_a_call_that_only_an_intent_records_is_found(journal: MemoryJournal) -> None:
    key = job_key(REQUEST, at(1).digest)
    records: dict[str, Record] = {
        "intent-1": intent(address=at(1), order=4),
        "intent-2": intent(address=at(2), order=9),
    }
    await write(journal, records, key=key)
    assert await find(CallRegistry(), journal, Caller(at(1)), attempt=2) == CallJob(key, order=4)


async def test_the_call_record_has_priority_over_the_intent(journal: MemoryJournal) -> None:
    key = job_key(REQUEST, at(1).digest)
    call = CallRecord(owner=current_owner(), address=at(2), order=5)
    await write(journal, {"intent-1": intent(address=at(1)), "call-1": call}, key=key)
    assert await find(CallRegistry(), journal, Caller(at(2)), attempt=2) == CallJob(key, order=5)


async def test_the_journal_is_read_once_and_an_empty_one_is_not_read(journal: MemoryJournal) -> None:
    class Counted(MemoryJournal):
        reads = 0

        async def request(self, prefix: str) -> dict[str, dict[str, Any]]:
            self.reads += 1
            return await super().request(prefix)

    counted = Counted(journal.place, "run")
    for is_empty, reads in ((True, 0), (False, 1)):
        counted.reads, calls = 0, CallRegistry()
        for n in (1, 2):
            await find(calls, counted, Caller(at(n)), is_empty=is_empty)
        assert counted.reads == reads


async def test_a_second_call_at_one_address_is_refused_but_not_a_retry(journal: MemoryJournal) -> None:
    calls = CallRegistry()
    caller = Caller(at(1), tries=(Try("task", 1),))
    found = await find(calls, journal, caller)
    with pytest.raises(AmbiguousCall, match=r"run/0123456789ab: two calls.*made at \[shot #1 > call #1\]"):
        await find(calls, journal, caller)
    again = await find(calls, journal, Caller(at(1), tries=(Try("task", 2),)))
    assert (again.key, again.is_new) == (found.key, False)


async def test_an_ambiguous_call_is_refused_with_the_possible_decisions(journal: MemoryJournal) -> None:
    calls = CallRegistry()
    for n in (1, 2):
        await find(calls, journal, Caller(at(n), version="1"))
    wrapped = Address(steps=(Step(name="helper", place=Place(in_order=True)), *at(1).steps), place=at(1).place)
    with pytest.raises(AmbiguousCall, match=r"may be the call that was paid for at \[shot #[12] > call #1\]"):
        await find(CallRegistry(), journal, Caller(wrapped, version="2"), attempt=2)
    new = await find(CallRegistry(), journal, Caller(wrapped, version="2", equal="new"), attempt=2)
    assert (new.is_new, new.order) == (True, 3)
    assert "the flow's source has changed" in new.note and "the 2 identical calls" in new.note


async def test_only_a_moved_call_is_logged(journal: MemoryJournal) -> None:
    made = await find(CallRegistry(), journal, Caller(at(1, at="10:00"), is_detached=True))
    assert made.note == ""
    moved = await find(CallRegistry(), journal, Caller(at(1, at="10:05"), version="2"), attempt=2)
    assert (moved.key, moved.is_new) == (made.key, False)
    assert "was called at [shot #1 > call #1] and is now called at [shot #1 > call #1]" in moved.note
    same = await find(CallRegistry(), journal, Caller(at(1, at="10:00")), attempt=2)
    assert (same.key, same.note) == (made.key, "")


async def test_a_new_call_at_the_address_of_a_moved_job_has_its_own_key(journal: MemoryJournal) -> None:
    digest = at(1, x="1").digest
    for key, number in ((job_key(REQUEST, digest), 7), (other_job_key(REQUEST, digest, 1), 8)):
        call = CallRecord(owner=current_owner(), address=at(number, x="other"))
        await write(journal, {"call-1": call}, key=key)
    found = await find(CallRegistry(), journal, Caller(at(1, x="1")), attempt=2)
    assert found == CallJob(other_job_key(REQUEST, digest, 2), is_new=True, order=3)


@pytest.mark.parametrize(
    ("recorded_as", "caller_is_detached", "attempt", "owner", "moves"),
    [
        (True, False, 1, SOMEWHERE_ELSE, False),
        (False, True, 1, SOMEWHERE_ELSE, False),
        (True, True, 1, current_owner(), True),
        (True, False, 2, SOMEWHERE_ELSE, True),
        (False, False, 1, SOMEWHERE_ELSE, True),
    ],
)
async def test_a_call_of_another_process_of_the_attempt_is_not_moved(
    journal: MemoryJournal, recorded_as: bool, caller_is_detached: bool, attempt: int, owner: Any, moves: bool
) -> None:
    call = CallRecord(owner=owner, address=at(1, x="1"), attempt=1, is_detached=recorded_as)
    await write(journal, {"call-1": call}, key=f"{REQUEST}{'a' * 12}")
    caller = Caller(at(1, x="2"), version="2", is_detached=caller_is_detached)
    found = await find(CallRegistry(), journal, caller, attempt=attempt)
    assert found.is_new == (not moves)


class ComparesWithAll(CallRegistry):
    """Compares each call with all records."""

    def _quick_match(self, calls: object, caller: Caller, digest: str) -> None:
        return None


async def test_a_call_found_by_its_address_alone_is_the_one_that_comparing_finds() -> None:
    """Random calls with retries, child flows beside each other, and records of an earlier attempt and version."""
    with each_case() as case:
        for seed in range(300):
            with case(f"seed {seed}"):
                chance, places = random.Random(seed), (MemoryPlace(), MemoryPlace())
                for attempt in (1, 2, 3):
                    version = chance.choice(["v1", "v1", "v2"])
                    registries = (CallRegistry(), ComparesWithAll())
                    for _ in range(chance.randint(1, 8)):
                        caller = _random_caller(chance, version)
                        quick, thorough = [
                            await _outcome(registry, MemoryJournal(place, "run"), caller, attempt)
                            for registry, place in zip(registries, places, strict=True)
                        ]
                        assert quick == thorough


async def _outcome(calls: CallRegistry, journal: MemoryJournal, caller: Caller, attempt: int) -> CallJob | str:
    try:
        job = await find(calls, journal, caller, attempt=attempt)
    except AmbiguousCall as error:
        return error.message
    if job.is_new:
        submitted = intent(address=caller.address, version=caller.version, order=job.order)
        await write(journal, {"intent-1": submitted}, key=job.key)
    return job


def _random_caller(chance: random.Random, version: str) -> Caller:
    concurrent = chance.choice([0, 0, 1, 2])
    is_in_order, given = not concurrent and chance.random() < 0.7, chance.choice(["g", None])
    place = Place(in_order=is_in_order, given=given, number=chance.randint(1, 3), concurrent=concurrent)
    step = Step(name="shot", place=place, arguments=chance.choice([{}, {"x": "1"}, {"x": None}]))
    tries = tuple(Try(f"task-{n}", chance.choice([1, 1, 2])) for n in chance.sample(range(4), chance.randint(0, 2)))
    return Caller(Address(steps=(step,), place=Place(in_order=True)), tries, version=version)
