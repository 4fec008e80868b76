"""`generate`: one paid job as one Prefect task run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any, Literal

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run
from prefect.tasks import Task

from rh_prefect.blocks.lookup import load_credentials, load_storage
from rh_prefect.errors import JobFailed, JournalError, StoreError, TransportError
from rh_prefect.jobs.account import Asked, Options, Reuse, account
from rh_prefect.jobs.journal import FolderJournal
from rh_prefect.jobs.result import Result
from rh_prefect.jobs.scope import FolderScope, Scope, loose_scope
from rh_prefect.jobs.thread import LOOP
from rh_prefect.runs.borrowed import borrowed_scope
from rh_prefect.runs.observer import run_observer
from rh_prefect.runs.scope import current_scope
from rh_prefect.settings import get_settings

PROMPT_SHOWN = 40
"""How much of a prompt stands in a task run's name."""


async def can_help(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001, Prefect's signature
    """Tells whether running the task again can help, at no risk of paying for the same job twice.

    The journal makes every retry safe; this only keeps the hopeless ones away. A failed job is retried where
    RunningHub's code says that a new task may succeed, and pays for that new task, within `max_attempts`.
    """
    error = await state.aresult(raise_on_failure=False)
    if isinstance(error, JobFailed):
        return error.new_task
    return isinstance(error, StoreError | JournalError | TransportError)


def _name() -> str:
    return run_name(task_run.parameters)


def run_name(parameters: Mapping[str, Any]) -> str:
    """Names a task run after its model and the beginning of its prompt.

    Args:
        parameters: The task's parameters.
    """
    asked = parameters["asked"]
    return titled(str(asked.model), vars(asked), label=parameters.get("label"))


def titled(model: str, params: Mapping[str, Any], *, label: str | None) -> str:
    """Names a task run; see `run_name`.

    Args:
        model: The model's name.
        params: The model's parameters.
        label: The output's name.
    """
    said = next((str(params[name]) for name in ("prompt", "text", "description") if params.get(name)), "")
    short = " ".join(said.split())[:PROMPT_SHOWN]
    head = f"{label}: {model}" if label else model
    return f"{head} ({short})" if short else head


@task(
    task_run_name=_name,
    # Tasks made by one factory share Prefect's cache keys (Prefect #23062), and money has its own memory.
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_jitter_factor=0.5,
    retry_condition_fn=can_help,
)
async def generate(
    asked: Asked,
    *,
    label: str | None = None,
    reuse: Reuse = "never",
    on_unknown: Literal["raise", "resubmit"] = "raise",
    max_attempts: int = 3,
    deadline: float | None = None,
    budget: float | None = None,
    credentials: str | None = None,
    storage: str | None = None,
    scope: str | None = None,
    key: str | None = None,
) -> Result:
    """Runs one model on RunningHub, pays for it once, and brings its outputs into your storage.

    In a flow the job is remembered in the flow run: whatever crashes, running the same flow run again goes on where it
    stopped. Outside of flows, name a `scope` to get the same.

        photo = await generate(models.ZImageTurbo(prompt="a lighthouse at dawn"))
        clip = await generate(models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5"))

    Args:
        asked: The model and its parameters, from `rh_prefect.models`; or a `WorkflowInput` or `AppInput`.
        label: A name for the output, in its file's name; calls with different labels are different jobs.
        reuse: `always` serves an identical earlier request from the storage, at no cost, and makes equal calls of this
            run one job. By default equal calls are jobs of their own.
        on_unknown: What to do about a submit whose answer was lost: `raise` leaves it to you, `resubmit` may pay twice.
        max_attempts: How many tasks this job may pay for in all, failed ones included.
        deadline: Seconds to wait for the task; by default as long as it takes. A task that is left goes on and is found
            again by the next run.
        budget: What all jobs of this run may cost together, in the account's currency; a job that would break it is not
            started.
        credentials: Name of a `RunningHubCredentials` block; by default RH_API_KEY and RH_BASE_URL.
        storage: Name of a `MediaStorage` block; by default RH_OUT.
        scope: Outside of flows: the name under which the job is remembered.
        key: Your own idempotency key: in one scope the same key is the same job.

    Returns:
        The outputs, already in the storage, with what they cost.

    Raises:
        InputError: A parameter or file is wrong; nothing was sent.
        SubmissionUnknown: The answer to the submit was lost; the message names the two ways out.
        BudgetExceeded: It was not started, since it would break the budget.
        JobFailed: The task failed; the message says why, and whether running again can help.
        RunningHubError: Everything else; see `rh_prefect.errors`.
    """
    options = Options(
        label=label,
        key=key,
        reuse=reuse,
        on_unknown=on_unknown,
        max_attempts=max_attempts,
        deadline=deadline,
        budget=budget,
        credentials=credentials,
        storage=storage,
    )
    return await run_job(asked, options, scope=scope)


async def run_job(asked: Asked, options: Options, *, scope: str | None = None) -> Result:
    """Runs one paid job in the scope of the caller: what `generate` and every model's own task do.

    Args:
        asked: The model and its parameters.
        options: How to run it.
        scope: Outside of flows: the name under which the job is remembered.

    Returns:
        The outputs, already in the storage, with what they cost.

    Raises:
        RunningHubError: See `rh_prefect.errors`.
    """
    settings = get_settings()
    paying = await load_credentials(options.credentials)
    store = await load_storage(options.storage)
    here = scope_for(scope, options.key, journal_url=settings.journal_url)
    observer = run_observer()

    async def run() -> Result:
        desk = account(paying.api_key, base_url=paying.base_url, settings=settings, name=paying.account)
        return await desk.run(asked, scope=here, store=store, options=options, observer=observer)

    return await LOOP.call(run())


async def check_job(asked: Asked, *, credentials: str | None = None, storage: str | None = None) -> None:
    """Checks a job of the flow run that one is in without paying: for a flow that is about to start several.

    Args:
        asked: The model and its parameters.
        credentials: Name of a `RunningHubCredentials` block; by default RH_API_KEY and RH_BASE_URL.
        storage: Name of a `MediaStorage` block; by default RH_OUT.

    Raises:
        RunningHubError: What is wrong.
    """
    settings = get_settings()
    paying = await load_credentials(credentials)
    store = await load_storage(storage)
    here = scope_for(None, None, journal_url=settings.journal_url)

    async def check() -> None:
        desk = account(paying.api_key, base_url=paying.base_url, settings=settings, name=paying.account)
        await desk.check(asked, scope=here, store=store)

    await LOOP.call(check())


_folder_scopes: dict[tuple[str, str], FolderScope] = {}


def scope_for(name: str | None, key: str | None, *, journal_url: str) -> Scope:
    """The flow run that the call is in; outside of flows the named scope, or one that nobody will find again."""
    inside = borrowed_scope() or current_scope()
    if inside is not None:
        return inside
    if name is None and key is None:
        warnings.warn(
            "A paid call was made outside of a flow and without `scope` or `key`: should this process die, the way "
            "back to what it paid for is lost. Name a scope, or call it in a flow.",
            stacklevel=2,
        )
        return loose_scope(journal_url)
    name = name or "keys"
    # One object for each name, since it counts the equal calls of this process.
    return _folder_scopes.setdefault((journal_url, name), FolderScope(FolderJournal(journal_url, scope=name)))


logging.getLogger("rh_prefect").addHandler(logging.NullHandler())
