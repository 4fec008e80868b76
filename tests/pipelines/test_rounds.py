"""Rounds: steps with `reuse: never` or an age are paid for once, however often a run is ended and started again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import InputError, JobFailed, SubmissionUnknown
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.rounds_across_runs import Left, Rounds, RoundState, Verdict, leave_rounds
from rh_prefect.works.journal.job_records_and_state import jobs_of
from rh_prefect.works.journal.record_types import current_owner
from rh_prefect.works.journal.works_journal import ROUNDS
from rh_prefect.works.manual_repair import adopt, mark_refused
from tests.support.processes.forkserver import FORKS
from tests.support.samples import media as samples
from tests.support.samples.steps import CLIP, PICTURE, steps
from tests.support.world.memory_journal import FiniteJournal, MemoryJournal, MemoryPlace
from tests.support.world.pipeline_runs import (
    PipelineRun,
    ProcessKilled,
    Stopped,
    bury,
    run_pipeline_and_be_killed,
)


def chain(reuse: str) -> str:
    made = steps(
        picture=PICTURE % "$(params.idea)" + f", reuse: {reuse}",
        clip=CLIP % "$(picture)",
        large="model: rh-video-upscaler, from: $(clip), assume: {price: 1}",
    )
    return f"name: chain\nparams: {{idea: {{type: string, default: a mug}}}}\n{made}outputs: {{large: $(large)}}\n"


NEVER, AN_HOUR = chain("never"), chain("1h")
STEPS = 3
SCHEDULED = {"is_scheduled": True}


@dataclass
class Runs:
    """Runs of one pipeline on one machine, with a table of what each had to pay and what it has paid."""

    rh: Emulator
    folder: Path
    text: str = NEVER
    rows: list[tuple[str, str, int]] = field(default_factory=list)

    def given(self, name: str) -> dict[str, Any]:
        store = str(self.folder / "store")
        return {"url": self.rh.url, "key": self.rh.key, "folder": self.folder, "store_url": store, "name": name}

    def process(self, name: str) -> PipelineRun:
        return PipelineRun(**self.given(name))

    async def run(self, name: str, *, pays: int, **more: Any) -> Plan:
        """Runs it to its end, and checks what was paid."""
        process, before = self.process(name), len(self.rh.recorder.paid)
        try:
            plan = await process.run(self.text, **more)
        except SubmissionUnknown as error:
            await self._settle(process, error)
            plan = await process.run(self.text, **more)
        paid = len(self.rh.recorder.paid) - before
        self.rows.append((name, str(pays), paid))
        assert pays == paid, self.table()
        return plan

    async def stopped(self, name: str, number: int, **more: Any) -> bool:
        """Runs it until it would create a record; returns whether it was stopped before its end."""
        process, before = self.process(name), len(self.rh.recorder.paid)
        process.operation = Stopped(number)
        was_stopped = False
        try:
            await process.run(self.text, **more)
        except ProcessKilled:
            was_stopped = True
        bury(self.folder)
        self.rows.append((f"{name}, stopped before record {number}", "?", len(self.rh.recorder.paid) - before))
        return was_stopped

    async def killed(self, name: str, number: int) -> bool:
        """Runs it in a process that is killed before it creates a record; returns whether it was killed."""
        before = len(self.rh.recorder.paid)
        process = FORKS.Process(target=run_pipeline_and_be_killed, args=(self.given(name), self.text, number, {}))
        process.start()
        await asyncio.to_thread(process.join)
        assert process.exitcode in (0, 9), self.table()
        self.rows.append((f"{name}, killed before record {number}", "?", len(self.rh.recorder.paid) - before))
        return process.exitcode == 9

    async def is_closed(self) -> bool:
        return bool(await asyncio.to_thread(lambda: list(self.folder.glob(f"store/{ROUNDS}/*/*-closed-1.json"))))

    async def _settle(self, process: PipelineRun, error: SubmissionUnknown) -> None:
        """Does what a person does who finds the task in the call log, or does not find it."""
        works, key = await process.works(), str(error.job).rpartition("/")[2]
        known = {submit.task_id for view in [view async for view in jobs_of(works)] for submit in view.submits}
        lost = [one.task_id for one in self.rh.recorder.paid if one.task_id not in known]
        await (adopt(works, key, lost[0]) if lost else mark_refused(works, key))

    def table(self) -> str:
        lines = [f"  {name:40} wanted {wanted:>2}  paid {paid}" for name, wanted, paid in self.rows]
        return "\n".join(["payments:", *lines])


async def check_every_end(rh: Emulator, folder: Path, text: str, end: str, *, step: int = 1) -> int:
    """Ends a first run before each of its records, and lets a second run continue; returns how many there are."""
    for number in range(1, 100, step):
        # One account for all: what the tasks of one round ask for is asked for by no other.
        runs = Runs(rh, folder / str(number), text)
        if not await getattr(runs, end)("first", number):
            assert runs.rows[0][2] == STEPS, runs.table()
            return number
        paid = runs.rows[0][2]
        # The first run may have ended after it had closed its round; an age allows its results to the next one, too.
        is_new = await runs.is_closed() and "never" in text
        await runs.run("second", pays=STEPS if is_new else STEPS - paid)
        await runs.run("third", pays=STEPS if "never" in text else 0)
    raise AssertionError("the run creates records without end")


@pytest.mark.parametrize(
    ("text", "step"),
    [
        pytest.param(NEVER, 1, id="never", marks=pytest.mark.long),
        pytest.param(AN_HOUR, 1, id="an age", marks=pytest.mark.long),
        pytest.param(AN_HOUR, 4, id="an age, a quarter of its steps"),
    ],
)
async def test_a_run_that_ended_at_any_step_is_continued_without_a_second_payment(
    rh: Emulator, tmp_path: Path, text: str, step: int
) -> None:
    assert await check_every_end(rh, tmp_path, text, "stopped", step=step) > 6 * STEPS


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("text", [NEVER, AN_HOUR], ids=["never", "an age"])
async def test_a_process_that_was_killed_at_any_step_is_continued(rh: Emulator, tmp_path: Path, text: str) -> None:
    assert await check_every_end(rh, tmp_path, text, "killed") > 6 * STEPS


async def test_schedules_that_overlap_have_their_own_rounds_and_retries_keep_them(rh: Emulator, tmp_path: Path) -> None:
    runs = Runs(rh, tmp_path)
    total = await records_of_a_run(rh, tmp_path / "counted")
    # While the answer of a payment is not recorded, between two payments, and after the last one.
    for number in (9, 20, total - 2):
        first = f"schedule-{number}"
        await runs.stopped(first, number, rounds=SCHEDULED)
        paid = runs.rows[-1][2]
        # The next schedule does not wait for the first one, and uses nothing that it has made.
        await runs.run(f"{first}-next", pays=STEPS, rounds=SCHEDULED)
        await runs.run(first, pays=STEPS - paid, rounds=SCHEDULED)
        # Its retry has completed its own round, so that a run by hand makes a new one.
        await runs.run(f"by-hand-{number}", pays=STEPS)


async def records_of_a_run(rh: Emulator, folder: Path) -> int:
    """Returns how many records a whole run creates."""
    process, operations = Runs(rh, folder).process("counted"), list[str]()
    process.operation = operations.append
    await process.run(NEVER)
    return sum(one.startswith("create") for one in operations)


async def test_a_second_run_at_the_same_time_is_refused_before_it_pays(rh: Emulator, tmp_path: Path) -> None:
    runs = Runs(rh, tmp_path)
    process = runs.process("first")
    rounds = process.rounds(is_run=True)
    first = await process.plan(NEVER, rounds)
    with pytest.raises(InputError, match=r"Run first .* Nothing was paid.*rh-prefect jobs cancel first"):
        await runs.process("second").run(NEVER)
    plan = await runs.process("plan").plan(NEVER)
    assert any("is being made by run first" in note for note in plan.notes)
    assert plan.instances[0].works[0].key == first.instances[0].works[0].key
    assert rh.recorder.paid == []
    # Other parameters, and another deployment, are other rounds.
    await runs.run("third", pays=STEPS, idea="a cup")
    await runs.run("fourth", pays=STEPS, rounds={"deployment": "nightly"})
    await rounds.leave(is_complete=False)
    await runs.run("second", pays=STEPS)


RECORDS = "chain"
DAY = datetime(2026, 11, 29, 12, tzinfo=UTC)


class Days:
    """Rounds in memory, with a clock that a test sets."""

    def __init__(self) -> None:
        self.place = MemoryPlace()
        self.now = DAY

    def rounds(self, run: str | None, **more: Any) -> Rounds:
        journal = None if run is None else MemoryJournal(self.place, run)
        records = FiniteJournal(self.place, ROUNDS)
        records.before_read = lambda _: asyncio.sleep(0)  # other tasks run meanwhile, as with any real store
        return Rounds(records, deployment="cli", run=journal, now=lambda: self.now, **more)

    def bury(self) -> None:
        """Has the records name a process that has ended in place of this one."""
        for key, text in self.place.texts(ROUNDS).items():
            self.place._scopes[ROUNDS][key] = text.replace(f'"pid": {current_owner().pid}', '"pid": 4194305')

    async def held(self, run: str) -> Rounds:
        rounds = self.rounds(run)
        await rounds.round(RECORDS)
        return rounds

    async def scope(self, run: str | None = None, **more: Any) -> str:
        return (await self.rounds(run, **more).round(RECORDS)).scope


OPEN = RoundState(n=1, began=DAY, seen=DAY)
REVIEWED = replace(OPEN, left=Left(waits_for_review=True))


@pytest.mark.parametrize(
    ("state", "hours", "is_running", "verdict"),
    [
        (RoundState(), 0, False, "begin"),
        (replace(OPEN, is_closed=True), 1, True, "begin"),
        (OPEN, 24, False, "continue"),
        (OPEN, 24, True, "refuse"),
        (OPEN, 25, False, "abandon"),
        (OPEN, 25, True, "refuse"),
        (replace(OPEN, left=Left()), 25, False, "abandon"),
        (REVIEWED, 250, False, "continue"),
        (REVIEWED, 250, True, "refuse"),
    ],
)
def test_what_a_run_does_with_a_round(state: RoundState, hours: float, is_running: bool, verdict: Verdict) -> None:
    assert state.verdict(now=DAY + timedelta(hours=hours), is_running=is_running) == verdict


async def test_an_open_round_is_abandoned_after_a_day_with_a_message() -> None:
    days = Days()
    first = await days.held("first")
    scope = (await first.round(RECORDS)).scope
    await first.leave(is_complete=False)
    days.now += timedelta(hours=24)
    assert await days.scope() == scope
    days.now += timedelta(seconds=1)
    expected = await days.rounds(None).round(RECORDS)
    assert expected.scope != scope
    assert expected.note == (
        "the round that began 29 Nov 12:00 UTC was not complete and was not continued for 24 hours: its results "
        "are not used"
    )
    begun = await days.rounds("second").round(RECORDS)
    assert (begun.scope, begun.note, begun.began) == (expected.scope, expected.note, days.now)
    # A retry of the first run keeps its own.
    assert await days.scope("first") == scope


async def test_a_run_logs_that_a_round_is_continued_but_not_that_one_begins(caplog: pytest.LogCaptureFixture) -> None:
    days = Days()
    with caplog.at_level("INFO", "rh_prefect"):
        await (await days.held("first")).leave(is_complete=False)
        assert caplog.messages == []
        await days.held("second")
    assert caplog.messages == [
        "the round that began 29 Nov 12:00 UTC is not complete and is continued: its results are used"
    ]


async def test_the_takes_of_a_step_are_decided_once_in_a_round() -> None:
    days = Days()
    first, second, plan = days.rounds("first"), days.rounds("second"), days.rounds(None)
    assert await plan.takes_of("choice", [1]) == [1]
    assert not await plan.takes_of("choice"), "a plan decides nothing"
    assert await first.takes_of("choice", [2]) == [2]
    assert await second.takes_of("choice", [3]) == (2,)
    assert await plan.takes_of("choice") == (2,)
    assert await second.takes_of("another", [3]) == [3]


async def test_a_round_that_waits_for_a_review_is_continued_after_days() -> None:
    days = Days()
    first = await days.held("first")
    await first.leave(is_complete=False, waits_for_review=True)
    days.now += timedelta(days=9)
    assert await days.scope("second") == await days.scope("first")


async def test_a_run_of_several_days_keeps_its_round_after_a_kill() -> None:
    days, signs = Days(), dict[str, datetime]()

    async def alive_at(run: str) -> datetime | None:
        return signs.get(run)

    scope = await days.scope("first")
    signs["first"] = days.now = DAY + timedelta(hours=30)
    with pytest.raises(InputError, match="Run first"):
        await days.held("second")
    days.bury()
    days.now += timedelta(hours=23)
    assert await days.scope(None, alive_at=alive_at) == await days.scope("second", alive_at=alive_at) == scope


async def test_a_plan_has_the_price_of_another_round_if_the_open_one_gave_no_sign_of_life_for_a_day() -> None:
    days = Days()
    scope = await days.scope("first")
    days.now += timedelta(hours=24)
    assert await days.scope(None) == scope
    days.now += timedelta(seconds=1)
    expected = await days.rounds(None).round(RECORDS)
    assert expected.scope != scope
    assert "is being made by run first" in expected.note


async def test_a_round_has_these_records() -> None:
    days = Days()
    first = await days.held("first")
    round_ = await first.round(RECORDS)
    assert (round_.began, round_.note) == (DAY, "")
    key = round_.scope.removesuffix("-1")
    await first.leave(is_complete=False)
    days.now += timedelta(hours=1)
    second = await days.held("second")
    days.now += timedelta(hours=1)
    with pytest.raises(InputError, match="Run second"):
        await days.held("third")
    assert (await days.rounds(None).round(RECORDS)).began == DAY
    await second.leave(is_complete=True)
    third = await days.held("third")
    await third.suspend(seconds=60)
    of_first = {f"{key}-1", f"{key}-1-holder-1", f"{key}-1-left-1"}
    of_second = {f"{key}-1-holder-2", f"{key}-1-closed-1", f"{key}-1-left-2"}
    of_third = {f"{key}-2", f"{key}-2-holder-1", f"{key}-2-suspended-1"}
    assert set(days.place.texts(ROUNDS)) == of_first | of_second | of_third
    # The retry of a run whose round is complete says nothing of it.
    assert (await days.rounds("first").round(RECORDS)).note == ""


async def test_a_plan_and_a_run_without_a_round_write_nothing() -> None:
    days = Days()
    plan, run = days.rounds(None), days.rounds("run")
    await plan.round(RECORDS)
    for rounds in (plan, run):
        await rounds.suspend(seconds=60)
        await rounds.leave(is_complete=True)
    assert days.place.texts(ROUNDS) == {}


async def test_a_suspended_run_keeps_its_round_without_a_process_until_it_is_resumed() -> None:
    days = Days()
    first = await days.held("first")
    scope = (await first.round(RECORDS)).scope
    await first.suspend(seconds=60)
    days.bury()
    with pytest.raises(InputError, match="Run first"):
        await days.held("second")
    assert await days.scope("first") == scope
    with pytest.raises(InputError, match="Run first"):
        await days.held("second")
    days.bury()
    assert await days.scope("second") == scope


async def test_a_cancelled_run_ends_no_part_but_its_own_and_its_round_is_abandoned_after_a_day() -> None:
    days = Days()
    await days.held("first")
    days.bury()
    second = await days.held("second")
    scope = (await second.round(RECORDS)).scope
    records = MemoryJournal(days.place, ROUNDS)
    await leave_rounds(MemoryJournal(days.place, "first"), records)
    with pytest.raises(InputError, match="Run second"):
        await days.held("third")
    for _ in range(2):
        await leave_rounds(MemoryJournal(days.place, "second"), records)
    assert await days.scope() == scope
    days.now = datetime.now(UTC) + timedelta(hours=25)
    assert await days.scope() != scope


async def test_a_run_that_has_ended_in_prefect_is_not_waited_for() -> None:
    async def has_ended(run: str) -> bool:
        return run == "first"

    days = Days()
    await days.held("first")
    scope = await days.scope("second", has_ended=has_ended)
    with pytest.raises(InputError, match="Run second"):
        await days.scope("third", has_ended=has_ended)
    assert await days.scope("first") == scope


async def test_a_run_of_which_prefect_knows_nothing_is_waited_for_unless_it_is_silent_and_not_suspended() -> None:
    days, asked = Days(), list[tuple[str, str]]()

    async def is_silent(run: str, key: str) -> bool:
        asked.append((run, key))
        return True

    scope = (await (await days.held("first")).round(RECORDS)).scope
    second = days.rounds("second", is_silent=is_silent)
    assert (await second.round(RECORDS)).scope == scope
    assert asked == [("first", f"{scope}-holder-1")]
    await second.suspend(seconds=60)
    with pytest.raises(InputError, match="Run second"):
        await days.scope("third", is_silent=is_silent)
    assert len(asked) == 1, "a suspended run has no process that could give a sign of life"


@pytest.mark.parametrize(("seconds", "hours"), [(60, 24), (30 * 3600, 30)])
async def test_a_lost_suspended_run_is_waited_for_while_it_can_be_resumed(seconds: float, hours: float) -> None:
    """Its flow run was deleted, or Prefect's database is another one."""
    days = Days()
    first = await days.held("first")
    scope = (await first.round(RECORDS)).scope
    await first.suspend(seconds=seconds)
    days.bury()
    days.now += timedelta(hours=hours)
    with pytest.raises(InputError, match="Run first"):
        await days.held("second")
    days.now += timedelta(seconds=1)
    assert await days.scope(None) == await days.scope("second") != scope


