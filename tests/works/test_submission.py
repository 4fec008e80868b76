"""Claim, POST and recorded answer, with a real journal and a real spool."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rh_prefect.client import TaskView
from rh_prefect.errors import ConnectFailed, InputError, JournalError, ResponseLost, api_error
from rh_prefect.works.checked_request import JobRequest
from rh_prefect.works.input_identification import Input
from rh_prefect.works.journal.identity import media_mark
from rh_prefect.works.journal.job_records import JobView
from rh_prefect.works.journal.journal import FolderJournal
from rh_prefect.works.journal.record_types import (
    GAVE_UP,
    NOT_DELIVERED,
    NOT_SENT,
    End,
    Intent,
    current_owner,
    uptime,
)
from rh_prefect.works.journal.scope import FolderScope
from rh_prefect.works.journal.spool import Spool, Spooled
from rh_prefect.works.lifecycle_steps import Steps
from rh_prefect.works.manual_repair import adopt, mark_refused
from rh_prefect.works.work import Work
from tests.support.world.executed_work import services, work_of
from tests.support.world.job_records import BASE, KEY, TASK, dead_owner, intent, ticket, unknown, write

QUEUED = TaskView(task_id=TASK, status="QUEUED")


class RunningHub:
    """Answers submissions with a given answer, and stores them."""

    is_bare = True

    def __init__(self, answer: TaskView | Exception = QUEUED) -> None:
        self.answer = answer
        self.submitted: list[dict[str, Any]] = []
        self.addresses: list[str | None] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def submit(self, endpoint: str, payload: Mapping[str, object], *, webhook_url: str | None = None) -> TaskView:
        self.submitted.append(dict(payload))
        self.addresses.append(webhook_url)
        if self.meanwhile is not None:
            await self.meanwhile()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class FlakyJournal(FolderJournal):
    """A journal that fails at given records, before or after the write."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    slow = 0.0

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        if key.endswith(self.before):
            raise JournalError("the place is away")
        created = await super().create(key, record)
        await asyncio.sleep(self.slow)
        if key.endswith(self.after):
            raise JournalError("the answer was lost")
        return created


@pytest.fixture
def journal(tmp_path: Path) -> FlakyJournal:
    return FlakyJournal(str(tmp_path / "journal"), scope="run")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def rh() -> RunningHub:
    return RunningHub()


OpenSteps = Callable[..., Steps]


@dataclass(frozen=True)
class ClaimedWork(Work):
    """A work whose intent a test determines."""

    claims: Intent | None = None

    def intent(self, account: object) -> Intent:
        return self.claims or mine()


@pytest.fixture
def open_steps(journal: FlakyJournal, spool: Spool, rh: RunningHub) -> OpenSteps:
    """Begins another process of the job, as another run would."""

    def opened(
        payload: Mapping[str, Any] | None = None,
        *,
        sleep: Any = None,
        base: str = BASE,
        clock: Any = uptime,
        claims: Intent | None = None,
        used: Spool = spool,
    ) -> Steps:
        async def no_sleep(_: float) -> None:
            pass

        async def address(_file: object, mark: str, **_: object) -> str:
            return f"https://rh/{mark[-1]}"

        order = JobRequest(model="m", endpoint="/proxy", site="s", payload=payload or {"prompt": "x"}, base=base)
        order = replace(order, inputs={mark: cast(Input, None) for mark in MARKS})
        account = SimpleNamespace(provider=rh, uploads=SimpleNamespace(address=address))
        lease = SimpleNamespace(account=account, submit_finished=lambda: None, select_account=nothing)
        shared = services(spool=used, sleep=sleep or no_sleep, clock=clock)
        facts: dict[str, Any] = {"lease": lease, "services": shared, "claims": claims}
        return Steps(work_of(order, scope=FolderScope(journal), key=KEY, kind=ClaimedWork, **facts))

    return opened


async def nothing() -> None: ...


PROMPT = "sha256: what is that?"  # which looks like a mark
MARKS = (media_mark("a" * 64), media_mark("b" * 64))


def mine(**facts: Any) -> Intent:
    return intent(owner=current_owner(), **facts)


async def submitted(steps: Steps, n: int = 1) -> Any:
    await steps.note_claim(n)
    claimed = await steps.claim(n)
    assert claimed is not None
    return await steps.record_answer(claimed, n, await steps.post(claimed, n))


async def watched(steps: Steps) -> JobView:
    """Waits for the answer of another process; returns the job then."""
    await steps.watch((await steps.read()).submits[0])
    return await steps.read()


async def state(open_steps: OpenSteps) -> str:
    view: JobView = await open_steps().read()
    return view.state


async def test_a_submit_is_claimed_posted_and_recorded(open_steps: OpenSteps, rh: RunningHub, spool: Spool) -> None:
    submit = await submitted(open_steps())
    assert (submit.state, submit.task_id) == ("ticket", TASK)
    assert await state(open_steps) == "ticket"
    assert len(rh.submitted) == 1
    assert list(spool.entries()) == []


