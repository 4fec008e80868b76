"""Every course that the runs of one work can take: crashes before any operation, lost answers, refusals, failures.

`explore` walks through all states of a small world in which real `run_work` coroutines meet: two runs at once, a person
who settles unknown submissions by what RunningHub's call log says, and a later run. It raises `Violation` at a second
payment, at a run that waits for ever, at two results, at an intent that the run's journal does not name, at a task of a
cancelled run that goes on though no run that lives waits for it, at a wait for a task before the run has read whether
it was cancelled, and at an amount that stays reserved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache, cached_property, reduce
from typing import Any, TypeAlias

from rh_prefect.errors import JobCancelled, JobFailed, SubmissionUnknown, explain
from rh_prefect.works.journal.job_records_and_state import Submit
from rh_prefect.works.journal.record_types import Answer, End, Intent, Owner, Resolution, ResultRecord
from rh_prefect.works.lifecycle import Invalid, Policy, may_cancel
from tests.support.world.asked_steps import AskedSteps, Life, Step, life_of

HELPS, NO_HELP = "1504", "401"
"""Codes of failed tasks: after the first a new task may succeed."""

Token: TypeAlias = Any
"""A hashable stand-in for what a step comes back as."""


class Violation(AssertionError):
    """The protocol allows what it must not."""


@dataclass(frozen=True)
class Actor:
    """A process: of a run, or the hook that cancels a run's task."""

    pid: str
    flow_run: str
    attempts: int = 1  # how many tasks the run may pay for
    machine: str = "one"  # processes of one machine share a spool
    may_die: bool = True  # whether it can be killed
    begins: str = "at once"  # or `later`: when all others have ended; or `cancel`: when the run's process was killed
    has_key: bool = True  # whether it can poll the tasks of other runs


@dataclass(frozen=True)
class Faults:
    """How often in one course each of these can happen."""

    lost: int = 1
    refused: int = 1
    failed: int = 1
    invalid: int = 0
    late: int = 1
    cancelled: int = 0


@dataclass(frozen=True)
class World:
    """One state, but for the processes."""

    records: tuple[tuple[str, Token], ...] = ()  # the work's records, by name
    notes: frozenset[Token] = frozenset()  # what the flow runs' journals hold
    tasks: tuple[tuple[int, str], ...] = ()  # their states, by submission number
    spool: frozenset[tuple[str, int]] = frozenset()  # tickets on their way to the records, by machine and number
    given_up: frozenset[int] = frozenset()  # numbers that a watcher called unknown before their POST was begun
    posted: frozenset[int] = frozenset()  # numbers whose POST was begun
    dead: frozenset[str] = frozenset()
    cancelled: frozenset[str] = frozenset()  # flow runs that a person has cancelled
    asked: tuple[tuple[str, bool], ...] = ()  # whether another run waits, as a cancelling process has read it
    cancelling: frozenset[str] = frozenset()  # processes that have cancelled a task
    left: Faults = field(default_factory=Faults)  # how often faults can still happen

    @cached_property
    def _by_name(self) -> dict[str, Token]:
        return dict(self.records)

    def but(self, **changes: Any) -> World:
        """As `replace` makes it, in a quarter of the time: most of an exploration is this."""
        made = object.__new__(World)
        values = vars(made)
        values.update(vars(self))
        values.pop("_by_name", None)
        values.update(changes)
        return made

    def read(self, name: str) -> Token | None:
        return self._by_name.get(name)

    def create(self, name: str, value: Token, *, exclusive: bool = True) -> World:
        if exclusive and name in self._by_name:
            return self
        records = {**self._by_name, name: value}
        return self.but(records=tuple(sorted(records.items())))

    def note(self, *note: Token) -> World:
        return self.but(notes=self.notes | {note})

    def task(self, n: int) -> str | None:
        return dict(self.tasks).get(n)

    def with_task(self, n: int, status: str) -> World:
        return self.but(tasks=tuple(sorted({**dict(self.tasks), n: status}.items())))

    def using(self, fault: str) -> World:
        return self.but(left=replace(self.left, **{fault: getattr(self.left, fault) - 1}))

    def waits(self, actor: Actor) -> bool:
        return self.read(f"waiter-{actor.pid}") is not None and self.read(f"released-{actor.pid}") is None

    def released(self, actor: Actor) -> World:
        return self.create(f"released-{actor.pid}", True) if self.waits(actor) else self

    def submission(self, n: int) -> Token | None:
        if self.read(f"intent-{n}") is None:
            return None
        return (n, *(self.read(f"{what}-{n}") for what in ("intent", "answer", "resolution", "end")))

    @property
    def result(self) -> Token | None:
        return self.read("result")


