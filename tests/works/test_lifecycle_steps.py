"""How the steps of a job are performed, by what they do to accounts, slots, storage and records."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rh_prefect.client.wire.task import TaskView
from rh_prefect.errors import (
    NOT_PAID,
    AccountError,
    BudgetExceeded,
    ConnectFailed,
    JobCancelled,
    JobTimeout,
    JournalError,
    ModerationError,
    ResponseLost,
    RunningHubError,
    StoreError,
    SubmissionUnknown,
    TaskNotFound,
    api_error,
)
from rh_prefect.media.store import MediaStore
from rh_prefect.works.input_identification import Input
from rh_prefect.works.journal.costs_and_budget import Costs, Money
from rh_prefect.works.journal.identity import media_mark
from rh_prefect.works.journal.job_records_and_state import RESUBMITTED
from rh_prefect.works.journal.record_types import BROKEN, Answer, Cancelled, End, MediaRecord, Resolution
from rh_prefect.works.journal.works_journal import WorksJournal, no_evidence
from rh_prefect.works.lifecycle_steps import LIMITER_PAUSES, Steps
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.run_ledger import SharedRecords
from rh_prefect.works.work_runner import RunningWork
from tests.support.waiting import until
from tests.support.world.executed_work import QUEUED, REQUEST, SUCCESS, ExecutedWork, with_policy
from tests.support.world.job_records import TASK, intent, ticket
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace

CANCELLED = TaskView(task_id=TASK, status="CANCELLED")
PHOTO = MediaRecord(uri="photo.png", sha256="1", size=1, kind="image", mime="image/png", extension="png")
MARK = media_mark("a" * 64)
WITH_INPUT = replace(REQUEST, payload={"image": [MARK]}, inputs={MARK: Input("photo.png", PHOTO)})


@pytest.fixture
async def work(tmp_path: Path) -> ExecutedWork:
    return ExecutedWork(tmp_path)


WITH_A_SLOT = ("take a slot", "look for refused outputs", "check the storage")


def upload_to(account: str) -> tuple[str, str]:
    return "select an account", f"upload to {account}"


async def cancel_run(work: ExecutedWork) -> None:
    await MemoryJournal.create(work.journal, "cancel-1", Cancelled(by="a person").model_dump(mode="json"))


async def claimed(work: ExecutedWork) -> dict[str, Any]:
    """What the only claim of a work has recorded."""
    (record,) = (one for key, one in (await work.journal.job("job")).items() if "-intent-" in key)
    return record


def hold(work: ExecutedWork) -> asyncio.Event:
    """Has the task of a work run until the event."""
    ends = asyncio.Event()

    async def wait() -> None:
        if "wait at main" in work.did:
            await ends.wait()

    work.main.during = wait
    return ends


async def of_another_run(
    folder: Path, *, account: str = "renamed", query_error: RunningHubError | None = None
) -> ExecutedWork:
    """A work of the run `second`, for whose task the run `first` has paid on an account."""
    work = ExecutedWork(folder, policy=with_policy(run="second"))
    work.accounts["renamed"], work.main.query_error = work.main, query_error
    await work.paid_before(account=account, flow_run="first")
    return work


async def an_hour_more(work: ExecutedWork) -> None:
    work.pauses.append(3600)


SLOT, RATE = "421", "1003"
"""Codes of refusals: one for want of a slot, and one because of too many requests."""


@pytest.mark.parametrize(
    ("codes", "are_paused"),
    [
        ([SLOT] * 4, [False, False, True, True]),
        ([RATE, RATE, SLOT, SLOT, SLOT], [True, True, False, False, True]),
        ([SLOT, RATE, SLOT, RATE, SLOT], [False, True, False, True, True]),
    ],
)
async def test_the_first_two_refusals_for_want_of_a_slot_cause_no_pause_of_the_job(
    work: ExecutedWork, codes: list[str], are_paused: list[bool]
) -> None:
    assert LIMITER_PAUSES == 2
    submitted = list[float]()
    work.main.answers = [api_error(code, doing="submit", submitting=True) for code in (*codes, "1501")]

    async def note() -> None:
        submitted.append(work.seconds)

    work.main.during = note
    with pytest.raises(ModerationError):
        await work.finish()
    assert [until - since > 1 for since, until in pairwise(submitted)] == are_paused


async def test_a_work_is_made_in_this_order(work: ExecutedWork) -> None:

    async def note(key: str, _: object) -> None:
        work.did.append(f"create {key}")

    work.journal.before_create = note
    await work.finish()
    assert work.did == [
        "check the storage",
        "take a slot",
        "look for refused outputs",
        "check the storage",
        "create job-intent-1",
        "submit to main",
        "submitted",
        "create job-answer-1",
        "wait at main",
        "release the slot",
        "create job-end-1",
        "publish without a search",
        "record the result",
    ]
    assert [state for state, _ in work.heard] == ["submitted", "collecting"]
    intent = await claimed(work)
    assert (intent["run"], intent["flow"], intent["attempt"], intent["take"]) == ("run", "call", 1, 1)


async def test_a_task_of_an_earlier_process_occupies_a_slot_of_its_account_and_its_files_are_looked_for(
    work: ExecutedWork,
) -> None:
    await work.paid_before(account="two")
    await work.finish()
    assert work.did == [
        "switch to two",
        "occupy a slot",
        "wait at two",
        "release the slot",
        "publish with a search",
        "record the result",
    ]
    assert [state for state, _ in work.heard] == ["adopted", "collecting"]
    assert work.accounts["two"].ages == [0], "its age is not known"


async def test_a_claim_that_another_run_wins_after_a_refusal_costs_this_run_nothing(work: ExecutedWork) -> None:
    work.main.answers = [api_error("1011", "busy", doing="submit", submitting=True)]

    async def win(key: str, _: object) -> None:
        if key == "job-intent-2":
            work.journal.before_create = None
            theirs = intent(account="main", base=work.work.request.base, flow_run="other")
            assert await work.records.create(2, theirs)
            assert await work.records.create(2, ticket())

    work.journal.before_create = win
    assert (await work.finish()).n == 2
    assert (work.spending.open_costs(), work.spending.spent_on("job")) == ((0, Costs()), None)


async def test_the_age_of_a_task_of_another_process_is_not_that_of_an_own_one(tmp_path: Path) -> None:
    work = ExecutedWork(tmp_path, policy=with_policy(attempts=2))
    work.main.view = TaskView(task_id=TASK, status="FAILED", code="1504")

    async def during() -> None:
        if work.main.ages == [0]:  # the first task fails after an hour; meanwhile, another process has submitted one
            work.pauses.append(3600)
            assert await work.records.create(2, intent(account="main", base=work.work.request.base))
            assert await work.records.create(2, ticket())
        elif work.main.ages:
            work.main.view = SUCCESS

    work.main.during = during
    await work.finish()
    assert work.main.ages == [0, 0]


async def test_the_task_of_a_cancelled_run_is_cancelled_at_the_account_that_has_it(work: ExecutedWork) -> None:
    await work.paid_before(account="two")
    await cancel_run(work)
    work.accounts["two"].view = CANCELLED
    with pytest.raises(JobCancelled):
        await work.finish()
    assert work.did == ["switch to two", "cancel at two", "query at two"]
    assert [state for state, _ in work.heard] == ["cancelled"]


async def test_nothing_is_submitted_if_the_storage_takes_no_outputs(tmp_path: Path) -> None:
    class Full(ExecutedWork):
        async def check(self, store: MediaStore) -> None:
            raise StoreError("the storage is full")

    work = Full(tmp_path)
    with pytest.raises(StoreError):
        await work.finish()
    assert work.did == []
    assert work.spending.reserved() == 0


async def test_a_refusal_for_want_of_a_slot_is_reported_once_and_the_work_waits_for_a_slot_again(
    work: ExecutedWork,
) -> None:
    work.main.answers = [api_error(SLOT, doing="submit", submitting=True)] * 2
    await work.finish()
    tried = [*WITH_A_SLOT, "submit to main"]
    refused = [*tried, "release the slot, which was none", "check the storage"]
    assert work.did[1:] == [*refused, *refused, *tried, *work.did[-5:]]
    assert work.pauses == [], "the limiter pauses for all works of the account"
    assert [state for state, _ in work.heard] == ["waiting", "submitted", "collecting"]
    assert work.heard[0][1] == f"not accepted yet ({SLOT}); waiting to try again, at no cost"


@pytest.mark.parametrize("budget", [None, Decimal(5)])
async def test_a_work_counts_once_from_its_submission_to_its_end(tmp_path: Path, budget: Decimal | None) -> None:
    work, reserved = ExecutedWork(tmp_path, policy=with_policy(budget=budget)), list[Decimal]()

    async def count() -> None:
        reserved.append(work.spending.reserved())

    work.main.answers = [api_error(RATE, doing="submit", submitting=True)]
    work.main.during = work.after_pause = count
    await work.finish()
    assert reserved == [1, 0, 1, 1], "while it is submitted, pauses, is submitted again and is waited for"
    assert work.spending.reserved() == 0
    assert work.spending.spent() == 1


@pytest.mark.parametrize("account", ["three", "renamed"])
async def test_a_run_without_the_key_of_a_task_waits_for_twelve_hours(tmp_path: Path, account: str) -> None:
    work = await of_another_run(tmp_path, account=account, query_error=TaskNotFound("there is no such task"))
    work.pauses.append(1000)
    with pytest.raises(JobTimeout, match=f"run first has submitted task .* on account .*{account}"):
        await work.finish()
    assert 12 * 3600 <= work.seconds - 1000 < 12 * 3600 + 16
    assert work.pauses[1:4] == [0.05, 0.05 * 1.5, 0.05 * 1.5 * 1.5]
    assert max(work.pauses[1:]) == work.pauses[-1] == 15


@pytest.mark.parametrize(
    ("account", "query_error", "queries"), [("three", None, 0), ("renamed", api_error("1", doing="query"), 2)]
)
async def test_a_run_that_cannot_query_a_task_uses_its_recorded_end(
    tmp_path: Path, account: str, query_error: RunningHubError | None, queries: int
) -> None:
    work = await of_another_run(tmp_path, account=account, query_error=query_error)
    work.after_pause = partial(work.records.end, 1, End(status="SUCCESS", task_id=TASK))
    await work.finish()
    assert len(work.pauses) == 1
    assert (work.did.count("query at main"), work.did[-2:]) == (queries, ["publish with a search", "record the result"])
    assert not {"wait at main", "submit to main"} & {*work.did}
    assert [state for state, _ in work.heard] == ["adopted", "collecting"]


NO_MONEY = api_error("812", doing="ask")


async def test_after_a_refused_upload_another_account_gets_the_inputs_and_no_slot_before(tmp_path: Path) -> None:
    work = ExecutedWork(tmp_path, request=WITH_INPUT)
    work.main.refusal, work.spare = NO_MONEY, ["two"]
    await work.finish()
    before = ["check the storage", *upload_to("main"), *upload_to("two")]
    assert work.did[:11] == [*before, *WITH_A_SLOT, *upload_to("two"), "submit to two"]
    assert work.accounts["two"].sent == [{"image": [f"https://two/{MARK}"]}]
    assert work.heard[:2] == [("uploading", "making 1 input(s) available to RunningHub"), ("moved", "account two pays")]
    assert [state for state, _ in work.heard[2:]] == ["submitted", "collecting"]


async def test_a_work_whose_upload_is_refused_when_it_has_a_slot_takes_one_of_the_other_account(tmp_path: Path) -> None:
    class Poorer(ExecutedWork):
        def refuse_payment(self, run: object, store: MediaStore, job: str) -> None:
            assert run == ("run", 1), "another run, or another attempt, may pay"
            self.main.refusal = NO_MONEY

    work = Poorer(tmp_path, request=WITH_INPUT)
    work.spare = ["two"]
    await work.finish()
    first, second = ["check the storage", *upload_to("main"), "release the slot"], [*upload_to("two"), "submit to two"]
    assert work.did[3:12] == ["take a slot", *first, "take a slot", *second]


async def test_a_refused_upload_of_the_only_account_is_the_error_of_the_work(tmp_path: Path) -> None:
    work = ExecutedWork(tmp_path, request=WITH_INPUT)
    work.main.refusal = NO_MONEY
    with pytest.raises(AccountError) as caught:
        await work.finish()
    assert str(caught.value) == f"{NO_MONEY} {NOT_PAID}"
    assert work.did.count("upload to main") == 1


async def test_after_a_refused_price_another_account_gets_the_work_and_its_budget(tmp_path: Path) -> None:
    policy, request = with_policy(budget=Decimal(5)), replace(WITH_INPUT, estimate=None)
    work = ExecutedWork(tmp_path, policy=policy, request=request)
    work.accounts["two"].price = Money(Decimal(5), "CNY")

    async def address(file: Input, mark: str, *, store: MediaStore) -> str:
        return ""

    work.main.address = address  # type: ignore[method-assign]
    work.main.refusal, work.spare = NO_MONEY, ["two"]
    await work.finish()
    asked = work.did.index("price at main")
    refused, second = ["price at main", "release the slot"], [*upload_to("two"), "price at two", "submit to two"]
    assert work.did[asked : asked + 9] == [*refused, *WITH_A_SLOT, *second]
    intent = await claimed(work)
    assert (intent["estimate"], intent["account"]) == ("5", "two")


@pytest.mark.parametrize(("budget", "error"), [(Decimal("0.5"), BudgetExceeded), (Decimal(5), JobCancelled)])
async def test_a_work_that_ends_after_its_budget_was_asked_for_releases_its_slot_and_its_amount(
    tmp_path: Path, budget: Decimal, error: type[Exception]
) -> None:
    work = ExecutedWork(tmp_path, policy=with_policy(budget=budget))
    await cancel_run(work)
    with pytest.raises(error):
        await work.finish()
    assert work.did[-1] == "release the slot"
    assert work.spending.reserved() == 0


async def test_the_catalogue_s_price_is_recorded_where_the_account_s_currency_is_not_known(work: ExecutedWork) -> None:

    async def listed(known: Money | None) -> None: ...

    work.main.listed = listed  # type: ignore[method-assign]
    await work.finish()
    intent = await claimed(work)
    assert (intent["estimate"], intent["currency"]) == ("1", None)


async def test_a_graph_on_a_bare_machine_has_no_price(tmp_path: Path) -> None:
    work = ExecutedWork(tmp_path, request=replace(REQUEST, estimate=None))
    work.main.is_bare = True
    await work.finish()
    assert "price at main" not in work.did
    intent = await claimed(work)
    assert (intent["estimate"], intent["currency"]) == (None, None)


async def test_the_age_of_a_task_counts_from_the_middle_of_its_submission(work: ExecutedWork) -> None:
    work.pauses.append(1000)

    async def slow() -> None:
        if "submitted" not in work.did:
            work.pauses.append(8)

    work.main.during = slow
    await work.finish()
    assert work.main.ages == [4]


async def test_a_task_of_another_run_is_queried_only_where_its_account_may_be_another_one(tmp_path: Path) -> None:
    for name, queries in (("main", 0), ("renamed", 1)):
        work = await of_another_run(tmp_path / name, account=name)
        await work.finish()
        assert work.did.count("query at main") == queries
        assert work.spending.spent() == 0, "the first run has paid"


async def test_a_lost_query_for_the_task_of_another_run_is_repeated(tmp_path: Path) -> None:
    """An error of the call lets the run that has paid cancel the task that this run needs."""

    work = await of_another_run(tmp_path, query_error=ConnectFailed("no route"))

    async def recover() -> None:
        work.main.query_error = None

    work.after_pause = recover
    await work.finish()
    assert (work.did.count("query at main"), len(work.pauses)) == (2, 1)


@pytest.mark.parametrize("query_error", [ConnectFailed("no route"), TaskNotFound("gone")])
async def test_a_call_for_the_task_of_another_run_survives_an_outage_of_the_records(
    tmp_path: Path, query_error: RunningHubError
) -> None:
    """Without a network, RunningHub and the records fail at the same time."""

    async def recover() -> None:
        work.main.query_error = work.journal.before_read = None
        await work.records.end(1, End(status="SUCCESS", task_id=TASK))

    async def fail(key: str) -> None:
        if "-end-" in key:
            raise JournalError("no route", is_permanent=is_permanent)

    for is_permanent in (False, True):
        work = await of_another_run(tmp_path / str(is_permanent), query_error=query_error)
        work.journal.before_read, work.after_pause = fail, recover
        with pytest.raises(JournalError) if is_permanent else nullcontext():
            await work.finish()
        assert len(work.pauses) == (not is_permanent)


async def test_records_that_cannot_be_read_for_twelve_hours_are_the_reason_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The error named the account of the other run, and advised to configure its credentials."""

    async def fail(key: str) -> None:
        if "-end-" in key:
            raise JournalError("no route to the storage")

    work = await of_another_run(tmp_path, query_error=TaskNotFound("gone"))
    work.journal.before_read, work.after_pause = fail, partial(an_hour_more, work)
    with pytest.raises(JournalError, match="no route to the storage"):
        await work.finish()
    assert work.seconds >= 12 * 3600
    warnings = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert len([one for one in warnings if "could not be read yet" in one]) == 1, "not at each try"


