"""Starts a paid job in the background, and lets blocks wait for it, cancel it, or attach to its task by id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import cache
from typing import Any, Final, TypeVar

from prefect.blocks.abstract import JobRun

from rh_prefect.blocks.lookup import load_pool_context, load_storage
from rh_prefect.client.wire.task import is_task_id
from rh_prefect.display_texts import beginning_of_prompt
from rh_prefect.errors import InputError, JobCancelled, TaskNotFound
from rh_prefect.flow_runs.progress_observer import run_observer
from rh_prefect.flow_runs.root_flow_run import current_scope
from rh_prefect.media.store import MediaStore
from rh_prefect.tasks.generate import prepare_call
from rh_prefect.works import stored_result
from rh_prefect.works.accounts.account import Account
from rh_prefect.works.events import JobEvent
from rh_prefect.works.job_options import Options, Request
from rh_prefect.works.journal.identity import base_hash
from rh_prefect.works.journal.job_records_and_state import JobRecords, Submit
from rh_prefect.works.journal.journal import Journal, StoredText, by_job
from rh_prefect.works.journal.record_types import Answer, Intent, current_owner
from rh_prefect.works.journal.scope import FolderScope, undo_unless_delivered
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result import Result
from rh_prefect.works.run_cancellation import cancel_submission
from rh_prefect.works.stored_result import StoredResult
from rh_prefect.works.work_in_progress import Work
from rh_prefect.works.work_runner import WorkRunner

T = TypeVar("T")

_PAUSE: Final = 0.05
"""Seconds between two checks of a submission in flight."""

_going: set[asyncio.Task[Any]] = set()


def background(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Starts an asyncio task that no caller waits for; the observer of the job reports a failure."""
    task = asyncio.ensure_future(coroutine)
    _going.add(task)
    task.add_done_callback(_over)
    return task


def _over(task: asyncio.Task[Any]) -> None:
    _going.discard(task)
    if not task.cancelled():
        task.exception()


async def start(request: Request, options: Options, *, scope: str | None) -> RunningHubJobRun:
    """Submits a job in the caller's scope, and completes it in the background; call it on the loop thread."""
    runner, asked = await prepare_call(request, options, scope=scope, is_in_task=False)
    submitted: asyncio.Future[tuple[Work, str]] = asyncio.get_running_loop().create_future()

    async def make() -> Result:
        async with runner.running(asked) as running:
            submit = await running.next_accepted_task()
            if submit is not None:
                submitted.set_result((running.work, submit.task_id or ""))
            done = await running.complete(options.deadline)
        if submit is None:
            submitted.set_result((running.work, done.record.task_id))
        return done.result

    made = background(make())
    waits: list[asyncio.Future[Any]] = [made, submitted]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not submitted.done():
            made.result()  # its error
    except BaseException:
        made.cancel()
        raise
    undo_unless_delivered(made.cancel)
    work, task_id = submitted.result()
    return RunningHubJobRun(task_id, work.job, work.records, runner, lambda: made)


_SCOPE: Final = "attached"


class MemoryJournal(Journal):
    """A journal in memory; an attached task needs no permanent records.

    See `rh_prefect.works.journal.journal.Journal`.
    """

    scope = _SCOPE

    def __init__(self) -> None:
        self._records: dict[str, dict[str, Any]] = {}

    async def create(self, key: str, record: Mapping[str, Any]) -> bool:
        """Creates a record exclusively."""
        return bool(self._records.setdefault(key, dict(record))["token"] == record["token"])

    async def read(self, key: str) -> dict[str, Any] | None:
        """Reads one record; None if it does not exist."""
        return self._records.get(key)

    async def job(self, job_key: str) -> dict[str, dict[str, Any]]:
        """Returns all records of one job as a mapping from full key to record."""
        return {key: record for key, record in self._records.items() if key.startswith(f"{job_key}-")}

    async def jobs(self) -> AsyncIterator[tuple[str, dict[str, StoredText]]]:
        """Reads the records of all jobs."""
        texts: dict[str, StoredText] = {key: json.dumps(record) for key, record in self._records.items()}
        for job in by_job(texts).items():
            yield job