@cache
def submit_of(token: Token) -> Submit:
    n, (pid, flow_run), answer, resolution, end = token
    return Submit(
        n,
        intent_of(n, pid, flow_run),
        answer and answer_of(answer, n),
        resolution
        and Resolution(token="", at="", outcome=resolution, task_id=f"{n}" if resolution == "adopted" else None),
        end and end_of(end, n),
    )


@cache
def intent_of(n: int, pid: str, flow_run: str) -> Intent:
    owner = Owner(host="", boot="", pid=0, started="")
    given: dict[str, Any] = {"site": "", "model": "", "endpoint": "", "payload": {}, "base": ""}
    return Intent(token=f"{pid}-{n}", at="", owner=owner, account="a", flow_run=flow_run, **given)


@cache
def answer_of(outcome: str, n: int) -> Answer:
    ticket = {"task_id": f"{n}"} if outcome == "ticket" else {}
    return Answer(token="", at="", outcome=outcome, retry="throttled", **ticket)


@cache
def end_of(status: str, n: int) -> End:
    code = {"failed": HELPS, "hopeless": NO_HELP}.get(status, "")
    word = {"success": "SUCCESS", "invalid": "SUCCESS", "cancelled": "CANCELLED"}.get(status, "FAILED")
    return End(token="", at="", status=word, task_id=f"{n}", code=code, next_task=explain(code).next_task)


@cache
def result_of(n: int) -> ResultRecord:
    return ResultRecord(token="", at="", task_id=f"{n}", n=n)


def _value(step: Step, token: Token) -> Any:
    """What a step comes back as, from its stand-in."""
    match step:
        case ("read_result",) | ("record_result", _):
            return token and result_of(token)
        case ("read_submission", *_) | ("record_answer", *_):
            return token and submit_of(token)
        case ("claim", n):
            return token and intent_of(n, *token)
        case ("post", _, n):
            return answer_of(token, n)
        case ("await_end", submit, _) | ("cancel_task", submit):
            return end_of(token, submit.n)
        case ("publish", submit, _):
            return result_of(submit.n) if token == "success" else Invalid("another shape")
        case _:
            return token


async def cancel_run(steps: Any) -> bool:
    """Cancels each submission that the run's journal names, as the hook of a cancelled run does."""
    cancelled, claims = False, await steps.read_claims()
    for n in claims:
        submit = await steps.read_submission(n)
        if submit is not None and submit.state == "ticket" and await may_cancel(steps):
            await steps.cancel_task(submit)
            cancelled = True
    return cancelled


LOCAL = (
    "prepare",
    "await_slot",
    "free_slot",
    "reserve",
    "switch_account",
    "pause",
    "report_failure",
    "accepted",
)
"""Steps that change nothing which another process can see: they are done at once."""


@dataclass(frozen=True)
class Process:
    history: tuple[Token, ...]  # what its steps came back as so far
    step: Any  # what it is about to do; None where it has ended
    outcome: str  # what came of it: `result-n`, the name of an error, `dead`, or nothing yet
    place: Token  # equal for processes that go on equally