async def test_queries_that_fail_for_good_are_repeated_for_twelve_hours(tmp_path: Path) -> None:
    work = await of_another_run(tmp_path, query_error=ConnectFailed("no route"))
    work.after_pause = partial(an_hour_more, work)
    with pytest.raises(ConnectFailed):
        await work.finish()
    assert 12 * 3600 <= work.seconds < 14 * 3600


async def test_a_cancellation_during_a_submission_is_seen_although_it_was_looked_for_a_moment_before(
    work: ExecutedWork,
) -> None:
    work.pauses.append(1000)
    work.main.during = partial(cancel_run, work)
    await work.finish()
    assert work.did[-6:] == [
        "submitted",
        "cancel at main",
        "query at main",
        "release the slot",
        "publish without a search",
        "record the result",
    ], "it had succeeded before it was cancelled"


async def test_before_a_wait_for_an_earlier_task_a_cancellation_is_looked_for(work: ExecutedWork) -> None:
    await work.paid_before()
    assert not await work.work.is_cancelled()
    work.pauses.append(0.5)
    await cancel_run(work)
    work.main.view = CANCELLED
    with pytest.raises(JobCancelled):
        await work.finish()
    assert work.did == ["cancel at main", "query at main"]
    assert work.spending.reserved() == 0


async def test_a_cancellation_that_cannot_be_looked_for_stops_no_work(
    work: ExecutedWork, caplog: pytest.LogCaptureFixture
) -> None:
    """Before a claim the journal is read again, and a task can be cancelled later."""

    async def fail(_: str) -> None:
        raise JournalError("the place is away")

    work.journal.before_read = fail
    assert not await work.work.is_cancelled()
    message = "could not check whether the run was cancelled, so the job continues: the place is away"
    assert f"run/job: {message}" in caplog.text


