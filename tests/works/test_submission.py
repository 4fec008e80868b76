"""Claim, POST and recorded answer of a submission, its machine's spool, and what other processes make of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.errors import ConnectFailed, InputError, JournalError, ResponseLost, api_error
from rh_prefect.works.journal.job_records_and_state import JobView, Submit
from rh_prefect.works.journal.record_types import GAVE_UP, NOT_DELIVERED, NOT_SENT, End
from rh_prefect.works.journal.spool import Spool, Spooled
from rh_prefect.works.lifecycle_steps import Steps
from rh_prefect.works.manual_repair import adopt, mark_refused
from tests.support.world.executed_work import QUEUED, ExecutedWork
from tests.support.world.job_records import TASK, dead_owner, intent, ticket, unknown, write
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace

KEY, GIVE_UP = "job", 30.0


@pytest.fixture
def place() -> MemoryPlace:
    return MemoryPlace()


@pytest.fixture
async def work(tmp_path: Path, place: MemoryPlace) -> ExecutedWork:
    return ExecutedWork(tmp_path, place=place)


@pytest.fixture
async def other(tmp_path: Path, place: MemoryPlace) -> ExecutedWork:
    """The same job in another process of the machine."""
    return ExecutedWork(tmp_path, place=place)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def fail_at(work: ExecutedWork, name: str, *, is_created: bool = False) -> None:
    """Has the creation of a record fail, before or after the journal has it."""

    async def fail(key: str, record: Mapping[str, Any]) -> None:
        if key.endswith(name):
            if is_created:
                await MemoryJournal.create(work.journal, key, record)
            raise JournalError("the place is away")

    work.journal.before_create = fail


def stop_before(work: ExecutedWork, key: str) -> Callable[..., Awaitable[None]]:
    """Stops the process for too long before an operation on a record whose key has this in it."""

    async def stop(of: str, *_: object) -> None:
        work.pauses.append(GIVE_UP + 1 if key in of else 0)

    return stop


async def submitted(work: ExecutedWork, *, stopped: float = 0.0) -> Submit:
    """Makes the first submission; the process is stopped for some seconds before the POST."""
    steps = Steps(work.work)
    await steps.note_claim(1)
    claimed = await steps.claim(1)
    assert claimed is not None
    work.pauses.append(stopped)
    return await steps.record_answer(claimed, 1, await steps.post(claimed, 1))


async def read(work: ExecutedWork) -> JobView:
    return await Steps(work.work).read()


async def watched(work: ExecutedWork) -> Submit:
    """Waits for the answer of another process; returns the submission then."""
    steps = Steps(work.work)
    await steps.watch((await steps.read()).submits[0])
    return (await steps.read()).submits[0]


def refusal(code: str, reason: str = "") -> Exception:
    return api_error(code, reason, doing="x", submitting=True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectFailed("no route"), ("refused", NOT_DELIVERED, "no route", "throttled")),
        (InputError("no JSON"), ("refused", NOT_SENT, "no JSON", "final")),
        (ResponseLost("read timeout"), ("unknown", "", "read timeout", "unknown")),
        (refusal("421"), ("refused", "421", "", "throttled")),
        (refusal("1501", "not that"), ("refused", "1501", "not that", "final")),
        (refusal("1014"), ("refused", "1014", "", "action_required")),
        (refusal("1000"), ("unknown", "1000", "", "unknown")),
        (refusal("9999"), ("unknown", "9999", "", "unknown")),
        (refusal("813"), ("unknown", "813", "", "pending")),
        (RuntimeError("a defect"), ("unknown", "", "RuntimeError: a defect", "unknown")),
    ],
)
async def test_each_outcome_of_a_post_is_recorded_as_an_answer(
    work: ExecutedWork, spool: Spool, error: Exception, expected: tuple[str, ...]
) -> None:
    work.main.answers = [error]
    answer = (await submitted(work)).answer
    assert answer is not None
    assert (answer.outcome, answer.code, answer.reason, answer.retry) == expected
    assert work.did.count("submit to main") == 1
    assert list(spool.entries()) == []


@pytest.mark.parametrize("where", ["in the claim", "after the claim", "while it reads whether its run was cancelled"])
async def test_a_process_that_was_stopped_between_note_and_post_does_not_post(work: ExecutedWork, where: str) -> None:
    """Others may watch the intent from when the journal has it, which can be long before this process is told."""
    if where == "in the claim":
        work.journal.before_create = stop_before(work, "-intent-")
    elif where != "after the claim":
        work.journal.before_read = stop_before(work, "cancel-")
    submit = await submitted(work, stopped=GIVE_UP + 1 if where == "after the claim" else 0)
    assert submit.answer is not None
    assert (submit.state, submit.answer.code) == ("refused", GAVE_UP)
    assert work.did == []


async def test_a_work_ends_if_its_cancellation_can_only_be_read_slowly(work: ExecutedWork) -> None:
    work.journal.before_read = stop_before(work, "cancel-")
    with pytest.raises(JournalError, match="5 consecutive tries"):
        await work.finish()
    assert "submit to main" not in work.did


async def test_a_ticket_stays_in_the_spool_while_the_journal_is_unavailable(
    work: ExecutedWork, other: ExecutedWork, spool: Spool
) -> None:
    fail_at(work, "answer-1")
    with pytest.raises(JournalError, match=f"task {TASK} is paid for.*jobs adopt run/{KEY} {TASK}"):
        await submitted(work)
    assert [entry.answer.task_id for entry in spool.entries()] == [TASK]
    assert (await read(other)).state == "ticket"
    assert list(spool.entries()) == []


async def test_a_refusal_that_cannot_be_recorded_is_no_paid_task(work: ExecutedWork) -> None:
    work.main.answers = [refusal("1501")]
    fail_at(work, "answer-1")
    with pytest.raises(JournalError, match=r"^the place is away"):
        await submitted(work)


@pytest.mark.parametrize("is_watched", [False, True], ids=["open", "called unknown"])
async def test_a_refusal_that_only_its_machine_knows_is_no_unknown_submission(
    work: ExecutedWork, other: ExecutedWork, spool: Spool, is_watched: bool
) -> None:
    """The process is killed, or the journal does not respond, between the answer and its record."""
    work.main.answers = [refusal("421")]
    fail_at(work, "answer-1")
    with pytest.raises(JournalError):
        await submitted(work)
    if is_watched:
        await write(other.journal, {"answer-1": unknown()}, key=KEY)
    (submit,) = (await read(other)).submits
    assert (submit.state, submit.may_be_paid) == ("forgotten" if is_watched else "refused", False)
    assert list(spool.entries()) == []


async def test_a_ticket_of_another_journal_is_neither_used_nor_dropped(
    work: ExecutedWork, other: ExecutedWork, spool: Spool
) -> None:
    """A run with another RH_RECORDS has a scope and a job of the same names, and a submission of the same number."""
    paid = Spooled("run", KEY, 1, intent(owner=dead_owner()).token, ticket("9"))
    spool.put(paid)
    submit = await submitted(work)
    assert submit.task_id == TASK
    assert (await read(other)).submits == (submit,)
    assert list(spool.entries()) == [paid]


async def test_a_ticket_is_recorded_if_the_spool_cannot_be_written(
    work: ExecutedWork, other: ExecutedWork, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    spool.folder.write_text("no folder")
    assert (await submitted(work)).state == "ticket"
    assert TASK in caplog.text
    assert (await read(other)).state == "ticket"


async def test_an_old_ticket_in_the_spool_does_not_hide_the_job_s_end(work: ExecutedWork, spool: Spool) -> None:
    paid, answer, end = intent(), ticket(), End(status="SUCCESS", task_id=TASK)
    await write(work.journal, {"intent-1": paid, "answer-1": answer, "end-1": end}, key=KEY)
    spool.put(Spooled("run", KEY, 1, paid.token, answer))
    assert (await read(work)).state == "ended"
    assert list(spool.entries()) == []


@pytest.mark.parametrize(
    ("record", "stopped", "state"),
    [("intent-1", 0, "open"), ("answer-1", GIVE_UP + 1, "refused")],
    ids=["its response was lost", "that it was given up could not be recorded"],
)
async def test_a_claim_that_is_not_posted_is_known_to_be_unposted(
    work: ExecutedWork, other: ExecutedWork, record: str, stopped: float, state: str
) -> None:
    fail_at(work, record, is_created=record == "intent-1")
    with pytest.raises(JournalError):
        await submitted(work, stopped=stopped)
    assert (await read(other)).state == state
    assert (await watched(other)).state == "refused"
    assert work.did == []


async def test_a_claim_before_its_post_does_not_count_as_abandoned(work: ExecutedWork, other: ExecutedWork) -> None:
    """Two accounts in one process may run one job; to mark the other's claim refused would pay twice."""
    steps = Steps(work.work)
    claim = await steps.claim(1)
    assert claim is not None

    async def post_after_three_waits() -> None:
        if len(other.pauses) == 3:
            await steps.record_answer(claim, 1, await steps.post(claim, 1))

    other.after_pause = post_after_three_waits
    assert (await watched(other)).state == "ticket"
    assert work.did.count("submit to main") == 1


