from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.errors import InputError
from rh_prefect.media.store import MediaStore
from rh_prefect.works import stored_result
from rh_prefect.works.journal.costs_and_budget import charge_of
from rh_prefect.works.journal.job_records_and_state import jobs_of, read_job, split_job
from rh_prefect.works.journal.journal import FolderJournal, UnreadableRecord
from rh_prefect.works.journal.record_types import (
    FORMAT_KEY,
    Answer,
    End,
    Lost,
    Record,
    Resolution,
    current_owner,
)
from rh_prefect.works.journal.scope import begin_scope
from rh_prefect.works.journal.spool import Spool, Spooled
from rh_prefect.works.manual_repair import adopt, mark_lost, mark_refused, orphans, recover, replay_spool
from rh_prefect.works.stored_result import StoredResult
from tests.support.world.job_records import BASE, KEY, SOMEWHERE_ELSE, TASK, dead_owner, intent, ticket, unknown, write

PAID = intent()
UNKNOWN = {"intent-1": PAID, "answer-1": unknown()}
SPOOLED = Spooled("run", KEY, 1, PAID.token, ticket())


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def test_a_job_s_name_is_split_at_its_last_slash() -> None:
    assert [split_job(name) for name in ("run/0a", "a/b/0a")] == [("run", "0a"), ("a/b", "0a")]


@pytest.mark.parametrize("name", ["", "run", "run/", "/0a", "/", "order-17/ABC", "order-17/0a-intent-1"])
def test_an_invalid_job_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="<run>/<key>"):
        split_job(name)


async def test_a_job_without_records_is_an_error(journal: FolderJournal) -> None:
    for work in (read_job(journal, KEY), adopt(journal, KEY, TASK), mark_refused(journal, KEY)):
        with pytest.raises(InputError, match=f"run/{KEY}: this job is not recorded"):
            await work


async def test_a_task_that_is_adopted_twice_for_its_job_is_no_other_jobs(journal: FolderJournal) -> None:
    """The message said that the task belongs to another job, and advised `mark-refused`."""
    await write(journal, UNKNOWN)
    await adopt(journal, KEY, TASK)
    for again in (adopt(journal, KEY, TASK), mark_refused(journal, KEY)):
        with pytest.raises(InputError, match=rf"unknown outcome \(its last task is {TASK}\)\. .* What to do: run the"):
            await again
    (adopted,) = (await read_job(journal, KEY)).submits
    assert (adopted.state, adopted.task_id) == ("ticket", TASK)


async def test_a_task_that_came_too_late_for_its_job_is_adopted_for_the_next_submission(journal: FolderJournal) -> None:
    late = {"intent-1": intent(), "answer-1": unknown(), "resolution-1": Resolution(outcome="forgotten")}
    await write(journal, {**late, "late-1": ticket(), "intent-2": intent(), "answer-2": unknown()})
    await adopt(journal, KEY, TASK)
    assert (await read_job(journal, KEY)).submits[1].task_id == TASK


async def test_one_task_cannot_be_adopted_for_two_jobs(journal: FolderJournal) -> None:
    await write(journal, UNKNOWN)
    await write(journal, {"intent-1": intent(), "answer-1": ticket()}, key="b1")
    with pytest.raises(InputError, match=rf"task {TASK} already belongs to run/b1.*jobs mark-refused run/{KEY}"):
        await adopt(journal, KEY, TASK)
    assert (await read_job(journal, KEY)).state == "unknown"
    paid = {"intent-1": intent(), "answer-1": ticket("5"), "end-1": End(status="FAILED", task_id="5")}
    await write(journal, {**paid, "intent-2": intent(), "answer-2": unknown()}, key="c1")
    with pytest.raises(InputError, match="task 5 already belongs to run/c1"):
        await adopt(journal, "c1", "5")
    late = {"intent-1": intent(), "answer-1": unknown(), "resolution-1": Resolution(outcome="forgotten")}
    await write(journal, {**late, "late-1": ticket("7")}, key="d1")
    with pytest.raises(InputError, match="task 7 already belongs to run/d1"):
        await adopt(journal, KEY, "7")
    await adopt(journal, KEY, f"{TASK}1")
    assert (await read_job(journal, KEY)).state == "ticket"