async def test_marks_are_replaced_by_the_links_of_the_inputs(open_steps: OpenSteps, rh: RunningHub) -> None:
    one, two = MARKS
    steps = open_steps({"imageUrl": one, "images": [one, two], "deep": {"of": [two]}, "prompt": PROMPT, "n": 5})
    await steps.prepare()
    await submitted(steps)
    assert rh.submitted == [
        {
            "imageUrl": "https://rh/a",
            "images": ["https://rh/a", "https://rh/b"],
            "deep": {"of": ["https://rh/b"]},
            "prompt": PROMPT,
            "n": 5,
        }
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectFailed("no route"), ("refused", NOT_DELIVERED, "no route", "throttled")),
        (InputError("no JSON"), ("refused", NOT_SENT, "no JSON", "final")),
        (ResponseLost("read timeout"), ("unknown", "", "read timeout", "unknown")),
        (api_error("421", doing="x", submitting=True), ("refused", "421", "", "throttled")),
        (api_error("1501", "not that", doing="x", submitting=True), ("refused", "1501", "not that", "final")),
        (api_error("1014", doing="x", submitting=True), ("refused", "1014", "", "action_required")),
        (api_error("1000", doing="x", submitting=True), ("unknown", "1000", "", "unknown")),
        (api_error("9999", doing="x", submitting=True), ("unknown", "9999", "", "unknown")),
        (api_error("813", doing="x", submitting=True), ("unknown", "813", "", "pending")),
        (RuntimeError("a defect"), ("unknown", "", "RuntimeError: a defect", "unknown")),
    ],
)
async def test_each_outcome_of_a_post_is_recorded_as_an_answer(
    open_steps: OpenSteps, rh: RunningHub, spool: Spool, error: Exception, expected: tuple[str, ...]
) -> None:
    rh.answer = error
    answer = (await submitted(open_steps())).answer
    assert (answer.outcome, answer.code, answer.reason, answer.retry) == expected
    assert len(rh.submitted) == 1
    assert not spool.folder.exists(), "it is no ticket"


@pytest.mark.parametrize(("give_up", "duration"), [(-1.0, 0.0), (0.04, 0.05)], ids=["after the claim", "in the claim"])
async def test_a_process_that_was_stopped_between_note_and_post_does_not_post(
    open_steps: OpenSteps, journal: FlakyJournal, rh: RunningHub, give_up: float, duration: float
) -> None:
    """Others may watch the intent from when the journal has it, which can be long before this process is told."""
    journal.slow = duration
    submit = await submitted(open_steps(claims=mine(give_up=give_up)))
    assert (submit.state, submit.answer.code) == ("refused", GAVE_UP)
    assert rh.submitted == []


async def test_a_ticket_stays_in_the_spool_while_the_journal_is_unavailable(
    open_steps: OpenSteps, journal: FlakyJournal, rh: RunningHub, spool: Spool
) -> None:
    journal.before = ("answer-1",)
    with pytest.raises(JournalError, match=f"task {TASK} is paid for.*jobs adopt run/{KEY} {TASK}"):
        await submitted(open_steps())
    assert [entry.answer.task_id for entry in spool.entries()] == [TASK]
    journal.before = ()
    assert await state(open_steps) == "ticket"
    assert list(spool.entries()) == []
    assert len(rh.submitted) == 1


async def test_a_refusal_that_cannot_be_recorded_is_no_paid_task(
    open_steps: OpenSteps, journal: FlakyJournal, rh: RunningHub
) -> None:
    rh.answer, journal.before = api_error("1501", doing="x", submitting=True), ("answer-1",)
    with pytest.raises(JournalError, match=r"^the place is away"):
        await submitted(open_steps())


async def test_a_ticket_of_another_journal_is_neither_used_nor_dropped(
    open_steps: OpenSteps, journal: FlakyJournal, spool: Spool
) -> None:
    """A run with another RH_RECORDS has a scope and a job of the same names, and a submission of the same number."""
    paid = Spooled("run", KEY, 1, intent(owner=dead_owner()).token, ticket("9"))
    spool.put(paid)
    submit = await submitted(open_steps())
    assert submit.task_id == TASK
    assert (await open_steps().read()).submits == (submit,)
    assert list(spool.entries()) == [paid]


