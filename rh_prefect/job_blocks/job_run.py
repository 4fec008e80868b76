"""`RunningHubJobRun`: one started paid job that can be awaited, fetched or cancelled at any later time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from prefect.blocks.abstract import JobRun

from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.jobs.outputs.result import Result

if TYPE_CHECKING:
    from rh_prefect.job_blocks.job_handle import Handle


class RunningHubJobRun(JobRun[Result]):
    """A paid task at RunningHub, with the download of its outputs to the storage.

    The waiting goes on in the background of this process from `trigger` on. Each name blocks; its twin with an `a` in
    front is a coroutine. To go on in another process, keep the `task_id` and `attach` to it there.
    """

    def __init__(self, handle: Handle) -> None:
        """Use a block's `trigger`, or `attach`."""
        self._handle = handle

    def __repr__(self) -> str:
        return f"RunningHubJobRun(task_id={self.task_id!r}, job={self.job!r})"

    @classmethod
    def attach(
        cls, task_id: str, *, credentials: str | None = None, storage: str | None = None, label: str | None = None
    ) -> Self:
        """Makes a run from a task's id alone, also for a task that was started elsewhere; it pays for nothing.

        Its outputs are fetched into the storage only when they are asked for. What the storage has of the task already
        is not fetched again.

        Args:
            task_id: RunningHub's task id.
            credentials: Name of the block that paid for it, or of a pool that has it; by default RH_API_KEY.
            storage: Name of a `MediaStorage` block; by default RH_STORAGE_URL.
            label: A name for the output, in its file's name.

        Raises:
            InputError: This is not a task id.
            TaskNotFound: RunningHub does not know the task, or no longer.
        """
        return LOOP.call_sync(cls._attached(task_id, credentials=credentials, storage=storage, label=label))

    @classmethod
    async def attach_async(
        cls, task_id: str, *, credentials: str | None = None, storage: str | None = None, label: str | None = None
    ) -> Self:
        """The coroutine of `attach`."""
        return await LOOP.call(cls._attached(task_id, credentials=credentials, storage=storage, label=label))

    @classmethod
    async def _attached(cls, task_id: str, *, credentials: str | None, storage: str | None, label: str | None) -> Self:
        from rh_prefect.job_blocks.job_handle import attach

        return cls(await attach(task_id, credentials=credentials, storage=storage, label=label))

    @property
    def task_id(self) -> str:
        """RunningHub's task id."""
        return self._handle.task_id

    @property
    def job(self) -> str:
        """The job's full name, `<scope>/<key>`, as in `rh-prefect jobs`; `attached/<task id>` after `attach`."""
        return self._handle.job

    def wait_for_completion(self) -> None:  # type: ignore[override]  # Prefect's is a coroutine; ours blocks
        """Waits until the task has ended and its outputs are in the storage.

        Raises:
            JobFailed: The task failed; names the node and its exception.
            JobCancelled: It was cancelled.
            RunningHubError: Everything else; see `rh_prefect.errors`.
        """
        LOOP.call_sync(self._handle.wait())

    async def wait_for_completion_async(self) -> None:
        """The coroutine of `wait_for_completion`; cancelling the wait does not cancel the job."""
        await LOOP.call(self._handle.wait())

    def fetch_result(self) -> Result:  # type: ignore[override]  # as above
        """Waits as `wait_for_completion` does, and gives the outputs.

        Returns:
            The outputs, in the storage, with what they cost.

        Raises:
            RunningHubError: As `wait_for_completion`.
        """
        return LOOP.call_sync(self._handle.wait())

    async def fetch_result_async(self) -> Result:
        """The coroutine of `fetch_result`."""
        return await LOOP.call(self._handle.wait())

    def cancel(self) -> None:
        """Cancels the task at RunningHub; waiting for it then raises `JobCancelled`.

        A task that has ended is not changed: the outputs of a successful one are still downloaded.

        Raises:
            RunningHubError: It could not be cancelled; it may continue and cost money.
        """
        LOOP.call_sync(self._handle.cancel())

    async def cancel_async(self) -> None:
        """The coroutine of `cancel`."""
        await LOOP.call(self._handle.cancel())