async def test_an_unknown_submission_is_forgotten_before_another_one_if_the_caller_accepts_that(tmp_path: Path) -> None:
    work = ExecutedWork(tmp_path, policy=with_policy(on_unknown="resubmit"))
    work.main.answers = [ResponseLost("cut")]
    await work.finish()
    resolution = await work.journal.read("job-resolution-1")
    assert resolution is not None
    assert (resolution["outcome"], resolution["by"]) == ("forgotten", RESUBMITTED)
    assert work.did.count("submit to main") == 2
    assert [state for state, _ in work.heard] == ["submitted", "collecting"]


async def test_a_failed_task_is_reported_before_another_one_is_submitted(work: ExecutedWork) -> None:
    work.main.view = TaskView(task_id=TASK, status="FAILED", code="1504", reason="no GPU")

    async def later() -> None:
        if work.did.count("submit to main") == 2:
            work.main.view = SUCCESS

    work.main.during = later
    await work.finish()
    assert [state for state, _ in work.heard] == ["submitted", "waiting", "submitted", "collecting"]
    assert work.heard[1][1] == f"task {TASK} failed (no GPU) and its cost is counted; another task is submitted"
    assert work.events[1].task_id == "", "no task of the job runs now"


async def test_an_open_submission_of_another_process_is_watched_until_it_counts_as_unknown(work: ExecutedWork) -> None:
    claimed = intent(base=REQUEST.base)
    await work.records.create(1, claimed)
    with pytest.raises(SubmissionUnknown, match="no response was recorded"):
        await work.finish()
    assert work.seconds > claimed.give_up + claimed.submit_timeout
    assert work.did == []
    assert [state for state, _ in work.heard] == ["unknown"]