@pytest.mark.parametrize("is_answered", [True, False], ids=["unknown", "of a process that has ended"])
async def test_a_refused_mark_lets_the_next_run_pay(journal: FolderJournal, is_answered: bool) -> None:
    await write(journal, UNKNOWN if is_answered else {"intent-1": intent(owner=dead_owner())})
    await mark_refused(journal, KEY)
    view = await read_job(journal, KEY)
    assert (view.state, view.tickets) == ("forgotten", 0)


async def test_one_of_two_concurrent_resolutions_succeeds(journal: FolderJournal) -> None:
    await write(journal, UNKNOWN)
    both = await asyncio.gather(adopt(journal, KEY, TASK), mark_refused(journal, KEY), return_exceptions=True)
    assert sorted(type(one).__name__ for one in both) == ["InputError", "NoneType"]


LIVING, AWAY = {"intent-1": intent(owner=current_owner())}, {"intent-1": intent(owner=SOMEWHERE_ELSE)}
REFUSED = {"intent-1": PAID, "answer-1": Answer(outcome="refused", code="1501")}
FAILED, CANCELLED = (
    {"intent-1": PAID, "answer-1": ticket(), "end-1": End(status=status, task_id=TASK)}
    for status in ("FAILED", "CANCELLED")
)


@pytest.mark.parametrize(
    ("records", "act", "arguments", "said", "state"),
    [
        *((UNKNOWN, adopt, [one], "is not a task id", "unknown") for one in ("", "abc", "12 34", "-5", "1.5")),
        (REFUSED, mark_refused, [], "no submission with an unknown outcome", "refused"),
        *((one, mark_lost, [], "neither a running task nor a result", "ended") for one in (FAILED, CANCELLED)),
        *((one, mark_refused, [], "may still be in progress", "open") for one in (LIVING, AWAY)),
        *((one, adopt, [TASK], "may still be in progress", "open") for one in (LIVING, AWAY)),
    ],
)
async def test_what_a_person_cannot_settle_is_an_error_and_stays_as_it_is(
    journal: FolderJournal, records: Any, act: Any, arguments: list[str], said: str, state: str
) -> None:
    await write(journal, records)
    with pytest.raises(InputError, match=said):
        await act(journal, KEY, *arguments)
    assert (await read_job(journal, KEY)).state == state


@pytest.mark.parametrize("has_ended", [False, True], ids=["a task", "a result"])
async def test_what_is_lost_lets_the_next_run_pay_and_keeps_its_cost(journal: FolderJournal, has_ended: bool) -> None:
    end = {"end-1": End(status="SUCCESS", task_id=TASK, cost=Decimal("0.04"))}
    paid = {"intent-1": intent(estimate="9"), "answer-1": ticket()}
    await write(journal, paid | end if has_ended else paid)
    await mark_lost(journal, KEY)
    (lost,) = (await read_job(journal, KEY)).submits
    assert (lost.state, lost.may_be_paid) == ("forgotten", True)
    with pytest.raises(InputError, match="has neither a running task nor a result"):
        await mark_lost(journal, KEY)
    if not has_ended:
        await write(journal, end)
        (lost,) = (await read_job(journal, KEY)).submits
        assert lost.state == "ended", "it was found after all"
    charge = charge_of(lost)
    assert charge is not None
    assert str(charge.costs) == "0.04 CNY"


async def test_what_was_marked_as_lost_and_found_after_all_cannot_be_marked_again(journal: FolderJournal) -> None:
    """The command said that the next run would pay, and recorded nothing."""
    await write(journal, {"intent-1": intent(), "answer-1": ticket()})
    await mark_lost(journal, KEY)
    await write(journal, {"end-1": End(status="SUCCESS", task_id=TASK)})
    with pytest.raises(InputError, match=r"already marked as lost.*Nothing was recorded.*another `take`"):
        await mark_lost(journal, KEY)
    assert (await read_job(journal, KEY)).state == "ended"


async def test_only_the_last_submission_is_resolved(journal: FolderJournal) -> None:
    await write(journal, {**UNKNOWN, "resolution-1": Resolution(outcome="forgotten")})
    await write(journal, {"intent-2": intent(), "answer-2": unknown()})
    await adopt(journal, KEY, TASK)
    view = await read_job(journal, KEY)
    assert [submit.state for submit in view.submits] == ["forgotten", "ticket"]