@dataclass(eq=False)
class Explorer:
    """Walks through all states of some actors."""

    actors: tuple[Actor, ...]
    faults: Faults
    exclusive: bool = True  # whether an intent is created exclusively
    dead_are_unpaid: bool = False  # whether the open intent of a dead process is taken for unpaid
    waiters_end: bool = True  # whether a run that has ended, or was killed, waits for nothing any more
    outcomes: set[tuple[str, ...]] = field(default_factory=set)
    _replayed: dict[tuple[Actor, tuple[Token, ...]], Process] = field(default_factory=dict)
    _same: dict[Token, Process] = field(default_factory=dict)

    def explore(self) -> int:
        start = (World(left=self.faults), tuple(self._process(one, ()) for one in self.actors))
        seen, waiting = {_key(start)}, [start]
        while waiting:
            world, processes = waiting.pop()
            following = list(self._following(world, processes))
            if not following:
                self._check_end(world, processes)
            for state in following:
                key = _key(state)
                if key not in seen:
                    seen.add(key)
                    self._check(*state)
                    waiting.append(state)
        return len(seen)

    def _following(self, world: World, processes: tuple[Process, ...]) -> Iterator[tuple[World, tuple[Process, ...]]]:
        yield from ((after, processes) for after in _settled_by_person(world))
        yield from ((after, processes) for after in self._cancelled_by_person(world))
        for index, (actor, process) in enumerate(zip(self.actors, processes)):
            if process.outcome or not self._has_begun(actor, world, processes):
                continue
            for after, token in self._do(actor, process.step, world, processes):
                if isinstance(token, Exception):
                    moved = replace(process, step=None, outcome=type(token).__name__, place=type(token).__name__)
                else:
                    moved = self._process(actor, (*process.history, token))
                _check_cancellation(actor, moved, after)
                has_failed = moved.outcome and not moved.outcome.startswith(("result-", "cancelled: "))
                left = after.released(actor) if has_failed else after
                yield left, (*processes[:index], moved, *processes[index + 1 :])
            if actor.may_die:
                died = Process((), None, "dead", "dead")
                after = world.but(dead=world.dead | {actor.pid})
                yield after, (*processes[:index], died, *processes[index + 1 :])

    def _cancelled_by_person(self, world: World) -> Iterator[World]:
        for flow_run in {one.flow_run for one in self.actors if one.begins == "at once"} - world.cancelled:
            if world.left.cancelled:
                yield world.using("cancelled").but(cancelled=world.cancelled | {flow_run})

    def _waits(self, actor: Actor, world: World, processes: tuple[Process, ...]) -> bool:
        """Whether another run waits for the work; a violation where that only seems so."""
        others = [one for one in self.actors if one.flow_run != actor.flow_run and world.read(f"waiter-{one.pid}")]
        # The end of a process on another machine cannot be proved.
        counted = [
            one for one in others if world.waits(one) and (one.machine != actor.machine or one.pid not in world.dead)
        ]
        if not self.waiters_end:
            alive = {one.pid for one, process in zip(self.actors, processes) if not process.outcome}
            counted = others
            if counted and not alive & {one.pid for one in counted}:
                raise Violation(f"the task of {actor.flow_run} goes on, and no run that lives waits for it: {world}")
        return bool(counted)

    def _has_begun(self, actor: Actor, world: World, processes: tuple[Process, ...]) -> bool:
        match actor.begins:
            case "later":
                return all(other.outcome for one, other in zip(self.actors, processes) if one.begins == "at once")
            case "cancel":
                return any(one.pid in world.dead for one in self.actors if one.flow_run == actor.flow_run)
            case _:
                return True

    def _process(self, actor: Actor, history: tuple[Token, ...]) -> Process:
        known = self._replayed.get((actor, history))
        if known is None:
            made = _replay(actor, history)
            # Two histories that lead to the same place of the lifecycle are one.
            known = self._same.setdefault((actor, made.place, made.outcome), made)
            self._replayed[actor, history] = known
        return known

    def _do(
        self, actor: Actor, step: Any, world: World, processes: tuple[Process, ...]
    ) -> Iterator[tuple[World, Token]]:
        """The ways in which a step can go: the world afterwards, and what it comes back as."""
        match step:
            case ("read_result",):
                yield world, world.result
            case ("note_waiter",):
                yield world.create(f"waiter-{actor.pid}", actor.flow_run), None
            case ("release_waiter",):
                mine = [one for one in self.actors if one.flow_run == actor.flow_run]
                yield reduce(World.released, mine, world), None
            case ("read_submission", n):
                after = _replay_spool(actor, n, world)
                yield after, after.submission(n)
            case ("note_claim", n):
                yield world.note(actor.flow_run, "claim", n), None
            case ("note_wait", n):
                yield world.note(actor.flow_run, "wait", n), None
            case ("has_waited", n, _):
                yield world, (actor.flow_run, "wait", n) in world.notes
            case ("read_claims",):
                claimed = (
                    n
                    for run, what, n in world.notes
                    if (run, what) == (actor.flow_run, "claim") or (run, what) == (actor.flow_run, "wait")
                )
                yield world, tuple(sorted(claimed))
            case ("has_other_waiters",):
                waits = self._waits(actor, world, processes)
                yield world.but(asked=tuple(sorted({**dict(world.asked), actor.pid: waits}.items()))), waits
            case ("is_cancelled", fresh):
                is_cancelled = actor.flow_run in world.cancelled
                yield world, is_cancelled
                if is_cancelled and not fresh:
                    yield world, False  # what was read a moment ago
            case ("claim", n):
                yield from self._claim(actor, n, world)
            case ("post", _, n):
                yield from self._post(actor, n, world)
            case ("record_answer", _, n, answer):
                after = _record_answer(n, answer.outcome, world)
                yield after.but(spool=after.spool - {(actor.machine, n)}), after.submission(n)
            case ("watch", submit):
                yield from self._watch(submit, world)
            case ("await_end", submit, _):
                yield from _await_end(actor, submit, world)
            case ("cancel_task", submit):
                if dict(world.asked).get(actor.pid) is not False:
                    raise Violation(f"{actor.pid} cancels task {submit.n} that another run may wait for: {world}")
                status = world.task(submit.n)
                status = "cancelled" if status == "pending" else status
                after = world.with_task(submit.n, str(status)).create(f"end-{submit.n}", status)
                after = after.but(cancelling=after.cancelling | {actor.pid})
                yield after, after.read(f"end-{submit.n}")
            case ("publish", submit, _):
                yield world, world.read(f"end-{submit.n}")
            case ("record_result", result):
                after = world.create("result", result.n)
                yield after, after.result
            case _:
                raise AssertionError(f"{step} is not modelled")

    def _claim(self, actor: Actor, n: int, world: World) -> Iterator[tuple[World, Token]]:
        if (actor.flow_run, "claim", n) not in world.notes:
            raise Violation(f"{actor.pid} claims {n}, which the journal of its run does not name: {world}")
        mine = (actor.pid, actor.flow_run)
        if world.read(f"intent-{n}") is None or not self.exclusive:
            yield world.create(f"intent-{n}", mine, exclusive=self.exclusive), mine
        else:
            yield world, None

    def _post(self, actor: Actor, n: int, world: World) -> Iterator[tuple[World, Token]]:
        if n in world.given_up:
            yield world, "refused"  # the process was stopped for too long, and does not post
            return
        posted = world.but(posted=world.posted | {n})
        running = [status for _, status in posted.tasks if status in ("pending", "success")]
        if running or posted.task(n) is not None:
            raise Violation(f"a second payment: {actor.pid} posts {n} beside {posted.tasks}")
        accepted = posted.with_task(n, "pending")
        yield accepted.but(spool=accepted.spool | {(actor.machine, n)}), "ticket"
        if world.left.lost:
            yield accepted.using("lost"), "unknown"
            yield posted.using("lost"), "unknown"
        if world.left.refused:
            yield posted.using("refused"), "refused"

    def _watch(self, submit: Submit, world: World) -> Iterator[tuple[World, Token]]:
        n, owner = submit.n, submit.intent.token.rpartition("-")[0]
        if world.read(f"answer-{n}") is not None:
            yield world, None
        elif owner in world.dead:
            yield world.create(f"answer-{n}", "refused" if self.dead_are_unpaid else "unknown"), None
        elif world.left.late:
            after = world.using("late").create(f"answer-{n}", "unknown")
            yield (after if n in world.posted else after.but(given_up=after.given_up | {n})), None

    def _check(self, world: World, processes: tuple[Process, ...]) -> None:
        results = {process.outcome for process in processes if process.outcome.startswith("result-")}
        if len(results) > 1 or (results and results != {f"result-{world.result}"}):
            raise Violation(f"two results: {results}, {world}")
        for actor in self.actors:
            paid = [n for n, _ in world.tasks if (world.read(f"intent-{n}") or ("", ""))[1] == actor.flow_run]
            if len(paid) > actor.attempts:
                raise Violation(f"{actor.flow_run} pays for {len(paid)} tasks with {actor.attempts} attempts: {world}")

    def _check_end(self, world: World, processes: tuple[Process, ...]) -> None:
        for actor, process in zip(self.actors, processes):
            if not process.outcome and self._has_begun(actor, world, processes):
                raise Violation(f"{actor.pid} waits for ever at {process.step}: {world}")
        going_on = [n for n, status in world.tasks if status == "pending" and world.read(f"answer-{n}") == "ticket"]
        if going_on and all(process.outcome == "JobCancelled" for process in processes):
            raise Violation(f"the tasks {going_on} go on, and all runs were cancelled: {world}")
        self.outcomes.add(tuple(process.outcome for process in processes))