async def test_a_task_that_another_process_of_the_run_has_paid_for_needs_no_budget_and_no_upload(
    tmp_path: Path,
) -> None:
    """Neither does it wait for a free slot. Processes of a Dask run do not know each other's calls."""
    place = MemoryPlace()
    work = ExecutedWork(tmp_path, place=place, request=WITH_INPUT, policy=with_policy(budget=Decimal(0)))
    await ExecutedWork(tmp_path, place=place, request=WITH_INPUT).paid_before()
    await work.finish()
    assert work.did[:2] == ["occupy a slot", "wait at main"]


async def test_recorded_refusals_are_read_once(tmp_path: Path) -> None:
    reads = list[int]()
    for number in (1, 6):
        work = ExecutedWork(tmp_path / f"{number}")
        for n in range(1, number + 1):
            await work.records.create(n, intent(base=REQUEST.base))
            code = {"outcome": "refused", "code": RATE, "retry": "throttled"} if n % 2 else {"outcome": "unknown"}
            await work.records.create(n, Answer.model_validate(code))
            await work.records.create(n, Resolution(outcome="forgotten", by="a person"))
        await work.finish()
        reads.append(work.journal.reads)
    assert reads == [4, 4], "the records once, and three times whether the run was cancelled"


@pytest.mark.parametrize("how", ["leave", "forget"])
async def test_a_work_that_no_caller_waits_for_releases_its_slot_and_is_continued_by_the_next_one(
    tmp_path: Path, how: str
) -> None:
    place = MemoryPlace()
    work = ExecutedWork(tmp_path, place=place)
    hold(work)
    task = await work.running.next_running_task()
    assert task is not None
    assert task.task_id == TASK
    assert await work.running.next_running_task() is task
    await until(lambda: "wait at main" in work.did)
    assert not work.running.is_over
    if how == "forget":
        work.running.forget()
    else:
        leaving = asyncio.ensure_future(work.running.leave())
        await asyncio.sleep(0)
        assert work.running.is_over, "a call from now on is no caller that leaves"
        await leaving
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert work.did[-1] == "release the slot"
    later = ExecutedWork(tmp_path, place=place)
    await later.finish()
    assert "submit to main" not in later.did