@pytest.mark.parametrize("is_recorded", [False, True])
async def test_a_spooled_ticket_answers_its_submission(journal: FolderJournal, spool: Spool, is_recorded: bool) -> None:
    await write(journal, {"intent-1": PAID, **({"answer-1": ticket()} if is_recorded else {})})
    spool.put(SPOOLED)
    spool.put(Spooled("another", KEY, 1, PAID.token, ticket("9")))
    assert [one async for one in replay_spool(spool, journal)] == [(TASK, True)]
    assert (await read_job(journal, KEY)).state == "ticket"
    assert [entry.scope for entry in spool.entries()] == ["another"]


async def test_a_ticket_of_another_journal_stays_in_the_spool(tmp_path: Path, spool: Spool) -> None:
    """RH_RECORDS may name another place in which a scope of the same name has the same job."""
    here, there = (FolderJournal(str(tmp_path / name), scope="run") for name in ("here", "there"))
    paid = intent(owner=dead_owner())
    await write(here, {"intent-1": paid})
    await write(there, {"intent-1": intent(), "answer-1": ticket("9")})
    spool.put(Spooled("run", KEY, 1, paid.token, ticket()))
    empty = FolderJournal(str(tmp_path / "empty"), scope="run")
    for other in (there, empty):
        assert not [one async for one in replay_spool(spool, other)]
    assert await empty.job(KEY) == {}
    assert (await read_job(there, KEY)).submits[0].late is None
    assert [one async for one in replay_spool(spool, here)] == [(TASK, True)]
    assert list(spool.entries()) == []


async def test_a_ticket_of_a_forgotten_submission_is_recorded_and_logged(
    journal: FolderJournal, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    await write(journal, {**UNKNOWN, "resolution-1": Resolution(outcome="forgotten")})
    spool.put(SPOOLED)
    assert [one async for one in replay_spool(spool, journal)] == [(TASK, False)]
    late = await journal.read(f"{KEY}-late-1")
    assert late is not None
    assert late["task_id"] == TASK
    assert f"run/{KEY}: task {TASK} was paid for" in caplog.text


async def test_orphans_are_paid_jobs_that_were_not_requested(journal: FolderJournal) -> None:
    paid = {"intent-1": intent(), "answer-1": ticket(), "end-1": End(status="SUCCESS", task_id=TASK)}
    for key in ("a1", "b1"):
        await write(journal, paid, key=key)
    await write(journal, {"intent-1": intent(), "answer-1": Answer(outcome="refused")}, key="c1")
    await write(journal, UNKNOWN, key="d1")
    assert sorted([view.key async for view in jobs_of(journal)]) == ["a1", "b1", "c1", "d1"]
    assert [view.key async for view in orphans(journal, {"b1"}, attempt=2)] == ["a1"]
    before, after = [datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1)]
    of_this_start = [view async for view in orphans(journal, {"b1"}, attempt=1, since=before)]
    assert not of_this_start, "a worker process of this start has it"
    assert [view.key async for view in orphans(journal, {"b1"}, attempt=1, since=after)] == ["a1"]


def stored(store: MediaStore, **facts: Any) -> StoredResult:
    times = {"submitted_at": "2026-01-01T10:00:00.000+00:00", "ended_at": "2026-01-01T10:01:00.000+00:00"}
    costs = {"cost": Decimal("0.30"), "currency": "USD", "coins": Decimal(7), "queued_seconds": 1.0, "run_seconds": 2.0}
    known = {"job": f"run/{KEY}", "base": BASE, "task_id": TASK, "texts": ("one", "two"), **times, **costs, **facts}
    made = StoredResult(**intent(take=2, label="a pier", graph="g").requested, **known)
    stored_result.write(store, made)
    return made


async def test_records_are_restored_from_the_results_in_a_storage(tmp_path: Path) -> None:
    class Noting(FolderJournal):
        async def create(self, key: str, record: Mapping[str, Any]) -> bool:
            created.append(key.removeprefix(f"{KEY}-"))
            return await super().create(key, record)

    created, journal = list[str](), Noting(str(tmp_path / "journal"), scope="run")
    store = MediaStore(tmp_path / "out")
    result = stored(store)
    stored(store, job="other/key", base="c" * 40)
    assert await recover(journal, store) == [KEY]
    assert created == [FORMAT_KEY, "intent-1", "answer-1", "end-1"], "as a process that is killed leaves them"
    assert await recover(journal, store) == [KEY], "it may be said twice"
    (submit,) = (await read_job(journal, KEY)).submits
    found, answer, end = submit.intent, submit.answer, submit.end
    assert answer is not None and end is not None
    assert (found.requested, found.base, found.store) == (result.requested, BASE, store.url)
    assert (found.at, answer.at, end.at) == (result.submitted_at, result.submitted_at, result.ended_at)
    assert (found.owner, submit.n, answer.outcome, answer.task_id) == (current_owner(), 1, "ticket", TASK)
    assert (end.status, end.task_id, end.charged) == ("SUCCESS", TASK, result.charged)
    assert [link.text for link in end.links] == ["one", "two"]