@pytest.mark.parametrize("knows", [None, False])
async def test_a_silent_run_on_another_host_is_waited_for_for_a_day(knows: bool | None) -> None:
    """A storage may have no modification times."""

    async def has_ended(run: str) -> bool | None:
        return knows

    days = Days()
    scope = await days.scope("first")
    for key, text in days.place.texts(ROUNDS).items():
        days.place._scopes[ROUNDS][key] = text.replace(current_owner().host, "elsewhere")
    days.now += timedelta(hours=24)
    with pytest.raises(InputError, match="Run first"):
        await days.scope("second", has_ended=has_ended)
    days.now += timedelta(seconds=1)
    if knows is None:
        assert await days.scope("second") != scope
        return
    with pytest.raises(InputError, match="Run first"):
        await days.scope("second", has_ended=has_ended)


async def test_a_run_that_could_not_note_its_round_continues_it() -> None:
    days = Days()
    scope = await days.scope("first")
    days.place._scopes["first"].clear()
    assert await days.scope("first") == scope


async def test_runs_that_begin_at_once_make_one_round() -> None:
    days = Days()
    found = await asyncio.gather(*(days.scope(f"run-{number}") for number in range(8)), return_exceptions=True)
    assert len([one for one in found if isinstance(one, str)]) == 1
    assert all(isinstance(one, str | InputError) for one in found)
    schedules = [days.scope(f"schedule-{number}", is_scheduled=True) for number in range(8)]
    assert len(set(await asyncio.gather(*schedules))) == 8


