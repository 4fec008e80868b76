"""A minimal RunningHub for tests of the rules about money: accepts, refuses, runs, ends and cancels tasks."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from rh_prefect.client.wire.task import RemoteOutput, TaskView, Usage
from rh_prefect.errors import api_error

PRICE = Decimal(1)
"""What each task costs."""


@dataclass(slots=True)
class MinimalTask:
    """A task that was accepted, and so is paid for."""

    task_id: str
    job: str
    n: int
    status: Literal["RUNNING", "SUCCESS", "FAILED", "CANCELLED"] = "RUNNING"
    code: str = ""

    @property
    def is_live(self) -> bool:
        return self.status == "RUNNING"

    def view(self) -> TaskView:
        is_good = self.status == "SUCCESS"
        return TaskView(
            task_id=self.task_id,
            status=self.status,
            code=self.code,
            outputs=(RemoteOutput(url=f"https://files/{self.task_id}", type="png"),) if is_good else (),
            usage=Usage(money=PRICE) if is_good else Usage(),
        )


class MinimalApi:
    """Knows every POST that reached it, by job and number."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, int]] = []
        self.tasks: list[MinimalTask] = []

    def accept(self, job: str, n: int) -> MinimalTask:
        self.posts.append((job, n))
        task = MinimalTask(str(2_031_000_000_000_000_001 + len(self.tasks)), job, n)
        self.tasks.append(task)
        return task

    def refuse(self, job: str, n: int, code: str) -> Exception:
        self.posts.append((job, n))
        return api_error(code, doing="submit", submitting=True)

    def of(self, job: str) -> list[MinimalTask]:
        """All tasks of a job."""
        return [task for task in self.tasks if task.job == job]

    def find(self, job: str, n: int) -> MinimalTask | None:
        """What a person finds in the call log about one submit."""
        return next((task for task in self.of(job) if task.n == n), None)

    def query(self, task_id: str) -> TaskView:
        return self._task(task_id).view()

    def cancel(self, task_id: str) -> None:
        task = self._task(task_id)
        if not task.is_live:
            raise api_error("807", doing="cancel")
        task.status = "CANCELLED"

    def live(self) -> list[MinimalTask]:
        return [task for task in self.tasks if task.is_live]

    def _task(self, task_id: str) -> MinimalTask:
        return next(task for task in self.tasks if task.task_id == task_id)