def _replay(actor: Actor, history: tuple[Token, ...]) -> Process:
    policy = Policy(job="w", endpoint="e", run=actor.flow_run, attempts=actor.attempts, budget=Decimal(1))
    life: Life = cancel_run(AskedSteps(policy)) if actor.begins == "cancel" else life_of(policy)
    left, duties = iter(history), Duties()
    try:
        step = _past_local(life, life.send(None), duties)
        for token in left:
            duties.after(step, token)
            step = _past_local(life, life.send(_value(step, token)), duties)
    except StopIteration as over:
        duties.check_reserved("the end")
        outcome = f"result-{over.value.n}" if isinstance(over.value, ResultRecord) else f"cancelled: {over.value}"
        return Process(history, None, outcome, outcome)
    except (JobFailed, JobCancelled, SubmissionUnknown) as error:
        return Process(history, None, type(error).__name__, type(error).__name__)
    return Process(history, step, "", _place(life))


class Duties:
    """What a process owes its run: to release what it has reserved of the budget, and to look for a cancellation."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._has_looked = False

    def local(self, step: Any) -> None:
        match step:
            case ("reserve", n, _):
                self._numbers.add(n)
            case ("free_slot", _):
                self._numbers.clear()

    def after(self, step: Any, token: Token) -> None:
        match step:
            case ("record_answer", _, n, _) if token[2] != "refused":
                self._numbers.remove(n)
            case ("read_submission", _):
                self.check_reserved(f"{step}")
            case ("is_cancelled", is_fresh):
                self._has_looked = is_fresh and not token
            case ("await_end", submit, _):
                if not self._has_looked:
                    raise Violation(f"it waits for task {submit.n}, and has not read whether its run was cancelled")
                self._has_looked = False

    def check_reserved(self, where: str) -> None:
        """An error ends the process, which then releases all that it holds."""
        if self._numbers:
            raise Violation(f"the price of {self._numbers} stays reserved at {where}")


def _past_local(life: Life, step: Step, duties: Duties) -> Step:
    while step[0] in LOCAL:
        duties.local(step)
        step = life.send(None)
    return step


def _check_cancellation(actor: Actor, process: Process, world: World) -> None:
    """A cancelled run, or its hook, has ended: no task of it goes on unless another run waits for it."""
    if process.outcome != "JobCancelled" and not process.outcome.startswith("cancelled"):
        return
    if process.outcome == f"cancelled: {actor.pid not in world.cancelling}":
        raise Violation(f"{actor.pid} reports {process.outcome}: {world}")
    if dict(world.asked).get(actor.pid):
        return
    for n, status in world.tasks:
        is_own = (world.read(f"intent-{n}") or ("", ""))[1] == actor.flow_run
        if is_own and status == "pending" and world.read(f"answer-{n}") == "ticket":
            raise Violation(f"task {n} of the cancelled {actor.flow_run} goes on: {world}")


def _place(life: Any) -> Token:
    """Where a lifecycle stands: equal places go on equally."""
    found: list[Token] = []
    while (frame := getattr(life, "cr_frame", None)) is not None:
        values = sorted((name, repr(value)) for name, value in frame.f_locals.items())
        found.append((frame.f_code.co_name, frame.f_lasti, tuple(values)))
        life = life.cr_await
    return tuple(found)


def _key(state: tuple[World, tuple[Process, ...]]) -> Token:
    world, processes = state
    return world, tuple((process.place, process.outcome) for process in processes)


def _settled_by_person(world: World) -> Iterator[World]:
    """A person looks into the call log: adopts the task that is there, or forgets a submission without one."""
    for name, outcome in world.records:
        what, _, n = name.partition("-")
        if what == "answer" and outcome == "unknown" and world.read(f"resolution-{n}") is None:
            settled = "forgotten" if world.task(int(n)) is None else "adopted"
            yield world.create(f"resolution-{n}", settled)


def _record_answer(n: int, outcome: str, world: World) -> World:
    if world.read(f"answer-{n}") is None:
        return world.create(f"answer-{n}", outcome)
    settled = {"ticket": "adopted", "refused": "forgotten"}.get(outcome)
    return world if settled is None else world.create(f"resolution-{n}", settled)


def _replay_spool(actor: Actor, n: int, world: World) -> World:
    if (actor.machine, n) not in world.spool or world.read(f"answer-{n}") == "ticket":
        return world
    return _record_answer(n, "ticket", world) if world.read(f"intent-{n}") else world


def _await_end(actor: Actor, submit: Submit, world: World) -> Iterator[tuple[World, Token]]:
    n = submit.n
    known = world.read(f"end-{n}")
    if known is not None:
        yield world, known
        return
    if not actor.has_key and submit.intent.flow_run != actor.flow_run:
        yield world, JobFailed("the deadline has passed, and this run has no key of the account")
        return
    status = world.task(n)
    if status is None:
        raise Violation(f"{actor.pid} waits for task {n}, which does not exist")
    if status != "pending":
        yield world.create(f"end-{n}", status), status
        return
    yield world.with_task(n, "success").create(f"end-{n}", "success"), "success"
    for fault, ends in (("failed", ("failed", "hopeless")), ("invalid", ("invalid",))):
        for end in ends if getattr(world.left, fault) else ():
            yield world.using(fault).with_task(n, end).create(f"end-{n}", end), end