async def test_callers_learn_when_a_task_runs_and_when_it_has_ended(work: ExecutedWork) -> None:
    ends = hold(work)
    task = await work.running.next_running_task()
    assert task is not None
    end = asyncio.ensure_future(work.running.end_of(task, None))
    await asyncio.sleep(0)
    assert not end.done()
    ends.set()
    assert await end
    assert await work.running.next_running_task() is None
    assert await work.running.complete() == await work.running.complete()


async def test_a_call_ends_at_its_deadline_and_names_the_task_that_continues(work: ExecutedWork) -> None:
    hold(work)
    with pytest.raises(JobTimeout, match=f"task {TASK} has not ended within 0.001 s") as caught:
        await work.running.complete(0.001)
    assert caught.value.task_id == TASK
    assert work.heard[-1] == ("waiting", caught.value.message)
    work.running.interrupt()


async def test_a_call_ends_at_its_deadline_while_it_reads_whether_its_run_was_cancelled(work: ExecutedWork) -> None:
    await work.paid_before()

    async def hang(key: str) -> None:
        if key.startswith("cancel-"):
            await asyncio.Event().wait()

    work.journal.before_read = hang
    async with asyncio.timeout(5):
        with pytest.raises(JobTimeout):
            await work.running.complete(0.01)
    work.running.interrupt()


