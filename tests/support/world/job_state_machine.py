"""A state machine of paid jobs: all events in any order, and the invariants after each.

Two or more processes run the jobs of one run, on machines that may be lost; each of their I/Os succeeds, half succeeds,
fails or never ends; they are stopped and killed between any two, and started again in the same attempt or the next.
RunningHub accepts, refuses, says nothing, ends tasks well and badly. People cancel, adopt and forget.

Three things are left out. A person reads the call log rightly. No process is stopped for longer than its submit may
take in the very moment between its last look at the clock and the first byte of its POST. And a cancellation is that of
the newest attempt: when it is looked at, the processes of earlier ones have died.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from rh_prefect.errors import BudgetExceeded, JobCancelled, JobFailed, SubmissionUnknown
from rh_prefect.works.journal.job_records import Submit
from rh_prefect.works.lifecycle import Policy, is_hopeless
from rh_prefect.works.run_cancellation import CancelReport
from tests.support.servers.minimal_api import PRICE
from tests.support.world.fault_machine import MOST_AT_WORK, ROUNDS, Course, numbers, pick
from tests.support.world.payment_checks import PaymentChecks
from tests.support.world.simulated_process import SCOPE, Process

JOBS = ("job1", "job2", "job3")
MOST_PROCESSES = 3


class PaidJobs(Course):
    """See the module."""

    @property
    def keys(self) -> Iterable[str]:
        """The jobs that every process of the run asks for."""
        return JOBS

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

    # --- RunningHub ---

    @precondition(lambda self: self.submitting)
    @rule(which=numbers, code=st.sampled_from(["421", "421", "1003", "416", "1501", "1000"]))
    def refuse(self, which: int, code: str) -> None:
        self._refuse(which, code)

    @precondition(lambda self: self.hub.live())
    @rule(which=numbers, code=st.sampled_from(["805", "1504", "1501", "301", ""]))
    def a_task_fails(self, which: int, code: str) -> None:
        task = pick(self.hub.live(), which)
        # Without a code: somebody cancelled it on the site.
        task.status, task.code = "FAILED" if code else "CANCELLED", code

    # --- people ---

    @precondition(lambda self: len(self.at_work) < MOST_AT_WORK)
    @rule()
    def cancel(self) -> None:
        self._new_process(0).cancel()

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
