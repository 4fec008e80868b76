"""A state machine of paid jobs: all events in any order, and the invariants after each.

Two or more processes run the jobs of one run, on machines that may be lost; each of their I/Os succeeds, half succeeds,
fails or never ends; they are stopped and killed between any two, and started again in the same attempt or the next.
RunningHub accepts, refuses, says nothing, ends tasks well and badly. People cancel, adopt and forget.

Three things are left out. A person reads the call log rightly. No process is stopped for longer than its submit may
take in the very moment between its last look at the clock and the first byte of its POST. And a cancellation is that of
the newest attempt: when it is looked at, the processes of earlier ones have died.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rh_prefect.errors import BudgetExceeded, JobCancelled, JobFailed, ResponseLost, SubmissionUnknown
from rh_prefect.works.journal.job_records import JobView, Submit
from rh_prefect.works.journal.process_identity import is_surely_dead
from rh_prefect.works.lifecycle import Policy
from rh_prefect.works.manual_repair import adopt, mark_refused
from rh_prefect.works.run_cancellation import CancelReport
from tests.support.servers.minimal_api import PRICE, MinimalApi, MinimalTask
from tests.support.world.job_records import is_hopeless
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace
from tests.support.world.payment_checks import PaymentChecks
from tests.support.world.simulated_io import Failure, Operation
from tests.support.world.simulated_process import SCOPE, Machine, Process, machines
from tests.support.world.virtual_time import VirtualLoop

JOBS = ("lighthouse1", "lighthouse2", "harbour1")
"""Two takes of one request, and another one."""

MOST_PROCESSES = 3

MOST_AT_WORK = 5
"""With those that cancel and bring tickets home."""

ROUNDS = 12
"""In so many more attempts, with nothing going wrong any more, every job must have come to its end."""

numbers = st.integers(0, 11)
"""Which of the processes, operations, tasks or jobs that there are just then."""


class PaidJobs(RuleBasedStateMachine):
    """See the module; `policy` and `books` are set when it begins."""

    policy: Policy
    books: PaymentChecks

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        # In memory where the system has that: a spool's flushes to a disk take longer than all else.
        disk = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="course-", dir=disk)
        self.machines = self.new_machines(Path(self._folder.name))
        self.place, self.hub = self.new_place(), MinimalApi()
        self.journal = MemoryJournal(self.place, SCOPE)
        self.processes: list[Process] = []
        self.strays: list[Operation] = []
        self.attempt = 1
        logging.disable(logging.CRITICAL)  # what is tried here is logged by the thousand

    def new_place(self) -> MemoryPlace:
        return MemoryPlace()

    def new_machines(self, folder: Path) -> list[Machine]:
        return machines(folder)

    @initialize(
        resubmit=st.sampled_from([False, False, True]),
        attempts=st.integers(1, 3),
        compete=st.booleans(),
        budget=st.sampled_from([None, 2, 3, 4]),
        ends_by=st.sampled_from(["finish", "finish", "cancel"]),
    )
    def begin(self, resubmit: bool, attempts: int, compete: bool, budget: int | None, ends_by: str) -> None:
        self.policy = Policy(
            job="",
            endpoint="m",
            attempts=attempts,
            on_unknown="resubmit" if resubmit else "raise",
            budget=None if budget is None else PRICE * budget,
        )
        self.books = PaymentChecks(self.place, self.hub, self.policy)
        self.ends_by = ends_by
        for machine in range(1 + compete):
            self._new_run(machine)

    # --- processes ---

    @precondition(lambda self: len(self.runs) < MOST_PROCESSES)
    @rule(machine=numbers)
    def start_a_second_process(self, machine: int) -> None:
        self._new_run(machine)

    @precondition(lambda self: len(self.runs) < MOST_PROCESSES)
    @rule(machine=numbers)
    def start_the_next_attempt(self, machine: int) -> None:
        self.attempt += 1
        self._new_run(machine)

    @precondition(lambda self: self.runs)
    @rule(which=numbers, job=numbers)
    def try_a_job_again(self, which: int, job: int) -> None:
        self._call(pick(self.runs, which), pick(JOBS, job))

    @precondition(lambda self: self.at_work)
    @rule(which=numbers)
    def kill(self, which: int) -> None:
        process = pick(self.at_work, which)
        self._say(f"{process} dies, waiting for {[one.name for one in process.operations]}")
        process.crash()

    @rule(which=numbers)
    def lose_a_machine(self, which: int) -> None:
        machine = pick(self.machines, which)
        for process in self.alive:
            if process.machine is machine:
                process.crash()
        for entry in list(machine.spool.entries()):
            machine.spool.drop(*entry.submission)

    @rule(seconds=st.sampled_from([1, 5, 29, 31, 61, 101, 600]))
    def time_passes(self, seconds: int) -> None:
        self._wait(seconds)

    # --- their I/O ---

    @precondition(lambda self: self.busy)
    @rule(which=numbers, first=numbers, count=st.integers(1, 12))
    def go_on(self, which: int, first: int, count: int) -> None:
        process = pick(self.busy, which)
        for _ in range(count):
            if process.operations:
                self._deliver(process, pick(process.operations, first))

    @precondition(lambda self: self.busy)
    @rule(which=numbers, count=st.integers(1, 12))
    def go_on_by_turns(self, which: int, count: int) -> None:
        for turn in range(count):
            if self.busy:
                process = pick(self.busy, which + turn)
                self._deliver(process, process.operations[0])

    @precondition(lambda self: self.busy)
    @rule(which=numbers, operation=numbers)
    def take_effect_and_say_nothing(self, which: int, operation: int) -> None:
        process = pick(self.busy, which)
        chosen = pick(process.operations, operation)
        self._say(f"{process}: {chosen.name} takes effect")
        chosen.take_effect()

    @precondition(lambda self: self.busy)
    @rule(which=numbers, operation=numbers, how=st.sampled_from(["before", "after", "later"]))
    def fail(self, which: int, operation: int, how: Failure) -> None:
        process = pick(self.busy, which)
        chosen = pick(process.operations, operation)
        if how == "later" and not chosen.name.startswith(("create", "submit")):
            how = "after"
        self._say(f"{process}: {chosen.name} fails, {how}")
        if how == "later":
            self.strays.append(chosen)
        process.release(chosen, lambda: chosen.fail(how))

    @precondition(lambda self: self.strays)
    @rule(which=numbers)
    def a_stray_request_arrives(self, which: int) -> None:
        stray = pick(self.strays, which)
        self._say(f"{stray.name} arrives late")
        self.strays.remove(stray)
        stray.take_effect()

    # --- RunningHub ---

    @precondition(lambda self: self.submitting)
    @rule(which=numbers, code=st.sampled_from(["421", "421", "1003", "416", "1501", "1000"]))
    def refuse(self, which: int, code: str) -> None:
        process, submit = pick(self.submitting, which)
        _, job, n = submit.name.split()
        self._say(f"{process}: {submit.name} is refused with {code}")
        error = self.hub.refuse(job, int(n), code)
        process.release(submit, lambda: submit.refuse(error))

    @precondition(lambda self: self.hub.live())
    @rule(which=numbers, code=st.sampled_from(["805", "1504", "1501", "301", ""]))
    def a_task_fails(self, which: int, code: str) -> None:
        task = pick(self.hub.live(), which)
        # Without a code: somebody cancelled it on the site.
        task.status, task.code = "FAILED" if code else "CANCELLED", code

    @precondition(lambda self: self.hub.live())
    @rule(which=numbers)
    def a_task_succeeds(self, which: int) -> None:
        pick(self.hub.live(), which).status = "SUCCESS"

    # --- people ---

    @precondition(lambda self: len(self.at_work) < MOST_AT_WORK)
    @rule()
    def cancel(self) -> None:
        self._new_process(0).cancel()

    @precondition(lambda self: self.unclear)
    @rule(which=numbers)
    def a_person_settles_what_is_unknown(self, which: int) -> None:
        self._settle(pick(self.unclear, which))

    @precondition(lambda self: len(self.at_work) < MOST_AT_WORK)
    @rule(which=numbers)
    def a_spool_is_replayed(self, which: int) -> None:
        self._new_process(which).replay_spool()

    # --- what must hold ---

    @invariant()
    def nothing_is_wrong(self) -> None:
        self.books.look_at_records()
        assert not self.wrongs, self.wrongs

    @invariant()
    def every_paid_task_is_known_or_its_claim_says_that_nobody_knows(self) -> None:
        for task in self.hub.tasks:
            assert self.books.whereabouts(task, self.machines), f"{task} is lost: {self.books.view(task.job)}"

    def teardown(self) -> None:
        try:
            if self.processes and not self.wrongs:
                self._come_to_an_end()
        finally:
            for process in self.processes:
                process.crash()
            with asyncio.Runner(loop_factory=lambda: self.loop):
                pass  # its end is that of all that still waits
            self._folder.cleanup()
            logging.disable(logging.NOTSET)

    # --- the end ---

    def _come_to_an_end(self) -> None:
        for process in self.alive:
            if process.attempt != self.attempt or self.ends_by == "finish":
                process.crash()
        if self.ends_by == "cancel":
            self._all_is_cancelled()
        else:
            self._all_is_finished()
        self.nothing_is_wrong()
        self.every_paid_task_is_known_or_its_claim_says_that_nobody_knows()

    def _all_is_cancelled(self) -> None:
        canceller = self._new_process(0)
        canceller.cancel()
        # Who cancels is not the slowest: the others have something left to do when the record is there.
        self._run_to_the_end([canceller, *(one for one in self.alive if one is not canceller)], succeed=False)
        report = canceller.outcomes["cancel"]
        assert isinstance(report, CancelReport), report
        unclear = {name.rpartition("/")[2] for name in report.failed}
        left = [task for task in self.hub.live() if task.job not in unclear and not self._is_given_up(task)]
        assert not left, f"{left} go on, and nobody says so: {report}"

    def _all_is_finished(self) -> None:
        for _ in range(ROUNDS):
            self.attempt += 1
            process = self._new_run(self.attempt)
            self._run_to_the_end([process])
            ends = {job: process.outcomes[job] for job in JOBS}
            process.crash()
            if all(self._is_final(job, end) for job, end in ends.items()):
                break
            for view in self.unclear:
                self._settle(view)
        else:
            raise AssertionError(f"after {ROUNDS} attempts in which nothing went wrong: {ends}")
        for task in self.hub.tasks:
            is_recorded = self.books.whereabouts(task, self.machines) == "recorded"
            assert is_recorded or self._is_given_up(task), f"{task} is not on record"
        for job, end in ends.items():
            good = [task.task_id for task in self.hub.of(job) if task.status == "SUCCESS"]
            assert not isinstance(end, Submit) or end.task_id in good

    def _is_final(self, job: str, end: object) -> bool:
        """Whether more attempts would change nothing: it succeeded, or it may not be paid for again."""
        if isinstance(end, SubmissionUnknown):
            return False
        if isinstance(end, JobFailed | JobCancelled):
            return is_hopeless(getattr(end, "code", ""))
        return isinstance(end, Submit | BudgetExceeded)

    def _run_to_the_end(self, processes: list[Process], *, succeed: bool = True) -> None:
        """Lets all I/O succeed, and the oldest task where nothing else is left to do."""
        for _ in range(3000):
            busy = [process for process in processes if process.operations]
            if busy:
                self._deliver(busy[0], busy[0].operations[0])
            elif all(process.is_over for process in processes):
                return
            else:
                if succeed and self.hub.live():
                    self.hub.live()[0].status = "SUCCESS"
                self._wait(5)
        raise AssertionError(f"{processes} never end")

    # --- how ---

    @property
    def runs(self) -> list[Process]:
        """The living processes of the run itself."""
        return [process for process in self.alive if process.called]

    def _new_run(self, machine: int) -> Process:
        process = self._new_process(machine)
        for job in JOBS:
            self._call(process, job)
        return process

    def _call(self, process: Process, job: str) -> None:
        policy = replace(
            self.policy,
            job=f"{SCOPE}/{job}",
            attempt=process.attempt,
            first_attempt=process.attempt,
        )
        process.call(job, policy)

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if not process.is_dead]

    @property
    def at_work(self) -> list[Process]:
        return [process for process in self.alive if not process.is_over]

    @property
    def busy(self) -> list[Process]:
        return [process for process in self.alive if process.operations]

    @property
    def unclear(self) -> list[JobView]:
        """The jobs of whose last submit a person has to say what became of it."""
        return [view for view in map(self.books.view, JOBS) if view.last and _is_unclear(view.last)]

    @property
    def wrongs(self) -> list[str]:
        return self.books.wrongs + [wrong for process in self.processes for wrong in process.wrongs]

    @property
    def submitting(self) -> list[tuple[Process, Operation]]:
        return [
            (process, one)
            for process in self.alive
            for one in process.operations
            if one.name.startswith("submit") and not one.is_done
        ]

    def _new_process(self, machine: int) -> Process:
        name, where = f"process{len(self.processes) + 1}", pick(self.machines, machine)
        told = self.books.is_about_to_be_accepted
        process = Process(name, where, self.attempt, loop=self.loop, place=self.place, hub=self.hub, submits=told)
        self._say(f"{process} begins {where.name}")
        self.processes.append(process)
        return process

    def _say(self, text: str) -> None:
        note(f"   {text}")

    def _deliver(self, process: Process, operation: Operation) -> None:
        self._say(f"{process}: {operation.name}")
        process.release(operation, operation.deliver)

    def _wait(self, seconds: float) -> None:
        self._do(asyncio.sleep(seconds))
        for process, submit in self.submitting:
            if submit.expires is not None and submit.expires < self.loop.time():
                self._say(f"{process}: {submit.name} was never answered")
                process.release(submit, partial(submit.refuse, ResponseLost("read timeout")))

    def _settle(self, view: JobView) -> None:
        assert view.last is not None
        # A person looks when nothing of it is under way any more.
        self.strays = [one for one in self.strays if one.name != f"submit {view.key} {view.last.n}"]
        task = self.hub.find(view.key, view.last.n)
        self._say(f"a person says that {view.key} is {task}")
        self._do(adopt(self.journal, view.key, task.task_id) if task else mark_refused(self.journal, view.key))

    def _is_given_up(self, task: MinimalTask) -> bool:
        return self.books.was_given_up(task.job, task.n)

    def _do(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)


def _is_unclear(submit: Submit) -> bool:
    return submit.state == "unknown" or (submit.state == "open" and is_surely_dead(submit.intent.owner))


def pick(choices: Any, number: int) -> Any:
    """One of several; any number selects one."""
    return choices[number % len(choices)]