@pytest.mark.parametrize("options", [{}, SCHEDULED], ids=["by hand", "scheduled"])
async def test_all_steps_of_a_run_have_one_round(options: dict[str, Any]) -> None:
    days = Days()
    run = days.rounds("run", **options)
    rounds = await asyncio.gather(*(run.round(RECORDS) for _ in range(8)))
    assert len({one.scope for one in rounds}) == 1
    await run.leave(is_complete=False, waits_for_review=True)
    begun, *records = sorted(days.place.texts(ROUNDS))
    assert records == [f"{begun}-holder-1", f"{begun}-left-1"]


async def test_equal_calls_of_a_scheduled_run_at_once_have_one_round() -> None:
    days = Days()
    found = await asyncio.gather(*(days.scope("run", **SCHEDULED) for _ in range(4)))
    assert len(set(found)) == 1


async def test_a_call_continues_the_round_that_an_equal_call_noted_first() -> None:
    """Another run of the schedule began a round meanwhile, so the equal call did not see this one's."""
    days, found = Days(), list[str]()

    async def others(*_: Any) -> None:
        found.extend([await days.scope(name, **SCHEDULED) for name in ("schedule", "run")])

    run = FiniteJournal(days.place, "run")
    run.before_create = others
    call = Rounds(MemoryJournal(days.place, ROUNDS), deployment="cli", run=run, is_scheduled=True)
    assert (await call.round(RECORDS)).scope == found[1] != found[0]