async def test_the_task_of_a_broken_graph_is_cancelled_even_if_its_caller_leaves(work: ExecutedWork) -> None:
    work.main.answers = [QUEUED.model_copy(update={"node_errors": {"6": "prompt is empty"}})]
    work.main.view, cancels, may_go = CANCELLED, asyncio.Event(), asyncio.Event()

    async def hold_the_cancellation() -> None:
        if work.did[-1] == "cancel at main":
            cancels.set()
            await may_go.wait()

    work.main.during = hold_the_cancellation
    with pytest.raises(JobTimeout):
        await work.running.complete(0.01)
    assert cancels.is_set()
    await work.running.leave()
    assert work.did[-1] == "cancel at main", "the slot is kept while the task may run"
    may_go.set()
    await LOOP.settle(60)
    assert work.did[-1] == "release the slot"
    end = await work.records.read_end(1)
    assert end is not None and end.code == BROKEN


async def test_a_submission_whose_caller_is_cancelled_is_recorded(tmp_path: Path) -> None:
    work, posts, answered = ExecutedWork(tmp_path), asyncio.Event(), asyncio.Event()

    async def post() -> None:
        posts.set()
        await answered.wait()

    work.main.during = post
    interrupted = asyncio.ensure_future(work.finish())
    await posts.wait()
    interrupted.cancel()
    await work.running.leave()
    answered.set()
    await LOOP.settle(60)
    view = await work.records.view()
    assert view.last is not None
    assert view.last.state == "ticket"


