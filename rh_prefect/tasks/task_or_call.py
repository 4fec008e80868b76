"""`PlainTask`: a Prefect task that becomes an ordinary call outside of Prefect runs if no Prefect API is set."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed
from prefect.tasks import Task

from rh_prefect.client.http_connections import chance
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


class PlainTask(Task[P, Coroutine[Any, Any, R]]):
    """A task of this package; outside of runs, and without `PREFECT_API_URL`, a call runs the function directly.

    Prefect's engine would start a server only to show the task run. A direct call is retried as the task would be. With
    `return_state` or `wait_for`, and with `.submit`, `.map` and `.delay`, a call is always a task run.
    """

    # A type checker sees Prefect's own overloads.
    if not TYPE_CHECKING:

        def __call__(self, *args: Any, return_state: bool = False, wait_for: Any = None, **kwargs: Any) -> Any:
            """Runs the task as a task run, or as a plain call if no Prefect API is available; see `prefect.Task`."""
            self._check(kwargs)
            if return_state or wait_for is not None or is_available():
                return super().__call__(*args, return_state=return_state, wait_for=wait_for, **kwargs)
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

        def submit(self, *args: Any, return_state: bool = False, wait_for: Any = None, **kwargs: Any) -> Any:
            """Starts a task run; see `prefect.Task`."""
            self._check(kwargs)
            return super().submit(*args, return_state=return_state, wait_for=wait_for, **kwargs)

        def map(
            self, *args: Any, return_state: bool = False, wait_for: Any = None, deferred: bool = False, **kwargs: Any
        ) -> Any:
            """Starts several task runs; see `prefect.Task`."""
            self._check(kwargs)
            return super().map(*args, return_state=return_state, wait_for=wait_for, deferred=deferred, **kwargs)

        def delay(self, *args: Any, **kwargs: Any) -> Any:
            """Starts a task run in a task worker; see `prefect.Task`."""
            self._check(kwargs)
            return super().delay(*args, **kwargs)

        def with_options(self, **options: Any) -> Self:
            """Returns the same task with other options; see `prefect.Task.with_options`."""
            copy = super().with_options(**options)
            copy.__class__ = type(self)
            return copy

    def _check(self, given: Mapping[str, Any]) -> None:
        # Prefect's own error is the whole signature and all arguments.
        known = inspect.signature(self.fn).parameters
        more = JobOptions.__annotations__ if any(one.kind is one.VAR_KEYWORD for one in known.values()) else ()
        refuse_unknown(self.fn.__name__, given, [*known, *more])

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
        return condition is None or bool(await condition(self, None, Failed(data=error)))