async def test_the_reads_do_not_grow_with_the_rounds() -> None:
    days = Days()
    for number in range(300):
        one = await days.held(f"run-{number}")
        await one.leave(is_complete=True)
    records = FiniteJournal(days.place, ROUNDS)
    await Rounds(records, deployment="cli").round(RECORDS)
    assert records.reads < 30


def set_ages(folder: Path, hours: float) -> None:
    """Makes all results, and nothing else, older."""
    for result in folder.glob("store/works/*/result.json"):
        at = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
        result.write_text(re.sub(r'"at": ?"[^"]*"', f'"at": "{at}"', result.read_text()))


async def test_an_age_counts_when_the_round_begins(rh: Emulator, tmp_path: Path) -> None:
    runs = Runs(rh, tmp_path, AN_HOUR)
    await runs.run("first", pays=STEPS)
    set_ages(tmp_path, 0.9)
    await runs.run("second", pays=0)
    set_ages(tmp_path, 1.1)
    rh.faults.add(Fault("submit", prompt="slow", kind="fail", code="1504", times=1))
    with pytest.raises(JobFailed):
        await runs.process("third").run(AN_HOUR)  # a picture, and a clip that fails
    assert len(rh.recorder.paid) == STEPS + 2
    set_ages(tmp_path, 5)  # the rest of the round is made hours later
    await runs.run("fourth", pays=2)
    await runs.run("fifth", pays=STEPS)


