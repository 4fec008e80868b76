"""One sequence of events: processes whose I/O succeeds, half succeeds, fails or never ends, and the invariants
after each.

What the processes do is said by the machines that are made of this: `job_state_machine.py` and `branch_programs.py`.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rh_prefect.errors import ResponseLost
from rh_prefect.works.journal.job_records import JobView, Submit
from rh_prefect.works.journal.process_identity import is_surely_dead
from rh_prefect.works.lifecycle import Policy
from rh_prefect.works.manual_repair import adopt, mark_refused
from tests.support.servers.minimal_api import MinimalApi, MinimalTask
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace
from tests.support.world.payment_checks import PaymentChecks
from tests.support.world.simulated_io import Failure, Operation
from tests.support.world.simulated_process import SCOPE, Machine, Process, machines
from tests.support.world.virtual_time import VirtualLoop

MOST_AT_WORK = 5
"""With those that cancel and bring tickets home."""

ROUNDS = 12
"""In so many more attempts, with nothing going wrong any more, every job must have come to its end."""

numbers = st.integers(0, 11)
"""Which of the processes, operations, tasks or jobs that there are just then."""


class Course(RuleBasedStateMachine):
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

    @property
    def keys(self) -> Iterable[str]:
        """The jobs that there are."""
        return self.place.keys(SCOPE)

    # --- processes ---

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

    @precondition(lambda self: self.hub.live())
    @rule(which=numbers)
    def a_task_succeeds(self, which: int) -> None:
        pick(self.hub.live(), which).status = "SUCCESS"

    # --- people ---

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

    def _come_to_an_end(self) -> None:
        """What is still to be done when nothing goes wrong any more, and what must hold then."""
        raise NotImplementedError

    def _run_to_the_end(self, processes: list[Process], *, succeed: bool = True, newest_first: bool = False) -> None:
        for _ in range(3000):
            busy = [process for process in processes if process.operations]
            if busy:
                self._deliver(busy[0], busy[0].operations[-1 if newest_first else 0])
            elif all(process.is_over for process in processes):
                return
            else:
                self._time_goes_on(succeed=succeed)
        raise AssertionError(f"{processes} never end")

    def _time_goes_on(self, *, succeed: bool = True) -> None:
        """Lets some seconds pass, and the oldest task succeed."""
        if succeed and self.hub.live():
            self.hub.live()[0].status = "SUCCESS"
        self._wait(5)

    # --- how ---

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
        return [view for view in map(self.books.view, self.keys) if view.last and _is_unclear(view.last)]

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
        told = self._is_about_to_be_accepted
        process = Process(name, where, self.attempt, loop=self.loop, place=self.place, hub=self.hub, submits=told)
        self._say(f"{process} begins {where.name}")
        self.processes.append(process)
        return process

    def _is_about_to_be_accepted(self, process: Process, job: str, n: int) -> None:
        self.books.is_about_to_be_accepted(process, job, n)

    def _refuse(self, which: int, code: str) -> None:
        process, submit = pick(self.submitting, which)
        _, job, n = submit.name.split()
        self._say(f"{process}: {submit.name} is refused with {code}")
        error = self.hub.refuse(job, int(n), code)
        process.release(submit, lambda: submit.refuse(error))

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
    """One of several, whatever the number."""
    return choices[number % len(choices)]
