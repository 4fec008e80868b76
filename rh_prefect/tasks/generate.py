"""`generate`: one paid job as one Prefect task run."""

from __future__ import annotations

import logging
import os
import uuid
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, ParamSpec, TypeVar, cast, get_args

from prefect.states import Completed

from rh_prefect.blocks.lookup import load_pool_context, load_storage
from rh_prefect.bounded_caches_and_locks import SingleFlight, UsedObjects
from rh_prefect.custom_endpoint import CustomInput
from rh_prefect.display_texts import beginning_of_prompt, with_prompt
from rh_prefect.errors import (
    ConfigError,
    InputError,
    JournalError,
    RunningHubError,
    StoreError,
    TransportError,
)
from rh_prefect.flow_runs.file_lineage import note_made
from rh_prefect.flow_runs.progress_observer import run_observer
from rh_prefect.flow_runs.root_flow_run import current_chain, current_scope, find_root
from rh_prefect.flow_runs.run_queries_and_scopes import has_ended, is_flow_run
from rh_prefect.flow_runs.suspend_for_jobs import SUSPEND_GROUP, PendingTask
from rh_prefect.media.storage_urls import shown_url
from rh_prefect.media.store import MediaStore
from rh_prefect.prefect_internals import flow_running_elsewhere, task_contexts
from rh_prefect.tasks.paid_task_typing import PaidTask
from rh_prefect.tasks.task_or_call import plain_task, refuse_model_name
from rh_prefect.works.job_options import Options, Request, Reuse
from rh_prefect.works.journal.journal import check_scope
from rh_prefect.works.journal.scope import FolderScope, Scope, delivered_at_end, open_scope
from rh_prefect.works.journal.works_journal import WorksJournal, open_default_works
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import PoolServices
from rh_prefect.works.result import Result
from rh_prefect.works.run_ledger import RecordsLocation, note_location
from rh_prefect.works.work_runner import WorkCall, WorkRunner

P = ParamSpec("P")
T = TypeVar("T")

SUBMITTED = "Submitted"
"""The state name of a task run whose flow run is suspended while the job continues at RunningHub."""


def can_help(error: object) -> bool:
    """Returns whether a retry after an error may succeed.

    The journal makes every retry safe; this function only avoids useless retries. A failed task needs no retry: the
    call itself pays for another task if that may succeed.
    """
    if isinstance(error, StoreError | JournalError):
        return not error.is_permanent
    return isinstance(error, TransportError)


def paid_task(
    *, name: str, run_name: Callable[..., str], tags: Sequence[str] = ()
) -> Callable[[Callable[P, Coroutine[Any, Any, Result]]], PaidTask[P]]:
    """Creates a task from a function with one paid call; retries do not pay twice."""

    def decorator(body: Callable[P, Coroutine[Any, Any, Result]]) -> PaidTask[P]:
        made = plain_task(body, name=name, run_name=run_name, tags=tags, can_help=can_help, delays=[5, 30])
        return cast("PaidTask[P]", made)

    return decorator


def run_name(parameters: Mapping[str, Any]) -> str:
    """Returns the name of a task run: its model and the beginning of its prompt."""
    request = parameters["request"]
    # The body rejects a value of another type.
    model, params = getattr(request, "model", type(request).__name__), getattr(request, "__dict__", {})
    params = request.params if isinstance(request, CustomInput) else params
    return titled(str(model), params, label=parameters.get("label"))


def titled(model: str, params: Mapping[str, Any], *, label: str | None) -> str:
    """Returns the name of a task run: the label, if there is one, the model, and the beginning of the prompt."""
    return with_prompt(f"{label}: {model}" if label else model, beginning_of_prompt(params))