async def test_a_ticket_is_recorded_if_the_spool_cannot_be_written(
    open_steps: OpenSteps, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    spool.folder.write_text("no folder")
    submit = await submitted(open_steps())
    assert submit.state == "ticket"
    assert TASK in caplog.text
    assert await state(open_steps) == "ticket"


async def test_an_old_ticket_in_the_spool_does_not_hide_the_job_s_end(
    open_steps: OpenSteps, journal: FlakyJournal, spool: Spool
) -> None:
    answer, end = ticket(), End(status="SUCCESS", task_id=TASK)
    paid = intent()
    await write(journal, {"intent-1": paid, "answer-1": answer, "end-1": end})
    spool.put(Spooled("run", KEY, 1, paid.token, answer))
    view = await open_steps().read()
    assert view.state == "ended"
    assert list(spool.entries()) == []


@pytest.mark.parametrize(
    ("before", "after", "give_up"),
    [((), ("intent-1",), 30.0), (("answer-1",), (), -1.0)],
    ids=["its response was lost", "that it was given up could not be recorded"],
)
async def test_a_claim_that_is_not_posted_is_known_to_be_unposted(
    open_steps: OpenSteps,
    journal: FlakyJournal,
    rh: RunningHub,
    before: tuple[str, ...],
    after: tuple[str, ...],
    give_up: float,
) -> None:
    journal.before, journal.after = before, after
    with pytest.raises(JournalError):
        await submitted(open_steps(claims=mine(give_up=give_up)))
    journal.before = journal.after = ()
    assert await state(open_steps) == "open"
    assert (await watched(open_steps())).state == "refused"
    assert rh.submitted == []


async def test_a_claim_before_its_post_does_not_count_as_abandoned(open_steps: OpenSteps, rh: RunningHub) -> None:
    """Two accounts in one process may run one job; to mark the other's claim refused would pay twice."""
    steps = open_steps()
    claim = await steps.claim(1)
    assert claim is not None
    waits = 0

    async def post_after_three_waits(_: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            await steps.record_answer(claim, 1, await steps.post(claim, 1))

    other = open_steps(sleep=post_after_three_waits)
    view = await watched(other)
    assert (view.state, len(rh.submitted)) == ("ticket", 1)


async def test_a_dead_owner_s_intent_is_unknown_at_once(open_steps: OpenSteps, journal: FlakyJournal) -> None:
    await write(journal, {"intent-1": intent(owner=dead_owner())})
    steps = open_steps()
    view = await watched(steps)
    assert view.state == "unknown"
    assert view.submits[0].answer is not None
    assert "ended unexpectedly" in view.submits[0].answer.reason


async def test_an_intent_is_watched_for_its_limits_and_ten_seconds(
    open_steps: OpenSteps, journal: FlakyJournal
) -> None:
    """After a shorter time, the process of the request may still wait for its response."""
    await write(journal, {"intent-1": intent(give_up=30.0, submit_timeout=60.0)})
    now, times = 0.0, iter([100.0, 100.5])

    async def sleep(_: float) -> None:
        nonlocal now
        now = next(times)

    steps = open_steps(sleep=sleep, clock=lambda: 1e6 + now)
    assert (await watched(steps)).state == "unknown"
    assert now == 100.5


async def test_an_intent_within_its_limits_is_watched(open_steps: OpenSteps, journal: FlakyJournal) -> None:
    await write(journal, {"intent-1": intent()})

    class Enough(Exception):
        pass

    async def sleep(seconds: float) -> None:
        gaps.append(seconds)
        if len(gaps) == 50:
            raise Enough

    gaps: list[float] = []
    steps = open_steps(sleep=sleep)
    with pytest.raises(Enough):
        await watched(steps)
    assert gaps[:3] == [0.05, 0.05 * 1.5, 0.05 * 1.5 * 1.5]
    assert max(gaps) == gaps[-1] == 2.0


@pytest.mark.parametrize(
    ("answer", "state", "task_id", "by"),
    [
        (QUEUED, "ticket", TASK, "the late owner"),
        (api_error("421", doing="x", submitting=True), "forgotten", None, "the late owner"),
        (ResponseLost("read timeout"), "unknown", None, None),
    ],
)
async def test_a_late_answer_resolves_a_submission_that_a_watcher_marked_unknown_if_it_says_more(
    open_steps: OpenSteps, journal: FlakyJournal, rh: RunningHub, answer: Any, state: str, task_id: Any, by: Any
) -> None:
    rh.answer, rh.meanwhile = answer, lambda: write(journal, {"answer-1": unknown("no answer in 100 s")})
    submit = await submitted(open_steps())
    assert (submit.state, submit.task_id, submit.answer.reason) == (state, task_id, "no answer in 100 s")
    assert (submit.resolution and submit.resolution.by) == by


async def test_a_ticket_after_a_person_marked_it_refused_is_recorded_and_logged(
    open_steps: OpenSteps, journal: FlakyJournal, rh: RunningHub, caplog: pytest.LogCaptureFixture
) -> None:
    async def forgotten_meanwhile() -> None:
        await write(journal, {"answer-1": unknown()})
        await mark_refused(journal, KEY)

    rh.meanwhile = forgotten_meanwhile
    assert (await submitted(open_steps())).state == "forgotten"
    late = await journal.read(f"{KEY}-late-1")
    assert late is not None
    assert late["task_id"] == TASK
    assert TASK in caplog.text


async def test_a_late_ticket_that_a_person_has_adopted_is_the_same_ticket(
    open_steps: OpenSteps, journal: FlakyJournal, rh: RunningHub, caplog: pytest.LogCaptureFixture
) -> None:
    async def adopted_meanwhile() -> None:
        await write(journal, {"answer-1": unknown()})
        await adopt(journal, KEY, TASK)

    rh.meanwhile = adopted_meanwhile
    assert (await submitted(open_steps())).state == "ticket"
    assert caplog.text == ""