async def test_a_claim_whose_caller_is_cancelled_keeps_its_slot_and_its_price_until_its_answer_is_recorded(
    tmp_path: Path,
) -> None:
    budget = Decimal(1)
    first = ExecutedWork(tmp_path / "one", key="ab", policy=with_policy(budget=budget))
    records = SharedRecords(WorksJournal(str(tmp_path / "works")), "ab", first.work.scope, has_ended=no_evidence)
    running, claims, goes_on = RunningWork(replace(first.work, records=records)), asyncio.Event(), asyncio.Event()

    async def hold_claim(key: str, _: object) -> None:
        if "-claim-" in key:
            claims.set()
            await goes_on.wait()

    first.journal.before_create = hold_claim
    interrupted = asyncio.ensure_future(running.complete())
    await claims.wait()
    interrupted.cancel()
    await running.leave()
    second = ExecutedWork(tmp_path / "two", policy=with_policy(budget=budget), spending=first.spending)
    short = await Steps(second.work).reserve(1, budget)
    assert "release the slot" not in first.did
    goes_on.set()
    await LOOP.settle(60)
    assert short is not None
    assert short.reserved == 1
    assert first.did[-2:] == ["submitted", "release the slot"]
    assert first.spending.reserved() == 1
    view = await records.view()
    assert view.state == "ticket"


@pytest.mark.parametrize(("seconds", "is_claimed"), [(9, True), (11, False)])
async def test_a_reading_of_a_cached_journal_counts_for_ten_seconds_before_a_claim_and_never_before_a_post(
    work: ExecutedWork, seconds: int, is_claimed: bool
) -> None:
    work.journal.is_absent = lambda key, *, max_age: work.seconds <= max_age  # type: ignore[method-assign]
    work.pauses.append(seconds)
    await cancel_run(work)
    with pytest.raises(JobCancelled):
        await work.finish()
    assert "submit to main" not in work.did
    assert (await work.records.submission(1) is not None) == is_claimed


async def test_a_damaged_record_of_a_cancellation_forbids_a_submission_as_a_whole_one_does(work: ExecutedWork) -> None:
    work.journal.place._scopes[work.journal.scope]["cancel-1"] = ""
    with pytest.raises(JobCancelled, match="was cancelled before this job was submitted"):
        await work.finish()
    assert "submit to main" not in work.did


@pytest.mark.parametrize(("is_log", "seconds", "is_posted"), [(True, 9, True), (True, 21, False), (False, 0, False)])
async def test_a_run_that_is_cancelled_while_its_claim_is_written_posts_nothing_that_the_cancellation_no_longer_awaits(
    work: ExecutedWork, is_log: bool, seconds: int, is_posted: bool
) -> None:
    if is_log:  # the append of the note was its last reading
        work.journal.is_absent = lambda key, *, max_age: work.seconds <= max_age  # type: ignore[method-assign]

    async def cancel_meanwhile(key: str, _: object) -> None:
        if "-intent-" in key:
            work.pauses.append(seconds)
            await cancel_run(work)

    work.journal.before_create = cancel_meanwhile
    work.main.view = SUCCESS if is_posted else CANCELLED
    await asyncio.gather(work.finish(), return_exceptions=True)
    assert ("submit to main" in work.did) == is_posted


async def test_a_reading_of_a_cached_journal_counts_for_two_seconds_while_a_task_is_waited_for(
    work: ExecutedWork,
) -> None:
    age = 2.0
    work.journal.is_absent = lambda key, *, max_age: age <= max_age  # type: ignore[method-assign]
    await cancel_run(work)
    assert not await work.work.is_cancelled()
    age = 2.5
    assert await work.work.is_cancelled()


