"""Checks the rules about money for each task at its acceptance, and for the records."""

from __future__ import annotations

from rh_prefect.errors import explain
from rh_prefect.works.journal.job_records import RESUBMITTED, JobView, Submit
from rh_prefect.works.lifecycle import Policy
from tests.support.servers.minimal_api import PRICE, MinimalApi, MinimalTask
from tests.support.world.job_records import is_hopeless
from tests.support.world.memory_journal import MemoryPlace
from tests.support.world.simulated_process import SCOPE, Machine, Process


class PaymentChecks:
    """Sees every task that is paid for, with the records as they are at that moment.

    Args:
        place: Where the journal lies.
        hub: RunningHub.
        policy: What every call wants.
    """

    def __init__(self, place: MemoryPlace, hub: MinimalApi, policy: Policy) -> None:
        self._place, self._hub, self._policy = place, hub, policy
        self._texts: dict[str, str] = {}
        self._posted: dict[str, set[tuple[str, int]]] = {}
        self.wrongs: list[str] = []

    def view(self, job: str) -> JobView:
        return JobView.parse(job, self._place.job(SCOPE, job))

    def was_given_up(self, job: str, n: int) -> bool:
        """Whether the caller's own option gave a submit up, without looking."""
        return any(one.n == n and _was_given_up(one) for one in self.view(job).submits)

    def is_about_to_be_accepted(self, process: Process, job: str, n: int) -> None:
        """Notes what is wrong with a task before it is there."""
        if (job, n) in self._hub.posts:
            self.wrongs.append(f"{process} posts submit {n} of {job} a second time")
        # What somebody gave up without having looked may arrive after all that came of that.
        if not self.was_given_up(job, n):
            for task in self._hub.of(job):
                self._look_beside(process, task)
        attempts = {submit.n: submit.intent.attempt for submit in self.view(job).submits}
        if sum(attempts[task.n] >= process.attempt for task in self._hub.of(job)) >= self._policy.attempts:
            self.wrongs.append(f"{process} pays for {job} more often than {self._policy.attempts} times an attempt")
        self._look_at_budget(process, job, n)

    def look_at_records(self) -> None:
        """Notes what was changed or removed since the last look."""
        now = self._place.texts(SCOPE)
        for key, text in self._texts.items():
            if now.get(key) != text:
                self.wrongs.append(f"{key} was changed from {text} to {now.get(key)}")
        self._texts = now

    def whereabouts(self, task: MinimalTask, machines: list[Machine]) -> str:
        """Tells where a task is to be found: `recorded`, `spooled`, `unknown`, `given up`, or nowhere: an empty text.

        Args:
            task: What was paid for.
            machines: All that there are.
        """
        submit = next((one for one in self.view(task.job).submits if one.n == task.n), None)
        late = self._place.read(SCOPE, f"{task.job}-late-{task.n}") or {}
        if submit is None:
            return ""
        token = submit.intent.token
        spooled = [machine.spool.get(SCOPE, task.job, task.n, token) for machine in machines]
        if task.task_id in (submit.task_id, late.get("task_id")):
            return "recorded"
        if any(answer and answer.task_id == task.task_id for answer in spooled):
            return "spooled"
        if submit.state in ("open", "unknown"):
            return "unknown"
        return "given up" if _was_given_up(submit) else ""

    def _look_beside(self, process: Process, task: MinimalTask) -> None:
        if self.was_given_up(task.job, task.n):
            return
        end = self._place.read(SCOPE, f"{task.job}-end-{task.n}")
        if task.is_live or task.status == "SUCCESS":
            self.wrongs.append(f"{process} pays for {task.job} once more, beside {task}")
        elif end is None:
            self.wrongs.append(f"{process} pays for {task.job} once more, and the end of {task} is not on record")
        elif is_hopeless(task.code):
            self.wrongs.append(f"{process} pays for {task.job} once more after {task}, which is hopeless")
        else:
            if not (process.attempt > end["attempt"] or explain(task.code).new_task):
                self.wrongs.append(f"{process} pays in the very attempt that saw {task} end")

    def _look_at_budget(self, process: Process, job: str, n: int) -> None:
        """Two processes at the same time know nothing of what the other one claims; of all else each knows."""
        posted = self._posted.setdefault(process.name, set())
        posted.add((job, n))
        known = [task for task in self._hub.tasks if (task.job, task.n) in process.claims_before_it | posted]
        budget = self._policy.budget
        if budget is not None and PRICE * (len(known) + 1) > budget:
            self.wrongs.append(f"{process} breaks the budget with {job}")


def _was_given_up(submit: Submit) -> bool:
    return submit.resolution is not None and submit.resolution.by == RESUBMITTED