FIRST = {"intent-1": intent(at="2026-01-01T09:00:00.000+00:00"), "answer-1": ticket("11")}
BUSY = FIRST | {"answer-1": Answer(outcome="refused", code="421", retry="throttled")}
FAILED_ONCE = FIRST | {"end-1": End(status="FAILED", task_id="11")}
LOST_ONCE = FIRST | {"end-1": End(status="SUCCESS", task_id="11"), "lost-1": Lost(of_result=True)}
SECOND = {"intent-2": intent(at="2026-01-01T10:00:00.000+00:00"), "answer-2": ticket()}
DONE = {"end-2": End(status="SUCCESS", task_id=TASK)}


@pytest.mark.parametrize("first", [BUSY, FAILED_ONCE, LOST_ONCE], ids=["refused", "failed", "lost"])
@pytest.mark.parametrize("second", [{}, SECOND, SECOND | DONE], ids=["missing", "without its end", "intact"])
async def test_the_records_of_a_later_submission_are_restored_under_its_number(
    journal: FolderJournal, tmp_path: Path, first: Mapping[str, Record], second: Mapping[str, Record]
) -> None:
    """A number that had records already got none, so that the run paid again; or its cost was counted twice."""
    store = MediaStore(tmp_path / "out")
    stored(store)
    earlier = {"submitted_at": "2026-01-01T09:00:00.000+00:00", "ended_at": "2026-01-01T09:01:00.000+00:00"}
    stored(store, task_id="11", **earlier)
    stored(store, task_id=f"{TASK}1", **earlier)
    await write(journal, {**first, **second})
    for _ in range(2):
        assert await recover(journal, store) == [KEY]
    one, two = (await read_job(journal, KEY)).submits
    assert set(await journal.job(KEY)) == {f"{KEY}-{name}" for name in {**first, **SECOND, **DONE}}
    assert (one.has_succeeded, one.state == "ended") == (first is LOST_ONCE, first is FAILED_ONCE)
    assert (two.state, two.has_succeeded, two.task_id) == ("ended", True, TASK)


async def test_a_job_with_an_unreadable_record_does_not_stop_the_restoration_of_the_others(
    journal: FolderJournal, tmp_path: Path
) -> None:
    store, damaged = MediaStore(tmp_path / "out"), ("a1", "c1")
    for task_id, key in enumerate(("a1", "b1", "c1", "d1")):
        await write(journal, FIRST, key=key)
        stored(store, job=f"run/{key}", task_id=str(task_id))
    for key in damaged:
        (tmp_path / f"journal/run/{key}/intent-2.json").write_text("")
    with pytest.raises(UnreadableRecord, match=r"These jobs were not restored: run/.*: 2 job") as found:
        await recover(journal, store)
    assert all(f"run/{key}/intent-2" in found.value.message for key in damaged)
    for key in ("b1", "d1"):
        assert (await read_job(journal, key)).tickets == 2


@pytest.mark.parametrize("lost", ["the format", "a work that runs share", "nothing", "nothing of an empty scope"])
async def test_a_scope_without_results_is_recovered_if_it_lacks_its_format(
    journal: FolderJournal, tmp_path: Path, lost: str
) -> None:
    store = MediaStore(tmp_path / "out")
    if lost != "nothing of an empty scope":
        await write(journal, UNKNOWN)
    if lost != "the format":
        stored(store, job="other/key", run={"flow_run": "run" if lost == "a work that runs share" else "other"})
    if lost == "nothing":
        await begin_scope(journal)
    if lost.startswith("nothing"):
        with pytest.raises(InputError, match="contains no result of run's jobs; nothing was recorded"):
            await recover(journal, store)
    else:
        assert await recover(journal, store) == []
        assert await journal.read(FORMAT_KEY) is not None