async def test_a_dead_owner_s_intent_is_unknown_at_once(work: ExecutedWork) -> None:
    await write(work.journal, {"intent-1": intent(owner=dead_owner())}, key=KEY)
    submit = await watched(work)
    assert (submit.state, work.pauses) == ("unknown", [])
    assert submit.answer is not None and "ended unexpectedly" in submit.answer.reason


async def test_an_intent_is_watched_for_its_limits_and_ten_seconds(work: ExecutedWork) -> None:
    """After a shorter time, the process of the request may still wait for its response."""
    await write(work.journal, {"intent-1": intent(give_up=30.0, submit_timeout=60.0)}, key=KEY)
    totals = iter([100.0, 100.5])

    async def jump() -> None:
        work.pauses[:] = [next(totals)]

    work.after_pause = jump
    assert (await watched(work)).state == "unknown"
    assert work.seconds == 100.5


async def test_an_intent_is_read_more_rarely_the_longer_it_is_watched(work: ExecutedWork) -> None:
    await write(work.journal, {"intent-1": intent()}, key=KEY)
    await watched(work)
    assert work.pauses[:3] == [0.05, 0.05 * 1.5, 0.05 * 1.5 * 1.5]
    assert max(work.pauses) == work.pauses[-1] == 2.0


@pytest.mark.parametrize(
    ("answer", "state", "task_id", "by"),
    [
        (QUEUED, "ticket", TASK, "the late owner"),
        (refusal("421"), "forgotten", None, "the late owner"),
        (ResponseLost("read timeout"), "unknown", None, None),
    ],
)
async def test_a_late_answer_resolves_a_submission_that_a_watcher_marked_unknown_if_it_says_more(
    work: ExecutedWork, answer: Any, state: str, task_id: Any, by: Any
) -> None:
    work.main.answers = [answer]
    work.main.during = lambda: write(work.journal, {"answer-1": unknown("no answer in 100 s")}, key=KEY)
    submit = await submitted(work)
    assert submit.answer is not None
    assert (submit.state, submit.task_id, submit.answer.reason) == (state, task_id, "no answer in 100 s")
    assert (submit.resolution and submit.resolution.by) == by


@pytest.mark.parametrize("is_adopted", [False, True])
async def test_a_ticket_after_a_person_marked_it_refused_is_recorded_and_logged_and_an_adopted_one_is_the_same(
    work: ExecutedWork, caplog: pytest.LogCaptureFixture, is_adopted: bool
) -> None:
    async def settled_meanwhile() -> None:
        await write(work.journal, {"answer-1": unknown()}, key=KEY)
        await (adopt(work.journal, KEY, TASK) if is_adopted else mark_refused(work.journal, KEY))

    work.main.during = settled_meanwhile
    assert (await submitted(work)).state == ("ticket" if is_adopted else "forgotten")
    late = await work.journal.read(f"{KEY}-late-1")
    assert (late and late["task_id"]) == (None if is_adopted else TASK)
    assert (TASK in caplog.text) is not is_adopted