async def attach(task_id: str, *, credentials: str | None, storage: str | None, label: str | None) -> RunningHubJobRun:
    """Finds a task; call it on the loop thread. See `RunningHubJobRun.attach`."""
    if not is_task_id(task_id):
        raise InputError(
            f"{task_id!r} is not a task id: RunningHub's ids contain only digits, and ComfyUI's ids begin with "
            "the name of the machine, as in proxy.PROMPT_ID. Nothing was sent. What to do: copy the whole id."
        )
    shared = await load_pool_context(credentials)
    store = await load_storage(storage)
    known = await asyncio.to_thread(_result_of, store, shared.pool.site, task_id)
    # A result that is in the storage needs no account; its record then names the first one.
    paid_on = shared.pool.accounts[0] if known is not None else await shared.pool.find_owner(task_id)
    scope = _attached_scope()
    runner = WorkRunner(shared, scope, store, observer=run_observer())
    intent = _intent(task_id, paid_on, scope, store, storage=storage, label=label)
    records = JobRecords(scope.journal, task_id)
    if known is None:
        await records.create(1, intent)
        await records.create(1, Answer(outcome="ticket", task_id=task_id))

    async def fetch() -> Result:
        if known is not None:
            return known.result(store)
        done = await runner.collect(intent, task_id)
        if done is None:
            raise TaskNotFound(f"{task_id}: no task with this id is recorded. What to do: check the id.")
        return done.result

    job = known.job if known is not None else f"{_SCOPE}/{task_id}"
    return RunningHubJobRun(task_id, job, records, runner, cache(lambda: background(fetch())))


def _result_of(store: MediaStore, site: str, task_id: str) -> StoredResult | None:
    """Returns a task's stored result of any job whose files are all in the store."""
    names = [name for name in store.list(stored_result.FOLDER) if name.endswith(f"/{task_id}.json")]
    found = (one for name in names if (one := stored_result.read(store, name)) is not None and one.site == site)
    return next((one for one in found if stored_result.has_all_files(store, one)), None)


def _attached_scope() -> FolderScope:
    """Returns the scope for a task from another program; its files are stored with the files of the caller's run."""
    scope, here = FolderScope(MemoryJournal()), current_scope()
    if here is not None:
        scope.run, scope.flow, scope.details = here.run, here.flow, here.details
    return scope


def _intent(
    task_id: str,
    paid_on: Account,
    scope: FolderScope,
    store: MediaStore,
    *,
    storage: str | None,
    label: str | None,
) -> Intent:
    """Returns the record for an attached task; the task's id stands for the unknown request."""
    site, payload = paid_on.provider.site, {"taskId": task_id}
    return Intent(
        owner=current_owner(),
        account=paid_on.name,
        site=site,
        credentials=paid_on.block,
        storage=storage,
        store=store.url,
        model=f"task/{task_id}",
        endpoint="query",
        payload=payload,
        base=base_hash(site=site, endpoint="query", payload=payload),
        label=label,
        run=scope.run,
        flow=scope.flow,
    )