async def test_the_newest_result_of_an_age_is_found_among_many(rh: Emulator, tmp_path: Path) -> None:
    text = "name: aged\nsteps: {a: {model: z-image/turbo, with: {prompt: a mug}, reuse: 1h, takes: 2}}"
    runs = Runs(rh, tmp_path, text)
    for number in range(6):
        await runs.run(str(number), pays=2)
        set_ages(tmp_path, 2)
    last = await runs.run("last", pays=2)
    assert [work.take for work in last.instances[0].works] == [13, 14]
    process, reads = runs.process("later"), list[str]()
    process.operation = reads.append
    found = await process.plan(text)
    assert [work.take for work in found.instances[0].works] == [13, 14]
    assert len(reads) < 60


@pytest.mark.parametrize(
    ("param", "default", "alike", "other"),
    [
        ("{type: integer, default: 5}", 5, ["5", 5.0, ""], 6),
        ("{type: number, default: 0.5}", 0.5, ["0.50", None], 5),
        ("{type: boolean, default: false}", False, ["false"], True),
        ("{enum: ['1:1', '16:9'], default: '1:1'}", "1:1", [" 1:1"], "16:9"),
        ("{type: list, default: [a, b]}", ["a", "b"], ["a, b", '["a", "b"]'], ["b", "a"]),
        ("{type: table, columns: {t: string}, default: [{t: x}]}", [{"t": "x"}], [], [{"t": "y"}]),
        ("{type: image, default: a.png}", "a.png", ["./a.png"], "c.png"),
    ],
    ids=lambda one: one.split()[1] if isinstance(one, str) and "{" in one else "",
)
async def test_a_default_that_is_written_out_is_no_other_round(
    rh: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    param: str,
    default: Any,
    alike: list[Any],
    other: Any,
) -> None:
    """Prefect and forms pass all parameters, a command line only those that a person gives."""
    for name, size in PHOTOS:
        samples.png(tmp_path / name, size=size)
    monkeypatch.chdir(tmp_path)
    text = f"params: {{one: {param}}}\nsteps:\n  mug: {{model: z-image/turbo, with: {{prompt: a mug}}, reuse: never}}\n"
    process = Runs(rh, tmp_path).process("plan")

    async def scope(**given: Any) -> str | None:
        plan = await process.plan(text, **given)
        assert not plan.problems, plan.problems
        return plan.instances[0].works[0].scope

    unsaid = await scope()
    assert [await scope(one=value) for value in (default, *alike)] == [unsaid] * (1 + len(alike))
    assert await scope(one=other) != unsaid