async def test_an_intent_that_cannot_be_made_leaves_no_price_reserved(tmp_path: Path) -> None:
    without_site: Any = None
    request = replace(REQUEST, site=without_site)
    work = ExecutedWork(tmp_path, request=request, policy=with_policy(budget=Decimal(5)))
    with pytest.raises(ValidationError):
        await work.finish()
    assert work.spending.reserved() == 0


async def test_an_earlier_submission_of_the_run_counts_in_its_budget(work: ExecutedWork) -> None:
    reserved = list[Decimal]()

    async def count() -> None:
        reserved.append(work.spending.reserved())

    await work.paid_before(estimate=Decimal(3), currency="CNY")
    work.main.during = count
    await work.finish()
    assert reserved == [3]


@pytest.mark.parametrize("first_claims", [True, False])
async def test_a_second_call_that_ends_before_its_claim_leaves_the_price_of_the_first_one_reserved(
    tmp_path: Path, first_claims: bool
) -> None:
    """Calls with several storages make the same submission; only one of them is claimed."""
    place, budget = MemoryPlace(), Decimal(5)
    first = ExecutedWork(tmp_path / "one", place=place, policy=with_policy(budget=budget))
    second = ExecutedWork(tmp_path / "two", place=place, policy=with_policy(budget=budget), spending=first.spending)
    paying, leaving = Steps(first.work), Steps(second.work)
    for steps in (paying, leaving):
        assert await steps.reserve(1, budget) is None
    assert first.spending.reserved() == 1, "it is one submission"
    if first_claims:
        assert await paying.claim(1)
    leaving.end()
    assert first.spending.reserved() == 1
    paying.end()
    assert first.spending.reserved() == first_claims


@pytest.mark.parametrize("is_held", [False, True], ids=["reserved during the claim", "reserved before it"])
async def test_a_call_never_pays_outside_of_its_budget_because_the_claim_of_another_one_fails(
    tmp_path: Path, is_held: bool
) -> None:
    """A call without a budget, or of another storage, was about to claim the same submission."""
    place, budget = MemoryPlace(), Decimal("1.5")
    free = ExecutedWork(tmp_path / "one", place=place)
    limited = ExecutedWork(tmp_path / "two", place=place, spending=free.spending)
    other = ExecutedWork(tmp_path / "three", place=place, key="other", spending=free.spending)
    steps, claims, fails = Steps(limited.work), asyncio.Event(), asyncio.Event()

    async def fail(key: str, _: object) -> None:
        if "-intent-" in key:
            claims.set()
            await fails.wait()
            raise JournalError("the disk is full")

    free.journal.before_create = fail
    if is_held:
        assert await steps.reserve(1, budget) is None
    claiming = asyncio.ensure_future(free.finish())
    await claims.wait()
    await Steps(limited.work).read_submission(1)
    assert free.spending.reserved() == 1, "the claim may be recorded"
    if not is_held:
        assert await steps.reserve(1, Decimal("0.5")) is not None, "the claim of the other call may fail"
        assert await steps.reserve(1, budget) is None
    fails.set()
    with pytest.raises(JournalError):
        await claiming
    assert await Steps(other.work).reserve(1, budget) is not None, "the rest of the budget is reserved"
    assert await steps.claim(1)
    steps.end()
    assert free.spending.reserved() == 1


async def test_a_call_that_reads_the_work_leaves_what_another_one_has_reserved(tmp_path: Path) -> None:
    place, budget = MemoryPlace(), Decimal(5)
    first = ExecutedWork(tmp_path / "one", place=place, policy=with_policy(budget=budget))
    second = ExecutedWork(tmp_path / "two", place=place, spending=first.spending)
    assert await Steps(first.work).reserve(1, budget) is None
    await Steps(second.work).read_submission(1)
    assert first.spending.reserved() == 1


async def test_a_submission_that_another_run_made_leaves_no_price_reserved(tmp_path: Path) -> None:
    """The call had reserved the price of number 1, and tries number 2 after the other run's task has failed."""
    work, budget = ExecutedWork(tmp_path, policy=with_policy(budget=Decimal(5))), Decimal(5)
    steps = Steps(work.work)
    for n in (1, 2):
        assert await steps.reserve(n, budget) is None
        await steps.free_slot(full=False)
        assert work.spending.reserved() == 1
    steps.end()
    assert work.spending.reserved() == 0
