"""`PlainTask`: a Prefect task that becomes an ordinary call outside of Prefect runs if no Prefect API is set."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.states import Failed
from prefect.tasks import Task

from rh_prefect.catalog.registry import get, nearest
from rh_prefect.client.http_connections import chance
from rh_prefect.display_texts import shortened
from rh_prefect.errors import InputError
from rh_prefect.flow_runs.file_lineage import add_inputs
from rh_prefect.prefect_api import is_available
from rh_prefect.works.job_options import JobOptions

P = ParamSpec("P")
R = TypeVar("R")


def refuse_unknown(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises `InputError` for an option that does not exist, and names the most similar options."""
    known = list(known)
    for one in given:
        if one not in known:
            near = ", ".join(f"`{option}`" for option in get_close_matches(one, known)) or ", ".join(known)
            raise InputError(f"{name} has no option `{one}`. Nothing was sent. What to do: use {near}, or omit it.")


def refuse_model_name(request: object) -> None:
    """Raises `InputError` for a model's name in place of the model's input, and names the most similar classes."""
    if isinstance(request, str):
        near = ", ".join(f"models.{get(name).class_name}" for name in nearest(request))
        raise InputError(
            f"Expected a model's input, got str {shortened(request, 60)!r}. Nothing was sent. What to do: pass "
            f"the input of a model, as in generate(models.ZImageTurbo(prompt=...)); similar names: {near}."
        )


def within_flow(call: Coroutine[Any, Any, R], name: str, scope: str | None) -> Coroutine[Any, Any, R]:
    """Returns a paid call that is refused if it is made in a flow and awaited after the flow's function.

    Prefect awaits a coroutine that a flow returns, but outside of the flow run, in which the job would not be recorded.
    """
    return call if scope is not None or FlowRunContext.get() is None else _within_flow(call, name)


async def _within_flow(call: Coroutine[Any, Any, R], name: str) -> R:
    if FlowRunContext.get() is None:
        call.close()
        raise InputError(
            f"{name} was called in a flow, but not awaited there. Nothing was sent. What to do: write `return await "
            f"{name}(...)` in place of `return {name}(...)`, in a flow that is an `async def`."
        )
    return await call


_OF_PREFECT: Final = ("return_state", "wait_for")
"""The options of Prefect's own `submit` and `map`, beside the parameters of the function; `map` also has `deferred`."""


class PlainTask(Task[P, Coroutine[Any, Any, R]]):
    """A task of this package; outside of runs, and without `PREFECT_API_URL`, a call runs the function directly.

    Prefect's engine would start a server only to show the task run. A direct call is retried as the task would be. With
    `return_state` or `wait_for`, and with `.submit`, `.map` and `.delay`, a call is always a task run.
    """

    # A type checker sees Prefect's own overloads.
    if not TYPE_CHECKING:

        def __call__(self, *args: Any, return_state: bool = False, wait_for: Any = None, **kwargs: Any) -> Any:
            """Runs the task as a task run, or as a plain call if no Prefect API is available; see `prefect.Task`."""
            self._check(args, kwargs)
            if return_state or wait_for is not None or is_available():
                started = super().__call__(*args, return_state=return_state, wait_for=wait_for, **kwargs)
                is_paid = "scope" in inspect.signature(self.fn).parameters
                return within_flow(started, self.fn.__name__, kwargs.get("scope")) if is_paid else started
            call = inspect.signature(self.fn).bind(*args, **kwargs)
            call.apply_defaults()
            return self._run(call)

        async def create_local_run(self, *args: Any, **kwargs: Any) -> TaskRun:
            """Creates the task run with a tag for its model, and the task runs that made its files as inputs."""
            run = await super().create_local_run(*args, **kwargs)
            parameters = kwargs.get("parameters") or {}
            model = getattr(parameters.get("request"), "model", None)
            run.tags += [f"model:{model}"] if model else []
            add_inputs(run, parameters)
            return run

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            """Starts a task run; see `prefect.Task`."""
            self._check(args, kwargs, _OF_PREFECT)
            return super().submit(*args, **kwargs)

        def map(self, *args: Any, **kwargs: Any) -> Any:
            """Starts several task runs; see `prefect.Task`."""
            self._check((), kwargs, (*_OF_PREFECT, "deferred"))
            return super().map(*args, **kwargs)

        def delay(self, *args: Any, **kwargs: Any) -> Any:
            """Starts a task run in a task worker; see `prefect.Task`."""
            self._check(args, kwargs)
            return super().delay(*args, **kwargs)

        def with_options(self, **options: Any) -> Self:
            """Returns the same task with other options; see `prefect.Task.with_options`."""
            copy = super().with_options(**options)
            copy.__class__ = type(self)
            return copy

    def _check(self, args: Sequence[Any], given: Mapping[str, Any], of_prefect: Sequence[str] = ()) -> None:
        # Prefect's own error is the whole signature and all arguments.
        known = inspect.signature(self.fn).parameters
        if "request" in known:
            refuse_model_name(next(iter(args), given.get("request")))
        more = JobOptions.__annotations__ if any(one.kind is one.VAR_KEYWORD for one in known.values()) else ()
        refuse_unknown(self.fn.__name__, [one for one in given if one not in of_prefect], [*known, *more])

    async def _run(self, call: inspect.BoundArguments) -> Any:
        for pause in self._pauses():
            try:
                return await self.fn(*call.args, **call.kwargs)
            except Exception as error:
                if not await self._can_help(error):
                    raise
            await asyncio.sleep(pause)
        return await self.fn(*call.args, **call.kwargs)

    def _pauses(self) -> Iterator[float]:
        """Yields the seconds to wait before each retry."""
        delays = self.retry_delay_seconds
        for number in range(self.retries):
            seconds = delays[min(number, len(delays) - 1)] if isinstance(delays, list) else delays
            yield float(seconds or 0) * (1 + chance() * (self.retry_jitter_factor or 0))

    async def _can_help(self, error: Exception) -> bool:
        condition: Any = self.retry_condition_fn
        if condition is None:
            return True
        can_help = condition(self, None, Failed(data=error))
        return bool(await can_help if inspect.isawaitable(can_help) else can_help)


def plain_task(
    body: Callable[P, Coroutine[Any, Any, R]],
    *,
    run_name: str | Callable[..., str],
    can_help: Callable[[object], bool],
    delays: list[float],
    name: str | None = None,
    tags: Sequence[str] = (),
) -> PlainTask[P, R]:
    """Creates a task that is repeated twice after errors for which `can_help` returns True, and is never cached."""
    return PlainTask(
        body,
        name=name,
        tags=tags,
        task_run_name=run_name,
        # Tasks made by one factory share Prefect's cache keys (Prefect #23062), and money has its own memory.
        cache_policy=NO_CACHE,
        retries=2,
        retry_delay_seconds=delays,
        retry_jitter_factor=0.5,
        retry_condition_fn=_retry_condition(can_help),
    )


@cache
def _retry_condition(can_help: Callable[[object], bool]) -> Callable[..., Awaitable[bool]]:
    async def retry_can_help(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001, Prefect's
        return can_help(await state.aresult(raise_on_failure=False))

    return retry_can_help