class RunningHubJobRun(JobRun[Result]):
    """A paid task at RunningHub, and the download of its outputs to the storage.

    After `trigger`, this process waits for the task in the background. Each method blocks; its variant with the suffix
    `_async` is a coroutine. To continue in another process, keep the `task_id`, and call `attach` with it there.
    """

    task_id: str
    """RunningHub's task id."""
    job: str
    """The job's full name, `<scope>/<key>`, as in `rh-prefect jobs`; `attached/<task id>` after `attach`."""

    def __init__(
        self, task_id: str, job: str, records: JobRecords, runner: WorkRunner, work: Callable[[], asyncio.Task[Result]]
    ) -> None:
        """Use a block's `trigger`, or `attach`, instead; `work` returns the asyncio task that waits and downloads."""
        self.task_id, self.job, self._records, self._runner, self._work = task_id, job, records, runner, work
        self._is_cancelled = False

    def __repr__(self) -> str:
        return f"RunningHubJobRun(task_id={self.task_id!r}, job={self.job!r})"

    @staticmethod
    def attach(
        task_id: str, *, credentials: str | None = None, storage: str | None = None, label: str | None = None
    ) -> RunningHubJobRun:
        """Attaches to a task by its id, even if another client has started it; this pays for nothing.

        `fetch_result` downloads the task's outputs into the storage, except for files that the storage already has.

        Args:
            task_id: RunningHub's task id.
            credentials: Name of the block of the account that paid, or of a pool that contains it; by default
                RH_API_KEY.
            storage: Name of a `MediaStorage` block; by default RH_STORAGE_URL.
            label: A name for the output; the name of its file contains the label.

        Raises:
            InputError: This is not a task id.
            TaskNotFound: RunningHub does not have the task, or no longer has it.
        """
        return LOOP.call_sync(attach(task_id, credentials=credentials, storage=storage, label=label))

    @staticmethod
    async def attach_async(
        task_id: str, *, credentials: str | None = None, storage: str | None = None, label: str | None = None
    ) -> RunningHubJobRun:
        """The asynchronous form of `attach`."""
        return await LOOP.call(attach(task_id, credentials=credentials, storage=storage, label=label))

    def wait_for_completion(self) -> None:  # type: ignore[override]  # Prefect's is a coroutine; ours blocks
        """Waits until the task has ended and its outputs are in the storage.

        Raises:
            JobFailed: The task failed; the message names the node and its exception.
            JobCancelled: The task was cancelled.
            RunningHubError: Everything else; see `rh_prefect.errors`.
        """
        LOOP.call_sync(self._result())

    async def wait_for_completion_async(self) -> None:
        """The asynchronous form of `wait_for_completion`; cancelling the wait does not cancel the job."""
        await LOOP.call(self._result())

    def fetch_result(self) -> Result:  # type: ignore[override]  # as above
        """Waits as `wait_for_completion` does, and returns the outputs.

        Returns:
            The outputs, which are in the storage, and their cost.

        Raises:
            RunningHubError: See `wait_for_completion`.
        """
        return LOOP.call_sync(self._result())

    async def fetch_result_async(self) -> Result:
        """The asynchronous form of `fetch_result`."""
        return await LOOP.call(self._result())

    def cancel(self) -> None:
        """Cancels the task at RunningHub; waiting for it then raises `JobCancelled`.

        An ended task is not changed, and the outputs of a successful task are still downloaded.

        Raises:
            RunningHubError: The task could not be cancelled; it may continue and cost money.
        """
        LOOP.call_sync(self._cancel())

    async def cancel_async(self) -> None:
        """The asynchronous form of `cancel`."""
        await LOOP.call(self._cancel())

    async def _result(self) -> Result:
        """Waits for the result, or raises the work's error; cancelling the wait does not cancel the job."""
        work = self._work()
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # The work itself is cancelled by nothing but `cancel`.
            if work.cancelled():
                raise self._cancelled() from None
            raise
        except Exception as error:
            if self._is_cancelled:  # after the wait had failed, as at a deadline
                raise self._cancelled() from error
            raise

    async def _cancel(self) -> None:
        work, runner = self._work(), self._runner
        while (submit := await self._newest()) is not None:
            if submit.state == "ticket":
                provider = await runner.shared.pool.provider_of(submit.intent)
                status = await cancel_submission(provider, submit, records=self._records, attempt=runner.scope.attempt)
                # RunningHub may continue to report it as running, and waiting for it would never end.
                self._is_cancelled = status == "CANCELLED"
                if self._is_cancelled and work.cancel():
                    self._notify(submit)
                return
            if submit.state == "open":
                if work.done():  # its error says why the answer to the submission was not recorded
                    await self._result()
                    return
                await asyncio.sleep(_PAUSE)
            elif submit.has_succeeded or not work.cancel():
                return
            else:  # the job was about to pay for another task, and may have begun to
                await asyncio.wait([work])

    async def _newest(self) -> Submit | None:
        """Returns the job's newest submission; None if the result belongs to an earlier job."""
        view = await self._records.view()
        return view.last if any(one.task_id == self.task_id for one in view.submits) else None

    def _notify(self, submit: Submit) -> None:
        event = JobEvent(
            state="cancelled",
            job=self.job,
            model=submit.intent.model,
            label=submit.intent.label,
            task_id=self.task_id,
            message=self._cancelled().message,
            prompt=beginning_of_prompt(submit.intent.payload),
        )
        self._runner.observer.notify(event)

    def _cancelled(self) -> JobCancelled:
        return JobCancelled(
            f"{self.job}: task {self.task_id} was cancelled. What to do: run again (this pays for a new task).",
            job=self.job,
            task_id=self.task_id,
        )