@paid_task(name="generate", run_name=run_name)
async def generate(
    request: Request,
    *,
    take: int = 1,
    same: bool = False,
    label: str | None = None,
    reuse: Reuse = "never",
    on_unknown: Literal["raise", "resubmit"] = "raise",
    attempts: int = 3,
    deadline: float | None = None,
    budget: float | None = None,
    credentials: str | None = None,
    storage: str | None = None,
    scope: str | None = None,
) -> Result:
    """Runs one model on RunningHub, pays for it once, and saves its outputs in your storage.

    In a flow the job is recorded in the flow run: after a crash, running the same flow run again continues where it
    stopped. Outside of flows, pass a `scope` for the same effect.

        photo = await generate(models.ZImageTurbo(prompt="a lighthouse at dawn"))
        clip = await generate(models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5"))

    Args:
        request: The model and its parameters, from `rh_prefect.models`; a `WorkflowInput` or `AppInput`; or an endpoint
            that the catalogue lacks, from `models.custom`.
        take: The number of the result, if the request has several: a run pays once for each number.
        same: Whether this call may share the result of an equal call in the run. By default, the second of two equal
            calls is refused before it pays.
        label: A readable name for the output; the names of its task run and of its file contain it.
        reuse: `always` takes the result of an identical request in any run from the storage, at no cost.
        on_unknown: What to do about a submission whose response was lost: `raise` raises an error, `resubmit` submits
            it again and may pay twice.
        attempts: Maximum number of tasks that this job pays for, including failed ones, until its flow run is rerun.
        deadline: Seconds to wait for the task; by default without a limit. After the deadline the task continues to
            run, and the next run waits for it.
        budget: Maximum total cost of all jobs of this run, in the account's currency; a job that would exceed it is not
            started.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block; by default RH_API_KEY and RH_BASE_URL.
        storage: Name of a `MediaStorage` block; by default RH_STORAGE_URL.
        scope: Your own idempotency key, such as an order's number: in one scope, a request is paid for once by all
            processes and flow runs with the same RH_RECORDS or, without it, the same RH_STORAGE_URL or, without both,
            the same storage. By default the scope is the flow run.

    Returns:
        The outputs, which are in the storage, and their cost.

    Raises:
        InputError: A parameter or file is wrong; nothing was sent.
        EqualRequest: An earlier call in the run has the same request and take; nothing was paid for this call.
        SubmissionUnknown: The response to the submission was lost; the message names the two possible actions.
        BudgetExceeded: The job was not started, because it would exceed the budget.
        JobFailed: The task failed; the message says why, and whether another run can succeed.
        RunningHubError: Any other failure; see `rh_prefect.errors`.
    """
    options = Options(
        take=take,
        same=same,
        label=label,
        reuse=reuse,
        on_unknown=on_unknown,
        attempts=attempts,
        deadline=deadline,
        budget=budget,
        credentials=credentials,
        storage=storage,
    )
    return await run_job(request, options, scope=scope)


async def run_job(request: Request, options: Options, *, scope: str | None = None) -> Result:
    """Runs one paid job in the caller's scope; used by every model's own task as well."""
    check_request(request)
    group = SUSPEND_GROUP.get()
    with _named(options.label or request.model):
        runner, asked = await prepare_call(request, options, scope=scope)
        with delivered_at_end():  # a result that comes when the caller is cancelled is lost
            making = runner.complete(asked) if group is None else group.run(runner, asked)
            done = await LOOP.call(making)
    if isinstance(done, PendingTask):
        message = f"task {done.task_id} is running while the flow run is suspended"
        # Only `generate_many` opens a group around a task, and it reads this state.
        return cast(Result, Completed(name=SUBMITTED, message=message, data=done))
    note_made(done.result.outputs)
    return done.result


def check_request(request: object) -> None:
    """Raises `InputError` if a value is not an input of a model, a workflow or an app."""
    refuse_model_name(request)
    if not isinstance(request, get_args(Request)):
        raise InputError(
            f"Expected a model's input, got {type(request).__name__}. Nothing was sent. What to do: pass "
            "a model's input, as in generate(models.ZImageTurbo(prompt=...)); to use the result of another job "
            "(or a future's `.result()`), pass it in one of the input's fields."
        )


@contextmanager
def _named(step: str) -> Iterator[None]:
    """Adds the failed step's name to errors, and removes the frames of the loop thread."""
    try:
        yield
    except RunningHubError as error:
        raise error.of_step(step) from error.__cause__