PHOTOS: Sequence[tuple[str, tuple[int, int]]] = (("a.png", (320, 320)), ("b.png", (320, 320)), ("c.png", (330, 320)))


async def test_an_edit_of_a_default_file_or_table_is_another_round(
    run: PipelineRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = """
params:
  photo: {type: image, default: a.png}
  rows: {type: table, columns: {t: string}, default: rows.csv}
  photos: {type: files, of: image, default: photos}
  logo: {type: image, optional: true}
steps: {mug: {model: z-image/turbo, with: {prompt: a mug}, reuse: never}}
"""
    for name in ("a.png", "b.png", "photos/one.png"):
        samples.png(tmp_path / name, size=(320, 320))
    table = tmp_path / "rows.csv"
    table.write_text("t\nx\n")

    async def scope(written: str = text, **given: Any) -> str | None:
        return (await run.plan(written, **given)).instances[0].works[0].scope

    first = await scope()
    (tmp_path / "copy.csv").write_text("t\nx\n")
    assert await scope(photo="b.png", rows="copy.csv", photos=["b.png"]) == first
    without_logo = text.replace("  logo: {type: image, optional: true}\n", "")
    assert await scope(without_logo) == await scope(f"budget: 20\n{text}") == first
    found = [first]
    for change in (
        lambda: table.write_text("t\ny\n"),
        lambda: samples.png(tmp_path / "a.png", size=(330, 320)),
        lambda: samples.png(tmp_path / "photos/two.png", size=(340, 320)),
    ):
        change()
        found.append(await scope())
    assert len(set(found)) == len(found)


async def test_new_results_within_a_round_are_other_takes(rh: Emulator, tmp_path: Path) -> None:
    runs = Runs(rh, tmp_path)
    await runs.stopped("first", await records_of_a_run(rh, tmp_path / "counted"))
    run = partial(runs.run, rounds={})
    await run("second", pays=STEPS, new=["picture"])
    await run("third", pays=STEPS, new=["*"])