async def prepare_call(
    request: Request, options: Options, *, scope: str | None, is_in_task: bool = True
) -> tuple[WorkRunner, WorkCall]:
    """Returns the runner for a call, with the call's accounts, scope and records, and the call itself."""
    if scope is not None:
        _check_name(scope)
    shared = await load_pool_context(options.credentials)
    store = await load_storage(options.storage)
    await find_root()
    is_shared = options.reuse == "always"
    here = await scope_for(scope, store, is_found_again=is_shared, is_in_task=is_in_task)
    works = await _works_for(here, scope, options, shared, store)
    own = here.journal.scope if isinstance(here, FolderScope) else scope or ""
    chain = None if is_shared or scope is not None else current_chain()
    asked = WorkCall(request, take=options.take, scope="" if works is not None and is_shared else own)
    runner = WorkRunner(shared, here, store, works, options, chain, run_observer(store), has_ended=has_ended)
    return runner, asked


def _check_name(scope: str) -> None:
    # Inside a flow nothing else checks the name, and an empty name would mean the scope of all runs.
    if is_flow_run(check_scope(scope)):
        raise InputError(
            f"scope={scope!r} has the form of a flow run's id, so commands and other runs would look for a flow run "
            f"with this id. Nothing was sent. What to do: put a word before it, as in scope={f'order-{scope}'!r}."
        )


async def _works_for(
    here: Scope, name: str | None, options: Options, shared: PoolServices, store: MediaStore
) -> WorksJournal | None:
    """Returns the records of a work that several runs share; None for a work of one flow run."""
    if isinstance(here, FolderScope):
        return await here.works()
    if name is None and options.reuse == "never":
        return None
    # The record of a scope's format is its first one.
    await LOOP.call(shared.open(here, store))
    return await LOOP.call(_default_works(here, store, options.storage))


async def _default_works(here: Scope, store: MediaStore, storage: str | None) -> WorksJournal:
    """Opens the records that runs share, and records their location in a flow run's journal."""
    works = await open_default_works(store)
    storage = storage if works.url == shown_url(store.url) else None
    await note_location(here.journal, RecordsLocation(url=works.url, storage=storage))
    return works


_scopes: SingleFlight[tuple[str, str], FolderScope] = SingleFlight(100_000)
"""The scopes outside of flows that this process has opened; each is one attempt."""
_records: UsedObjects[str, WorksJournal] = UsedObjects(100)
"""The records of works that these scopes share; a service may open a scope for each order."""


def _forget() -> None:
    # A forked child is a separate process.
    _scopes.clear()
    _records.clear()
    _name_of_process.cache_clear()


os.register_at_fork(after_in_child=_forget)


async def scope_for(
    name: str | None, store: MediaStore | None = None, *, is_found_again: bool = False, is_in_task: bool = True
) -> Scope:
    """Returns the scope of a call: its flow run, otherwise the named scope, its outermost task run, or the process.

    `store` is the storage of the call. If `is_found_again`, a later process finds the work even without a scope. If
    `is_in_task`, the innermost task run is that of the call itself.
    """
    inside = current_scope()
    if inside is not None:
        return inside
    if name is None:
        _refuse_lost_context()
        around = task_contexts()[1 if is_in_task else 0 :]
        name = f"task-{around[-1].task_run.id}" if around else None
    if name is None:
        name = _name_of_process()
        if not is_found_again:
            warnings.warn(
                "A paid call was made outside of a flow and without `scope`: if this process stops, another process "
                "does not find the result and pays again. Pass a scope, or make the call in a flow. A call outside of "
                "its flow's process or thread is not recorded in the flow either: see docs/never-pay-twice.md.",
                stacklevel=3,
            )
    return await LOOP.call(_scope_named(name, store))


@cache
def _name_of_process() -> str:
    return f"process-{uuid.uuid4().hex[:12]}"


async def _scope_named(name: str, store: MediaStore | None) -> FolderScope:
    works = await open_default_works(store)
    works = _records.setdefault(repr(works), works)
    return await _scopes.get((repr(works), name), lambda: open_scope(works, name))


def _refuse_lost_context() -> None:
    run = flow_running_elsewhere()
    if run is None:
        return
    raise ConfigError(
        f"A paid call was made in a thread without a flow context, while the flow run {run!r} is running "
        "in this process: the job would not be recorded in that run, and would be paid for again when "
        "the flow runs again. Nothing was sent. What to do: start the thread with "
        "`contextvars.copy_context().run`, one copy for each thread, or use `generate_many` or `.submit` "
        "instead of threads. If the call does not belong to a flow, pass a `scope`."
    )


logging.getLogger("rh_prefect").addHandler(logging.NullHandler())
